"""The plane in which latent vectors are drawn."""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class Plane(NamedTuple):
    """Points float (N, 2), what they are, and the names of both axes."""

    points: Tensor
    title: str
    axes: tuple[str, str]

    @classmethod
    def of(cls, z: Tensor) -> Self:
        """Latent vectors `z` (N, d) themselves if d is 1 or 2, else their first two principal components."""
        if z.shape[1] == 2:
            return cls(z, "test images in the latent space", ("latent $z_1$", "latent $z_2$"))
        if z.shape[1] == 1:
            return cls(torch.cat([z, torch.zeros_like(z)], 1), "test images in the latent space", ("latent $z_1$", ""))
        centred = z.double() - z.double().mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(centred.T))
        share = float(values[-2:].sum() / values.sum())
        title = f"first 2 principal components of {z.shape[1]} ({share:.0%} of the variance)"
        vectors = vectors[:, [-1, -2]]
        vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()  # eigenvectors have no sign
        return cls((centred @ vectors).float(), title, ("component 1", "component 2"))
