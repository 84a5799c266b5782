"""Self-attention between the places of a map of features."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

_NARROWER = 8  # times fewer channels compare places than there are


class SelfAttention(nn.Module):
    """Adds to each place of (B, C, H, W) what it finds at all, weighted by how well they match; at first nothing.

    Zhang, Goodfellow, Metaxas, Odena 2019, "Self-Attention Generative Adversarial Networks", ICML, section 3, with
    values of half the channels as in its authors' code. `wrap` is applied to each 1 x 1 convolution: a parametrization.
    """

    def __init__(self, channels: int, wrap: Callable[[nn.Module], nn.Module] = nn.Sequential) -> None:
        super().__init__()
        narrow, half = max(1, channels // _NARROWER), max(1, channels // 2)
        self.query, self.key, self.value = (
            wrap(nn.Conv2d(channels, out, 1, bias=False)) for out in (narrow, narrow, half)
        )
        self.out = wrap(nn.Conv2d(half, channels, 1, bias=False))
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        query, key, value = (part(h).flatten(2) for part in (self.query, self.key, self.value))  # (B, c, H W)
        weights = torch.bmm(query.transpose(1, 2), key).softmax(dim=2)  # (B, to, from)
        found = torch.bmm(value, weights.transpose(1, 2)).view(len(h), -1, *h.shape[2:])
        return h + self.strength * self.out(found.contiguous(memory_format=torch.channels_last))
