"""Encoding: images to latent vectors and back."""

from abc import abstractmethod

import torch
from torch import Tensor

from generative.capabilities.capability import Capability, require_floats, require_images
from generative.data.splits import Split, to_unit

_GRID_TAIL = 0.02  # share of a standard normal prior that a grid leaves out on each side


class EncodesImages(Capability):
    """Images to latent vectors and back."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Latent vectors (B, d) of images `x`; one point, not a draw, where the encoder is stochastic."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) of latent vectors (B, d)."""

    def grid_axis(self, count: int) -> Tensor:
        """Coordinates (count, 2), increasing in each column, that cover a latent plane evenly; asked for if d = 2.

        Here those of a standard normal prior: quantiles at equal steps of probability.
        """
        quantiles = torch.linspace(_GRID_TAIL, 1 - _GRID_TAIL, count, dtype=torch.float64)
        return torch.special.ndtri(quantiles).float().unsqueeze(1).expand(-1, 2)

    def try_out(self, examples: Split, rng: torch.Generator) -> None:
        z = self.encode(to_unit(examples.images))
        require_floats("encode()", z, (len(examples), None))
        require_images("decode()", self.decode(z), len(examples))
        if z.shape[1] == 2:
            require_floats("grid_axis()", self.grid_axis(2), (2, 2))
