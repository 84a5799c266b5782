"""The second feature extractor: an autoencoder that has seen no label; its bottleneck holds the features.

It differs from the classifier in all that could be gamed at once: objective (squared error of the pixels), layers
(strided 5 x 5 convolutions and a dense layer), seed. The features are scaled to mean 0 and variance 1 over the
training images, so that no direction counts by its scale alone.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from generative.compute.portable import Linear
from generative.config import PositiveFloat, PositiveInt
from generative.data.splits import Split, to_unit
from generative.extractor import FeatureExtractor, TrainedExtractorConfig
from generative.networks.losses import squared_error
from generative.training.averaging import estimate_statistics
from generative.training.gradient import DescentObjective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_MAP_SIDE = 7  # of the smallest feature map
_FINISH_BATCH = 5000


class Config(TrainedExtractorConfig):
    """Settings of the autoencoder whose bottleneck is used."""

    learning_rate: PositiveFloat
    channels: PositiveInt
    features: PositiveInt


class Model(FeatureExtractor):
    """Images (B, 1, 28, 28) in [0, 1] to features (B, d); no logits."""

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__()
        width = config.channels
        inner = 2 * width * _MAP_SIDE**2
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2, padding=2),  # (B, width, 14, 14)
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),  # (B, 2 width, 7, 7)
            nn.ReLU(),
            nn.Flatten(),
            Linear(inner, config.features),
            nn.BatchNorm1d(config.features, affine=False),
        )
        self.decoder = nn.Sequential(
            Linear(config.features, inner),
            nn.ReLU(),
            nn.Unflatten(1, (2 * width, _MAP_SIDE, _MAP_SIDE)),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),  # (B, width, 14, 14)
            nn.ReLU(),
            nn.Conv2d(width, 4, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Sigmoid(),
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(x)
        return features, features[:, :0]


class Objective(DescentObjective):
    """Squared error of the reconstruction, summed over the pixels, with Adam and a linear decay."""

    losses: Mapping[str, str] = {"squared_error": "squared error, summed over the pixels"}

    def __init__(self, model: Model, config: Config, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
        self.encoder = model.encoder
        autoencoder = nn.Sequential(model.encoder, model.decoder)
        self.network, self.optimizer = self.optimise(autoencoder, optimizer, "linear")

    def terms(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {"squared_error": squared_error(self.network(x), x).mean()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return self.terms(x, y, rng)

    def finish(self, train: Split) -> None:
        """Scale the features over the whole training split."""
        parts = train.images.tensor_split(-(-len(train) // _FINISH_BATCH))  # of equal size: each counts alike
        estimate_statistics(self.encoder, ((to_unit(images),) for images in parts))
