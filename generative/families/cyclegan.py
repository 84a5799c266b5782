"""CycleGAN: from photographs to outline drawings and back, learned from images that are never seen as pairs.

Zhu, Park, Isola, Efros 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV:
two translators, and two discriminators that judge patches, with least-squares losses (equation 1 and section 4), and
the distance of an image to what comes back of its translation (equation 2). Photographs are of every second training
image, drawings of the others.

The cycle loss teaches the way back alone. If it could change the way there too, translations would hide the image in
what discriminators overlook (Chu, Zhmoginov, Sandler 2017, "CycleGAN, a Master of Steganography", arXiv:1712.02950).
Each translator then learns the pairs that the other one makes up, as in translation of languages (Sennrich, Haddow,
Birch 2016, "Improving Neural Machine Translation Models with Monolingual Data", ACL). Noise on made photographs keeps
their drawings from being of faults that real photographs do not have.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from generative.compute.runtime import draw_noise
from generative.config import Fraction, NonNegativeFloat, PositiveInt
from generative.data.splits import Split, batches, steps_per_epoch
from generative.family import FamilyConfig
from generative.networks.outlines import outlines
from generative.networks.patches import PatchDiscriminator
from generative.training import translating
from generative.training.adversarial import discriminator_loss, frozen, generator_loss
from generative.training.translating import TranslatorModel, TranslatorObjective, TranslatorTraining

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {"training": translating.SMALL | {"discriminator_channels": 8}}

_BETA2 = 0.99


class Training(TranslatorTraining):
    """Settings of translators, discriminators, and their losses."""

    discriminator_channels: PositiveInt
    drawing_noise: NonNegativeFloat  # standard deviation, on drawings before they are judged
    photograph_noise: NonNegativeFloat  # the same, on photographs that were made of drawings, before the way back
    cycle_weight: NonNegativeFloat
    adam_beta1: Fraction


class Config(FamilyConfig):
    """Settings of a CycleGAN."""

    training: Training

    def describe(self) -> str:
        training = self.training
        return (
            f"{training.describe_translators()}, each against a discriminator of patches with the least-squares loss; "
            f"a cycle loss of weight {training.cycle_weight:g}, the mean absolute difference to what comes back, "
            f"trains the second translator of each cycle alone. Photographs are of one half of the training images, "
            f"drawings of the other ({training.describe_schedule()}; averaged weights)."
        )

    def sources(self) -> list[str]:
        return [
            "Zhu et al. 2017, unpaired image-to-image translation using cycle-consistent adversarial networks, ICCV",
            "Isola et al. 2017, image-to-image translation with conditional adversarial networks, CVPR",
            "Mao et al. 2017, least squares GANs, ICCV",
            "Sennrich et al. 2016, improving neural machine translation models with monolingual data, ACL",
            "Chu et al. 2017, CycleGAN, a master of steganography, arXiv:1712.02950",
            "Sønderby et al. 2017, amortised MAP inference for image super-resolution, ICLR",
            *translating.SOURCES,
        ]


class Translations(NamedTuple):
    """What becomes of photographs x and drawings y, each (B, 1, 28, 28)."""

    drawings: Tensor  # of x
    photographs: Tensor  # of y
    x: Tensor  # there and back, with gradients for the way back alone
    y: Tensor


class Model(TranslatorModel):
    """Two translators; the discriminators are needed for training alone."""

    def forward(self, x: Tensor, y: Tensor, noise: Tensor) -> Translations:
        """Translations of photographs `x` and drawings `y`, with `noise` (B, 1, 28, 28) on what `y` comes back from."""
        drawings, photographs = self.draw(x), self.photograph(y)
        x_back, y_back = self.photograph(drawings.detach()), self.draw(photographs.detach() + noise)
        return Translations(drawings, photographs, x_back, y_back)


class _Judges(nn.Module):
    """Photographs and drawings (B, 1, 28, 28) each to a verdict on every patch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.of_photographs, self.of_drawings = (PatchDiscriminator(channels) for _ in range(2))

    def forward(self, photographs: Tensor, drawings: Tensor) -> tuple[Tensor, Tensor]:
        return self.of_photographs(photographs), self.of_drawings(drawings)


class Objective(TranslatorObjective):
    """Discriminators and translators in turn."""

    losses: Mapping[str, str] = {
        "loss_g": "translators: squared error of verdicts",
        "loss_d": "discriminators: squared error of verdicts",
        "loss_cycle": "mean absolute difference to what comes back",
    }

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        betas = config.adam_beta1, _BETA2
        super().__init__(model, config, fabric, total_steps, betas=betas)
        self.raw_judges = _Judges(config.discriminator_channels)
        optimizer = torch.optim.Adam(self.raw_judges.parameters(), lr=config.learning_rate, betas=betas, fused=True)
        self.judges, self.optimizer_d = self.optimise(self.raw_judges, optimizer, "linear")

    @classmethod
    def steps_per_epoch(cls, count: int, batch_size: int) -> int:
        return steps_per_epoch(count // 2, batch_size)

    @classmethod
    def batches(
        cls, train: Split, batch_size: int, rng: torch.Generator, *, rank: int, world_size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Photographs (B, 1, 28, 28) of one half of the images, and drawings (B, 1, 28, 28) of the other."""
        count = len(train) // 2
        halves = [Split(train.images[first::2][:count], train.labels[first::2][:count]) for first in (0, 1)]
        parts = [batches(half, batch_size, rng, rank=rank, world_size=world_size) for half in halves]
        for (photographs, _), (others, _) in zip(*parts, strict=True):
            yield photographs, outlines(others)

    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Use photographs x and drawings y, (B, 1, 28, 28) each, of different images."""
        noise = self.config.photograph_noise * draw_noise(y.shape, rng, self.fabric)
        drawings, photographs, x_back, y_back = self.network(x, y, noise)
        veiled = torch.cat([self._veil(y, rng), self._veil(drawings.detach(), rng)])
        verdicts = self.judges(torch.cat([x, photographs.detach()]), veiled)
        halves = [part.chunk(2) for part in verdicts]
        loss_d = torch.stack([discriminator_loss(real, made, "least_squares") for real, made in halves]).sum()
        self.descend(self.optimizer_d, loss_d)
        with frozen(self.raw_judges), self.fabric.autocast():
            verdicts = self.raw_judges(photographs, self._veil(drawings, rng))
        loss_g = torch.stack([generator_loss(part.float(), "least_squares") for part in verdicts]).sum()
        loss_cycle = (x_back - x).abs().mean() + (y_back - y).abs().mean()
        self.descend(self.optimizer, loss_g + self.config.cycle_weight * loss_cycle)
        return {"loss_g": loss_g.detach(), "loss_d": loss_d.detach(), "loss_cycle": loss_cycle.detach()}

    def _veil(self, drawings: Tensor, rng: torch.Generator) -> Tensor:
        """Drawings as they are judged: with noise, which hides that real ones are black and white and others grey.

        Sønderby, Caballero, Theis, Shi, Huszár 2017, "Amortised MAP Inference for Image Super-Resolution", ICLR:
        instance noise.
        """
        return drawings + self.config.drawing_noise * draw_noise(drawings.shape, rng, self.fabric)
