"""The first feature extractor: a small convolutional classifier; its penultimate activations are the features."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from generative.compute.portable import Linear
from generative.config import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from generative.extractor import FeatureExtractor, TrainedExtractorConfig
from generative.training.gradient import DescentObjective

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Config(TrainedExtractorConfig):
    """Settings of the classifier."""

    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    dropout: Fraction
    channels: PositiveInt


class Model(FeatureExtractor):
    """Images (B, 1, 28, 28) in [0, 1] to features (B, 4 channels) and class logits (B, C)."""

    classifies = True

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__()
        width = config.channels
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),  # (B, 4, 14, 14)
            *_block(4, width),
            *_block(width, 2 * width, stride=2),  # (B, 2 width, 7, 7)
            *_block(2 * width, 4 * width),
            *_block(4 * width, 4 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classify = Linear(4 * width, num_classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layers(x)
        return features, self.classify(self.dropout(features))


def _block(channels_in: int, channels_out: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()


class Objective(DescentObjective):
    """Cross-entropy with AdamW and a one-cycle learning rate."""

    losses: Mapping[str, str] = {"cross_entropy": "cross-entropy, nats per image"}

    def __init__(self, model: Model, config: Config, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.network, self.optimizer = self.optimise(
            model,
            optimizer,
            lambda adam: OneCycleLR(adam, max_lr=config.learning_rate, total_steps=total_steps + 1),
        )

    def terms(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {"cross_entropy": F.cross_entropy(self.network(x)[1], y)}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        logits = self.network(x)[1]
        return {"cross_entropy": F.cross_entropy(logits, y), "accuracy": (logits.argmax(1) == y).float().mean()}
