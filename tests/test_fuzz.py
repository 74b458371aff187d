"""Whatever strangers write into captions, names, settings and headers: nothing but a sentence ever comes of it."""

import contextlib
import io
import json
import tomllib
import zipfile
from pathlib import Path

import pytest
import safetensors
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from app import uploads
from lora_sd import config as cfg
from lora_sd import events, flags, run
from lora_sd.data import captions, images
from lora_sd.lora.inspection import inspect
from lora_sd.models import find
from lora_sd.models.safetensors_file import open_header

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of the libraries, about what was spoiled
ANY = st.characters(exclude_categories=[])  # with halves of surrogate pairs
TEXT = st.text(ANY, max_size=40)
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUES = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@contextlib.contextmanager
def sentences():
    """Lets a ValueError pass if it is one line."""
    try:
        yield
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
        assert type(error) in (ValueError, images.Unfit), f"{error!r} is a library's"


def spoiled(data: bytes, flips: list[tuple[int, int]], end: float) -> bytes:
    """Some bytes changed, and cut at a share of the length."""
    changed = bytearray(data)
    for place, value in flips:
        changed[place % len(changed)] = value
    return bytes(changed[: round(end * len(changed))])


FLIPS = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4)
ENDS = st.just(1.0) | st.floats(0, 1)


# Captions


@given(TEXT, TEXT)
def test_a_trigger_is_put_in_front_once(caption, trigger):
    once = captions.with_trigger(caption, trigger)
    assert (caption in once and trigger.strip().casefold() in once.casefold()) or not trigger.strip()
    assert captions.with_trigger(once, trigger) == once


@given(st.binary(max_size=200), st.sampled_from([".txt", ".json"]))
@example(b"\xff\xfe\x00\xd8", ".txt")
def test_any_bytes_are_a_caption_on_one_line_or_a_sentence(folder, data, suffix):
    path = folder / f"cat{suffix}"
    path.write_bytes(data)
    with sentences():
        found, _ = captions.read(path)
        assert found is None or (found == " ".join(found.split()) and "\0" not in found)
        (found or "").encode()


@given(VALUES)
def test_any_JSON_has_a_caption_or_none(value):
    found = captions.from_json(value)
    assert found is None or isinstance(found, str)


@given(
    st.lists(
        VALUES.map(json.dumps) | TEXT.map(repr) | st.builds(lambda v: json.dumps({"file_name": v}), VALUES)
    )
)
def test_any_table_of_captions_is_read_or_named(folder, lines):
    path = folder / "metadata.jsonl"
    path.write_text("\n".join(lines), "utf-8", "replace")
    with sentences():
        captions.read_metadata(path)


@given(TEXT.filter(lambda text: "\n" not in text))
def test_a_line_of_captions_may_hold_any_sign(folder, text):
    path = folder / "metadata.jsonl"
    path.write_text(
        json.dumps({"file_name": "cat.png", "text": text}, ensure_ascii=False), "utf-8", "replace"
    )
    assert list(captions.read_metadata(path)[0]) == [captions.name_of(folder / "cat.png")]


# Names


@given(TEXT | st.text("conCON123. _-é\u0301/\\:", max_size=300))
@example("a" * 79 + "." + "b")
@example("\U00020000" * 80)
@example("COM¹.txt")
def test_a_safe_name_is_a_file_name_on_every_system(name):
    safe = run.safe_name(name)
    assert 0 < len(safe.encode()) <= 161 and safe.isprintable()
    assert not set(safe) & set("<>:\"/\\|?*$%&'` ") and safe[-1] != "." and not safe.startswith(".")
    assert safe.split(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "COM¹", "LPT9"}
    assert run.safe_name(safe).strip("_") == safe.strip("_")


PNG = io.BytesIO()
Image.new("RGB", (8, 8), "red").save(PNG, "PNG")
NAMES = st.lists(
    st.sampled_from(["..", "a", "A", "é", "e\u0301", "con", " ", "C:", "/", "\\", "x.", "${a}"]), min_size=1
)


@given(st.lists(NAMES.map("/".join) | NAMES.map("\\".join) | st.text(max_size=20), max_size=4))
@settings(max_examples=60)
def test_whatever_names_a_zip_has_its_pictures_arrive_inside_or_not_at_all(folder, names):
    names = [f"{name}.png" for name in names]
    with zipfile.ZipFile(folder / "set.zip", "w") as archive, contextlib.suppress(UnicodeEncodeError):
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), PNG.getvalue())
    before = {path for path in folder.rglob("*") if "project" not in path.parts}
    added = uploads.add([folder / "set.zip"], folder / "project" / "images")
    assert {path for path in folder.rglob("*") if "project" not in path.parts} == before
    assert all("\n" not in skipped.reason for skipped in added.skipped)
    assert added.pictures or added.skipped


@given(FLIPS, ENDS)
@settings(max_examples=200)
def test_a_spoiled_zip_gets_a_sentence(folder, flips, end):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat.png", PNG.getvalue())
        archive.writestr("cat.txt", "a cat")
    (folder / "spoiled.zip").write_bytes(spoiled(whole.getvalue(), flips, end))
    uploads.add([folder / "spoiled.zip"], folder / "project" / "images")


# Pictures


def pictures() -> dict[str, bytes]:
    found = {}
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"):
        data = io.BytesIO()
        exif = Image.Exif()
        exif[images.ORIENTATION] = 6
        Image.radial_gradient("L").resize((24, 16)).convert("RGB").save(data, kind, exif=exif)
        found[kind] = data.getvalue()
    return found


