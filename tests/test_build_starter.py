"""The tools that rebuild the starter model; the shipped one is the oracle of their architecture."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import build_starter  # noqa: E402
import fit  # noqa: E402
import icons  # noqa: E402
import starter_data  # noqa: E402

SQUARE = '<path fill="#ff0000" d="M4 4h8v8H4z"/>'
DISC = '<circle cx="8" cy="8" r="7" fill="#0000ff"/>'
ICON_SET = {
    "prefix": "shapes",
    "width": 16,
    "height": 16,
    "icons": {
        "red-square": {"body": SQUARE},
        "wide": {"body": SQUARE, "width": 32},
        "blue-disc": {"body": DISC},
        "gone": {"body": DISC, "hidden": True},
        "hand-medium-dark": {"body": DISC},
        "empty": {"body": ""},
    },
}


@pytest.fixture(scope="module")
def icon_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("icons")
    for name in (*starter_data.STYLES, *starter_data.VAE_ONLY):
        (folder / f"{name}.json").write_text(json.dumps(ICON_SET))
    return folder


def test_a_set_gives_its_visible_icons(icon_folder):
    found = icons.read(icon_folder / "noto.json", 112)
    assert found.captions == ["red square", "wide", "blue disc"]
    assert found.pixels.shape == (3, 112, 112, 4)


def test_an_icon_is_drawn_in_its_own_box():
    red = [255, 0, 0, 255]
    square = icons.draw(icons.svg(ICON_SET, "red-square", 112), 112)
    assert (square[28:84, 28:84] == red).all() and (square[:27, :, 3] == 0).all()
    wide = icons.draw(icons.svg(ICON_SET, "wide", 112), 112)  # half as large, in the middle of the height
    assert (wide[42:70, 14:42] == red).all() and (wide[:41, :, 3] == 0).all()


def test_icons_are_placed_by_size_and_shift():
    icon = torch.full((1, 112, 112, 4), 255, dtype=torch.uint8)  # a white tile
    black = torch.zeros(1, 3)

    def box(size, *shift):
        placed = starter_data.place(icon, black, torch.tensor([size]), torch.tensor([shift]))[0, 0] > 127
        rows, columns = placed.nonzero().T
        return columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1

    assert box(112.0, 0.0, 0.0) == (8, 8, 120, 120)
    assert box(96.0, 1.0, -1.0) == (32, 0, 128, 96)


def test_the_first_variant_is_centred_on_white_and_the_second_is_coloured():
    tiles = np.full((3, 112, 112, 4), 255, np.uint8)
    pictures = starter_data.Pictures(tiles, 2, seed=0, device=torch.device("cpu"))
    assert len(pictures) == 6 and pictures.icon == [0, 1, 2] * 2
    assert pictures.colour[:3] == ["white"] * 3 and "white" not in pictures.colour[3:]
    assert pictures.pixels.shape == (6, 3, 128, 128)


def test_phrases_leave_out_only_what_white_does_not_need():
    assert starter_data.phrases("rose", "noto", "white") == (
        "rose, noto style on a white background",
        "rose on a white background",
        "rose, noto style",
        "rose",
    )
    assert starter_data.phrases("rose", "noto", "red")[3] == "rose on a red background"


def test_a_missing_set_is_named_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"no icons of noto.*npm pack @iconify-json/noto"):
        starter_data.read_sets(tmp_path, ["noto"], None)


def test_the_learning_rate_rises_and_falls():
    assert fit.learning_rate(0, 1.0) == pytest.approx(0.001, rel=0.01)
    assert fit.learning_rate(0.02, 1.0) == pytest.approx(1.0, rel=0.01)
    assert fit.learning_rate(1, 1.0) == pytest.approx(0.02)


def test_fit_minimises_and_the_average_follows():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.tensor([4.0]))
    average = fit.Average([weight])
    fit.fit(
        [weight],
        lambda: None,
        lambda: (weight**2).sum(),
        steps=200,
        peak=0.1,
        weight_decay=0.0,
        after=average,
    )
    assert abs(weight.item()) < 0.1
    last = weight.item()
    average.apply()
    assert last < weight.item() < 4.0


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}


@pytest.mark.parametrize(
    "part, file, make",
    [
        ("unet", "diffusion_pytorch_model.safetensors", build_starter.new_unet),
        ("vae", "diffusion_pytorch_model.safetensors", build_starter.new_vae),
    ],
)
def test_the_architecture_is_the_shipped_one(part, file, make):
    with torch.device("meta"):
        built = {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}
    assert built == shapes(ROOT / "lora_sd" / "starter" / "model" / part / file)


def test_a_few_steps_give_a_model_that_draws(icon_folder, tmp_path, capsys):
    for stage in ("vae", "unet"):
        build_starter.main([stage, "--icons", str(icon_folder), "--out", str(tmp_path), "--smoke"])
    assert "dB" in capsys.readouterr().out
    assert (tmp_path / "samples.png").exists() and (tmp_path / "reconstructions.png").exists()
    for part in ("unet", "text_encoder"):
        [built] = (tmp_path / "model" / part).glob("*.safetensors")
        assert shapes(built) == shapes(ROOT / "lora_sd" / "starter" / "model" / part / built.name)
