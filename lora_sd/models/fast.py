"""The frozen U-Net made fast: channels-last from end to end, norm with SiLU and GEGLU in one pass, nothing kept in vain.

`speed_up` changes the classes of the blocks it knows, in place: every name and weight stays, and what others do to
their Linear and Conv2d layers (adapters, 8-bit weights) works as before. Convolutions want channels-last pictures, and
diffusers' blocks leave that layout at every transformer and shortcut. On the CPU a step of the starter takes a tenth less.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from .frozen import FrozenConv
from .geglu import geglu
from .norm import group_norm


def speed_up(unet: nn.Module) -> None:
    """Make a frozen U-Net fast, on a CUDA card or the CPU; on Apple's chips nothing was tried, and it is left alone."""
    if next(unet.parameters()).device.type in ("cuda", "cpu"):
        unet.to(memory_format=torch.channels_last)
        change_blocks(unet)


def change_blocks(unet: nn.Module) -> None:
    """Give each block that is exactly of a known kind its fast class; others stay as they are."""
    for module in unet.modules():
        fast, fits = FAST.get(type(module), (None, None))
        if fast and fits(module):
            module.__class__ = fast
    if _plain_norm(unet.conv_norm_out) and type(unet.conv_act) is nn.SiLU:
        unet.conv_norm_out.__class__ = NormSiLU
        unet.conv_act.__class__ = nn.Identity


class NormSiLU(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, self, silu=True)


class FastResnet(ResnetBlock2D):
    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        """shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + time)))"""
        time = self.time_emb_proj(self.nonlinearity(temb))  # (B, C)
        h = group_norm(x, self.norm1, silu=True)
        if _frozen(self.conv1):  # its bias goes with the time: PyTorch adds a bias in a pass of its own
            h, time = FrozenConv.apply(h, self.conv1, None), time + self.conv1.bias
        else:
            h = self.conv1(h)
        h = self.dropout(group_norm(h, self.norm2, silu=True, shift=time))
        return (x if self.conv_shortcut is None else pointwise(self.conv_shortcut, x)) + convolve(
            self.conv2, h
        )


class FastTransformer(Transformer2DModel):
    def _operate_on_continuous_inputs(self, x: Tensor) -> tuple[Tensor, int]:
        x = group_norm(x, self.norm)
        x = self.proj_in(tokens(x)) if self.use_linear_projection else tokens(pointwise(self.proj_in, x))
        return x, x.shape[-1]

    def _get_output_for_continuous_inputs(
        self, hidden_states: Tensor, residual: Tensor, height: int, width: int, **_: int
    ) -> Tensor:
        if self.use_linear_projection:
            return picture(self.proj_out(hidden_states), height, width) + residual
        return pointwise(self.proj_out, picture(hidden_states, height, width)) + residual


class FastGEGLU(GEGLU):
    def forward(self, x: Tensor) -> Tensor:
        return geglu(self.proj(x))


class FastUpsample(Upsample2D):
    def forward(self, x: Tensor, output_size: torch.Size | None = None) -> Tensor:
        scale = None if output_size else 2.0
        return convolve(self.conv, F.interpolate(x, size=output_size, scale_factor=scale, mode="nearest"))


class FastDownsample(Downsample2D):
    def forward(self, x: Tensor) -> Tensor:
        return convolve(self.conv, x)


def tokens(x: Tensor) -> Tensor:
    """Pictures (B, C, H, W) as (B, H · W, C): a channels-last one is only looked at in another way."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def picture(x: Tensor, height: int, width: int) -> Tensor:
    """Tokens (B, H · W, C) as channels-last pictures, which they are already."""
    return x.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1 × 1 convolution, as the matrix product that it is: that one adds its bias itself."""
    if not _frozen(conv):
        return conv(x)
    return picture(F.linear(tokens(x), conv.weight.flatten(1), conv.bias), *x.shape[2:])


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The layer, without keeping x where that is for a weight gradient that nobody wants."""
    return FrozenConv.apply(x, conv, conv.bias) if _frozen(conv) else conv(x)


def _frozen(conv: nn.Module) -> bool:
    """Whether this is a plain layer that doesn't learn; an adapted or packed one is asked to run itself."""
    return type(conv) is nn.Conv2d and not conv.weight.requires_grad


def _plain_norm(norm: nn.Module | None) -> bool:
    return type(norm) is nn.GroupNorm and norm.affine and not norm.weight.requires_grad


def _usual_resnet(block: ResnetBlock2D) -> bool:
    return (
        _plain_norm(block.norm1)
        and _plain_norm(block.norm2)
        and type(block.nonlinearity) is nn.SiLU
        and block.time_embedding_norm == "default"
        and block.time_emb_proj is not None
        and not block.skip_time_act
        and block.output_scale_factor == 1
        and not (block.up or block.down)
    )


def _usual_transformer(block: Transformer2DModel) -> bool:
    return block.is_input_continuous and _plain_norm(block.norm)


def _usual_upsample(block: Upsample2D) -> bool:
    return block.interpolate and block.use_conv and block.name == "conv" and block.norm is None


def _usual_downsample(block: Downsample2D) -> bool:
    return block.use_conv and block.padding != 0 and block.norm is None


# diffusers' class -> ours, and which of its blocks ours stands for
FAST: dict[type, tuple[type, Callable[[Any], bool]]] = {
    ResnetBlock2D: (FastResnet, _usual_resnet),
    Transformer2DModel: (FastTransformer, _usual_transformer),
    GEGLU: (FastGEGLU, lambda _: True),
    Upsample2D: (FastUpsample, _usual_upsample),
    Downsample2D: (FastDownsample, _usual_downsample),
}
