"""U-Net of two sizes: from images and a condition to maps of the same size.

Ronneberger, Fischer, Brox 2015, "U-Net", MICCAI, with the residual blocks of Ho, Jain, Abbeel 2020, "Denoising
Diffusion Probabilistic Models", NeurIPS, whose scale and shift depend on the condition (Dhariwal, Nichol 2021,
"Diffusion Models Beat GANs on Image Synthesis", NeurIPS). 2 x 2 pixels are channels first, so that all works
at 14 x 14 and 7 x 7, where convolutions cost little.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative.compute.portable import Linear
from generative.networks.attention import SelfAttention

_GROUPS = 8  # of channels that are normalised together: widths are multiples of it


class UNet(nn.Module):
    """Maps (B, N, 28, 28) and conditions (B, D) to maps (B, 1, 28, 28), all zero before the training.

    Args:
        maps: N.
        channels: at 14 x 14 and at 7 x 7, multiples of 8.
        conditions: D.
    """

    def __init__(self, maps: int, channels: tuple[int, int], conditions: int) -> None:
        super().__init__()
        wide, narrow = channels
        self.stem = nn.Conv2d(4 * maps, wide, 3, padding=1)
        self.down = _Block(wide, wide, conditions)
        self.pool = nn.Conv2d(wide, narrow, 3, padding=1, stride=2)
        self.middle = nn.ModuleList(_Block(narrow, narrow, conditions) for _ in range(2))
        self.attention = SelfAttention(narrow)
        self.unpool = nn.Conv2d(narrow, 4 * wide, 1)
        self.up = _Block(2 * wide, wide, conditions)
        self.normalise = nn.GroupNorm(_GROUPS, wide)
        self.out = nn.Conv2d(wide, 4, 3, padding=1)
        _start_at_zero(self.out)
        self.to(memory_format=torch.channels_last)

    def inner(self) -> list[nn.Conv2d]:
        """The convolutions from features to features."""
        inside = (self.down, self.pool, self.middle, self.attention, self.unpool, self.up)
        return [layer for part in inside for layer in part.modules() if isinstance(layer, nn.Conv2d)]

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        conditions = F.silu(conditions)
        folded = F.pixel_unshuffle(x.contiguous(), 2).contiguous(memory_format=torch.channels_last)
        skip = self.down(self.stem(folded), conditions)
        h = self.pool(skip)
        first, second = self.middle
        h = second(self.attention(first(h, conditions)), conditions)
        h = F.pixel_shuffle(self.unpool(h), 2).contiguous(memory_format=torch.channels_last)
        h = self.up(torch.cat([h, skip], 1), conditions)
        return F.pixel_shuffle(self.out(F.silu(self.normalise(h))), 2).contiguous()


class _Block(nn.Module):
    """Adds to (B, C, H, W) what two convolutions make of it under a condition; at first nothing."""

    def __init__(self, channels: int, out: int, conditions: int) -> None:
        super().__init__()
        self.normalise_in = nn.GroupNorm(_GROUPS, channels)
        self.conv_in = nn.Conv2d(channels, out, 3, padding=1)
        self.modulate = Linear(conditions, 2 * out)
        self.normalise = nn.GroupNorm(_GROUPS, out)
        self.conv = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        _start_at_zero(self.modulate)
        _start_at_zero(self.conv)

    def forward(self, h: Tensor, conditions: Tensor) -> Tensor:
        inner = self.conv_in(F.silu(self.normalise_in(h)))
        scale, shift = self.modulate(conditions)[:, :, None, None].chunk(2, 1)
        inner = torch.addcmul(shift, self.normalise(inner), 1 + scale)
        out: Tensor = self.skip(h) + self.conv(F.silu(inner))
        return out


def _start_at_zero(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
