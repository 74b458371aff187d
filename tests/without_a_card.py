"""Ways to test Triton kernels without a card: in Triton's interpreter, and compiled for cards that are not here."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton_only = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs triton")
every_card = pytest.mark.parametrize("capability, dtype", [(75, "fp16"), (80, "bf16"), (90, "bf16")])


def interpret(name: str) -> None:
    """Run a file of tests on the interpreter; in a process of its own, as Triton has to know before it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", Path(__file__).with_name(name)]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def ptx(kernel, capability: int, types: dict[str, str], constants: dict, width: str, num_warps: int) -> str:
    """A kernel for a card of this compute capability; `types` in Triton's spelling, numbers are i32 unless named.

    Pointers and the argument `width` are multiples of 16, as they are in the real models.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {name: constants[name] for name in kernel.arg_names if name in constants}
    types = types | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "i32") for name in kernel.arg_names}
    even = [i for i, (name, kind) in enumerate(signature.items()) if kind[0] == "*" or name == width]
    source = ASTSource(kernel, signature, constants, {(i,): [["tt.divisibility", 16]] for i in even})
    return triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": num_warps}
    ).asm["ptx"]
