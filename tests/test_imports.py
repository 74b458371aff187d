"""Who may import whom. It is why the page opens at once, and why a crash of CUDA can't take it down."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Module or package -> what of ours it may import; the longest name that fits a module is its row.
OURS = {
    "lora_sd": "",
    "lora_sd.__init__": "lora_sd",  # these three are the doors: they may open any room
    "lora_sd.__main__": "lora_sd",
    "lora_sd.worker": "lora_sd",
    "lora_sd.settings": "settings paths",
    "lora_sd.config": "settings paths",
    "lora_sd.paths": "",
    "lora_sd.events": "",
    "lora_sd.errors": "",
    "lora_sd.files": "",
    "lora_sd.flags": "config settings",
    "lora_sd.kohya": "kohya config settings paths lora.inspection",
    "lora_sd.run": "config events files lock",
    "lora_sd.lock": "",
    "lora_sd.queue": "config files lock run",
    "lora_sd.queue_command": "config flags queue run",
    "lora_sd.limits": "",
    "lora_sd.grid": "limits paths run",
    "lora_sd.grid_sheet": "files grid",
    "lora_sd.grid_drawing": "grid grid_sheet worker",
    "lora_sd.grid_command": "best best_search flags grid grid_drawing run terminal",
    "lora_sd.best": "events files lock run",
    "lora_sd.nearness": "models",
    "lora_sd.best_search": "best config data.images errors files hardware lock models nearness run sample training",
    "lora_sd.recorder": "run events",
    "lora_sd.length": "settings",
    "lora_sd.rates": "settings",
    "lora_sd.terminal": "events remedies",
    "lora_sd.remedies": "config events footprint run",
    "lora_sd.discard": "lock run",
    "lora_sd.report": "config doctor events files run settings",
    "lora_sd.hardware": "",
    "lora_sd.footprint": "",
    "lora_sd.torch_build": "",
    "lora_sd.doctor": "hardware run torch_build",
    "lora_sd.data": "data models paths remembered files",
    "lora_sd.data.captions": "paths",
    "lora_sd.data.buckets": "",
    "lora_sd.remembered": "files",
    "lora_sd.data.store": "files remembered",
    "lora_sd.data.variants": "data.captions",
    "lora_sd.data.images": "data.buckets paths",
    "lora_sd.data.health": "",
    "lora_sd.models.tokens": "models.find",
    "lora_sd.data.folder": "data.captions data.images data.buckets paths remembered data.variants",
    "lora_sd.models": "models errors paths files",
    "lora_sd.models.find": "models.header models.others models.safetensors_file paths files run",  # for the folder of our own models
    "lora_sd.models.captioners": "models.find models.header paths run",
    "lora_sd.lora": "lora models.family models.header models.safetensors_file paths remembered files __version__",
    "lora_sd.lora.layers": "lora.dora lora.packed lora.dropout lora.initial lora.pairs",
    "lora_sd.lora.initial": "lora.pairs lora.seeds",
    "lora_sd.lora.pairs": "lora.dropout",
    "lora_sd.lora.dora": "lora.pairs",
    "lora_sd.lora.dropout": "lora.seeds",
    "lora_sd.lora.seeds": "",
    "lora_sd.data.masks": "data.buckets data.captions data.folder data.images paths",
    "lora_sd.lora.packed": "models.frozen",
    "lora_sd.workshop": "workshop lora models paths files data.images",
    "lora_sd.workshop_command": "workshop flags terminal lora.formats telling",
    "lora_sd.captioning": "captioning data models errors files hardware paths",
    "lora_sd.caption_command": "captioning models.captioners run signals terminal",
    "lora_sd.sample": "models lora paths limits infotext",
    "lora_sd.training": "training data models lora sample config settings events errors files run recorder lock signals hardware footprint length rates paths infotext",
    "lora_sd.infotext": "lora.strength files __version__",
    "lora_sd.encoded": "lora models",
    "lora_sd.lora.strength": "paths",
    "lora_sd.telling": "terminal",
    "lora_sd.plots": "",
    "lora_sd.workshop_plots": "plots",
    "lora_sd.signals": "",
    "lora_sd.training.diffusion": "",
    "lora_sd.training.cadence": "settings",
    "lora_sd.training.schedules": "",
    "app": "app files config kohya settings flags length rates events paths queue run hardware footprint worker data.folder data.captions data.buckets "
    "data.images data.health remembered models.find models.tokens models.download lora.beside lora.inspection lora.metadata errors "
    "models.captioners captioning.folder captioning.wording remedies report discard best grid grid_sheet infotext lora.strength telling plots "
    "workshop_plots",
}
# Package of others -> where alone it may be imported.
OTHERS = {
    "gradio": "app",
    "diffusers": "models sample training.optim",
    "transformers": "models sample training.optim captioning.blip",
    "onnxruntime": "captioning.tagger",
    "safetensors": "models lora workshop data.cache data.store training.state",
    "accelerate": "training __main__",
    "pynvml": "hardware",
    "psutil": "hardware run recorder data.store",
    "filelock": "lock",
    "tomli_w": "config",
}
TORCHLESS = (
    "lora_sd lora_sd.__main__ lora_sd.settings lora_sd.config lora_sd.kohya lora_sd.events lora_sd.run lora_sd.queue lora_sd.hardware "
    "lora_sd.footprint lora_sd.doctor lora_sd.worker lora_sd.workshop_command lora_sd.data.folder lora_sd.data.captions lora_sd.data.buckets "
    "lora_sd.data.images lora_sd.data.health lora_sd.models.find lora_sd.models.tokens lora_sd.models.download lora_sd.lora.beside "
    "lora_sd.lora.inspection lora_sd.lora.metadata app.main app.pages lora_sd.models.captioners lora_sd.caption_command lora_sd.captioning.folder "
    "lora_sd.report lora_sd.remedies lora_sd.discard lora_sd.grid lora_sd.grid_sheet lora_sd.grid_command lora_sd.best lora_sd.lora.strength "
    "lora_sd.infotext lora_sd.telling lora_sd.plots lora_sd.workshop_plots"
).split()


def modules() -> dict[str, ast.Module]:
    paths = [*ROOT.glob("lora_sd/**/*.py"), *ROOT.glob("app/**/*.py")]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
    return {name: ast.parse(path.read_text("utf-8")) for path, name in names.items()}


def imports(module: str, tree: ast.AST) -> Iterator[str]:
    """Full dotted names of all that `module` imports, except for the type checker."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    if isinstance(tree, ast.ImportFrom):
        parents = module.split(".")[: -tree.level] if tree.level else []
        source = ".".join([*parents, *([tree.module] if tree.module else [])])
        yield from (f"{source}.{alias.name}" for alias in tree.names)
    for child in ast.iter_child_nodes(tree):
        yield from imports(module, child)


def within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def full(names: str) -> list[str]:
    return [
        name if within(name, "app") or within(name, "lora_sd") else f"lora_sd.{name}"
        for name in names.split()
    ]


def row(module: str) -> list[str]:
    return full(OURS[max((name for name in OURS if within(module, name)), key=len)])


@pytest.mark.parametrize("module, tree", [pytest.param(*item, id=item[0]) for item in modules().items()])
def test_imports_point_one_way(module, tree):
    for name in imports(module, tree):
        if within(name, "lora_sd") or within(name, "app"):
            assert any(within(name, allowed) for allowed in row(module)), f"{module} may not import {name}"
        elif allowed := OTHERS.get(name.split(".")[0]):
            assert any(within(module, place) for place in full(allowed)), f"{module} may not import {name}"


def test_the_page_and_what_it_needs_do_not_import_torch():
    code = f"import sys, {', '.join(TORCHLESS)}; print(*{{'torch', 'diffusers', 'transformers'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_choosing_a_build_of_torch_needs_the_standard_library_only():
    """launch.py does it before anything is installed."""
    code = "import sys; before = {*sys.modules}; import lora_sd.torch_build; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    foreign = {name.split(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
    assert foreign == {"lora_sd"}
