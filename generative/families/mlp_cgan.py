"""Conditional GAN of fully connected networks: the label is fed in beside the noise and beside the image.

Mirza, Osindero 2014, "Conditional Generative Adversarial Nets", arXiv:1411.1784. Both networks are updated in turn
with the logistic loss; nothing is averaged, penalised or scheduled. It is the starting point that the family
`cgan` is measured against.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from generative.compute.portable import Linear
from generative.config import Fraction, PositiveInt
from generative.data.images import IMAGE_SHAPE, NUM_PIXELS
from generative.family import FamilyConfig, TrainingConfig
from generative.training.adversarial import (
    AdversarialModel,
    AdversarialObjective,
    discriminator_loss,
    generator_loss,
    plain_adversarial_step,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {
    "training": {
        "epochs": 3,
        "batch_size": 40,
        "latent_dim": 2,
        "generator_hidden": [16, 32],
        "discriminator_hidden": [32],
        "learning_rate": 0.005,
    }
}
_SLOPE = 0.2  # of the leaky ReLUs


class Training(TrainingConfig):
    """Settings of the two networks and of Adam."""

    latent_dim: PositiveInt
    generator_hidden: list[PositiveInt]
    discriminator_hidden: list[PositiveInt]
    dropout: Fraction
    adam_beta1: Fraction


class Config(FamilyConfig):
    """Settings of a fully connected conditional GAN."""

    training: Training

    def describe(self) -> str:
        training = self.training
        widths = (
            [training.latent_dim, *training.generator_hidden, NUM_PIXELS],
            [NUM_PIXELS, *training.discriminator_hidden, 1],
        )
        generator, discriminator = ("-".join(map(str, sizes)) for sizes in widths)
        return (
            f"fully connected generator {generator} against a discriminator {discriminator}, both fed an embedding of "
            f"the label too, updated in turn with the logistic loss ({training.describe_schedule()})."
        )

    def sources(self) -> list[str]:
        return ["Mirza, Osindero 2014, conditional generative adversarial nets, arXiv:1411.1784"]


class Generator(nn.Module):
    """Noise z (B, d) and labels (B,) to images (B, 1, 28, 28) in [0, 1]."""

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, num_classes)
        layers: list[nn.Module] = []
        width = config.latent_dim + num_classes
        for hidden in config.generator_hidden:
            layers += [Linear(width, hidden), nn.BatchNorm1d(hidden), nn.LeakyReLU(_SLOPE)]
            width = hidden
        self.layers = nn.Sequential(*layers, Linear(width, NUM_PIXELS), nn.Sigmoid())

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        x: Tensor = self.layers(torch.cat([z, self.embedding(y)], dim=1))
        return x.view(-1, *IMAGE_SHAPE)


class Discriminator(nn.Module):
    """Images (B, 1, 28, 28) and labels (B,) to logits (B,): high where the image looks real for its label."""

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, num_classes)
        layers: list[nn.Module] = []
        width = NUM_PIXELS + num_classes
        for hidden in config.discriminator_hidden:
            layers += [Linear(width, hidden), nn.LeakyReLU(_SLOPE), nn.Dropout(config.dropout)]
            width = hidden
        self.layers = nn.Sequential(*layers, Linear(width, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        logits: Tensor = self.layers(torch.cat([2 * x.flatten(1) - 1, self.embedding(y)], dim=1))
        return logits.squeeze(1)


class Model(AdversarialModel):
    """The generator; the discriminator is needed for training alone."""

    conditional = True

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.generator = Generator(config, num_classes)


class Objective(AdversarialObjective):
    """Alternating updates of generator and discriminator on the same batch of labels."""

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        self.oppose(Discriminator(config, model.num_classes), betas=(config.adam_beta1, 0.999), decay="none")

    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        x_fake = self.generator(self.noise(len(x), rng), y)
        loss_g = generator_loss(self.judge(x_fake, y).float(), "logistic")
        self.descend(self.optimizer_g, loss_g)

        logits_real, logits_fake = self.discriminator(torch.cat([x, x_fake.detach()]), y.repeat(2)).chunk(2)
        loss_d = discriminator_loss(logits_real, logits_fake, "logistic")
        self.descend(self.optimizer_d, loss_d)
        return {"loss_g": loss_g.detach(), "loss_d": loss_d.detach()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        self.discriminator.eval()
        logits_real = self.discriminator(x, y)
        logits_fake = self.discriminator(self.draw(y, rng), y)
        self.discriminator.train()
        return {
            "loss_g": generator_loss(logits_fake, "logistic"),
            "loss_d": discriminator_loss(logits_real, logits_fake, "logistic"),
        }


def plain_step(config: Training, num_classes: int, device: torch.device) -> Any:
    """The update of a first tutorial for the same networks."""
    generator, discriminator = Generator(config, num_classes), Discriminator(config, num_classes)
    return plain_adversarial_step(generator, discriminator, config, device)
