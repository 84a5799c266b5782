"""Variational autoencoder with a Gaussian posterior, a standard normal prior and a Gaussian likelihood.

Kingma, Welling 2014, "Auto-Encoding Variational Bayes", ICLR. The likelihood is N(x; x_hat, s^2 I): with
s^2 = 1/2 its loss is the summed squared error plus a constant; `calibrated` sets s^2 to the mean squared
error itself, its maximum-likelihood value (Rybkin, Daniilidis, Levine 2021, "Simple and Effective VAE
Training with Calibrated Decoders", ICML: the optimal sigma-VAE). Samples come from the prior, or from a Gaussian
mixture fitted to the posterior samples of the training images, which do not fill the prior evenly (Dai, Wipf
2019, "Diagnosing and Enhancing VAE Models", ICLR).
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative.compute.runtime import make_rng
from generative.config import PositiveFloat
from generative.data.splits import Split, to_unit
from generative.networks.coders import make_decoder
from generative.networks.losses import squared_error
from generative.training.autoencoding import SMALL as SMALL
from generative.training.autoencoding import AutoencodingTraining, plain_autoencoding_step
from generative.training.variational import VariationalConfig, VariationalModel, VariationalObjective

_FINISH_BATCH = 5000


class Training(AutoencodingTraining):
    """Settings of the networks and of the likelihood."""

    decoder_variance: Literal["calibrated"] | PositiveFloat


class Config(VariationalConfig):
    """Settings of a variational autoencoder whose decoder mirrors the encoder."""

    training: Training

    def describe(self) -> str:
        return (
            f"{self.training.describe_networks()} to the mean and variance of a Gaussian posterior, decoder with a "
            f"Gaussian likelihood (variance {self.training.decoder_variance}), trained on the evidence lower bound "
            f"with the closed-form KL to N(0, I) ({self.training.describe_schedule()}).{self.describe_samples()}"
        )

    def own_sources(self) -> list[str]:
        if self.training.decoder_variance != "calibrated":
            return []
        return ["Rybkin et al. 2021, simple and effective VAE training with calibrated decoders, ICML"]


class Model(VariationalModel):
    """Encoder and decoder are mirror images."""

    def build_decoder(self, config: Any) -> nn.Module:
        return make_decoder(config)


class Objective(VariationalObjective):
    """The negative evidence lower bound, with a variance that can be calibrated."""

    @torch.no_grad()
    def finish(self, train: Split) -> None:
        """Set a calibrated variance to its maximum-likelihood value."""
        if self.config.decoder_variance != "calibrated":
            return
        rng = make_rng(self.config.seed, train.images.device)
        total = 0.0
        for images in train.images.split(_FINISH_BATCH):
            x = to_unit(images)
            total += squared_error(self.raw_model.decode(self.raw_model.draw_latents(x, rng)), x).sum().item()
        self.raw_model.variance.fill_(total / train.images.numel())


def plain_step(config: Any, num_classes: int, device: torch.device) -> Any:
    """The update of a first tutorial for the same networks."""

    def loss(model: Model, x: Tensor) -> Tensor:
        x_hat, mu, logvar = model(x, torch.randn(len(x), config.latent_dim, device=device))
        divergence = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return F.mse_loss(x_hat, x, reduction="sum") + divergence

    return plain_autoencoding_step(Model(config, num_classes), config, device, loss)
