"""BigGAN at the size of this data: class and noise at every stage, a discriminator of bounded slope, large batches.

Brock, Donahue, Simonyan 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR. Of it:

- one embedding of the class, shared by all conditional normalisations, each of which gets a part of the noise too
  (section 3, appendix B);
- spectral norm (Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", ICLR), here of the
  discriminator alone: in the generator it did harm (docs/recipes.md);
- the hinge loss (Lim, Ye 2017, "Geometric GAN", arXiv:1705.02894) and a projection discriminator
  (Miyato, Koyama 2018, "cGANs with Projection Discriminator", ICLR);
- self-attention in both networks (Zhang et al. 2019, "Self-Attention Generative Adversarial Networks", ICML);
- orthogonal regularisation (equation 3), and truncation of the noise: samples that are more typical and less varied
  (section 3.1), with normalisations measured on such noise;
- an average of the generator's weights, and larger batches than those of the other models.

Added is the gradient penalty R1 (Mescheder, Geiger, Nowozin 2018, "Which Training Methods for GANs do actually
Converge?", ICML, equation 9): without it samples of a class are nearly alike (docs/recipes.md).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import register_parametrization

from generative.compute.portable import Linear
from generative.compute.runtime import draw_normal, make_rng
from generative.config import NonNegativeFloat, PositiveFloat, PositiveInt
from generative.data.splits import Split, balanced_labels
from generative.family import FamilyConfig, SamplingConfig
from generative.networks.attention import SelfAttention
from generative.networks.convolutional import (
    FEATURES,
    ConditionalBatchNorm,
    discriminator_layers,
    intensities,
    to_pixels,
)
from generative.training import convolutional
from generative.training.adversarial import (
    LOSS_SOURCES,
    AdversarialModel,
    discriminator_loss,
    generator_loss,
    orthogonal_penalty,
)
from generative.training.averaging import estimate_statistics
from generative.training.convolutional import ConvolutionalObjective, ConvolutionalTraining, PenalisedTraining, lazy_r1

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {"training": convolutional.SMALL | {"latent_dim": 10, "embedding_dim": 4, "r1_interval": 4}}

_PARTS = 5  # of the noise: one for the start of the generator, one for each of its normalisations
_STATISTICS_BATCH, _STATISTICS_BATCHES = 500, 10  # of samples that normalisations are measured on


class Training(ConvolutionalTraining, PenalisedTraining):
    """Settings of the two networks and of their losses."""

    embedding_dim: PositiveInt
    spectral_norm: PositiveFloat
    orthogonal_weight: NonNegativeFloat

    @model_validator(mode="after")
    def _noise_has_parts(self) -> Self:
        if self.latent_dim % _PARTS:
            raise ValueError(f"latent_dim must be a multiple of {_PARTS}: every stage of the generator gets its part")
        return self


class Sampling(SamplingConfig):
    """Settings of sampling: no number of the noise is farther from 0 than `truncation`."""

    truncation: Annotated[float, Field(ge=0.1)]  # less, and nearly all noise would be drawn anew


class Config(FamilyConfig):
    """Settings of a BigGAN."""

    training: Training
    sampling: Sampling

    def describe(self) -> str:
        training = self.training
        return (
            f"convolutional generator with attention (noise of {training.latent_dim} dimensions in {_PARTS} parts, "
            "one embedding of the class for all normalisations) against a projection discriminator with spectral norm "
            f"and attention, updated in turn with the hinge loss{training.describe_penalty()} and an orthogonal "
            f"regularisation of weight {training.orthogonal_weight:g} ({training.describe_schedule()})."
            f"{training.describe_average()} Noise is truncated at {self.sampling.truncation:g}."
        )

    def sources(self) -> list[str]:
        return [
            "Brock et al. 2019, large scale GAN training for high fidelity natural image synthesis, ICLR",
            "Miyato et al. 2018, spectral normalization for GANs, ICLR",
            "Miyato, Koyama 2018, cGANs with projection discriminator, ICLR",
            "Zhang et al. 2019, self-attention GANs, ICML",
            *LOSS_SOURCES["hinge"],
            *self.training.penalty_sources(),
            *convolutional.SOURCES[1:],
        ]


class Generator(nn.Module):
    """Noise z (B, latent_dim) and labels (B,) to images (B, 1, 28, 28) in [0, 1].

    Args:
        latent_dim: of the noise, a multiple of 5.
        channels: at 14 x 14; twice as many at 7 x 7.
        embedding_dim: numbers that a class becomes.
        num_classes: of the labels.
    """

    def __init__(self, latent_dim: int, channels: int, embedding_dim: int, num_classes: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.part = latent_dim // _PARTS
        self.embedding = nn.Embedding(num_classes, embedding_dim)
        self.project = Linear(self.part, wide * 7 * 7)
        self.normalisations = nn.ModuleList(
            ConditionalBatchNorm(width, embedding_dim + self.part) for width in (wide, wide, channels, channels)
        )
        self.coarse = nn.Conv2d(wide, wide, 3, padding=1)
        self.attention = SelfAttention(wide)
        self.enlarge = nn.Sequential(nn.Conv2d(wide, 4 * channels, 3, padding=1), nn.PixelShuffle(2))
        self.fine = nn.Conv2d(channels, channels, 3, padding=1)  # at 14 x 14
        self.to_pixels = to_pixels(channels)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        first, *others = (part.contiguous() for part in z.split(self.part, dim=1))
        embedded = self.embedding(y)
        conditions = iter([torch.cat([embedded, part], dim=1) for part in others])
        normalisations = iter(self.normalisations)

        def normalised(h: Tensor) -> Tensor:
            return F.relu(next(normalisations)(h, next(conditions)))

        h = self.project(first).view(len(z), -1, 7, 7).contiguous(memory_format=torch.channels_last)
        h = self.attention(h + self.coarse(normalised(h)))
        h = self.enlarge(normalised(h))
        h = h + self.fine(normalised(h))
        return intensities(self.to_pixels(normalised(h)))

    def regularised(self) -> list[Tensor]:
        """The matrices and kernels that are to be orthogonal: all but the embedding."""
        kept_out = set(map(id, self.embedding.parameters()))
        return [weight for weight in self.parameters() if weight.dim() > 1 and id(weight) not in kept_out]


class _Times(nn.Module):
    """A weight, `factor` times as large."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        return self.factor * weight


