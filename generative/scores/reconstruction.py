"""How close reconstructions are to their images, all on grey levels (uint8)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from generative.data import to_unit

_HALF_GREY_LEVEL = 0.5 / 255
_ROUNDING_MSE = 1 / (12 * 255**2)  # what rounding to grey levels alone costs; bounds the PSNR of a perfect copy
_SSIM_BATCH = 1000


class ReconstructionScores(NamedTuple):
    """One value per image, each float64 (N,).

    mse: mean squared error per pixel, intensities in [0, 1]; lower is better.
    bce: binary cross-entropy in nats per image, intensities as Bernoulli probabilities; lower is better.
    bce_floor: the entropy of the image itself: no reconstruction has a lower bce.
    psnr: peak signal-to-noise ratio in dB; higher is better, at most 58.9.
    ssim: structural similarity, at most 1 (Wang et al. 2004, "Image Quality Assessment", IEEE TIP); higher
        is better; 11 x 11 Gaussian window of width 1.5.
    """

    mse: Tensor
    bce: Tensor
    bce_floor: Tensor
    psnr: Tensor
    ssim: Tensor


def reconstruction_scores(images: Tensor, reconstructions: Tensor) -> ReconstructionScores:
    """Score `reconstructions` against `images`, both uint8 (N, 1, 28, 28)."""
    x, x_hat = to_unit(images).double().flatten(1), to_unit(reconstructions).double().flatten(1)
    mse = (x - x_hat).square().mean(1)
    # A grey level stands for an interval: 0 and 255 are taken half a level inside, so that the logarithm is finite.
    probability = x_hat.clamp(_HALF_GREY_LEVEL, 1 - _HALF_GREY_LEVEL)
    bce = -(x * probability.log() + (1 - x) * (1 - probability).log()).sum(1)
    bce_floor = torch.special.entr(x).sum(1) + torch.special.entr(1 - x).sum(1)
    psnr = -10 * mse.clamp(min=_ROUNDING_MSE).log10()
    return ReconstructionScores(mse, bce, bce_floor, psnr, _ssim(images, reconstructions))


def _ssim(images: Tensor, reconstructions: Tensor) -> Tensor:
    parts = []
    for x, x_hat in zip(images.split(_SSIM_BATCH), reconstructions.split(_SSIM_BATCH), strict=True):
        value = structural_similarity_index_measure(to_unit(x_hat), to_unit(x), data_range=1.0, reduction="none")
        assert isinstance(value, Tensor)
        parts.append(value.double().view(-1))
    return torch.cat(parts)
