"""How close reconstructions are to their images, all on grey levels (uint8)."""

from typing import NamedTuple

import torch
from torch import Tensor

from generative.data.images import IMAGE_SHAPE
from generative.data.splits import to_unit

_HALF_GREY_LEVEL = 0.5 / 255
_ROUNDING_MSE = 1 / (12 * 255**2)  # what rounding to grey levels alone costs; bounds the PSNR of a perfect copy
_WINDOW, _WIDTH = 11, 1.5  # pixels, of the Gaussian window of the structural similarity
_C1, _C2 = 0.01**2, 0.03**2  # what keeps its quotients finite, for intensities in [0, 1]


class ReconstructionScores(NamedTuple):
    """One value per image, each float64 (N,).

    mse: mean squared error per pixel, intensities in [0, 1]; lower is better.
    bce: binary cross-entropy in nats per image, intensities as Bernoulli probabilities; lower is better.
    bce_floor: the entropy of the image itself: no reconstruction has a lower bce.
    psnr: peak signal-to-noise ratio in dB; higher is better, at most 58.9.
    ssim: structural similarity, at most 1; higher is better.
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
    """Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 13,
    equation 13, averaged over a window around each pixel; the image is mirrored at its edges.
    """
    x, y = (to_unit(part).double().squeeze(1) for part in (images, reconstructions))
    weights = _window()

    def means(values: Tensor) -> Tensor:
        return weights @ values @ weights.T

    mean_x, mean_y = means(x), means(y)
    variance_x, variance_y = means(x * x) - mean_x.square(), means(y * y) - mean_y.square()
    covariance = means(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return (luminance * structure).mean((1, 2))


def _window() -> Tensor:
    """Weights (28, 28) of the pixels of a row (second index) in the mean around each of them (first index)."""
    side = IMAGE_SHAPE[-1]
    offsets = torch.arange(_WINDOW) - _WINDOW // 2
    places = (torch.arange(side).unsqueeze(1) + offsets).abs()
    mirrored = torch.minimum(places, 2 * (side - 1) - places)
    gaussian = torch.softmax(-offsets.double().square() / (2 * _WIDTH**2), dim=0)
    return torch.zeros(side, side, dtype=torch.float64).scatter_add(1, mirrored, gaussian.expand(side, -1))
