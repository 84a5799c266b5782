"""Conditional GAN: generator and discriminator both see the class.

Goodfellow et al. 2014, "Generative Adversarial Nets", NeurIPS; Mirza, Osindero 2014, "Conditional
Generative Adversarial Nets", arXiv:1411.1784. Losses: least squares (Mao et al. 2017, "Least Squares
Generative Adversarial Networks", ICCV, equation 9) or non-saturating logistic (Goodfellow et al. 2014,
section 3). The discriminator reads the label by projection (Miyato, Koyama 2018, "cGANs with Projection
Discriminator", ICLR). The gradient penalty on real images is R1 (Mescheder, Geiger, Nowozin 2018, "Which
Training Methods for GANs do actually Converge?", ICML, equation 9), applied every few steps (Karras et
al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", CVPR, section 3.1). A classifier beside the
discriminator, trained on real images, draws samples towards their class (Odena, Olah, Shlens 2017, "Conditional
Image Synthesis with Auxiliary Classifier GANs", ICML; there it learns from generated images too). Samples come
from an exponential moving average of the generator's weights.

Convolutions work at 14 x 14 and 7 x 7, where they cost little: the discriminator folds 2 x 2 pixels into
channels first, and the generator has a few channels at 28 x 28.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative.compute.portable import Linear
from generative.compute.runtime import draw_noise, draw_normal, make_rng
from generative.config import Fraction, NonNegativeFloat, PositiveInt
from generative.data.fashion_mnist import NUM_CLASSES
from generative.data.splits import Split, balanced_labels
from generative.family import FamilyConfig, GenerativeModel, TrainingConfig
from generative.training.adversarial import AdversarialObjective, Loss, discriminator_loss, generator_loss
from generative.training.averaging import MovingAverage, estimate_statistics

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_FEATURES = 128  # of the discriminator's last layer
_PIXEL_CHANNELS = 8  # of the generator at 28 x 28
_STATISTICS_BATCH, _STATISTICS_BATCHES = 1000, 20  # of samples that the final normalisations are measured on
_SLOPE = 0.2  # of the leaky ReLUs (Radford et al. 2016, "DCGAN", section 4)


class Training(TrainingConfig):
    """Settings of the two networks and of their losses."""

    latent_dim: PositiveInt
    channels: PositiveInt
    loss: Loss
    adam_beta1: Fraction
    adam_beta2: Fraction
    r1_weight: NonNegativeFloat
    r1_interval: PositiveInt
    class_weight: NonNegativeFloat
    ema_decay: Fraction


class Config(FamilyConfig):
    """Settings of a conditional GAN."""

    training: Training

    def describe(self) -> str:
        training = self.training
        names = {"least_squares": "least-squares", "logistic": "non-saturating logistic"}
        extras = ""
        if training.r1_weight:
            extras += f", an R1 gradient penalty of weight {training.r1_weight:g}"
        if training.class_weight:
            extras += f", an auxiliary classifier of weight {training.class_weight:g}"
        return (
            f"convolutional generator (noise of {training.latent_dim} dimensions and the label) against a projection "
            f"discriminator that sees the label too, updated in turn with the {names[training.loss]} loss{extras} "
            f"({training.describe_schedule()}). Samples come from an average of the generator's weights."
        )


class Generator(nn.Module):
    """Noise z (B, d) and labels (B,) to images (B, 1, 28, 28) in [0, 1].

    The label enters through the normalisations alone. Fed in beside the noise it takes over: the generator
    then learns one image per class (docs/recipes.md).
    """

    def __init__(self, config: Training) -> None:
        super().__init__()
        channels = config.channels
        wide = 2 * channels
        self.project = Linear(config.latent_dim, wide * 7 * 7)
        self.blocks = nn.ModuleList(
            [
                _Block(wide, nn.Conv2d(wide, wide, 3, padding=1)),
                _Block(wide, nn.Sequential(nn.Conv2d(wide, 4 * channels, 3, padding=1), nn.PixelShuffle(2))),
                _Block(channels, nn.Conv2d(channels, channels, 3, padding=1)),  # at 14 x 14
                _Block(channels, _to_pixels(channels)),
            ]
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        h = self.project(z).view(len(z), -1, 7, 7).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h, y)
        return torch.sigmoid(h).contiguous()


def _to_pixels(channels: int) -> nn.Sequential:
    """Maps (B, C, 14, 14) to (B, 1, 28, 28); the last convolution smooths the seams of the shuffle."""
    return nn.Sequential(
        nn.Conv2d(channels, 4 * _PIXEL_CHANNELS, 3, padding=1),
        nn.PixelShuffle(2),
        nn.LeakyReLU(_SLOPE),
        nn.Conv2d(_PIXEL_CHANNELS, 1, 3, padding=1),
    )


class _Block(nn.Module):
    def __init__(self, channels: int, layer: nn.Module) -> None:
        super().__init__()
        self.normalise = ConditionalBatchNorm(channels)
        self.layer = layer

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.layer(F.relu(self.normalise(h, y)))
        return out


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation of (B, C, H, W) whose scale and shift depend on the label.

    Dumoulin, Shlens, Kudlur 2017, "A Learned Representation for Artistic Style", ICLR; de Vries et al. 2017,
    "Modulating Early Visual Processing by Language", NeurIPS.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(channels, affine=False)
        self.embedding = nn.Embedding(NUM_CLASSES, 2 * channels)
        nn.init.zeros_(self.embedding.weight)

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        scale, shift = self.embedding(y)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1)
        return torch.addcmul(shift, self.normalise(h), 1 + scale)


class Discriminator(nn.Module):
    """Images (B, 1, 28, 28) and labels (B,) to logits (B,) and class scores (B, 10).

    The logits are high where the image looks real for its label. The class scores do not see the label.
    """

    def __init__(self, config: Training) -> None:
        super().__init__()
        channels, features = config.channels, _FEATURES
        self.features = nn.Sequential(
            nn.PixelUnshuffle(2),  # (B, 4, 14, 14)
            nn.Conv2d(4, channels, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(channels, 2 * channels, 3, padding=1, stride=2),  # (B, 2 channels, 7, 7)
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Flatten(),
            Linear(2 * channels * 7 * 7, features),
            nn.LeakyReLU(_SLOPE),
        )
        self.unconditional = Linear(features, 1)
        self.embedding = nn.Embedding(NUM_CLASSES, features)
        nn.init.normal_(self.embedding.weight, std=features**-0.5)  # as large as the unconditional weights
        self.classify = Linear(features, NUM_CLASSES)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        h = self.features(2 * x - 1)
        logits = self.unconditional(h).squeeze(1) + (self.embedding(y) * h).sum(1)
        return logits, self.classify(h)


class Model(GenerativeModel):
    """The generator with its averaged weights; the discriminator is needed for training alone."""

    conditional = True

    def __init__(self, config: Training) -> None:
        super().__init__(config)
        self.generator = Generator(config).to(memory_format=torch.channels_last)

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        x: Tensor = self.generator(draw_normal(len(labels), self.config.latent_dim, rng), labels)
        return x


class Objective(AdversarialObjective):
    """Alternating updates of discriminator and generator on the same batch of labels."""

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        discriminator = Discriminator(config).to(memory_format=torch.channels_last)
        betas = (config.adam_beta1, config.adam_beta2)
        self.prepare(model, discriminator, config, fabric, total_steps, betas=betas, decay="linear")
        self.average = MovingAverage(model.generator, config.ema_decay)
        self.steps = 0

    def step(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        x_fake = self.generator(draw_noise(len(x), self.config.latent_dim, rng, self.fabric), y)

        logits, scores = self.discriminator(torch.cat([x, x_fake.detach()]), y.repeat(2))
        logits_real, logits_fake = logits.chunk(2)
        loss_d = discriminator_loss(logits_real, logits_fake, self.config.loss)
        loss_class = F.cross_entropy(scores[: len(x)], y)  # learned from real images alone
        total_d = loss_d + loss_class
        if self.config.r1_weight and self.steps % self.config.r1_interval == 0:
            total_d = total_d + self.config.r1_weight * self.config.r1_interval * self._r1(x, y)
        self.update(self.optimizer_d, total_d)

        logits_fake, scores = self.judge(x_fake, y)
        loss_g = generator_loss(logits_fake.float(), self.config.loss)
        self.update(self.optimizer_g, loss_g + self.config.class_weight * F.cross_entropy(scores.float(), y))
        self.average.update(self.raw_model.generator, self.steps)

        for schedule in self.schedules:
            schedule.step()
        self.steps += 1
        return {"loss_g": loss_g.detach(), "loss_d": loss_d.detach(), "loss_class": loss_class.detach()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        z = draw_normal(len(x), self.config.latent_dim, rng)
        logits_real, scores = self.discriminator(x, y)
        logits_fake, _ = self.discriminator(self.average.network(z, y), y)
        return {
            "loss_g": generator_loss(logits_fake, self.config.loss),
            "loss_d": discriminator_loss(logits_real, logits_fake, self.config.loss),
            "loss_class": F.cross_entropy(scores, y),
        }

    def sampling_network(self) -> nn.Module:
        return self.average.network

    def finish(self, train: Split) -> None:
        """Keep the averaged generator, with normalisations that fit it."""
        rng = make_rng(self.config.seed, train.images.device)
        labels = balanced_labels(_STATISTICS_BATCH).to(train.images.device)
        noise = (draw_normal(_STATISTICS_BATCH, self.config.latent_dim, rng) for _ in range(_STATISTICS_BATCHES))
        estimate_statistics(self.average.network, ((z, labels) for z in noise))
        self.raw_model.generator.load_state_dict(self.average.network.state_dict())

    def _r1(self, x: Tensor, y: Tensor) -> Tensor:
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.raw_discriminator(x, y)[0].sum(), x, create_graph=True)
        return gradient.square().flatten(1).sum(1).mean() / 2

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"average": self.average.network.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.average.network.load_state_dict(state["average"])
        self.steps = state["steps"]
