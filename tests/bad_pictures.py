"""Bad pictures, captions, folders, zips and uploads."""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from bad import bad, write
from PIL import Image

from app import uploads
from lora_sd.data import captions, images, masks
from lora_sd.data.folder import find_examples


def png(
    width: int = 64,
    height: int = 48,
    *,
    before: Iterable[tuple[bytes, bytes]] = (),
    data: bytes | None = None,
) -> bytes:
    """A grey PNG of that size by its header, whatever its pixels are."""
    pixels = zlib.compress(bytes((width + 1) * height)) if data is None else data
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), *before, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def picture(folder: Path, data: bytes | str, name: str = "cat.png") -> None:
    images.check(write(folder / name, data))


def saved(folder: Path, kind: str, name: str, **options: object) -> bytes:
    Image.radial_gradient("L").convert("RGB").save(folder / name, kind, **options)
    return (folder / name).read_bytes()


# Pictures


@bad("cat.png", "is empty (0 bytes)")
def a_picture_of_0_bytes(folder):
    picture(folder, b"")


@bad("cat.png", "is not a picture that can be read")
def a_text_named_as_a_picture(folder):
    picture(folder, "hello")


@bad("cat.png", "is not a picture that can be read")
def a_program_in_PostScript_named_as_a_picture(folder):
    picture(folder, "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n(x) run\n%%EOF\n")


@bad("cat.png", "is not a picture that can be read")
def a_PDF_named_as_a_picture(folder):
    picture(folder, saved(folder, "PDF", "cat.pdf"))


@bad("cat.png", "is not a picture that can be read")
def a_kind_that_is_not_on_the_list(folder):
    picture(folder, saved(folder, "ICNS", "cat.icns"))


@bad("cat.png", "is not a picture that can be read")
def an_SVG_with_a_script(folder):
    picture(folder, "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")


@bad("cat.png", "is damaged or cut short")
def a_PNG_cut_in_the_middle(folder):
    picture(folder, saved(folder, "PNG", "cat.png")[:2000])


@bad("cat.jpg", "is damaged or cut short")
def a_JPEG_cut_in_the_middle(folder):
    picture(folder, saved(folder, "JPEG", "cat.jpg")[:1500], "cat.jpg")


