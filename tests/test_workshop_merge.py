"""Merging into files against merging in the model, taking out again, and extracting what was merged."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from ldm import to_ldm
from test_dora import random_doras
from test_formats import random_pairs

from lora_sd import __main__ as cli
from lora_sd.lora import formats
from lora_sd.lora.layers import attach, named_layers
from lora_sd.lora.layers import merge as merge_in_place
from lora_sd.lora.pairs import delta_weight
from lora_sd.lora.stored import StoredTensors
from lora_sd.models import find
from lora_sd.models.family import FAMILIES
from lora_sd.models.load import load
from lora_sd.workshop import checkpoint, extract, merge
from lora_sd.workshop.combine import Source
from lora_sd.workshop.lora_file import open_lora
from lora_sd.workshop.resize import together

forms = pytest.mark.parametrize(
    ("family", "single"),
    [("sd15", True), ("sd2", True), ("sdxl", True), ("sdxl", False)],
    ids=["sd15-file", "sd2-file", "sdxl-file", "sdxl-folder"],
)


@pytest.fixture
def made(tiny_models, tiny_folder, tmp_path, monkeypatch):
    """`made("sdxl", single)`: a tiny base model as a folder or as one file, and a LoRA for it."""

    def tell(path, **options):  # a tiny file's widths are no family's
        return real(path, **options) if path.is_dir() else known[path.name.split("-")[0]](path)

    real = find.look
    known = {
        f: lambda p, f=f: find.Found(str(p), p.name, f, "checkpoint", "epsilon", 0, "", p) for f in FAMILIES
    }
    monkeypatch.setattr(find, "look", tell)

    def make(family: str, single: bool):
        models, base = tiny_models(family), tiny_folder(family)
        if single:
            base = tmp_path / f"{family}-base.safetensors"
            safetensors.torch.save_file(
                to_ldm(models.unet, models.vae, models.text_encoders), base, {"title": "x"}
            )
        lora = tmp_path / "lora.safetensors"
        pairs = random_pairs(models, scale=0.1)
        formats.save(lora, pairs, models.family, metadata={"lora_sd.family": family}, dtype=torch.float32)
        return models, base, lora

    return make


def out_of(base: Path, tmp_path: Path, name: str = "new") -> Path:
    return tmp_path / (f"{base.name.split('-')[0]}-{name}.safetensors" if base.is_file() else name)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    return {
        f"{f.parent.name if path.is_dir() else ''} {k}": t
        for f in files
        for k, t in safetensors.torch.load_file(f).items()
    }


@forms
def test_merged_files_hold_what_merging_in_the_model_gives(family, single, made, tmp_path):
    models, base, lora = made(family, single)
    out = out_of(base, tmp_path)
    done = merge.merge(base, [Source(lora, 0.7)], out)
    attach(models.parts(), formats.load(lora, models.parts(), models.family).pairs, adapter="x", strength=0.7)
    merge_in_place(models.parts())
    opened, layers = checkpoint.open_checkpoint(str(out)), named_layers(models.parts())
    assert done.layers == len(open_lora(lora))
    for name in opened.places:
        torch.testing.assert_close(
            opened.weight(name), layers[name].weight.view_as(opened.weight(name)), rtol=1e-5, atol=1e-6
        )
    before, after = tensors(base), tensors(out)
    assert before.keys() == after.keys()
    touched = {opened.places[name].key for name in open_lora(lora)}
    untouched = [key for key in before if key.split(" ")[1] not in touched]
    assert untouched and all(torch.equal(before[key], after[key]) for key in untouched)


def test_a_merged_folder_loads_and_has_all_the_other_files(made, tmp_path):
    models, base, lora = made("sdxl", False)
    out = out_of(base, tmp_path)
    merge.merge(base, [Source(lora)], out)
    assert {f.relative_to(base) for f in base.rglob("*")} == {f.relative_to(out) for f in out.rglob("*")}
    loaded, models = named_layers(load(str(out)).parts()), named_layers(models.parts())
    name = "unet.mid_block.attentions.0.proj_in"
    expected = models[name].weight + delta_weight(open_lora(lora)[name])
    torch.testing.assert_close(loaded[name].weight, expected)
    with StoredTensors(out / "unet" / "diffusion_pytorch_model.safetensors") as file:
        assert file.metadata[merge.TOLD] == "lora.safetensors:1"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_taken_out_again_the_base_is_back_to_rounding(made, tmp_path):
    _, base, lora = made("sd2", True)
    with_it, without = out_of(base, tmp_path), out_of(base, tmp_path, "back")
    merge.merge(base, [Source(lora)], with_it)
    merge.merge(with_it, [Source(lora, -1)], without)
    before, after = tensors(base), tensors(without)
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert tensor.dtype == after[key].dtype
        torch.testing.assert_close(tensor, after[key], rtol=0, atol=2e-6)


@forms
def test_what_was_merged_is_extracted(family, single, made, tmp_path):
    """The base stays a folder: the two may be of different forms."""
    models, base, lora = made(family, single)
    tuned = out_of(base, tmp_path)
    merge.merge(base, [Source(lora)], tuned)
    done = extract.extract(tuned, base, tmp_path / "y.safetensors", rank=4, dtype=torch.float32)
    pairs, found = (
        formats.load(lora, models.parts(), models.family).pairs,
        open_lora(tmp_path / "y.safetensors", family),
    )
    assert found.keys() == pairs.keys() and not done.left_out and not done.others
    for name, pair in pairs.items():
        delta = delta_weight(pair)
        assert (delta_weight(found[name]) - delta).norm() < 1e-3 * delta.norm(), name
    assert together(done.made.losses).part < 1e-3
    assert formats.load(tmp_path / "y.safetensors", models.parts(), models.family).unused == []


def test_a_cut_extraction_is_the_dense_svd_cut_and_tells_its_error(made, tiny_models, tmp_path):
    models, base, lora = made("sd15", False)
    tuned = out_of(base, tmp_path)
    merge.merge(base, [Source(lora)], tuned)
    done = extract.extract(
        tuned, base, tmp_path / "y.safetensors", rank=2, targets="attention", dtype=torch.float32
    )
    for name, pair in formats.load(lora, models.parts(), models.family).pairs.items():
        s = torch.linalg.svdvals(delta_weight(pair))
        if name in done.made.losses:
            assert done.made.losses[name].part == pytest.approx(
                (s[2:].norm() / s.norm()).item(), rel=1e-2, abs=1e-4
            )
        else:
            assert done.left_out[name] == pytest.approx(s.norm().item(), rel=1e-3)
    assert any("attn1.to_q" in name for name in done.made.losses) and any(
        "conv" in name for name in done.left_out
    )
    by_energy = extract.extract(
        tuned, base, tmp_path / "z.safetensors", rank=4, energy=0.9, dtype=torch.float32
    )
    assert 1 < len(set(by_energy.made.ranks.values())) and all(
        loss.part**2 <= 0.1 + 1e-4
        for name, loss in by_energy.made.losses.items()
        if by_energy.made.ranks[name] < 4
    )


def test_changes_that_no_lora_can_hold_are_counted(made, tmp_path):
    _, base, lora = made("sd15", True)
    tuned = out_of(base, tmp_path)
    merge.merge(base, [Source(lora)], tuned)
    weights = safetensors.torch.load_file(tuned)
    weights["model.diffusion_model.out.0.weight"] += 1
    weights["model.diffusion_model.out.0.bias"] += 1
    safetensors.torch.save_file(weights, tuned)
    done = extract.extract(tuned, base, tmp_path / "y.safetensors", rank=4)
    assert done.others == 2 and any("2 tensors that no LoRA can hold" in line for line in done.lines())


def test_the_commands_merge_and_extract(made, tmp_path, capsys):
    _, base, lora = made("sd15", True)
    tuned, back = out_of(base, tmp_path), tmp_path / "y.safetensors"
    assert cli.main(["merge", str(base), str(tuned), f"{lora}:0.5", "--blocks", "TE1=0"]) == 0
    assert "layers changed" in capsys.readouterr().out
    assert cli.main(["extract", str(tuned), str(base), str(back), "--rank", "4", "--layers"]) == 0
    assert "Error" in capsys.readouterr().out
    assert not any(name.startswith("text") for name in open_lora(back))
    assert cli.main(["extract", str(base), str(base), str(tmp_path / "z.safetensors")]) == 2
    assert "nothing to extract" in capsys.readouterr().err


def test_bad_inputs_are_sentences(made, tiny_folder, tmp_path, capsys):
    _, base, lora = made("sdxl", False)
    new = str(tmp_path / "new")
    for words, sentence in [
        (
            ["merge", str(tiny_folder("sd15")), new, str(lora)],
            "was made for Stable Diffusion XL, not for Stable",
        ),
        (["merge", "starter", new, str(lora)], "was made for Stable Diffusion XL"),
        (["merge", str(base), str(base), str(lora)], "There is something at"),
        (["merge", "/nowhere", new, str(lora)], "There is no model at /nowhere"),
        (["extract", str(base), "starter", f"{new}.safetensors"], "take its own base"),
        (["extract", str(base), str(base), f"{new}.safetensors", "--rank", "0"], "The rank is 0"),
        (
            ["extract", str(base), str(base), f"{new}.safetensors", "--targets", "nose"],
            "The targets are 'nose'",
        ),
    ]:
        assert cli.main(words) == 2
        assert sentence in capsys.readouterr().err
    assert not Path(new).exists()


@pytest.mark.parametrize(("axis", "layout"), [("output", "kohya"), ("input", "kohya"), ("output", "peft")])
def test_a_dora_is_merged_as_the_model_merges_it(axis, layout, made, tmp_path):
    models, base, lora = made("sd15", False)
    path, out = tmp_path / "dora.safetensors", out_of(base, tmp_path)
    formats.save(
        path,
        random_doras(models, axis),
        models.family,
        metadata={"lora_sd.family": "sd15"},
        layout=layout,
        dtype=torch.float32,
    )
    merge.merge(base, [Source(path, 0.7), Source(lora, 0.5)], out)
    for file, strength in ((path, 0.7), (lora, 0.5)):
        pairs = formats.load(file, models.parts(), models.family).pairs
        attach(models.parts(), pairs, adapter=file.stem, strength=strength)
    merge_in_place(models.parts())
    opened, layers = checkpoint.open_checkpoint(str(out)), named_layers(models.parts())
    for name in opened.places:
        torch.testing.assert_close(opened.weight(name), layers[name].weight, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"dora\.safetensors is a DoRA, which can't be taken out of a model"):
        merge.merge(out, [Source(path, -1)], tmp_path / "back")


def test_a_dora_becomes_a_lora_by_way_of_the_model(made, tmp_path):
    """Merged and extracted again at full rank, it is a plain LoRA that does the same."""
    models, base, _ = made("sd15", False)
    path, out = tmp_path / "dora.safetensors", out_of(base, tmp_path)
    pairs = random_doras(models, "output", "attention")
    formats.save(path, pairs, models.family, metadata={"lora_sd.family": "sd15"}, dtype=torch.float32)
    merge.merge(base, [Source(path)], out)
    done = extract.extract(out, base, tmp_path / "plain.safetensors", rank=1000, dtype=torch.float32)
    assert (
        together(done.made.losses).part < 1e-3
        and open_lora(tmp_path / "plain.safetensors").keys() == pairs.keys()
    )
