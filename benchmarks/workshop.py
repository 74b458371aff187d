"""Seconds and memory of the workshop on files of real shape: `python benchmarks/workshop.py [--only combine …]`.

LoRAs are random ones of SDXL's 986 layers at rank 32 in fp16, 228 MB, as kohya writes them; the models that one is merged into
and another extracted from are random and of SD 1.5's shapes, 2 GB each. Every operation is a process of its own: its peak memory is that
of a person's command, Python and torch included. Processor seconds are of all threads; on a busy machine they tell more.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from lora_sd.lora import container  # noqa: E402
from lora_sd.lora.names import written_keys  # noqa: E402
from lora_sd.models.family import FAMILIES  # noqa: E402

LIMITS = {  # seconds, GB
    "analyse": (None, None),
    "combine": (20, 1.5),
    "combine to rank 32": (None, None),
    "resize to rank 8": (60, None),
    "resize to 60 MB": (None, None),
    "combine by TIES": (None, None),
    "convert to PEFT": (None, None),
    "check": (None, None),
    "edit": (None, None),
    "merge": (None, None),
    "extract": (300, 4),
}
OF_MODELS = ("merge", "extract")


# getrusage's maximum would be this program's own where that is larger: a child begins with what its parent had
CHILD = """
import sys
from lora_sd.__main__ import main
code = main(sys.argv[1:])
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
sys.exit(code)
"""


def weight_shapes(family: str) -> Mapping[str, tuple[int, ...]]:
    """The layers that kohya's trainer adapts, with the shapes of their weights."""
    from real_shapes import real_parts

    from lora_sd.lora.layers import named_layers
    from lora_sd.lora.targets import resolve

    parts = real_parts(family)
    layers = named_layers(parts)
    return {
        n: tuple(layers[n].weight.shape) for n in resolve(parts, "transformer", rank=1, text_encoders=True)
    }


def write_lora(path: Path, rank: int, seed: int, family: str = "sdxl") -> None:
    """Random factors whose strength falls with the rank's number, as trained ones' does."""
    generator = torch.Generator().manual_seed(seed)
    falling = 0.8 ** torch.arange(rank)
    tensors: dict[str, Tensor] = {}
    for name, (out, *inputs) in weight_shapes(family).items():
        keys = written_keys(name, FAMILIES[family], "kohya")
        down = torch.randn(rank, *inputs, generator=generator) / 30
        up = torch.randn(out, rank, *(1,) * (len(inputs) - 1), generator=generator) / 30
        tensors |= {keys.down: down.half(), keys.up: (up.transpose(1, -1) * falling).transpose(1, -1).half()}
        tensors[keys.alpha] = torch.tensor(rank / 2)
    write(path, container.pieces(tensors, {"ss_base_model_version": FAMILIES[family].base_version}))


def write(path: Path, pieces: Iterator[container.Bytes]) -> None:
    with open(path, "wb") as file:
        for piece in pieces:
            file.write(piece)


def write_model(path: Path, change: float) -> None:
    """A single-file SD 1.5 of random numbers in fp16: the same for every change but for an update of rank 16 and noise."""
    from diffusers import AutoencoderKL
    from ldm import to_ldm
    from real_shapes import _config, real_parts

    parts = real_parts("sd15")
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(_config("sd15", "vae"))
    weights = to_ldm(parts["unet"], vae, [parts["text_encoder"]])
    shapes = {key: tuple(weight.shape) for key, weight in weights.items()}
    described = container.described(
        {k: torch.empty(s, dtype=torch.float16, device="meta") for k, s in shapes.items()}
    )

    def pieces() -> Iterator[container.Bytes]:
        yield container.head(described, {})
        generator, update = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
        for shape in shapes.values():
            tensor = torch.randn(shape, generator=generator) / 30
            if change and len(shape) > 1:
                down = torch.randn(16, tensor[0].numel(), generator=update)
                tensor += (change * torch.randn(shape[0], 16, generator=update) @ down).view(shape)
            yield container.data_of(tensor.half())

    write(path, pieces())


def make(folder: Path, *, models: bool) -> None:
    """The files that are not there yet."""
    makers = {
        "a": lambda path: write_lora(path, 32, seed=0),
        "b": lambda path: write_lora(path, 32, seed=1),
        "small": lambda path: write_lora(path, 32, seed=0, family="sd15"),
        "base": lambda path: write_model(path, change=0.0),
        "tuned": lambda path: write_model(path, change=0.001),
    }
    for name in list(makers)[: 5 if models else 2]:
        path = folder / f"{name}.safetensors"
        if not path.exists():
            makers[name](path)


def commands(folder: Path) -> dict[str, list[str]]:
    a, b, out = (str(folder / f"{name}.safetensors") for name in ("a", "b", "out"))
    small, base, tuned = (str(folder / f"{name}.safetensors") for name in ("small", "base", "tuned"))
    return {
        "analyse": ["analyse", a],
        "combine": ["combine", out, f"{a}:0.7", f"{b}:0.3"],
        "combine to rank 32": ["combine", out, f"{a}:0.7", f"{b}:0.3", "--rank", "32"],
        "resize to rank 8": ["resize", a, out, "--rank", "8"],
        "resize to 60 MB": ["resize", a, out, "--size", "60"],
        "combine by TIES": ["combine", out, a, b, "--method", "ties", "--rank", "32"],
        "convert to PEFT": ["convert", a, out, "--layout", "peft"],
        "check": ["check", a],
        "edit": ["edit", a, "--title", "A title", "--out", out],
        "merge": ["merge", base, out, f"{small}:0.8"],
        "extract": ["extract", tuned, base, out, "--rank", "32"],
    }


def measured(command: list[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and GB of memory at most, of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, *command], cwd=ROOT, capture_output=True, text=True)
    took = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, processor, int(done.stdout.split()[-1]) * 1024 / 1e9


def row(name: str, took: float, processor: float, memory: float) -> str:
    seconds, most = LIMITS[name]
    limit = ", ".join([f"{seconds} s"] * bool(seconds) + [f"{most} GB"] * bool(most))
    return f"{name:20} {took:>7.1f} s  {processor:>7.1f} s  {memory:>6.2f} GB   {limit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument(
        "--folder", type=Path, help="keep the files here, and take those that are here already"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = asked.folder or Path(name)
        make(folder, models=any(name in OF_MODELS for name in asked.only))
        print(f"{'':20} {'time':>9}  {'processor':>9}  {'memory':>9}   at most")
        for operation in asked.only:
            print(row(operation, *measured(commands(folder)[operation])), flush=True)


if __name__ == "__main__":
    main()