@bad("cat.png", "is damaged or cut short")
def a_PNG_with_a_flipped_byte(folder):
    data = bytearray(saved(folder, "PNG", "cat.png"))
    data[len(data) // 2] ^= 255
    picture(folder, bytes(data))


@bad("cat.png", "more than 179 megapixels")
def a_PNG_of_30_000_by_30_000(folder):
    picture(folder, png(30_000, 30_000, data=zlib.compress(bytes(1000))))


@bad("cat.png", "is damaged or cut short")
def a_PNG_that_claims_100_megapixels_and_has_none(folder):
    picture(folder, png(10_000, 10_000, data=zlib.compress(bytes(1000))))


@bad("cat.gif", "more than 179 megapixels")
def a_GIF_of_65_535_by_65_535(folder):
    data = bytearray(saved(folder, "GIF", "cat.gif"))
    data[6:10] = b"\xff" * 4
    picture(folder, bytes(data), "cat.gif")


@bad("cat.bmp", "more than 179 megapixels")
def a_BMP_of_two_thousand_million_columns(folder):
    data = bytearray(saved(folder, "BMP", "cat.bmp"))
    data[18:22] = (2**31 - 1).to_bytes(4, "little")
    picture(folder, bytes(data), "cat.bmp")


@bad("cat.tif", "more than 179 megapixels")
def a_TIFF_of_a_million_columns(folder):
    data = saved(folder, "TIFF", "cat.tif")
    width = struct.pack("<HHII", 256, 4, 1, 256)
    assert width in data
    picture(folder, data.replace(width, struct.pack("<HHII", 256, 4, 1, 1_000_000)), "cat.tif")


@bad("cat.png", "is damaged or cut short")
def a_PNG_whose_comment_unpacks_to_100_MB(folder):
    comment = b"Comment\0\0" + zlib.compress(bytes(100_000_000))
    picture(folder, png(before=[(b"zTXt", comment)]))


@bad("cat.png", "is not a picture that can be read")
def a_PNG_without_a_width(folder):
    picture(folder, png(0, 10))


@bad("cat.png", "too long and narrow")
def a_picture_of_65_500_by_1(folder):
    picture(folder, png(65_500, 1))


@bad("cat.tif", "floating-point pixels")
def a_TIFF_of_floating_point_numbers(folder):
    Image.new("F", (8, 8)).save(folder / "cat.tif")
    images.check(folder / "cat.tif")


@bad("cat.png", "is not a file")
def a_pipe_instead_of_a_picture(folder):
    os.mkfifo(folder / "cat.png")
    images.check(folder / "cat.png")


@bad("cat.png", "is not a file")
def a_folder_named_as_a_picture(folder):
    (folder / "cat.png").mkdir()
    images.check(folder / "cat.png")


@bad("cat.png", "can't be opened")
def a_link_to_nothing(folder):
    (folder / "cat.png").symlink_to(folder / "gone.png")
    images.check(folder / "cat.png")


@bad("cat.png", "can't be opened")
def a_picture_that_is_a_link_to_itself(folder):
    (folder / "cat.png").symlink_to(folder / "cat.png")
    images.check(folder / "cat.png")


# Names


@bad("�gpj.tac", "is not a picture that can be read")
def a_name_that_is_turned_around(folder):
    picture(folder, "x", "\u202egpj.tac.png")


@bad("${HOME}<script>.png", "is empty")
def a_name_with_a_script_and_a_variable(folder):
    picture(folder, b"", "${HOME}<script>.png")


@bad("caf�.png", "is not UTF-8; rename it")
def a_name_of_bytes_that_are_no_text(folder):
    with open(os.fsencode(folder) + b"/caf\xe9.png", "wb") as file:
        file.write(png())
    find_examples(folder, trigger="cat")


@bad("cat .png", "is empty")
def a_name_with_a_line_break(folder):
    picture(folder, b"", "cat\n.png")


# Folders


@bad("gone", "There is no folder")
def a_folder_that_is_not_there(folder):
    find_examples(folder / "gone")


@bad("set.zip", "unpack a .zip first")
def a_file_instead_of_a_folder(folder):
    find_examples(write(folder / "set.zip", b"PK"))


@bad("folder", "is empty; put your pictures in it")
def an_empty_folder(folder):
    (folder / "set").mkdir()
    find_examples(folder / "set")


@bad("notes.pdf", "has no pictures")
def a_folder_without_pictures(folder):
    find_examples(write(folder / "notes.pdf", "hello").parent)


@bad("data.repeats", "is left out")
def a_folder_whose_pictures_are_all_left_out(folder):
    find_examples(write(folder / "cat.png", png()).parent, trigger="cat", own_repeats={"*": 0})


@bad("folder of pictures", "no path has")
def a_folder_with_NUL_in_its_name(folder):
    find_examples("cats\0")


@bad("folder of pictures", "too long for a path")
def a_folder_of_5_000_letters(folder):
    find_examples("cats/" * 1000)


@bad("folder of pictures", "no user of that name")
def a_folder_of_a_user_that_does_not_exist(folder):
    find_examples("~nobody-here/cats")


@bad("starter:../../model", "There is no set of pictures")
def a_shipped_set_that_leads_out_of_its_folder(folder):
    find_examples("starter:../../model")


@bad("starter:streamline/../..", "There is no set of pictures")
def a_shipped_set_that_leads_up(folder):
    find_examples("starter:streamline/../..")


@bad("starter:/etc", "There is no set of pictures")
def a_shipped_set_with_an_absolute_path(folder):
    find_examples("starter:/etc")


@bad("cat.png", "Give a trigger word")
def a_picture_without_a_caption(folder):
    find_examples(write(folder / "cat.png", png()).parent)


# Captions


def captioned(folder: Path, data: bytes | str, name: str) -> None:
    """Reads a folder of one picture with this beside it."""
    write(folder / name, data)
    find_examples(write(folder / "cat.png", png()).parent, trigger="cat")


@bad("cat.txt", "too long for a caption")
def a_caption_of_2_GB(folder):
    write(folder / "cat.txt", "")
    os.truncate(folder / "cat.txt", 2**31)
    captions.read(folder / "cat.txt")


@bad("cat.txt", "can't be a caption")
def a_pipe_instead_of_a_caption(folder):
    os.mkfifo(folder / "cat.txt")
    find_examples(write(folder / "cat.png", png()).parent, trigger="cat")


@bad("cat.json", "is not valid JSON")
def a_caption_nested_100_000_deep(folder):
    captioned(folder, "[" * 100_000, "cat.json")


@bad("cat.json", "is not valid JSON (line 2)")
def a_caption_of_broken_JSON(folder):
    captioned(folder, '{"caption":\n cat}', "cat.json")


@bad("cat.json", "is not valid JSON")
def a_caption_with_a_number_of_5_000_digits(folder):
    captioned(folder, '{"caption": "cat", "score": ' + "1" * 5000 + "}", "cat.json")


@bad("metadata.jsonl, line 2,", 'is not an object with a "file_name"')
def a_table_of_captions_with_a_line_of_garbage(folder):
    captioned(folder, '{"file_name": "cat.png", "text": "a"}\n\x00garbage\n', "metadata.jsonl")


@bad("metadata.jsonl, line 1,", 'is not an object with a "file_name"')
def a_table_of_captions_with_a_list_for_a_name(folder):
    captioned(folder, '{"file_name": ["cat.png"], "text": "a"}', "metadata.jsonl")


@bad("metadata.jsonl, line 1,", 'is not an object with a "file_name"')
def a_table_of_captions_nested_100_000_deep(folder):
    captioned(folder, '{"file_name":' * 100_000, "metadata.jsonl")


# What is handed over in the page


def upload(path: Path, folder: Path) -> str:
    """Adds it to a project, as the page does; the reasons why something was left out."""
    added = uploads.add([path], folder / "project" / "images")
    outside = [file for file in folder.rglob("evil*") if file.is_file()]
    assert added.pictures == 0 and not outside
    return " ".join(skipped.reason for skipped in added.skipped)


def zipped(
    folder: Path, entries: dict[str, bytes], change: Callable[[bytes], bytes] = bytes, **options: int
) -> str:
    with zipfile.ZipFile(folder / "set.zip", "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    write(folder / "set.zip", change((folder / "set.zip").read_bytes()))
    return upload(folder / "set.zip", folder)


@bad("set.zip", "'../evil.png' points outside")
def a_zip_that_leads_up(folder):
    return zipped(folder, {"fine.png": png(), "../evil.png": png()})


@bad("set.zip", "points outside")
def a_zip_with_an_absolute_path(folder):
    return zipped(folder, {"/tmp/evil.png": png()})


@bad("set.zip", "points outside")
def a_zip_with_a_path_of_Windows_that_leads_up(folder):
    return zipped(folder, {"a\\..\\..\\evil.png": png()})


@bad("set.zip", "points outside")
def a_zip_with_a_drive_letter(folder):
    return zipped(folder, {"C:\\evil.png": png()})


@bad("set.zip", "is a link")
def a_zip_with_a_link(folder):
    info = zipfile.ZipInfo("evil.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return upload(folder / "set.zip", folder)


@bad("set.zip", "locked with a password")
def a_zip_with_a_password(folder):
    def locked(data: bytes) -> bytes:
        found = bytearray(data)
        for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            found[found.index(mark) + place] |= 1
        return bytes(found)

    return zipped(folder, {"cat.png": png()}, locked)


@bad("set.zip", "packed in an unusual way")
def a_zip_packed_with_bzip2(folder):
    return zipped(folder, {"cat.png": png()}, compression=zipfile.ZIP_BZIP2)


@bad("set.zip", "more than a hundred times its size")
def a_zip_bomb(folder):
    return zipped(folder, {"cat.png": bytes(150 * 2**20)}, compression=zipfile.ZIP_DEFLATED)


@bad("set.zip", "more than a hundred times its size")
def a_zip_bomb_of_4_000_files(folder):
    return zipped(folder, {f"{n}.png": bytes(40_000) for n in range(4000)}, compression=zipfile.ZIP_DEFLATED)


@bad("set.zip", "the limit is 5000")
def a_zip_of_5_001_files(folder):
    return zipped(folder, {f"{n}.png": b"" for n in range(5001)})


@bad("set.zip", "is damaged or no zip")
def a_zip_cut_in_the_middle(folder):
    return zipped(folder, {"cat.png": png()}, lambda data: data[: len(data) // 2])


@bad("set.zip", "is damaged or no zip")
def a_text_named_as_a_zip(folder):
    return upload(write(folder / "set.zip", "hello"), folder)


@bad("set.zip", "is damaged or no zip")
def a_zip_whose_stream_is_garbage(folder):
    def spoiled(data: bytes) -> bytes:
        return data[:40] + b"\xff" * 40 + data[80:]

    return zipped(folder, {"cat.png": os.urandom(500)}, spoiled, compression=zipfile.ZIP_DEFLATED)


@bad("set.zip", "is damaged or no zip")
def a_zip_with_a_name_that_is_no_text(folder):
    return zipped(folder, {"café.png": png()}, lambda data: data.replace("é".encode(), b"\xff\xff"))


@bad("set.zip", "a zip within it is not looked into")
def a_zip_in_a_zip(folder):
    return zipped(folder, {"inner.zip": b"PK", "read me.md": b"hello"})


@bad("cat.png", "is damaged or cut short")
def a_zip_of_a_damaged_picture(folder):
    return zipped(folder, {"a/cat.png": png()[:-30]})


@bad("cat.txt", "too long for a caption")
def a_zip_of_a_caption_of_2_MB(folder):
    return zipped(folder, {"cat.txt": os.urandom(2_000_000)})


@bad("con.png", "is not a picture that can be read")
def a_zip_of_a_text_named_as_a_device(folder):
    return zipped(folder, {"con.png": b"hello"})


@bad("run.exe", "is not a picture, a caption or a zip")
def a_program_dropped_on_the_page(folder):
    return upload(write(folder / "run.exe", "MZ"), folder)


@bad("set", "has no pictures in it")
def a_folder_of_nothing_dropped_on_the_page(folder):
    return upload(write(folder / "set" / "notes.md", "hello").parent, folder)


@bad("set", "has no pictures in it")
def a_folder_whose_pictures_are_links_to_the_system(folder):
    (folder / "set").mkdir()
    (folder / "set" / "evil.png").symlink_to("/etc/passwd")
    added = uploads.add([folder / "set"], folder / "project" / "images")
    return added.skipped[0].reason


@bad("The folder", "no path has")
def a_pasted_folder_with_NUL(folder):
    uploads.local_folder("cats\0")


@bad("folder", "Type the path")
def a_pasted_folder_of_nothing(folder):
    uploads.local_folder(' "" ')


def masked(folder: Path, mask: Path) -> None:
    write(folder / "cats" / "fox.png", png())
    masks.with_masks(find_examples(folder / "cats", trigger="x").examples, str(mask.parent), print)


@bad("masks", "there is no such folder")
def a_folder_of_masks_that_is_not_there(folder):
    masked(folder, folder / "masks" / "fox.png")


@bad("masks", "is named as one of the pictures")
def a_folder_of_masks_of_other_pictures(folder):
    masked(folder, write(folder / "masks" / "bear.png", png()))


@bad("fox.png", "is not a picture that can be read")
def a_mask_that_is_no_picture(folder):
    masked(folder, write(folder / "masks" / "fox.png", "hello"))


@bad("fox.png", "make them the same shape")
def a_mask_of_another_shape(folder):
    masked(folder, write(folder / "masks" / "fox.png", png(640, 64)))
