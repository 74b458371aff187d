"""What people hand over: files, zips and folders, friendly and hostile."""

import stat
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from app import uploads
from app.uploads import add, local_folder, thumbnail, unzip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "project" / "images"


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_pictures_are_copied_under_safe_names_with_their_captions(images, tmp_path):
    source = picture(tmp_path / "in" / "my cat ${1+1}.PNG")
    source.with_suffix(".txt").write_text("a cat")
    added = add([source, source.with_suffix(".txt")], images)
    assert (added.pictures, added.captions, added.skipped) == (1, 1, [])
    assert names(images) == ["my_cat_1_1.png", "my_cat_1_1.txt"]
    assert source.exists()


def test_another_picture_of_the_same_name_stays_beside_the_first_and_keeps_its_caption(images, tmp_path):
    add([picture(tmp_path / "a" / "cat.png", "red")], images)
    second = picture(tmp_path / "b" / "cat.png", "blue")
    second.with_suffix(".txt").write_text("blue")
    add([second, second.with_suffix(".txt")], images)
    assert names(images) == ["cat-2.png", "cat-2.txt", "cat.png"]


def test_the_same_picture_twice_is_one(images, tmp_path):
    source = picture(tmp_path / "cat.png")
    add([source], images)
    add([source], images)
    assert names(images) == ["cat.png"]


def test_what_cannot_be_read_is_named_and_left_out(images, tmp_path):
    good = picture(tmp_path / "good.png", size=(256, 256))
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:200])
    text = tmp_path / "text.png"
    text.write_text("hello")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    program = tmp_path / "run.exe"
    program.touch()
    added = add([good, cut, text, empty, program], images)
    assert added.pictures == 1 and names(images) == ["good.png"]
    assert sorted(s.name for s in added.skipped) == ["cut.png", "empty.jpg", "run.exe", "text.png"]
    assert all(s.name in s.reason for s in added.skipped)


def test_a_folder_keeps_its_subfolders_and_leaves_clutter_out(images, tmp_path):
    root = tmp_path / "set"
    picture(root / "5_cat" / "a.png")
    picture(root / ".hidden" / "b.png")
    picture(root / "__MACOSX" / "c.png")
    (root / "link.png").symlink_to("/etc/passwd")
    assert add([root], images).pictures == 1
    assert names(images) == ["5_cat/a.png"]


def zipped(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_a_zip_of_pictures_is_unpacked(images, tmp_path):
    data = picture(tmp_path / "cat.png").read_bytes()
    archive = zipped(
        tmp_path / "set.zip",
        {"set/cat.png": data, "set/cat.txt": b"a cat", "__MACOSX/set/._cat.png": b"x", "set/Thumbs.db": b"x"},
    )
    added = add([archive], images)
    assert (added.pictures, added.captions, added.skipped) == (1, 1, [])
    assert names(images) == ["set/cat.png", "set/cat.txt"]


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png", "C:/evil.png"],
)
def test_a_zip_that_points_outside_is_refused_whole(images, tmp_path, name):
    archive = zipped(tmp_path / "set.zip", {"fine.png": b"x", name: b"x"})
    added = add([archive], images)
    assert added.pictures == 0 and not images.exists()
    assert "points outside" in added.skipped[0].reason
    assert not list(tmp_path.rglob("evil.png"))


def test_a_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match="is a link"):
        unzip(tmp_path / "set.zip", tmp_path / "out")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    archive = zipped(tmp_path / "bomb.zip", {"a.png": bytes(150 * 2**20)})
    with pytest.raises(ValueError, match="a hundred times"):
        unzip(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_zip_whose_header_lies_about_its_size_is_stopped(tmp_path):
    archive = zipped(tmp_path / "lie.zip", {"a.png": bytes(100_000)})
    true, lie = (100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(true, lie))
    with pytest.raises(ValueError, match=r"more than it says|can't be opened"):
        unzip(archive, tmp_path / "out")


def test_too_many_files_and_no_zip_at_all_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_FILES", 2)
    with pytest.raises(ValueError, match="holds 3 files; the limit is 2"):
        unzip(zipped(tmp_path / "many.zip", {f"{i}.png": b"x" for i in range(3)}), tmp_path / "out")
    (tmp_path / "not.zip").write_text("hello")
    with pytest.raises(ValueError, match="can't be opened"):
        unzip(tmp_path / "not.zip", tmp_path / "out")


def test_a_pasted_folder_may_have_quotes_and_a_tilde(tmp_path, monkeypatch):
    (tmp_path / "my pictures").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_folder(f'  "{tmp_path}/my pictures" ') == (tmp_path / "my pictures").resolve()
    assert local_folder("~/my pictures") == (tmp_path / "my pictures").resolve()
    with pytest.raises(ValueError, match="no folder at /nowhere"):
        local_folder("/nowhere")
    with pytest.raises(ValueError, match="Type the path"):
        local_folder("  ")


def test_a_thumbnail_is_small_encoded_anew_and_made_once(tmp_path):
    source = picture(tmp_path / "big.png", size=(800, 400))
    small = thumbnail(source, tmp_path / "thumbs")
    made = small.stat().st_mtime_ns
    assert Image.open(small).size == (192, 96) and Image.open(small).format == "WEBP"
    assert thumbnail(source, tmp_path / "thumbs") == small and small.stat().st_mtime_ns == made


def test_names_that_no_disk_would_keep_apart_all_arrive(images, tmp_path):
    entries = {}
    for number, name in enumerate(
        ["a.png", "a.png/b.png", "a?.png", "a*.png", "caf\u00e9.png", "cafe\u0301.png", "con.png"]
    ):
        entries[name] = picture(tmp_path / f"{number}.png", size=(8 + number, 8)).read_bytes()
    added = add([zipped(tmp_path / "set.zip", entries)], images)
    assert (added.pictures, added.skipped) == (7, [])
    assert names(images) == [
        *("a-2.png", "a-3.png", "a.png", "a_png/b.png"),
        *("caf\u00e9-2.png", "caf\u00e9.png", "con_.png"),
    ]


def test_a_name_of_255_bytes_in_any_script_arrives(images, tmp_path):
    data = picture(tmp_path / "a.png").read_bytes()
    entries = {f"{'漢' * 83}.png": data, f"{chr(0x20000) * 60}/{'a' * 250}.png": data}
    assert add([zipped(tmp_path / "set.zip", entries)], images).pictures == 2
