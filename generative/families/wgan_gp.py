"""Wasserstein GAN with gradient penalty: a critic whose loss estimates the distance between samples and images.

Arjovsky, Chintala, Bottou 2017, "Wasserstein Generative Adversarial Networks", ICML; Gulrajani et al. 2017, "Improved
Training of Wasserstein GANs", NeurIPS, algorithm 1: several updates of the critic for one of the generator, and a
penalty on the norm of the critic's gradient between real and generated images in the place of clipped weights.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from generative.config import PositiveFloat, PositiveInt
from generative.family import FamilyConfig
from generative.networks.convolutional import Discriminator, Generator
from generative.training import convolutional
from generative.training.adversarial import (
    AdversarialModel,
    gradient_penalty,
)
from generative.training.convolutional import ConvolutionalObjective, ConvolutionalTraining

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {"training": convolutional.SMALL | {"critic_steps": 2}}


class Training(ConvolutionalTraining):
    """Settings of the two networks and of their losses."""

    critic_steps: PositiveInt
    penalty_weight: PositiveFloat


class Config(FamilyConfig):
    """Settings of a Wasserstein GAN with gradient penalty."""

    training: Training

    def describe(self) -> str:
        training = self.training
        return (
            f"convolutional generator (noise of {training.latent_dim} dimensions) against a critic that is updated "
            f"{training.critic_steps} times as often, with the Wasserstein loss and a gradient penalty of weight "
            f"{training.penalty_weight:g} ({training.describe_schedule()}).{training.describe_average()}"
        )

    def sources(self) -> list[str]:
        return [
            "Arjovsky et al. 2017, Wasserstein generative adversarial networks, ICML",
            "Gulrajani et al. 2017, improved training of Wasserstein GANs, NeurIPS",
            *convolutional.SOURCES,
        ]


class Model(AdversarialModel):
    """The generator; the critic is needed for training alone."""

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.generator = Generator(config.latent_dim, config.channels, num_classes=0)


class Objective(ConvolutionalObjective):
    """Each batch updates the critic; every `critic_steps`-th the generator too."""

    losses: Mapping[str, str] = {"loss_g": "generator", "loss_d": "critic: minus the estimated distance"}
    scaleless = ("loss_g", "loss_d")

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        self.set_up(Discriminator(config.discriminator_channels))

    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        turn = self.steps % self.config.critic_steps == self.config.critic_steps - 1
        with torch.set_grad_enabled(turn):
            x_fake = self.generate(y, rng)
        judged_real, judged_fake = self.discriminator(torch.cat([x, x_fake.detach()])).chunk(2)
        loss_d = judged_fake.mean() - judged_real.mean()
        penalty = gradient_penalty(
            self.raw_discriminator, x, x_fake, torch.rand(len(x), generator=rng, device=x.device)
        )
        self.descend(self.optimizer_d, loss_d + self.config.penalty_weight * penalty)
        scalars = {"loss_d": loss_d.detach(), "penalty": penalty.detach()}
        if turn:
            loss_g = -self.judge(x_fake).float().mean()
            self.descend(self.optimizer_g, loss_g)
            scalars["loss_g"] = loss_g.detach()
        return scalars

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        judged_fake = self.discriminator(self.draw(y, rng)).mean()
        loss_d = judged_fake - self.discriminator(x).mean()
        return {"loss_g": -judged_fake, "loss_d": loss_d, "critic_estimate": -loss_d}
