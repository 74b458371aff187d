"""sd-scripts' optimizers and schedules → ours, with the arguments that they have there unless set."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..paths import shown


class Optimizer(NamedTuple):
    ours: str
    weight_decay: float = 0.0  # unless set, which is that of its own class
    arguments: Mapping[str, Any] = {}  # those that make ours what theirs is unless set
    one_rate: bool = False  # whether all parts have the rate of the first


PRODIGY = {"use_bias_correction": False, "safeguard_warmup": False}
NAMED = {  # in small letters, as sd-scripts compares them
    "adamw": Optimizer("AdamW", 0.01),
    "adamw8bit": Optimizer("AdamW8bit", 0.01),
    "pagedadamw": Optimizer("bitsandbytes.optim.PagedAdamW", 0.01),
    "pagedadamw8bit": Optimizer("bitsandbytes.optim.PagedAdamW8bit", 0.01),
    "pagedadamw32bit": Optimizer("bitsandbytes.optim.PagedAdamW32bit", 0.01),
    "lion": Optimizer("Lion"),
    "lion8bit": Optimizer("bitsandbytes.optim.Lion8bit"),
    "pagedlion8bit": Optimizer("bitsandbytes.optim.PagedLion8bit"),
    "sgdnesterov": Optimizer("torch.optim.SGD", arguments={"momentum": 0.9, "nesterov": True}),
    "sgdnesterov8bit": Optimizer("bitsandbytes.optim.SGD8bit", arguments={"momentum": 0.9, "nesterov": True}),
    "adafactor": Optimizer("Adafactor", arguments={"scale_parameter": True, "warmup_init": False}),
    "prodigy": Optimizer("Prodigy", arguments=PRODIGY, one_rate=True),
    "dadaptation": Optimizer("dadaptation.experimental.DAdaptAdamPreprint", one_rate=True),
    "dadaptadampreprint": Optimizer("dadaptation.experimental.DAdaptAdamPreprint", one_rate=True),
    "dadaptadanip": Optimizer("dadaptation.experimental.DAdaptAdanIP", one_rate=True),
    **{
        f"dadapt{name.lower()}": Optimizer(f"dadaptation.DAdapt{name}", one_rate=True)
        for name in ("Adam", "AdaGrad", "Adan", "Lion", "SGD")
    },
    "adamwschedulefree": Optimizer("AdamWScheduleFree"),
    "radamschedulefree": Optimizer("schedulefree.RAdamScheduleFree"),
    "sgdschedulefree": Optimizer("schedulefree.SGDScheduleFree"),
    "came": Optimizer("pytorch_optimizer.CAME"),
}
SHIPPED = (
    "torch",
    "bitsandbytes",
    "lion_pytorch",
    "prodigyopt",
    "transformers",
    "dadaptation",
    "schedulefree",
)


def found(name: str) -> Optimizer:
    """The optimizer of that name or class there; a class of the package of one that has a name is that one."""
    package, _, last = name.rpartition(".")
    by_name = NAMED.get((last if package.partition(".")[0] in SHIPPED else name).lower())
    if by_name:
        return by_name
    if last in ("AdamW",):
        return Optimizer(name, 0.01)
    return Optimizer(name if package else f"torch.optim.{name}")


SCHEDULES = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine_with_restarts",
    "polynomial": "polynomial",
    "rex": "rex",
}
NEAR = {
    "cosine_with_min_lr": ("cosine", "it ends at 0 here, not at a lowest rate"),
    "warmup_stable_decay": ("constant", "there the rate falls at the end"),
    "inverse_sqrt": ("polynomial", "there it falls with the root of the steps"),
    "piecewise_constant": ("constant", "its pieces are not here"),
}


def schedule(name: str, kind: str) -> tuple[str, str]:
    """Our schedule for lr_scheduler `name`, or for a class `kind` (lr_scheduler_type); and what differs."""
    if kind:
        last = kind.rpartition(".")[2].lower()
        near = "rex" if "rex" in last else "cosine_with_restarts" if "restart" in last else "cosine"
        return near, f"{shown(kind, 80)} is not here; its arguments are left out"
    if name in SCHEDULES:
        return SCHEDULES[name], ""
    if name.startswith("adafactor"):
        return "constant", "Adafactor takes its rate from optim.learning_rate here"
    return NEAR.get(name, ("constant", "there is no such schedule here"))
