"""BLIP (arXiv:2201.12086): a sentence for a picture."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ..errors import out_of_memory
from ..paths import shown

if TYPE_CHECKING:
    import torch

BEAMS = 3


class Blip:
    """The model of a folder, loaded; `device` and `dtype` as `hardware.choose` gives them."""

    def __init__(
        self, folder: Path, device: "torch.device", dtype: "torch.dtype", *, max_tokens: int
    ) -> None:
        from transformers import BlipForConditionalGeneration, BlipProcessor

        self.device, self.dtype, self.max_tokens = device, dtype, max_tokens
        self.at_once = 8 if device.type == "cuda" else 1  # pictures in a batch
        with _plainly(folder):
            self.processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
            model, told = BlipForConditionalGeneration.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
            )
            if told["missing_keys"]:  # they would be filled with chance
                raise LookupError(min(told["missing_keys"]))
        self.model = model.to(device).eval()

    def __call__(self, pictures: list[Image.Image]) -> list[str]:
        """A caption for each RGB picture."""
        import torch

        pixels = self.processor(images=pictures, return_tensors="pt").pixel_values  # (B, 3, H, W)
        with torch.no_grad():
            tokens = self.model.generate(
                pixel_values=pixels.to(self.device, self.dtype),
                max_new_tokens=self.max_tokens,
                num_beams=BEAMS,
            )
        return [
            " ".join(text.split()) for text in self.processor.batch_decode(tokens, skip_special_tokens=True)
        ]


@contextlib.contextmanager
def _plainly(folder: Path) -> Iterator[None]:
    """Whatever a loader stumbles over is the folder's fault; memory is not. Without its own progress bars."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ValueError(
            f"The BLIP model in {shown(folder)} is damaged or incomplete; download it again."
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