@given(st.sampled_from(sorted(pictures().items())), FLIPS, ENDS)
@settings(max_examples=200)
def test_a_spoiled_picture_is_a_picture_or_a_sentence(folder, picture, flips, end):
    kind, data = picture
    path = folder / f"cat.{kind.lower()}"
    path.write_bytes(spoiled(data, flips, end))
    with sentences():
        size = images.check(path)
        assert images.rgb(path).size == size


# Settings


@given(st.dictionaries(st.sampled_from([*cfg.TrainConfig.model_fields]) | TEXT, VALUES, max_size=4))
def test_any_values_are_settings_or_a_sentence(values):
    with sentences():
        assert isinstance(cfg.parse(values), cfg.TrainConfig)


NAME = st.sampled_from([setting.name for setting in cfg.settings()])


@given(st.dictionaries(NAME, VALUES, min_size=1, max_size=3))
@settings(max_examples=150)
def test_any_change_that_is_taken_survives_TOML(changes):
    with sentences():
        config = cfg.changed(cfg.TrainConfig(), changes)
        assert cfg.parse(tomllib.loads(cfg.dumps(config).encode().decode())) == config


@given(
    st.lists(
        NAME.map(lambda name: f"--{name}") | TEXT | st.sampled_from(["4", "nan", "10%", "a=1"]), max_size=5
    )
)
def test_any_flags_are_settings_or_a_sentence(words):
    with sentences():
        flags.parse(words, cfg.TrainConfig())


@given(
    st.binary(max_size=100) | st.text("[]{}=\"'\\.#\n\t 0123456789aeinfortsuxU", max_size=80).map(str.encode)
)
@settings(max_examples=150)
def test_any_file_is_settings_or_a_sentence(folder, data):
    (folder / "run.toml").write_bytes(data)
    with sentences():
        cfg.load(folder / "run.toml")


# Headers of safetensors files


def packed(header: object, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


HEADER = {
    "__metadata__": {"ss_base_model_version": "sd_v1", "modelspec.prediction_type": "v"},
    "a.lora_down.weight": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]},
    "a.lora_up.weight": {"dtype": "F16", "shape": [3, 2], "data_offsets": [12, 24]},
    "a.alpha": {"dtype": "F32", "shape": [], "data_offsets": [24, 28]},
}
SOUND = packed(HEADER, bytes(24) + b"\0\0\x80\x3f")


def read_every_way(path: Path) -> None:
    """As a LoRA and as a model; and what our check lets through, the library takes."""
    with sentences():
        inspect(path)
    with sentences():
        find.look(path)
    with sentences():
        with open_header(path):
            pass
        with safetensors.safe_open(path, "pt") as file:
            assert file.keys() is not None


@given(FLIPS, ENDS)
@settings(max_examples=200)
def test_a_spoiled_header_gets_a_sentence(folder, flips, end):
    (folder / "cat.safetensors").write_bytes(spoiled(SOUND, flips, end))
    read_every_way(folder / "cat.safetensors")


SIDES = st.integers(-1, 4) | st.sampled_from([2**31, 2**63, 10**30, True, None, 1.0, "1"])
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F16", "BF16", "I64", "F8_E4M3", "F4", "BOOL", "f16", "", 3, None]),
        "shape": st.lists(SIDES, max_size=3) | VALUES,
        "data_offsets": st.lists(SIDES | st.sampled_from([12, 24, 28]), max_size=3) | VALUES,
    },
)


@given(st.dictionaries(st.sampled_from([*HEADER]) | TEXT, ENTRY | VALUES, max_size=3), st.integers(0, 40))
@settings(max_examples=200)
def test_a_header_of_anything_gets_a_sentence(folder, changes, size):
    (folder / "cat.safetensors").write_bytes(packed(HEADER | changes, bytes(size)))
    read_every_way(folder / "cat.safetensors")


PIECES = st.sampled_from(
    [*"lora_unet_ lora_te_ lora_te1_ text_encoder. unet. .lora_down.weight .lora_up.weight .lora_A.weight .alpha".split(),
     *"model.diffusion_model. input_blocks.0.0.weight attn2 to_k .hada_w1_a .dora_scale cond_stage_model.".split()]
)  # fmt: skip
KEYS = st.lists(PIECES | st.text(max_size=5), min_size=1, max_size=5).map("".join)


@given(st.dictionaries(KEYS, st.lists(st.integers(0, 3), max_size=4), max_size=6))
@settings(max_examples=150)
def test_tensors_of_any_name_and_shape_get_a_sentence_or_are_told(folder, shapes):
    header, end = {}, 0
    for key, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    (folder / "cat.safetensors").write_bytes(packed(header, b"\0\0\x80\x3f" * (end // 4)))
    read_every_way(folder / "cat.safetensors")
    with sentences():
        assert str(inspect(folder / "cat.safetensors")).count("\n") < 30


# What runs write


@given(TEXT)
def test_an_event_is_read_as_it_was_written_and_is_one_line(text):
    line = events.to_line(events.Note(text=text, t=1.0))
    assert len(line.splitlines()) == 1 and events.from_line(line) == events.Note(text=text, t=1.0)


@given(VALUES.map(json.dumps) | TEXT)
def test_garbage_among_events_and_states_is_passed_over(folder, line):
    with open(folder / "events.jsonl", "w", encoding="utf-8", errors="replace") as file:
        file.write(line.replace("\n", " ") + "\n" + events.to_line(events.Note(text="after", t=1.0)) + "\n")
    assert run.read_events(folder)[0][-1] == events.Note(text="after", t=1.0)
    (folder / "state.json").write_text(line, "utf-8", "replace")
    assert run.read_state(folder).status