class Discriminator(nn.Module):
    """Images (B, 1, 28, 28) in [0, 1] and labels (B,) to logits (B,): high where the image looks real for its label.

    The largest singular value of a layer, its kernel taken as a matrix (out, rest), is `norm` where it is one of those
    that give the features, and 1 elsewhere; by power iteration, so nearly.
    """

    def __init__(self, channels: int, num_classes: int, norm: float) -> None:
        super().__init__()
        layers = discriminator_layers(channels)
        for place, layer in enumerate(layers):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layers[place] = register_parametrization(spectral_norm(layer), "weight", _Times(norm))
        *first, flatten, linear, activation = layers
        self.features = nn.Sequential(*first, SelfAttention(2 * channels, spectral_norm), flatten, linear, activation)
        self.unconditional = spectral_norm(Linear(FEATURES, 1))
        embedding = nn.Embedding(num_classes, FEATURES)
        nn.init.normal_(embedding.weight, std=FEATURES**-0.5)
        self.embedding = spectral_norm(embedding)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.features(x)
        logits: Tensor = self.unconditional(h).squeeze(1) + (self.embedding(y) * h).sum(1)
        return logits


class Model(AdversarialModel):
    """The generator with its averaged weights; the discriminator is needed for training alone."""

    conditional = True

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.generator = Generator(config.latent_dim, config.channels, config.embedding_dim, num_classes)

    def prepare_sampling(self, sampling: Sampling, train: Split) -> None:
        """Measure the normalisations on noise that is truncated as it will be."""
        super().prepare_sampling(sampling, train)
        rng = make_rng(self.config.seed, train.images.device)
        labels = balanced_labels(_STATISTICS_BATCH, self.num_classes).to(train.images.device)
        noise = (self.noise(_STATISTICS_BATCH, rng) for _ in range(_STATISTICS_BATCHES))
        estimate_statistics(self.generator, ((z, labels) for z in noise))

    def fitted(self) -> dict[str, Tensor]:
        kept: dict[str, Tensor] = {}
        for name, module in self.generator.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                kept |= {f"{name}.{key}": value.clone() for key, value in module.named_buffers()}
        return kept

    def restore_sampling(self, sampling: Sampling, fitted: dict[str, Tensor]) -> None:
        super().restore_sampling(sampling, fitted)
        self.generator.load_state_dict(fitted, strict=False)

    def noise(self, count: int, rng: torch.Generator) -> Tensor:
        """Standard normal noise (count, latent_dim); what lies beyond the truncation is drawn anew."""
        z = draw_normal((count, self.config.latent_dim), rng)
        while bool((beyond := z.abs() > self.sampling.truncation).any()):
            z[beyond] = draw_normal((int(beyond.sum()),), rng)
        return z

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        x: Tensor = self.generator(self.noise(len(labels), rng), labels)
        return x


class Objective(ConvolutionalObjective):
    """Alternating updates of discriminator and generator on the same batch of labels."""

    losses: Mapping[str, str] = {"loss_g": "generator: hinge loss", "loss_d": "discriminator: hinge loss"}

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        self.set_up(Discriminator(config.discriminator_channels, model.num_classes, config.spectral_norm))

    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        x_fake = self.generate(y, rng)
        logits_real, logits_fake = self.discriminator(torch.cat([x, x_fake.detach()]), y.repeat(2)).chunk(2)
        loss_d = discriminator_loss(logits_real, logits_fake, "hinge")
        r1 = lazy_r1(self.config, self.steps, lambda images: self.raw_discriminator(images, y), x)
        self.descend(self.optimizer_d, loss_d + r1)

        loss_g = generator_loss(self.judge(x_fake, y).float(), "hinge")
        penalty = orthogonal_penalty(self.raw_model.generator.regularised())
        self.descend(self.optimizer_g, loss_g + self.config.orthogonal_weight * penalty)
        return {"loss_g": loss_g.detach(), "loss_d": loss_d.detach(), "orthogonal_penalty": penalty.detach()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        self.raw_discriminator.eval()  # whose singular vectors would move
        logits_real, logits_fake = self.discriminator(x, y), self.discriminator(self.draw(y, rng), y)
        self.raw_discriminator.train()
        return {
            "loss_g": generator_loss(logits_fake, "hinge"),
            "loss_d": discriminator_loss(logits_real, logits_fake, "hinge"),
        }
