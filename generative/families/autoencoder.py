"""Autoencoder: an encoder to a few numbers and a decoder back, trained on the squared error alone.

Hinton, Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks", Science 313.
It has no prior. Samples are decoded from a Gaussian mixture fitted to the latents of the training images.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from generative.capabilities.encoding import EncodesImages
from generative.capabilities.sampling import DrawsSamples
from generative.compute.batching import in_batches
from generative.config import PositiveInt
from generative.data.images import NUM_PIXELS
from generative.data.splits import Split, to_unit
from generative.family import FamilyConfig, GenerativeModel
from generative.networks.coders import make_decoder, make_encoder, refine
from generative.networks.losses import squared_error
from generative.networks.mixture import Mixture
from generative.training.autoencoding import SMALL as SMALL
from generative.training.autoencoding import (
    AutoencodingObjective,
    AutoencodingSampling,
    AutoencodingTraining,
    plain_autoencoding_step,
)

_GRID_TAIL = 0.02  # share of the training latents that the grid leaves out on each side
_ENCODE_BATCH = 5000


class Sampling(AutoencodingSampling):
    """An autoencoder has no prior to sample from instead of the mixture."""

    mixture_components: PositiveInt


class Config(FamilyConfig):
    """Settings of an autoencoder."""

    training: AutoencodingTraining
    sampling: Sampling

    def describe(self) -> str:
        return (
            f"deterministic {self.training.describe_networks()} and its mirror image as decoder, trained to a small "
            f"squared error ({self.training.describe_schedule()}). It has no prior: samples are decoded from a mixture "
            f"of {self.sampling.mixture_components} Gaussians fitted to the training latents."
            f"{self.sampling.describe_refinement()}"
        )

    def sources(self) -> list[str]:
        return [
            "Hinton, Salakhutdinov 2006, reducing the dimensionality of data, Science 313",
            *self.sampling.sources(),
        ]


class Model(GenerativeModel, DrawsSamples, EncodesImages):
    """Encoder x -> z (B, d), decoder z -> x_hat."""

    def __init__(self, config: AutoencodingTraining, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.encoder = make_encoder(config, config.latent_dim)
        self.decoder = make_decoder(config)

    @torch.no_grad()
    def prepare_sampling(self, sampling: Any, train: Split) -> None:
        """Fit the density, and note what range the latents cover."""
        super().prepare_sampling(sampling, train)
        z = in_batches(lambda images: self.encoder(to_unit(images)), train.images, _ENCODE_BATCH)
        self.density = Mixture.fit(z, sampling.mixture_components, self.config.seed)
        tails = torch.tensor([_GRID_TAIL, 1 - _GRID_TAIL], device=z.device)
        self.grid_range = torch.quantile(z, tails, dim=0)

    def fitted(self) -> dict[str, Tensor]:
        return vars(self.density) | {"grid_range": self.grid_range}

    def restore_sampling(self, sampling: Any, fitted: dict[str, Tensor]) -> None:
        super().restore_sampling(sampling, fitted)
        self.grid_range = fitted["grid_range"]
        self.density = Mixture(**{key: tensor for key, tensor in fitted.items() if key != "grid_range"})

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions x_hat (B, 1, 28, 28) of images `x`."""
        return self.decode(self.encoder(x))

    def encode(self, x: Tensor) -> Tensor:
        return refine(self.encoder(x), x, self._loss, self.sampling.refine_steps)

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


class Objective(AutoencodingObjective):
    """Squared error, summed over the pixels and averaged over the batch."""

    losses: Mapping[str, str] = {"squared_error": "squared error, summed over the pixels"}

    def terms(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {"squared_error": squared_error(self.network(x), x).mean()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        terms = self.terms(x, y, rng)
        return terms | {"mse_x1000": 1000 * terms["squared_error"] / NUM_PIXELS}

    def reconstruct(self, x: Tensor) -> Tensor:
        x_hat: Tensor = self.raw_model(x)
        return x_hat


def plain_step(config: Any, num_classes: int, device: torch.device) -> Any:
    """The update of a first tutorial for the same networks."""
    return plain_autoencoding_step(
        Model(config, num_classes), config, device, lambda model, x: F.mse_loss(model(x), x, reduction="sum")
    )
