"""Autoencoder: an encoder to a few numbers and a decoder back, trained on the squared error alone.

Hinton, Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks", Science 313.
It has no prior. Samples are decoded from a Gaussian mixture fitted to the latents of the training images.
"""

import torch
from torch import Tensor

from generative.coders import CoderConfig, CoderObjective, make_decoder, make_encoder, refine
from generative.config import PositiveInt
from generative.data import NUM_PIXELS, Split, to_unit
from generative.density import MixtureDensity
from generative.family import GenerativeModel

_GRID_TAIL = 0.02  # share of the training latents that the grid leaves out on each side
_ENCODE_BATCH = 5000


class Config(CoderConfig):
    """Settings of an autoencoder."""

    mixture_components: PositiveInt

    def describe(self) -> str:
        return (
            f"deterministic {self.describe_networks()} and its mirror image as decoder, trained to a small squared "
            f"error ({self._describe_schedule()}). It has no prior: samples are decoded from a mixture of "
            f"{self.mixture_components} Gaussians fitted to the training latents.{self.describe_refinement()}"
        )


class Model(GenerativeModel):
    """Encoder x -> z (B, d), decoder z -> x_hat, and the mixture that stands in for a prior."""

    encodes = True
    grid_range: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.encoder = make_encoder(config, config.latent_dim)
        self.decoder = make_decoder(config)
        self.density = MixtureDensity(config.mixture_components, config.latent_dim)
        self.register_buffer("grid_range", torch.zeros(2, config.latent_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions x_hat (B, 1, 28, 28) of images `x`."""
        return self.decode(self.encoder(x))

    def encode(self, x: Tensor) -> Tensor:
        return refine(self.encoder(x), x, self._loss, self.config.refine_steps)

    def _loss(self, z: Tensor, x: Tensor) -> Tensor:
        return squared_error(self.decode(z), x)

    def decode(self, z: Tensor) -> Tensor:
        x_hat: Tensor = self.decoder(z)
        return x_hat

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        return self.decode(self.density.sample(len(labels), rng))

    def grid_axis(self, count: int) -> Tensor:
        low, high = self.grid_range
        steps = torch.linspace(0, 1, count, device=low.device).unsqueeze(1)
        return low + steps * (high - low)


class Objective(CoderObjective):
    """Squared error, summed over the pixels and averaged over the batch."""

    losses = ("squared_error",)

    def terms(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {"squared_error": squared_error(self.network(x), x).mean()}

    def reconstruct(self, x: Tensor) -> Tensor:
        x_hat: Tensor = self.raw_model(x)
        return x_hat

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        loss = squared_error(self.network(x), x).mean()
        return {"squared_error": loss, "mse_x1000": 1000 * loss / NUM_PIXELS}

    @torch.no_grad()
    def finish(self, train: Split) -> None:
        """Fit the density, and note what range the latents cover."""
        z = torch.cat([self.raw_model.encoder(to_unit(images)) for images in train.images.split(_ENCODE_BATCH)])
        self.raw_model.density.fit(z, self.config.seed)
        tails = torch.tensor([_GRID_TAIL, 1 - _GRID_TAIL], device=z.device)
        self.raw_model.grid_range.copy_(torch.quantile(z, tails, dim=0))


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Squared error summed over the pixels of each image, (B,)."""
    return (x_hat - x).square().flatten(1).sum(1)
