"""Variational autoencoder whose reconstructions a discriminator has to take for real images.

Larsen, Sønderby, Larochelle, Winther 2016, "Autoencoding beyond Pixels Using a Learned Similarity Metric", ICML. There
the discriminator's features take the place of the pixels in the likelihood; here the Gaussian likelihood of the pixels
stays, with a fixed variance, and the generator's loss is added to the negative evidence lower bound. Of all images that
a latent vector leaves possible a VAE decodes the mean, which is blurred; this one decodes something that looks like one
of them. So the bound is not what is maximised: it is reported as it comes out, and holds, but lower than it could be.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import field_validator
from torch import Tensor, nn

from generative.compute.runtime import draw_noise, draw_normal, make_rng
from generative.config import Fraction, PositiveFloat, PositiveInt
from generative.data.images import NUM_PIXELS
from generative.data.splits import Split, to_unit
from generative.networks.coders import EncoderSettings
from generative.networks.convolutional import Discriminator, Generator
from generative.training import autoencoding, convolutional
from generative.training.adversarial import discriminator_loss, frozen, generator_loss
from generative.training.averaging import estimate_statistics
from generative.training.convolutional import PenalisedTraining, lazy_r1, round_to_grey_levels
from generative.training.schedules import Decay
from generative.training.variational import VariationalConfig, VariationalModel, VariationalObjective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_CODERS: dict[str, Any] = autoencoding.SMALL
SMALL = _CODERS | {
    "training": _CODERS["training"]
    | {"discriminator_channels": convolutional.SMALL["discriminator_channels"], "r1_interval": 4}
}
_STATISTICS_BATCH, _STATISTICS_BATCHES = 1000, 20  # of training images, for the final normalisations


class Training(EncoderSettings, PenalisedTraining):
    """Settings of the three networks and of their losses; the first four of EncoderSettings are the encoder's."""

    channels: PositiveInt  # of the encoder, and of the decoder at 14 x 14
    decay: Decay
    decoder_variance: PositiveFloat
    discriminator_channels: PositiveInt
    discriminator_beta1: Fraction
    discriminator_beta2: Fraction
    adversarial_weight: PositiveFloat  # of the discriminator's verdict, in nats for each pixel

    @field_validator("decoder_variance", mode="before")
    @classmethod
    def _variance_is_fixed(cls, value: Any) -> Any:
        if value == "calibrated":
            raise ValueError(
                "must be a number: a calibrated variance would grow with the error that the discriminator asks for"
            )
        return value


class Config(VariationalConfig):
    """Settings of a variational autoencoder with a discriminator."""

    training: Training
    footnotes: ClassVar[dict[str, str]] = {
        "iw_bound": "trained to convince a discriminator too, with a fixed variance: lower than it could be"
    }

    def describe(self) -> str:
        training = self.training
        return (
            f"{training.describe_networks()} to the mean and variance of a Gaussian posterior, convolutional decoder "
            f"with a Gaussian likelihood (variance {training.decoder_variance:g}), trained on the evidence lower bound "
            f"and, with weight {training.adversarial_weight:g} for each pixel, against a discriminator of the "
            f"reconstructions with the non-saturating logistic loss{training.describe_penalty()} "
            f"({training.describe_schedule()}).{self.describe_samples()}"
        )

    def own_sources(self) -> list[str]:
        return [
            "Larsen et al. 2016, autoencoding beyond pixels using a learned similarity metric, ICML",
            "Goodfellow et al. 2014, generative adversarial nets, NeurIPS",
            *convolutional.SOURCES,
            *self.training.penalty_sources(),
        ]


class Model(VariationalModel):
    """As decoder it has the generator of a GAN; the discriminator is needed for training alone."""

    def build_decoder(self, config: Any) -> nn.Module:
        return Generator(config.latent_dim, config.channels, num_classes=0)

    def decode(self, z: Tensor) -> Tensor:
        x_hat: Tensor = self.decoder(z, _no_labels(z))
        return x_hat


class Objective(VariationalObjective):
    """Updates in turn of the discriminator, and of encoder and decoder on the bound and on its verdict."""

    losses: Mapping[str, str] = {
        **VariationalObjective.losses,
        "loss_g": "decoder: logistic loss, nats",
        "loss_d": "discriminator: logistic loss, nats",
    }

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        self.raw_discriminator = Discriminator(config.discriminator_channels)
        betas = (config.discriminator_beta1, config.discriminator_beta2)
        adam = torch.optim.Adam(self.raw_discriminator.parameters(), lr=config.learning_rate, betas=betas, fused=True)
        self.discriminator, self.optimizer_d = self.optimise(self.raw_discriminator, adam, config.decay)

    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        x_hat, mu, logvar = self.network(x, draw_noise((len(x), self.config.latent_dim), rng, self.fabric))
        x_fake = round_to_grey_levels(x_hat)

        logits_real, logits_fake = self.discriminator(torch.cat([x, x_fake.detach()])).chunk(2)
        loss_d = discriminator_loss(logits_real, logits_fake, "logistic")
        self.descend(self.optimizer_d, loss_d + lazy_r1(self.config, self.steps, self.raw_discriminator, x))

        with frozen(self.raw_discriminator), self.fabric.autocast():
            logits_fake = self.raw_discriminator(x_fake)
        loss_g = generator_loss(logits_fake.float(), "logistic")
        terms = self.bound(x, x_hat, mu, logvar)
        self.descend(self.optimizer, terms["loss"] + self.config.adversarial_weight * NUM_PIXELS * loss_g)
        return {key: value.detach() for key, value in (terms | {"loss_g": loss_g, "loss_d": loss_d}).items()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        x_hat, mu, logvar = self.network(x, draw_normal((len(x), self.config.latent_dim), rng))
        logits_real, logits_fake = self.discriminator(x), self.discriminator(round_to_grey_levels(x_hat))
        return self.bound(x, x_hat, mu, logvar) | {
            "mse_x1000": 1000 * (self.reconstruct(x) - x).square().mean(),
            "loss_g": generator_loss(logits_fake, "logistic"),
            "loss_d": discriminator_loss(logits_real, logits_fake, "logistic"),
        }

    @torch.no_grad()
    def finish(self, train: Split) -> None:
        """Measure the decoder's normalisations anew, on posterior samples of training images."""
        model, rng = self.raw_model, make_rng(self.config.seed, train.images.device)
        images = train.images[: _STATISTICS_BATCH * _STATISTICS_BATCHES]
        parts = images.tensor_split(-(-len(images) // _STATISTICS_BATCH))
        latents = (model.draw_latents(to_unit(part), rng) for part in parts)
        estimate_statistics(model.decoder, ((z, _no_labels(z)) for z in latents))


def _no_labels(z: Tensor) -> Tensor:
    return torch.zeros(len(z), dtype=torch.int64, device=z.device)
