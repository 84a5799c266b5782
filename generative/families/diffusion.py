"""Diffusion model of images of a class: noise is taken away step by step, guided by the label without a classifier."""

import torch
from torch import Tensor, nn

from generative.networks.denoiser import Condition
from generative.training import diffusion
from generative.training.diffusion import (
    DiffusionConfig,
    DiffusionModel,
    DiffusionObjective,
    DiffusionTraining,
)

SMALL = {"training": diffusion.SMALL, "sampling": diffusion.SMALL_SAMPLING}


class Config(DiffusionConfig):
    """Settings of a diffusion model of labels."""

    def condition(self) -> str:
        return "the label"


class Model(DiffusionModel):
    """The denoiser, told a label or, by one more than there are, none."""

    def __init__(self, config: DiffusionTraining, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.embedding = nn.Embedding(num_classes + 1, config.width)

    def condition(self, told: Tensor) -> Condition:
        return Condition(self.embedding(told), self.denoiser.mixture.prior_of_label(told))

    def untold(self, count: int, device: torch.device) -> Tensor:
        return torch.full((count,), self.num_classes, device=device)

    def tell_labels(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        return labels


class Objective(DiffusionObjective):
    """The denoising error given labels."""

    def tell(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return y
