"""Encoder and decoder networks, for families that reduce an image to a few numbers.

Convolutions work at 14 x 14 and 7 x 7, where they cost little: the encoder folds 2 x 2 pixels into channels
first, and the decoder's last layer alone makes 28 x 28.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR

from generative.compute.portable import Linear
from generative.config import NonNegativeFloat, NonNegativeInt, PositiveInt
from generative.data.images import IMAGE_SHAPE, NUM_PIXELS
from generative.family import TrainingConfig

_MAP_SIDE = 7  # of the smallest feature map
_REFINE_RATE = 0.15  # of Adam, in units of the latent space, at first
_REFINE_BETAS = (0.5, 0.9)  # so few steps leave no time for a longer memory
_ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU}


class EncoderSettings(TrainingConfig):
    """What an encoder is built from."""

    latent_dim: PositiveInt
    channels: NonNegativeInt
    hidden: list[PositiveInt]
    activation: Literal["relu", "silu"]

    def describe_networks(self) -> str:
        """The encoder's widths, and what else a reader needs to build both networks."""
        front = f"{self.channels}-channel convolutions, then " if self.channels else ""
        first = _map_size(self.channels) if self.channels else NUM_PIXELS
        sizes = "-".join(map(str, [first, *self.hidden, self.latent_dim]))
        names = {"relu": "ReLU", "silu": "SiLU"}
        return f"encoder {front}{sizes} ({names[self.activation]}{self.describe_decoder()})"

    def describe_decoder(self) -> str:
        """What its mirror image, if there is one, has that the encoder has not, with a comma before it."""
        return ""


class CoderSettings(EncoderSettings):
    """What an encoder and a decoder that mirrors it are built from."""

    sine_frequency: NonNegativeFloat

    @model_validator(mode="after")
    def _sines_feed_a_layer(self) -> Self:
        if self.sine_frequency and not self.hidden:
            raise ValueError("sine_frequency needs at least one hidden layer")
        return self

    def describe_decoder(self) -> str:
        return ", sines on the decoder's first layer" if self.sine_frequency else ""


def make_encoder(config: EncoderSettings, outputs: int) -> nn.Sequential:
    """A network from images (B, 1, 28, 28) to (B, outputs)."""
    if not config.channels:
        return nn.Sequential(nn.Flatten(), *_dense([NUM_PIXELS, *config.hidden, outputs], config))
    width = config.channels
    activation = _ACTIVATIONS[config.activation]
    encoder = nn.Sequential(
        nn.PixelUnshuffle(2),  # (B, 4, 14, 14)
        nn.Conv2d(4, width, 3, padding=1),
        activation(),
        nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),  # (B, 2 width, 7, 7)
        activation(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        activation(),
        nn.Flatten(),
        *_dense([_map_size(width), *config.hidden, outputs], config),
    )
    return encoder.to(memory_format=torch.channels_last)


def make_decoder(config: CoderSettings) -> nn.Sequential:
    """A network from latent vectors (B, latent_dim) to images (B, 1, 28, 28) in (0, 1): the encoder's mirror."""
    width = config.channels
    last = _map_size(width) if width else NUM_PIXELS
    dense = _dense([config.latent_dim, *reversed(config.hidden), last], config)
    if config.sine_frequency:
        dense[:2] = [_frequencies(config), Sine()]
    if not width:
        return nn.Sequential(*dense, nn.Sigmoid(), nn.Unflatten(1, IMAGE_SHAPE))
    activation = _ACTIVATIONS[config.activation]
    decoder = nn.Sequential(
        *dense,
        activation(),
        nn.Unflatten(1, (2 * width, _MAP_SIDE, _MAP_SIDE)),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        activation(),
        nn.Conv2d(2 * width, 4 * width, 3, padding=1),
        nn.PixelShuffle(2),  # (B, width, 14, 14)
        activation(),
        nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
        nn.Sigmoid(),
    )
    return decoder.to(memory_format=torch.channels_last)


def refine(z: Tensor, x: Tensor, loss: Callable[[Tensor, Tensor], Tensor], steps: int) -> Tensor:
    """Latent vectors near `z` (B, d) that the decoder fits better: what an encoder gives away by one quick answer.

    That loss is the amortisation gap (Cremer, Li, Duvenaud 2018, "Inference Suboptimality in Variational
    Autoencoders", ICML); it is closed as in Kim et al. 2018, "Semi-Amortized Variational Autoencoders", ICML, but
    here after the training alone.

    Args:
        z: the encoder's answer, in units where neighbouring images are some hundredths apart.
        x: the images (B, 1, 28, 28) that it answers.
        loss: maps vectors and images to what is to be minimised for each image, (B,).
        steps: of Adam, each image for itself, at a rate that falls linearly; 0 returns `z`.

    Returns:
        The refined vectors; `z` itself for an image that they do not serve better.
    """
    if not steps:
        return z
    with torch.inference_mode(False), torch.enable_grad():
        refined, images = z.clone().requires_grad_(True), x.clone()  # ordinary tensors, which can have a gradient
        optimizer = torch.optim.Adam([refined], lr=_REFINE_RATE, betas=_REFINE_BETAS, fused=True)
        schedule = LinearLR(optimizer, start_factor=1, end_factor=1 / steps, total_iters=steps - 1)
        for _ in range(steps):
            (refined.grad,) = torch.autograd.grad(loss(refined, images).sum(), refined)
            optimizer.step()
            schedule.step()
    refined = refined.detach()
    better = loss(refined, x) < loss(z, x)
    return torch.where(better.unsqueeze(1), refined, z)


class Sine(nn.Module):
    """The sine of each element."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


def _dense(widths: Sequence[int], config: EncoderSettings) -> list[nn.Module]:
    """Linear layers of the given widths with the activation between two of them."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [Linear(width_in, width_out), _ACTIVATIONS[config.activation]()]
    return layers[:-1]


def _frequencies(config: CoderSettings) -> Linear:
    """A first layer that, with the sine, lets a few coordinates draw fine detail.

    Tancik et al. 2020, "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional
    Domains", NeurIPS, there fixed; here the frequencies and phases are learned.
    """
    layer = Linear(config.latent_dim, config.hidden[-1])
    nn.init.normal_(layer.weight, std=config.sine_frequency)
    nn.init.uniform_(layer.bias, -math.pi, math.pi)
    return layer


def _map_size(channels: int) -> int:
    return 2 * channels * _MAP_SIDE**2
