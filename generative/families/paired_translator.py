"""The reference of CycleGAN: the same translators, trained with pairs of a photograph and its drawing.

The loss that Isola, Zhu, Zhou, Efros 2017, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR,
equation 3, put beside a discriminator's; here it stands alone.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from generative.family import FamilyConfig
from generative.training import translating
from generative.training.translating import TranslatorModel, TranslatorObjective, TranslatorTraining

SMALL = {"training": translating.SMALL}


class Config(FamilyConfig):
    """Settings of translators that learn from pairs."""

    training: TranslatorTraining

    def describe(self) -> str:
        return (
            f"{self.training.describe_translators()}, trained with pairs for the mean absolute difference to the truth "
            f"({self.training.describe_schedule()}; averaged weights): what CycleGAN's translators can learn if told."
        )

    def sources(self) -> list[str]:
        return [
            "Isola et al. 2017, image-to-image translation with conditional adversarial networks, CVPR",
            *translating.SOURCES,
        ]


class Model(TranslatorModel):
    """Two translators, which learn before their answers are rounded."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.to_drawing(x), self.to_photograph(y)


class Objective(TranslatorObjective):
    """Mean absolute differences, in both directions."""

    losses: Mapping[str, str] = {"loss": "mean absolute difference to the truth, both ways"}

    def update(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        drawings = self.raw_model.render(x)
        drawn, photographed = self.network(x, drawings)
        loss = (drawn - drawings).abs().mean() + (photographed - x).abs().mean()
        self.descend(self.optimizer, loss)
        return {"loss": loss.detach()}
