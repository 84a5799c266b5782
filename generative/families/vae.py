"""Variational autoencoder with a Gaussian posterior, a standard normal prior and a Gaussian likelihood.

Kingma, Welling 2014, "Auto-Encoding Variational Bayes", ICLR. The likelihood is N(x; x_hat, s^2 I): with
s^2 = 1/2 its loss is the summed squared error plus a constant; `calibrated` sets s^2 to the mean squared
error itself, its maximum-likelihood value (Rybkin, Daniilidis, Levine 2021, "Simple and Effective VAE
Training with Calibrated Decoders", ICML: the optimal sigma-VAE).
"""

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from generative.config import PositiveFloat, PositiveInt
from generative.data import IMAGE_SHAPE, NUM_PIXELS, Split, to_unit
from generative.family import FamilyConfig, GenerativeModel, LikelihoodBound, TrainingObjective
from generative.layers import mlp
from generative.runtime import make_rng

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_GRID_TAIL = 0.02  # share of the prior that the grid leaves out on each side
_VARIANCE_BATCH = 5000


class Config(FamilyConfig):
    """Settings of a variational autoencoder."""

    latent_dim: PositiveInt
    hidden: list[PositiveInt]
    decoder_variance: Literal["calibrated"] | PositiveFloat

    def describe(self) -> str:
        sizes = "-".join(map(str, [NUM_PIXELS, *self.hidden, self.latent_dim]))
        return (
            f"encoder {sizes} to the mean and variance of a Gaussian posterior, decoder with a Gaussian likelihood "
            f"(variance {self.decoder_variance}), trained on the evidence lower bound with the closed-form KL to "
            f"N(0, I) ({self._describe_schedule()}). Samples are decoded from the prior."
        )


class Model(GenerativeModel):
    """Encoder x -> (mu, logvar), each (B, d); decoder z -> x_hat; the variance of the likelihood."""

    encodes = True
    has_likelihood = True
    variance: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.encoder = mlp([NUM_PIXELS, *config.hidden, 2 * config.latent_dim])
        self.decoder = mlp([config.latent_dim, *reversed(config.hidden), NUM_PIXELS])
        fixed = config.decoder_variance
        self.register_buffer("variance", torch.tensor(1.0 if fixed == "calibrated" else fixed))

    def forward(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstructions x_hat from z = mu + exp(logvar / 2) * eps, with mu and logvar."""
        mu, logvar = self.posterior(x)
        return self.decode(mu + torch.exp(logvar / 2) * eps), mu, logvar

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (B, d), of q(z | x)."""
        mu, logvar = self.encoder(x.flatten(1)).chunk(2, dim=1)
        return mu, logvar

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(z)).view(-1, *IMAGE_SHAPE)

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        return self.decode(torch.randn(len(labels), self.config.latent_dim, generator=rng, device=rng.device))

    def grid_axis(self, count: int) -> Tensor:
        quantiles = torch.linspace(_GRID_TAIL, 1 - _GRID_TAIL, count, dtype=torch.float64)
        return torch.special.ndtri(quantiles).float().unsqueeze(1).expand(-1, self.config.latent_dim)

    def likelihood_bound(self, x: Tensor, rng: torch.Generator) -> LikelihoodBound:
        eps = torch.randn(len(x), self.config.latent_dim, generator=rng, device=rng.device)
        x_hat, mu, logvar = self(x, eps)
        return LikelihoodBound(gaussian_nll(x, x_hat, self.variance), kl_to_standard_normal(mu, logvar))


class Objective(TrainingObjective):
    """Negative evidence lower bound, one posterior sample per image, averaged over the batch."""

    losses = ("loss",)

    def __init__(self, model: Model, config: Config, fabric: "Fabric", total_steps: int) -> None:
        self.raw_model = model
        self.config = config
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
        self.model, self.optimizer = fabric.setup(model, optimizer)
        self.fabric = fabric

    def step(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        terms = self._terms(x, rng)
        self.optimizer.zero_grad()
        self.fabric.backward(terms["loss"])
        self.optimizer.step()
        return {key: term.detach() for key, term in terms.items()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        x_hat = self.raw_model.decode(self.raw_model.encode(x))
        return self._terms(x, rng) | {"mse_x1000": 1000 * (x_hat - x).square().mean()}

    def _terms(self, x: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        eps = torch.randn(len(x), self.config.latent_dim, generator=rng, device=rng.device)
        x_hat, mu, logvar = self.model(x, eps)
        if self.config.decoder_variance == "calibrated":
            variance = (x_hat - x).square().mean()
        else:
            variance = self.raw_model.variance
        loss_recon = gaussian_nll(x, x_hat, variance).mean()
        loss_kl = kl_to_standard_normal(mu, logvar).mean()
        return {"loss": loss_recon + loss_kl, "loss_recon": loss_recon, "loss_kl": loss_kl}

    @torch.no_grad()
    def finish(self, train: Split) -> None:
        """Set a calibrated variance to its maximum-likelihood value on the training split."""
        if self.config.decoder_variance != "calibrated":
            return
        rng = make_rng(self.config.seed, train.images.device)
        total = 0.0
        for images in train.images.split(_VARIANCE_BATCH):
            x = to_unit(images)
            eps = torch.randn(len(x), self.config.latent_dim, generator=rng, device=rng.device)
            total += (self.raw_model(x, eps)[0] - x).square().sum().item()
        self.raw_model.variance.fill_(total / train.images.numel())

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


def gaussian_nll(x: Tensor, x_hat: Tensor, variance: Tensor) -> Tensor:
    """-log N(x; x_hat, variance I) of each image, (B,), in nats per image; `variance` is a scalar."""
    squared_error = (x - x_hat).square().flatten(1).sum(1)
    return (squared_error / variance + NUM_PIXELS * torch.log(2 * math.pi * variance)) / 2


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, I)), (B,), in nats per image; Kingma & Welling 2014, appendix B."""
    return (mu.square() + logvar.exp() - 1 - logvar).sum(1) / 2
