"""Unconditional GAN: a generator against a discriminator, neither of which sees a label.

Goodfellow et al. 2014, "Generative Adversarial Nets", NeurIPS, with the non-saturating logistic loss of section 3 and,
every few steps, the gradient penalty R1 on real images (Mescheder, Geiger, Nowozin 2018, "Which Training Methods for
GANs do actually Converge?", ICML, equation 9). Samples come from an exponential moving average of the generator.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from generative.family import FamilyConfig
from generative.networks.convolutional import Discriminator, Generator
from generative.training import convolutional
from generative.training.adversarial import (
    AdversarialModel,
    discriminator_loss,
    generator_loss,
    plain_adversarial_step,
)
from generative.training.convolutional import ConvolutionalObjective, ConvolutionalTraining, PenalisedTraining, lazy_r1

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {"training": convolutional.SMALL | {"r1_interval": 4}}


class Training(ConvolutionalTraining, PenalisedTraining):
    """Settings of the two networks and of their losses."""


class Config(FamilyConfig):
    """Settings of an unconditional GAN."""

    training: Training

    def describe(self) -> str:
        training = self.training
        return (
            f"convolutional generator (noise of {training.latent_dim} dimensions) against a discriminator, updated in "
            f"turn with the non-saturating logistic loss{training.describe_penalty()} ({training.describe_schedule()})."
            f"{training.describe_average()}"
        )

    def sources(self) -> list[str]:
        return [
            "Goodfellow et al. 2014, generative adversarial nets, NeurIPS",
            *convolutional.SOURCES,
            *self.training.penalty_sources(),
        ]


class Model(AdversarialModel):
    """The generator; the discriminator is needed for training alone."""

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.generator = Generator(config.latent_dim, config.channels, num_classes=0)


class Objective(ConvolutionalObjective):
    """Alternating updates of discriminator and generator."""

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        self.set_up(Discriminator(config.discriminator_channels))

    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        x_fake = self.generate(y, rng)
        logits_real, logits_fake = self.discriminator(torch.cat([x, x_fake.detach()])).chunk(2)
        loss_d = discriminator_loss(logits_real, logits_fake, "logistic")
        self.descend(self.optimizer_d, loss_d + lazy_r1(self.config, self.steps, self.raw_discriminator, x))

        loss_g = generator_loss(self.judge(x_fake).float(), "logistic")
        self.descend(self.optimizer_g, loss_g)
        return {"loss_g": loss_g.detach(), "loss_d": loss_d.detach()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        logits_real, logits_fake = self.discriminator(x), self.discriminator(self.draw(y, rng))
        return {
            "loss_g": generator_loss(logits_fake, "logistic"),
            "loss_d": discriminator_loss(logits_real, logits_fake, "logistic"),
        }


def plain_step(config: Training, num_classes: int, device: torch.device) -> Any:
    """The update of a first tutorial for the same networks."""
    discriminator = _WithoutLabels(Discriminator(config.discriminator_channels))
    return plain_adversarial_step(Model(config, num_classes).generator, discriminator, config, device)


class _WithoutLabels(torch.nn.Module):
    def __init__(self, discriminator: torch.nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x: Tensor, _: Tensor) -> Any:
        return self.discriminator(x)
