"""What the families with a convolutional generator and discriminator share: settings, penalty, grey levels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from generative.config import Fraction, NonNegativeFloat, PositiveInt
from generative.data.images import WHITE
from generative.family import TrainingConfig
from generative.training.adversarial import AdversarialObjective, r1_penalty
from generative.training.schedules import Decay

SMALL = {
    "epochs": 3,
    "batch_size": 40,
    "channels": 8,
    "discriminator_channels": 8,
    "latent_dim": 2,
    "ema_decay": 0.9,
    "learning_rate": 0.005,
}
SOURCES = [  # of the networks
    "Chen et al. 2019, on self modulation for GANs, ICLR",
    "He et al. 2015, delving deep into rectifiers, ICCV",
]


class ConvolutionalTraining(TrainingConfig):
    """Settings of both networks, of their two Adams, and of the averaged generator."""

    latent_dim: PositiveInt
    channels: PositiveInt
    discriminator_channels: PositiveInt
    adam_beta1: Fraction
    adam_beta2: Fraction
    ema_decay: Fraction

    def describe_average(self) -> str:
        """A sentence about where samples come from, with a space before it; empty if from the last weights."""
        return " Samples come from an average of the generator's weights." if self.ema_decay else ""


class PenalisedTraining(TrainingConfig):
    """Settings of the gradient penalty R1 every few steps."""

    r1_weight: NonNegativeFloat
    r1_interval: PositiveInt

    def describe_penalty(self) -> str:
        """What the penalty adds to the name of a loss."""
        return f", an R1 gradient penalty of weight {self.r1_weight:g}" if self.r1_weight else ""

    def penalty_sources(self) -> list[str]:
        """Of the penalty, where there is one."""
        source = "Mescheder et al. 2018, which training methods for GANs do actually converge, ICML"
        return [source] if self.r1_weight else []


class ConvolutionalObjective(AdversarialObjective):
    """Two updates in turn, of networks that see grey levels as they are saved."""

    def set_up(self, discriminator: nn.Module, discriminator_decay: Decay = "linear") -> None:
        """Optimizers and average of the settings, for the model's generator and `discriminator`."""
        self.oppose(
            discriminator,
            betas=(self.config.adam_beta1, self.config.adam_beta2),
            decay="linear",
            discriminator_decay=discriminator_decay,
            ema_decay=self.config.ema_decay,
        )

    def generate(self, y: Tensor, rng: torch.Generator) -> Tensor:
        """Images (B, 1, 28, 28) of labels `y` (B,), rounded as they are saved: what a discriminator is to see."""
        images: Tensor = self.generator(self.noise(len(y), rng), y)
        return round_to_grey_levels(images)

    def draw(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        images = super().draw(labels, rng)
        assert images is not None
        return round_to_grey_levels(images)


def lazy_r1(config: PenalisedTraining, step: int, judge: Callable[[Tensor], Tensor], x: Tensor) -> Tensor | float:
    """The penalty R1 of `judge` at real images `x`, times its weight and interval; 0 at the steps between.

    Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", CVPR, section 3.1.
    """
    if not config.r1_weight or step % config.r1_interval:
        return 0.0
    return config.r1_weight * config.r1_interval * r1_penalty(judge, x)


def round_to_grey_levels(images: Tensor) -> Tensor:
    """Images in [0, 1] at the nearest of 256 grey levels, with the gradient of the images as they are.

    Real images have no other values; a discriminator that looks at fine detail would see little else. The gradient is
    the straight-through estimator (Bengio, Léonard, Courville 2013, "Estimating or Propagating Gradients Through
    Stochastic Neurons", arXiv:1308.3432).
    """
    return images + ((WHITE * images).round() / WHITE - images).detach()
