"""What the families of variational autoencoders share: settings, model, objective, and the terms of the bound.

Kingma, Welling 2014, "Auto-Encoding Variational Bayes", ICLR.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative.capabilities.encoding import EncodesImages
from generative.capabilities.likelihood import Likelihood, WeighsPosteriorSamples
from generative.capabilities.sampling import DrawsSamples
from generative.compute.batching import in_batches
from generative.compute.runtime import average, draw_noise, draw_normal, make_rng
from generative.data.images import NUM_PIXELS
from generative.data.splits import Split, to_unit
from generative.family import FamilyConfig, GenerativeModel
from generative.networks.coders import make_encoder, refine
from generative.networks.losses import squared_error
from generative.networks.mixture import Mixture
from generative.training.autoencoding import AutoencodingObjective, AutoencodingSampling

_LATENTS_BATCH = 5000


class VariationalConfig(FamilyConfig):
    """Settings of a variational autoencoder; without components of a mixture it samples from the prior."""

    sampling: AutoencodingSampling

    def describe_samples(self) -> str:
        """Sentences about where samples come from and how images are encoded, with a space before them."""
        source = "the prior"
        if self.sampling.mixture_components:
            source = f"a mixture of {self.sampling.mixture_components} Gaussians fitted to the training latents"
        return f" Samples are decoded from {source}.{self.sampling.describe_refinement()}"

    def sources(self) -> list[str]:
        found = ["Kingma, Welling 2014, auto-encoding variational Bayes, ICLR", *self.own_sources()]
        if self.sampling.mixture_components:
            found.append("Dai, Wipf 2019, diagnosing and enhancing VAE models, ICLR")
        return [*found, *self.sampling.sources()]

    @abstractmethod
    def own_sources(self) -> list[str]:
        """The papers that this family implements beside those of every variational autoencoder."""


class VariationalModel(GenerativeModel, DrawsSamples, EncodesImages, WeighsPosteriorSamples):
    """Encoder x -> (mu, logvar), each (B, d); decoder z -> x_hat; the variance of the likelihood."""

    variance: Tensor

    def __init__(self, config: Any, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.encoder = make_encoder(config, 2 * config.latent_dim)
        self.decoder = self.build_decoder(config)
        fixed = config.decoder_variance
        self.register_buffer("variance", torch.tensor(1.0 if fixed == "calibrated" else fixed))

    @abstractmethod
    def build_decoder(self, config: Any) -> nn.Module:
        """A network from latent vectors (B, d), or what else `decode` gives it, to images (B, 1, 28, 28)."""

    @torch.no_grad()
    def prepare_sampling(self, sampling: Any, train: Split) -> None:
        """Fit the density to posterior samples of the training images."""
        super().prepare_sampling(sampling, train)
        if sampling.mixture_components:
            rng = make_rng(self.config.seed, train.images.device)
            z = in_batches(lambda images: self.draw_latents(to_unit(images), rng), train.images, _LATENTS_BATCH)
            self.density = Mixture.fit(z, sampling.mixture_components, self.config.seed)

    def fitted(self) -> dict[str, Tensor]:
        return vars(self.density) if self.sampling.mixture_components else {}

    def restore_sampling(self, sampling: Any, fitted: dict[str, Tensor]) -> None:
        super().restore_sampling(sampling, fitted)
        if sampling.mixture_components:
            self.density = Mixture(**fitted)

    def forward(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstructions x_hat from z = mu + exp(logvar / 2) * eps, with mu and logvar."""
        mu, logvar = self.posterior(x)
        return self.decode(reparametrise(mu, logvar, eps)), mu, logvar

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (B, d), of q(z | x).

        The log-variance is the encoder's output where that is negative, and bends off to at most 1 above: a
        posterior wider than the prior has no use, but one overflowing exponential would end the training.
        """
        mu, raw = self.encoder(x).chunk(2, dim=1)
        return mu, -F.elu(-raw)

    def draw_latents(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """One draw (B, d) from q(z | x) of each image."""
        mu, logvar = self.posterior(x)
        return reparametrise(mu, logvar, draw_normal(mu.shape, rng))

    def encode(self, x: Tensor) -> Tensor:
        return refine(self.posterior(x)[0], x, self._loss, self.sampling.refine_steps)

    def _loss(self, z: Tensor, x: Tensor) -> Tensor:
        """-log p(x, z) of each image, up to a constant."""
        return gaussian_nll(x, self.decode(z), self.variance) + z.square().sum(1) / 2

    def decode(self, z: Tensor) -> Tensor:
        x_hat: Tensor = self.decoder(z)
        return x_hat

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        if self.sampling.mixture_components:
            return self.decode(self.density.sample(len(labels), rng))
        return self.decode(draw_normal((len(labels), self.config.latent_dim), rng))

    def log_likelihood(self, x: Tensor, rng: torch.Generator) -> Likelihood:
        """The evidence lower bound, with one posterior sample for each image."""
        x_hat, mu, logvar = self(x, draw_normal((len(x), self.config.latent_dim), rng))
        parts = {"loss_recon": gaussian_nll(x, x_hat, self.variance), "loss_kl": kl_to_standard_normal(mu, logvar)}
        return Likelihood(-(parts["loss_recon"] + parts["loss_kl"]), parts)

    def posterior_means(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def log_weights(self, x: Tensor, count: int, rng: torch.Generator) -> Tensor:
        mu, logvar = (value.repeat_interleave(count, 0) for value in self.posterior(x))  # (B count, d)
        eps = draw_normal(mu.shape, rng)
        z = reparametrise(mu, logvar, eps)
        log_likelihood = -gaussian_nll(x.repeat_interleave(count, 0), self.decode(z), self.variance)
        log_ratio = (eps.square() + logvar - z.square()).sum(1) / 2  # log p(z) - log q(z | x)
        return (log_likelihood + log_ratio).view(len(x), count)


class VariationalObjective(AutoencodingObjective):
    """Negative evidence lower bound, one posterior sample per image, averaged over the batch."""

    losses: Mapping[str, str] = {"loss": "negative evidence lower bound, nats per image"}

    def reconstruct(self, x: Tensor) -> Tensor:
        x_hat: Tensor = self.raw_model.decode(self.raw_model.posterior(x)[0])
        return x_hat

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        eps = draw_normal((len(x), self.config.latent_dim), rng)
        mse = (self.reconstruct(x) - x).square().mean()
        return self.bound(x, *self.network(x, eps)) | {"mse_x1000": 1000 * mse}

    def terms(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return self.bound(x, *self.network(x, draw_noise((len(x), self.config.latent_dim), rng, self.fabric)))

    def bound(self, x: Tensor, x_hat: Tensor, mu: Tensor, logvar: Tensor) -> dict[str, Tensor]:
        """The loss and its two parts, of images `x` and what the model makes of them."""
        variance = self.raw_model.variance
        if self.config.decoder_variance == "calibrated":  # at its optimum, where it adds nothing to the gradient
            variance = average((x_hat.detach() - x).square().mean(), self.fabric)
        loss_recon = gaussian_nll(x, x_hat, variance).mean()
        loss_kl = kl_to_standard_normal(mu, logvar).mean()
        return {"loss": loss_recon + loss_kl, "loss_recon": loss_recon, "loss_kl": loss_kl}


def reparametrise(mu: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """Draws (B, d) from N(mu, exp(logvar)) made of standard normal `eps`; Kingma & Welling 2014, section 2.4."""
    return mu + torch.exp(logvar / 2) * eps


def gaussian_nll(x: Tensor, x_hat: Tensor, variance: Tensor) -> Tensor:
    """-log N(x; x_hat, variance I) of each image, (B,), in nats per image; `variance` is a scalar."""
    return (squared_error(x_hat, x) / variance + NUM_PIXELS * torch.log(2 * math.pi * variance)) / 2


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, I)), (B,), in nats per image; Kingma & Welling 2014, appendix B."""
    return (mu.square() + logvar.exp() - 1 - logvar).sum(1) / 2
