"""A mask says what of a picture is learned; how much that is does not change how strongly."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from small_runs import body, config_for, notes, stop_at
from test_loss import inputs_for

from lora_sd import run
from lora_sd.data import images, masks
from lora_sd.data.batches import collate
from lora_sd.data.buckets import fit
from lora_sd.data.cache import LatentCache
from lora_sd.data.folder import find_examples
from lora_sd.training import loss, prepare
from lora_sd.training.sameness import Changed
from lora_sd.training.train import resume, train


@pytest.fixture
def some_masks(tmp_path):
    """Of two of the three pictures: the left half of the first, all of the second."""
    folder = tmp_path / "masks"
    folder.mkdir()
    half = Image.new("L", (128, 128), 0)
    half.paste(255, (0, 0, 64, 128))
    half.save(folder / "0.png")
    Image.new("L", (80, 48), 255).save(folder / "1.png")
    return folder


def test_the_loss_is_the_mean_over_what_is_white(tiny_models):
    models, inputs = tiny_models("sd15"), inputs_for(tiny_models("sd15"))
    t, noise = torch.tensor([100, 700]), torch.randn(2, 4, 16, 16)
    covered = torch.zeros(2, 1, 16, 16)
    covered[0, :, 3:5, 2:9] = 1
    covered[1] = 1
    prediction = models.predict(
        loss.diffusion.add_noise(inputs.latents, noise, models.alpha_bar[t]),
        t,
        inputs.conditioning,
        inputs.sizes,
    )
    wanted = [
        F.mse_loss(prediction[0, :, 3:5, 2:9], noise[0, :, 3:5, 2:9]),
        F.mse_loss(prediction[1], noise[1]),
    ]
    found = loss.denoising_loss(models, inputs._replace(masks=covered), t, noise)
    torch.testing.assert_close(found, torch.stack(wanted))


def test_a_mask_that_covers_nothing_teaches_nothing():
    assert loss.mean(torch.rand(1, 4, 2, 2), torch.zeros(1, 1, 2, 2)).tolist() == [0]


def test_a_cell_is_the_mean_of_its_pixels(tmp_path):
    pixels = torch.randint(0, 256, (96, 160), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "mask.png")
    placed = fit((160, 96), (128, 96))
    wanted = F.interpolate(pixels[None, None, :, 16:144].float() / 255, (12, 16), mode="area")[0]
    found = images.load_mask(tmp_path / "mask.png", placed, alpha=False)
    torch.testing.assert_close(found, wanted)
    flipped = images.load_mask(tmp_path / "mask.png", placed, alpha=False, flipped=True)
    assert torch.equal(flipped, found.flip(-1))


def test_transparency_is_a_mask_where_that_is_set(tmp_path):
    picture = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    picture.paste((0, 255, 0, 255), (0, 0, 64, 16))
    picture.save(tmp_path / "cut.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.png")
    placed = fit((64, 64), (64, 64))
    cut, whole = (images.load_mask(tmp_path / f"{name}.png", placed, alpha=True) for name in ("cut", "whole"))
    assert cut[0, :, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0] and whole.min() == 1


def test_masks_are_found_by_name_and_kept_beside_the_latents(tiny_models, pictures, some_masks, tmp_path):
    said = []
    examples = masks.with_masks(find_examples(pictures).examples, str(some_masks), said.append)
    assert [example.mask and example.mask.name for example in examples] == ["0.png", "1.png", None]
    assert said == ["Without a mask, so learned whole: 2.png."]
    items = [(example, fit(example.size, (128, 128))) for example in (examples[0], examples[2])]
    cache = LatentCache(tmp_path / "cache", tiny_models("sd15").vae)
    cache.fill(items)
    found = collate(items, cache).masks
    assert found[0, 0, 0].tolist() == [1] * 8 + [0] * 8 and found[1].min() == 1
    assert collate(items[1:], cache).masks is None
    some_masks.joinpath("0.png").write_bytes(some_masks.joinpath("1.png").read_bytes())
    assert collate(items, LatentCache(tmp_path / "cache", cache.vae)).masks.min() == 1


def test_the_held_out_loss_looks_at_what_is_white(tiny_models, pictures, some_masks, tmp_path):
    models = tiny_models("sd15")
    examples = masks.with_masks(find_examples(pictures).examples, str(some_masks), print)
    data = prepare.prepare(examples, models, 128, tmp_path / "cache")
    [(_, inputs)] = prepare.held_out_inputs(data, models, prepare.learning_text(models), [0])
    assert torch.equal(inputs.masks, data.batch([0]).masks) and inputs.perturbation is None


@pytest.mark.parametrize(
    ("size", "name", "sentence"),
    [
        ((128, 64), "0.png", r"The mask 0\.png is 128×64 and its picture 128×128; make them the same shape"),
        ((128, 128), "other.png", "No mask in .* is named as one of the pictures"),
    ],
)
def test_a_mask_that_is_of_no_picture_is_a_sentence(pictures, tmp_path, size, name, sentence):
    (tmp_path / "masks").mkdir()
    Image.new("L", size, 255).save(tmp_path / "masks" / name)
    with pytest.raises(ValueError, match=sentence):
        masks.with_masks(find_examples(pictures).examples, str(tmp_path / "masks"), print)


def test_a_folder_of_masks_that_is_not_there_is_a_sentence(pictures, tmp_path):
    with pytest.raises(ValueError, match=r"data\.masks is .*, and there is no such folder"):
        masks.with_masks(find_examples(pictures).examples, str(tmp_path / "gone"), print)


def test_a_run_with_masks_goes_on_bit_for_bit_and_not_with_other_ones(tiny_folder, pictures, some_masks):
    changes = {
        "data.masks": str(some_masks),
        "data.flip": True,
        "validate.images": str(pictures),
        "optim.steps": 2,
    }
    config = config_for(tiny_folder("sd15"), pictures, **changes)
    whole = train(config)
    train(config, stop_at(1))
    folder = run.list_runs()[0].folder
    assert body(train(config, folder=folder)) == body(whole)
    without = load_file(train(config_for(tiny_folder("sd15"), pictures, **{**changes, "data.masks": ""})))
    assert any(not torch.equal(tensor, without[name]) for name, tensor in load_file(whole).items())
    train(config, stop_at(1))
    for name in "01":
        Image.new("L", (80, 80) if name == "0" else (80, 48), 127).save(some_masks / f"{name}.png")
    with pytest.raises(Changed, match="masked otherwise"):
        resume(run.list_runs()[0].folder)
    assert not any("Going on differently" in note for note in notes())
