"""A network that takes noise away from images at any level of noise, and the solver that draws images with it.

Karras, Aittala, Aila, Laine 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS: x =
image + sigma * noise, where the standard deviation of images is about 1. The solver is DPM-Solver++(2M), Lu et al.
2022, arXiv:2211.01095, algorithm 2.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from generative.compute.portable import Linear
from generative.networks.unet import UNet

LARGEST, SMALLEST = 80.0, 0.02  # standard deviations of the noise that sampling begins and ends with
_BEND = 7.0  # of the noise levels between them (Karras et al. 2022, equation 5)
_CENTRE, _SCALE = 0.3, 0.35  # of intensities: about their mean and their standard deviation
_BELOW_BLACK = 0.1  # how far black lies below the darkest grey: what comes near it is black
_WAVES = 16  # of each kind that tell the network the level
_LOWEST, _HIGHEST = 0.5, 32.0  # frequencies of the waves


class Denoiser(nn.Module):
    """Noisy images (B, 1, 28, 28), their levels and what is known of them to means of the images (B, 1, 28, 28).

    A U-Net learns what is missing in `known`; before the training that is all it says.

    Args:
        channels: of the U-Net at 14 x 14 and at 7 x 7.
        width: D of the conditions.
    """

    frequencies: Tensor

    def __init__(self, channels: tuple[int, int], width: int) -> None:
        super().__init__()
        self.level = nn.Sequential(Linear(2 * _WAVES, width), nn.SiLU(), Linear(width, width))
        self.network = UNet(2, channels, width)
        frequencies = torch.logspace(math.log2(_LOWEST), math.log2(_HIGHEST), _WAVES, base=2)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x: Tensor, sigma: Tensor, known: Tensor, condition: Tensor | None = None) -> Tensor:
        """The means.

        Args:
            x: noisy images.
            sigma: standard deviation of the noise (B,).
            known: means (B, 1, 28, 28) that are to be mended.
            condition: what else the images are known to be (B, D).
        """
        level = sigma[:, None, None, None]
        shrink = (level.square() + 1).rsqrt()
        phase = sigma.log()[:, None] / 4 * self.frequencies
        vector = self.level(torch.cat([phase.sin(), phase.cos()], 1))
        vector = vector if condition is None else vector + condition
        learned: Tensor = self.network(torch.cat([shrink * x, known], 1), vector)
        return known + level * shrink * learned


def loss_weight(sigma: Tensor) -> Tensor:
    """By how much squared errors of the mean count, so that all levels of noise do alike (equation 6 and table 1)."""
    return 1 + 1 / sigma.square()


def to_model(x: Tensor) -> Tensor:
    """Intensities in [0, 1] as the model sees them: centred, scaled, and black apart."""
    return (torch.where(x > 0, x, -_BELOW_BLACK) - _CENTRE) / _SCALE


def to_intensities(x: Tensor) -> Tensor:
    """What the model draws as intensities in [0, 1]."""
    return (x * _SCALE + _CENTRE).clamp(0, 1)


def noise_levels(steps: int) -> list[float]:
    """The levels at the beginning of each of `steps` steps, and 0 (equation 5)."""
    if steps == 1:
        return [LARGEST, 0.0]
    first, last = LARGEST ** (1 / _BEND), SMALLEST ** (1 / _BEND)
    between = [(first + at / (steps - 1) * (last - first)) ** _BEND for at in range(1, steps)]
    return [LARGEST, *between, 0.0]


class Step(NamedTuple):
    """One step of the solver: the level, the noisy images, and the means that they were taken for."""

    sigma: float
    x: Tensor
    mean: Tensor


def solve(denoise: Callable[[Tensor, float], Tensor], x: Tensor, levels: list[float]) -> Iterator[Step]:
    """The steps from noise to images along the probability-flow differential equation; the last mean is the images.

    Args:
        denoise: gives the mean of images (B, ...), given them with noise of a level.
        x: the beginning: images with noise of the first level.
        levels: falling, the last one 0.
    """
    before: tuple[Tensor, float] | None = None  # the last mean, and the last step on the logarithmic scale
    for sigma, following in pairwise(levels):
        mean = denoise(x, sigma)
        yield Step(sigma, x, mean)
        if following == 0:
            return
        step = math.log(sigma / following)
        ahead = mean if before is None else mean + step / (2 * before[1]) * (mean - before[0])
        x = following / sigma * x - math.expm1(-step) * ahead
        before = (mean, step)


def guide(mean: Tensor, guiding: Tensor, weight: float) -> Tensor:
    """Means pushed away from those of another network (weight > 1), or drawn towards them.

    Ho, Salimans 2022, equation 6, where the other is told no condition; Karras et al. 2024, "Guiding a Diffusion Model
    with a Bad Version of Itself", NeurIPS, where it is a worse one.
    """
    return guiding + weight * (mean - guiding)
