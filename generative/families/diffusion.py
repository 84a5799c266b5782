"""Diffusion model of images of a class: noise is taken away step by step, guided by the label without a classifier."""

import torch
from torch import Tensor, nn

from generative.config import PositiveInt
from generative.data.splits import Split
from generative.networks.mixture_denoiser import cluster
from generative.training import diffusion
from generative.training.diffusion import (
    Condition,
    DiffusionConfig,
    DiffusionModel,
    DiffusionObjective,
    DiffusionTraining,
)

SMALL = {"training": diffusion.SMALL | {"components": 2}, "sampling": diffusion.SMALL_SAMPLING}


class Training(DiffusionTraining):
    """Settings of the networks, of their training, and of the mixture."""

    components: PositiveInt  # Gaussians of each class


class Config(DiffusionConfig):
    """Settings of a diffusion model of labels."""

    training: Training

    def condition(self) -> str:
        return "the label"

    def mixture(self) -> str:
        return f"a mixture of {self.training.components} Gaussians per class"


class Model(DiffusionModel):
    """The network is told a label; Gaussians are of clusters of the images of each."""

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__(config, num_classes, num_classes * config.components)
        self.embedding = nn.Embedding(num_classes, config.width)

    def fit_mixture(self, images: Tensor, train: Split) -> None:
        self.mixture.fit(images, cluster(images, train.labels, self.config.components, self.config.seed))

    def condition(self, told: Tensor) -> Condition:
        labels = torch.arange(self.num_classes, device=told.device).repeat_interleave(self.config.components)
        prior = torch.where(told.unsqueeze(1) == labels, self.mixture.log_weights, -torch.inf)
        return Condition(self.embedding(told), prior)

    def tell_labels(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        return labels


class Objective(DiffusionObjective):
    """The denoising error given labels."""

    def tell(self, x: Tensor, y: Tensor, chances: Tensor) -> Tensor:
        return y
