"""Invertible layers with known Jacobians, for normalizing flows.

Every layer maps (B, C, H, W), or (B, D), to the same shape and returns with it log |det dy/dx| of each input, (B,), in
nats; `inverse` goes back.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative.compute.portable import Linear

_STEEPEST = 1.0  # log of the greatest scale of a coupling: with 2, one image in some ten thousand ends far out
_TINY = 1e-6

Mean = Callable[[Tensor], Tensor]  # over all processes


class ActNorm(nn.Module):
    """A scale and a shift of each channel: Kingma, Dhariwal 2018, "Glow", NeurIPS, section 3.1."""

    def __init__(self, channels: int, sides: int) -> None:
        super().__init__()
        shape = (1, channels, *[1] * sides)
        self.shift = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def fit(self, x: Tensor, mean: Mean) -> None:
        """Give the outputs of `x` mean 0 and variance 1 in each channel."""
        axes = tuple(axis for axis in range(x.dim()) if axis != 1)
        centre = mean(x.mean(axes, keepdim=True))
        variance = mean((x - centre).square().mean(axes, keepdim=True))
        self.shift.data.copy_(-centre)
        self.log_scale.data.copy_(-torch.log(variance + _TINY) / 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = self.log_scale.sum() * (x[0].numel() // self.log_scale.numel())
        return (x + self.shift) * self.log_scale.exp(), log_det.expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return y * (-self.log_scale).exp() - self.shift


class InvertibleConvolution(nn.Module):
    """A 1 x 1 convolution W = P L (U + diag(s)) without loss: Kingma, Dhariwal 2018, section 3.2, equation 10."""

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))[0]
        permutation, lower, upper = (part.float() for part in torch.linalg.lu(rotation))
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation.contiguous())
        self.register_buffer("sign", diagonal.sign())
        self.lower = nn.Parameter(lower.contiguous())
        self.upper = nn.Parameter(upper.contiguous())
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self._factors()
        weight = self.permutation @ lower @ upper
        log_det = self.log_diagonal.sum() * x[0, 0].numel()
        return F.conv2d(x, weight[:, :, None, None]), log_det.expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        lower, upper = (factor.double() for factor in self._factors())
        identity = torch.eye(len(lower), dtype=torch.float64, device=y.device)
        inner = torch.linalg.solve_triangular(lower, identity, upper=False, unitriangular=True)
        weight = torch.linalg.solve_triangular(upper, inner, upper=True) @ self.permutation.T.double()
        return F.conv2d(y, weight.to(y.dtype)[:, :, None, None])

    def _factors(self) -> tuple[Tensor, Tensor]:
        identity = torch.eye(len(self.lower), device=self.lower.device)
        upper = torch.triu(self.upper, 1) + torch.diag(self.sign * self.log_diagonal.exp())
        return torch.tril(self.lower, -1) + identity, upper


class Permutation(nn.Module):
    """The dimensions of (B, D) in another order, drawn once."""

    order: Tensor

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(dimensions))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, self.order], x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return y[:, self.order.argsort()]


class AffineCoupling(nn.Module):
    """One half of the channels scaled and shifted by what a network makes of the other.

    Dinh, Sohl-Dickstein, Bengio 2017, "Density estimation using Real NVP", ICLR, equations 7 and 8; the log-scale is
    bounded by a hyperbolic tangent.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network  # (B, C / 2, ...) to (B, C, ...)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, changed = x.chunk(2, 1)
        shift, log_scale = self._parts(kept)
        return torch.cat([kept, (changed + shift) * log_scale.exp()], 1), log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        kept, changed = y.chunk(2, 1)
        shift, log_scale = self._parts(kept)
        return torch.cat([kept, changed * (-log_scale).exp() - shift], 1)

    def _parts(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = self.network(kept.contiguous()).chunk(2, 1)
        return shift, _STEEPEST * torch.tanh(raw / _STEEPEST)


class Chain(nn.ModuleList):
    """Layers one after the other."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for layer in self:
            x, log_det = layer(x)
            total = total + log_det
        return x, total

    def inverse(self, y: Tensor) -> Tensor:
        layer: Any
        for layer in reversed(self):
            y = layer.inverse(y)
        return y

    @torch.no_grad()
    def fit(self, x: Tensor, mean: Mean) -> Tensor:
        """Fit each `ActNorm` to what reaches it of `x`; returns what comes out."""
        for layer in self:
            if isinstance(layer, ActNorm):
                layer.fit(x, mean)
            x = layer.forward(x)[0]
        return x


class Convolutions(nn.Module):
    """A network of three convolutions, 3, 1 and 3 wide, that starts as 0 and knows where in the image it is."""

    def __init__(self, channels_in: int, channels_out: int, width: int, side: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, width, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(1, width, side, side))
        self.second = nn.Conv2d(width, width, 1)
        self.last = nn.Conv2d(width, channels_out, 3, padding=1, bias=False)
        self.last_place = nn.Parameter(torch.zeros(1, channels_out, side, side))
        self.log_gain = nn.Parameter(torch.zeros(1, channels_out, 1, 1))
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu_(self.first(x) + self.place)
        h = self.last(F.relu_(self.second(h))) + self.last_place
        return h * torch.exp(3 * self.log_gain)  # as in the code of Kingma, Dhariwal 2018


class Dense(nn.Sequential):
    """A network of three linear layers that starts as 0."""

    def __init__(self, dimensions_in: int, dimensions_out: int, width: int) -> None:
        last = Linear(width, dimensions_out)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(Linear(dimensions_in, width), nn.ReLU(), Linear(width, width), nn.ReLU(), last)


def convolutional_steps(channels: int, count: int, width: int, side: int) -> Chain:
    """`count` steps of flow on maps (B, channels, side, side): Kingma, Dhariwal 2018, figure 2."""
    layers: list[nn.Module] = []
    for _ in range(count):
        network = Convolutions(channels // 2, channels, width, side)
        layers += [ActNorm(channels, 2), InvertibleConvolution(channels), AffineCoupling(network)]
    return Chain(layers)


def dense_steps(dimensions: int, count: int, width: int) -> Chain:
    """`count` steps of flow on vectors (B, dimensions), whose couplings see all of one half."""
    layers: list[nn.Module] = []
    for _ in range(count):
        network = Dense(dimensions // 2, dimensions, width)
        layers += [ActNorm(dimensions, 0), Permutation(dimensions), AffineCoupling(network)]
    return Chain(layers)
