"""Conditional GAN: generator and discriminator both see the class.

Goodfellow et al. 2014, "Generative Adversarial Nets", NeurIPS; Mirza, Osindero 2014, "Conditional Generative
Adversarial Nets", arXiv:1411.1784. Losses: least squares (Mao et al. 2017, "Least Squares Generative Adversarial
Networks", ICCV, equation 9), non-saturating logistic (Goodfellow et al. 2014, section 3) or hinge (Lim, Ye 2017,
"Geometric GAN", arXiv:1705.02894). The discriminator reads the label by projection (Miyato, Koyama 2018, "cGANs with
Projection Discriminator", ICLR). The gradient penalty on real images is R1 (Mescheder, Geiger, Nowozin 2018, "Which
Training Methods for GANs do actually Converge?", ICML, equation 9), applied every few steps (Karras et al. 2020,
"Analyzing and Improving the Image Quality of StyleGAN", CVPR, section 3.1). A classifier beside the discriminator,
trained on real images, draws samples towards their class (Odena, Olah, Shlens 2017, "Conditional Image Synthesis with
Auxiliary Classifier GANs", ICML; there it learns from generated images too). Samples come from an exponential moving
average of the generator's weights.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative.compute.portable import Linear
from generative.config import NonNegativeFloat
from generative.family import FamilyConfig
from generative.networks.convolutional import FEATURES, Generator, discriminator_layers
from generative.training import convolutional
from generative.training.adversarial import (
    LOSS_NAMES,
    LOSS_SOURCES,
    AdversarialModel,
    Loss,
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

    loss: Loss
    class_weight: NonNegativeFloat


class Config(FamilyConfig):
    """Settings of a conditional GAN."""

    training: Training

    def describe(self) -> str:
        training = self.training
        extras = training.describe_penalty()
        if training.class_weight:
            extras += f", an auxiliary classifier of weight {training.class_weight:g}"
        return (
            f"convolutional generator (noise of {training.latent_dim} dimensions and the label) against a projection "
            f"discriminator that sees the label and enlarged detail too, updated in turn with the "
            f"{LOSS_NAMES[training.loss]} loss{extras} ({training.describe_schedule()}).{training.describe_average()}"
        )

    def sources(self) -> list[str]:
        found = [
            "Mirza, Osindero 2014, conditional generative adversarial nets, arXiv:1411.1784",
            "Miyato, Koyama 2018, cGANs with projection discriminator, ICLR",
            *convolutional.SOURCES,
        ]
        found += LOSS_SOURCES[self.training.loss] + self.training.penalty_sources()
        if self.training.class_weight:
            found.append("Odena et al. 2017, auxiliary classifier GANs, ICML")
        return found


class Discriminator(nn.Module):
    """Images (B, 1, 28, 28) and labels (B,) to logits (B,) and class scores (B, num_classes).

    The logits are high where the image looks real for its label. The class scores do not see the label.
    """

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__()
        self.features = discriminator_layers(config.discriminator_channels)
        self.unconditional = Linear(FEATURES, 1)
        self.embedding = nn.Embedding(num_classes, FEATURES)
        nn.init.normal_(self.embedding.weight, std=FEATURES**-0.5)  # as large as the unconditional weights
        self.classify = Linear(FEATURES, num_classes)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        h = self.features(x)
        logits = self.unconditional(h).squeeze(1) + (self.embedding(y) * h).sum(1)
        return logits, self.classify(h)


class Model(AdversarialModel):
    """The generator with its averaged weights; the discriminator is needed for training alone."""

    conditional = True

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.generator = Generator(config.latent_dim, config.channels, num_classes=num_classes)


class Objective(ConvolutionalObjective):
    """Alternating updates of discriminator and generator on the same batch of labels."""

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        unit = {"least_squares": "squared error", "logistic": "logistic loss, nats", "hinge": "hinge loss"}[config.loss]
        self.losses = {"loss_g": f"generator: {unit}", "loss_d": f"discriminator: {unit}"}
        self.set_up(Discriminator(config, model.num_classes))

    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        x_fake = self.generate(y, rng)

        logits, scores = self.discriminator(torch.cat([x, x_fake.detach()]), y.repeat(2))
        logits_real, logits_fake = logits.chunk(2)
        loss_d = discriminator_loss(logits_real, logits_fake, self.config.loss)
        loss_class = F.cross_entropy(scores[: len(x)], y)  # learned from real images alone
        penalty = lazy_r1(self.config, self.steps, lambda images: self.raw_discriminator(images, y)[0], x)
        self.descend(self.optimizer_d, loss_d + loss_class + penalty)

        logits_fake, scores = self.judge(x_fake, y)
        loss_g = generator_loss(logits_fake.float(), self.config.loss)
        self.descend(self.optimizer_g, loss_g + self.config.class_weight * F.cross_entropy(scores.float(), y))
        return {"loss_g": loss_g.detach(), "loss_d": loss_d.detach(), "loss_class": loss_class.detach()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        logits_real, scores = self.discriminator(x, y)
        logits_fake, _ = self.discriminator(self.draw(y, rng), y)
        return {
            "loss_g": generator_loss(logits_fake, self.config.loss),
            "loss_d": discriminator_loss(logits_real, logits_fake, self.config.loss),
            "loss_class": F.cross_entropy(scores, y),
        }


def plain_step(config: Training, num_classes: int, device: torch.device) -> Any:
    """The update of a first tutorial for the same networks."""
    generator, discriminator = Model(config, num_classes).generator, Discriminator(config, num_classes)
    return plain_adversarial_step(generator, discriminator, config, device)
