"""Autoencoder: an encoder to a few numbers and a decoder back, trained on the squared error alone.

Hinton, Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks", Science 313.
It has no prior. Samples are decoded from a Gaussian mixture fitted to the latents of the training images.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from generative.config import PositiveInt
from generative.data import IMAGE_SHAPE, NUM_PIXELS, Split, to_unit
from generative.density import MixtureDensity
from generative.family import FamilyConfig, GenerativeModel, TrainingObjective
from generative.layers import mlp

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_GRID_TAIL = 0.02  # share of the training latents that the grid leaves out on each side
_ENCODE_BATCH = 5000


class Config(FamilyConfig):
    """Settings of an autoencoder."""

    latent_dim: PositiveInt
    hidden: list[PositiveInt]
    mixture_components: PositiveInt

    def describe(self) -> str:
        sizes = "-".join(map(str, [NUM_PIXELS, *self.hidden, self.latent_dim]))
        return (
            f"deterministic encoder {sizes} and its mirror image as decoder, trained to a small squared error "
            f"({self._describe_schedule()}). It has no prior: samples are decoded from a mixture of "
            f"{self.mixture_components} Gaussians fitted to the training latents."
        )


class Model(GenerativeModel):
    """Encoder x -> z (B, d), decoder z -> x_hat, and the mixture that stands in for a prior."""

    encodes = True
    grid_range: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.encoder = mlp([NUM_PIXELS, *config.hidden, config.latent_dim])
        self.decoder = mlp([config.latent_dim, *reversed(config.hidden), NUM_PIXELS])
        self.prior = MixtureDensity(config.mixture_components, config.latent_dim)
        self.register_buffer("grid_range", torch.zeros(2, config.latent_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions x_hat (B, 1, 28, 28) of images `x`."""
        return self.decode(self.encode(x))

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(x.flatten(1))
        return z

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(z)).view(-1, *IMAGE_SHAPE)

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        return self.decode(self.prior.sample(len(labels), rng))

    def grid_axis(self, count: int) -> Tensor:
        low, high = self.grid_range
        steps = torch.linspace(0, 1, count, device=low.device).unsqueeze(1)
        return low + steps * (high - low)


class Objective(TrainingObjective):
    """Squared error, summed over the pixels and averaged over the batch."""

    losses = ("squared_error",)

    def __init__(self, model: Model, config: Config, fabric: "Fabric", total_steps: int) -> None:
        self.raw_model = model
        self.seed = config.seed
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
        self.model, self.optimizer = fabric.setup(model, optimizer)
        self.fabric = fabric

    def step(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        loss = squared_error(self.model(x), x).mean()
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        return {"squared_error": loss.detach()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        loss = squared_error(self.model(x), x).mean()
        return {"squared_error": loss, "mse_x1000": 1000 * loss / NUM_PIXELS}

    @torch.no_grad()
    def finish(self, train: Split) -> None:
        z = torch.cat([self.raw_model.encode(to_unit(images)) for images in train.images.split(_ENCODE_BATCH)])
        self.raw_model.prior.fit(z, self.seed)
        tails = torch.tensor([_GRID_TAIL, 1 - _GRID_TAIL], device=z.device)
        self.raw_model.grid_range.copy_(torch.quantile(z, tails, dim=0))

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Squared error summed over the pixels of each image, (B,)."""
    return (x_hat - x).square().flatten(1).sum(1)
