"""The optimizer: how gradients become a step. Those of `KINDS` go by their name, any other as package.Class."""

import contextlib
import importlib
import inspect
import io
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ..paths import shown

OURS = {"lr": "optim.learning_rate", "weight_decay": "optim.weight_decay"}  # arguments that are settings


class Kind(NamedTuple):
    """An optimizer: where it is, and how it is usually called in the training of LoRAs."""

    path: str  # package.Class
    package: str = ""  # that pip installs it from
    arguments: Mapping[str, Any] = {}
    apart: bool = False  # whether it must see every matrix in its own shape, and not a vector of them all
    one_rate: bool = False  # whether all groups must have the same learning rate


KINDS = {
    "AdamW": Kind("torch.optim.AdamW"),  # arXiv:1711.05101
    "AdamW8bit": Kind("bitsandbytes.optim.AdamW8bit", "bitsandbytes"),  # arXiv:2110.02861
    "Lion": Kind("lion_pytorch.Lion", "lion-pytorch"),  # arXiv:2302.06675
    "Adafactor": Kind(  # arXiv:1804.04235, with a learning rate from outside instead of its own
        "transformers.optimization.Adafactor",
        arguments={"scale_parameter": False, "relative_step": False, "warmup_init": False},
        apart=True,
    ),
    "Prodigy": Kind(  # arXiv:2306.06101
        "prodigyopt.Prodigy",
        "prodigyopt",
        arguments={"use_bias_correction": True, "safeguard_warmup": True},
        one_rate=True,
    ),
    "AdamWScheduleFree": Kind("schedulefree.AdamWScheduleFree", "schedulefree"),  # arXiv:2405.15682
}


def kind_of(name: str) -> Kind:
    """The optimizer that optim.optimizer names."""
    return KINDS.get(name) or Kind(name, name.partition(".")[0], apart=True)


def make(
    name: str,
    groups: Sequence[Sequence[nn.Parameter]],
    *,
    learning_rate: float,
    weight_decay: float,
    arguments: Mapping[str, Any] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of some groups of parameters. ValueError with a sentence where there is none, or not with these arguments."""
    kind, given = (
        kind_of(name),
        {k: tuple(v) if isinstance(v, list) else v for k, v in (arguments or {}).items()},
    )
    found = find(name)
    _check(name, found, given)
    if name == "AdamW":  # one kernel for all that learns
        given = {"fused": groups[0][0].device.type in ("cuda", "cpu") or None, **given}
    ours = {"lr": learning_rate, "weight_decay": weight_decay}
    takes = _parameters(found)
    ours = {key: value for key, value in ours.items() if takes is None or key in takes}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # some tell of their arguments there
            made = found([{"params": list(group)} for group in groups], **ours, **{**kind.arguments, **given})
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        why = shown(error).rstrip(".") or "it gives no reason"
        raise ValueError(f"{name} can't be used with optim.arguments {shown(dict(given))}: {why}.") from error
    if averages(made):
        made.train()
    return made


def try_out(name: str, device: torch.device, **options: Any) -> None:
    """Two steps of an optimizer that is not known here, and its state written and read; `options` are those of `make`.

    Raises ValueError where it can't do a step as others do, or its state can't be read back: no run with it could be resumed.
    """
    parameter = nn.Parameter(torch.zeros(8, 4, device=device))
    tried = make(name, [[parameter]], **options)
    try:
        for _ in range(2):
            parameter.grad = torch.ones_like(parameter)
            tried.step()
    except Exception as error:  # of a stranger's code
        raise ValueError(
            f"{name} can't do a step as other optimizers do ({shown(error).rstrip('.')}); choose another optim.optimizer."
        ) from error
    file = io.BytesIO()
    try:
        torch.save(tried.state_dict(), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{name} remembers more than numbers ({shown(error).partition(chr(10))[0].rstrip('.')}), which can't be read "
            "back safely, so a run with it could not be resumed; choose another optim.optimizer."
        ) from error


def find(name: str) -> type[torch.optim.Optimizer]:
    """The class. Raises ValueError with a sentence where it is not installed, or is no optimizer."""
    kind = kind_of(name)
    module, _, attribute = kind.path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except (ImportError, OSError, RuntimeError) as error:  # the last two from libraries that miss a card
        raise ValueError(
            f"The optimizer {name} needs the package {kind.package} ({shown(error)}); install it with: "
            f"python -m pip install {kind.package}, or choose another optim.optimizer."
        ) from error
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ValueError(
            f"optim.optimizer is {name!r}, which is no optimizer of PyTorch's kind; write the class with its package, "
            "such as torch.optim.RAdam."
        )
    return found


def _check(name: str, found: type, given: Mapping[str, Any]) -> None:
    if mine := next((key for key in given if key in OURS), None):
        raise ValueError(f"optim.arguments has {mine!r}; set {OURS[mine]} instead.")
    takes = _parameters(found)
    if takes is not None and (wrong := next((key for key in given if key not in takes), None)):
        listed = ", ".join(key for key in takes if key not in OURS)
        raise ValueError(
            f"optim.arguments has {shown(wrong)!r}, which {name} does not take; it takes {listed}."
        )


def arguments(optimizer: torch.optim.Optimizer) -> set[str]:
    """The names of what an optimizer was told, by which its groups keep it; what they count and find is not among them."""
    return set(inspect.signature(type(optimizer)).parameters) - {"params", "lr"}


def _parameters(found: type) -> list[str] | None:
    """The arguments that an optimizer takes beside its parameters; None where it takes any."""
    parameters = list(inspect.signature(found).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def averages(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its result is an average, which it shows between `eval()` and `train()`, as Schedule-Free does."""
    return hasattr(optimizer, "eval") and hasattr(optimizer, "train")


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float, factors: Sequence[float]) -> None:
    """Each group's rate is its factor times the learning rate."""
    for group, factor in zip(optimizer.param_groups, factors, strict=True):
        group["lr"] = learning_rate * factor
