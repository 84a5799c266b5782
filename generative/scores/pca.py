"""What a linear method reaches: principal component analysis with as many components as a model has latents.

Pearson 1901, "On Lines and Planes of Closest Fit to Systems of Points in Space", Philosophical Magazine 2: no
linear encoder and decoder have a smaller squared error on the images that they are fitted to.
"""

import torch
from torch import Tensor

from generative.compute.portable import matmul
from generative.data.splits import to_unit


def pca_error(train: Tensor, test: Tensor, components: int) -> Tensor:
    """Mean squared error per pixel, intensities in [0, 1], of each of `test` (M, 1, 28, 28), uint8: float64 (M,).

    Fitted to `train`, uint8 (N, 1, 28, 28), in float64; `components` is at most 784.
    """
    fitted = to_unit(train).flatten(1)
    mean = fitted.mean(0)
    _, vectors = torch.linalg.eigh(matmul((fitted - mean).T, fitted - mean).double())
    basis = vectors[:, -components:]  # eigenvalues ascend
    centred = (to_unit(test).flatten(1) - mean).double()
    residual = centred - centred @ basis @ basis.T
    return residual.square().mean(1)
