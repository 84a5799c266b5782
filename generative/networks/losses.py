"""Losses that several networks share."""

from torch import Tensor


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Squared error summed over the pixels of each image (B, 1, 28, 28): (B,)."""
    return (x_hat - x).square().flatten(1).sum(1)
