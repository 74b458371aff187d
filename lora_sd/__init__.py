"""Train Stable Diffusion LoRAs and use them.

>>> import lora_sd
>>> config = lora_sd.TrainConfig.model_validate(
...     {"data": {"images": "starter:streamline"}, "optim": {"steps": 10}}
... )
>>> path = lora_sd.train(config)  # doctest: +SKIP
>>> [picture] = lora_sd.generate("starter", "cow face", loras={path: 0.8})  # doctest: +SKIP

Names are imported when they are used: `import lora_sd` does not import torch.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .best_search import find_best as find_best
    from .captioning.folder import caption as caption
    from .config import TrainConfig as TrainConfig
    from .grid import read as axis  # noqa: F401
    from .grid_drawing import draw_grid as draw_grid
    from .kohya import load as import_config  # noqa: F401
    from .lora.formats import save_lora as save_lora
    from .lora.metadata import inspect as inspect
    from .lora.strength import Strength as Strength
    from .models.load import load as load_model  # noqa: F401
    from .sample import generate as generate
    from .sample import load_lora as load_lora
    from .training.train import resume as resume
    from .training.train import train as train

# A waiting thread spins for a moment and then sleeps. A starter step on two cores took 0.45 s so, 1.1 s beside two busy
# programs; with GNU OpenMP's own long spinning 0.44 s, but 6 to 26 s beside them; asleep at once 0.78 s always.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_HOMES = {
    "TrainConfig": ("config", "TrainConfig"),
    "load_config": ("config", "load"),
    "import_config": ("kohya", "load"),
    "train": ("training.train", "train"),
    "resume": ("training.train", "resume"),
    "generate": ("sample", "generate"),
    "caption": ("captioning.folder", "caption"),
    "find_best": ("best_search", "find_best"),
    "draw_grid": ("grid_drawing", "draw_grid"),
    "axis": ("grid", "read"),
    "load_model": ("models.load", "load"),
    "load_lora": ("sample", "load_lora"),
    "save_lora": ("lora.formats", "save_lora"),
    "inspect": ("lora.metadata", "inspect"),
    "Strength": ("lora.strength", "Strength"),
}
__all__ = list(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"lora_sd has no {name!r}; it has {', '.join(__all__)}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f".{module}", __name__), attribute)
