"""Unconditional GAN: a generator against a discriminator, neither of which sees a label.

Goodfellow et al. 2014, "Generative Adversarial Nets", NeurIPS, with the non-saturating logistic loss of section 3 and,
every few steps, the gradient penalty R1 on real images (Mescheder, Geiger, Nowozin 2018, "Which Training Methods for
GANs do actually Converge?", ICML, equation 9). Samples come from an exponential moving average of the generator.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from generative.config import Fraction, NonNegativeFloat, PositiveInt
from generative.family import FamilyConfig, TrainingConfig
from generative.networks.convolutional import BatchNorm, Discriminator, Generator
from generative.training.adversarial import (
    AdversarialModel,
    AdversarialObjective,
    discriminator_loss,
    generator_loss,
    plain_adversarial_step,
    r1_penalty,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {
    "training": {
        "epochs": 3,
        "batch_size": 40,
        "channels": 8,
        "latent_dim": 2,
        "ema_decay": 0.9,
        "r1_interval": 4,
        "learning_rate": 0.005,
    }
}
_FEATURES = 128  # of the discriminator's last layer


class Training(TrainingConfig):
    """Settings of the two networks and of their losses."""

    latent_dim: PositiveInt
    channels: PositiveInt
    adam_beta1: Fraction
    adam_beta2: Fraction
    r1_weight: NonNegativeFloat
    r1_interval: PositiveInt
    ema_decay: Fraction


class Config(FamilyConfig):
    """Settings of an unconditional GAN."""

    training: Training

    def describe(self) -> str:
        training = self.training
        penalty = f" and an R1 gradient penalty of weight {training.r1_weight:g}" if training.r1_weight else ""
        averaged = " Samples come from an average of the generator's weights." if training.ema_decay else ""
        return (
            f"convolutional generator (noise of {training.latent_dim} dimensions) against a discriminator, updated in "
            f"turn with the non-saturating logistic loss{penalty} ({training.describe_schedule()}).{averaged}"
        )

    def sources(self) -> list[str]:
        found = ["Goodfellow et al. 2014, generative adversarial nets, NeurIPS"]
        if self.training.r1_weight:
            found.append("Mescheder et al. 2018, which training methods for GANs do actually converge, ICML")
        return found


class Model(AdversarialModel):
    """The generator; the discriminator is needed for training alone."""

    def __init__(self, config: Training) -> None:
        super().__init__(config)
        self.generator = Generator(config.latent_dim, config.channels, BatchNorm)


class Objective(AdversarialObjective):
    """Alternating updates of discriminator and generator."""

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        betas = (config.adam_beta1, config.adam_beta2)
        discriminator = Discriminator(config.channels, _FEATURES)
        self.oppose(discriminator, betas=betas, decay="linear", ema_decay=config.ema_decay)

    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        x_fake = self.generator(self.noise(len(x), rng), y)
        logits_real, logits_fake = self.discriminator(torch.cat([x, x_fake.detach()])).chunk(2)
        loss_d = discriminator_loss(logits_real, logits_fake, "logistic")
        total_d = loss_d
        if self.config.r1_weight and self.steps % self.config.r1_interval == 0:
            penalty = r1_penalty(self.raw_discriminator, x)
            total_d = total_d + self.config.r1_weight * self.config.r1_interval * penalty
        self.descend(self.optimizer_d, total_d)

        loss_g = generator_loss(self.judge(x_fake).float(), "logistic")
        self.descend(self.optimizer_g, loss_g)
        return {"loss_g": loss_g.detach(), "loss_d": loss_d.detach()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        logits_real, logits_fake = self.discriminator(x), self.discriminator(self.draw(y, rng))
        return {
            "loss_g": generator_loss(logits_fake, "logistic"),
            "loss_d": discriminator_loss(logits_real, logits_fake, "logistic"),
        }


def plain_step(config: Training, device: torch.device) -> Any:
    """The update of a first tutorial for the same networks."""
    discriminator = Discriminator(config.channels, _FEATURES)
    return plain_adversarial_step(Model(config).generator, _WithoutLabels(discriminator), config, device)


class _WithoutLabels(torch.nn.Module):
    def __init__(self, discriminator: torch.nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x: Tensor, _: Tensor) -> Any:
        return self.discriminator(x)
