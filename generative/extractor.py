"""The feature extractor: a small convolutional classifier trained on the training split.

Its penultimate activations are the space in which samples and real images are compared, as Inception-v3's
are for the FID of natural images (Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge
to a Local Nash Equilibrium", NeurIPS). Features of another network than Inception: the distance is called
Fréchet distance, not FID.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from generative.config import Config, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from generative.data import NUM_CLASSES, to_unit
from generative.family import TrainingObjective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_EMBED_BATCH = 500


class ExtractorConfig(Config):
    """Settings of the extractor (params: `extractor`)."""

    seed: Seed
    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    dropout: Fraction
    channels: PositiveInt


class Extractor(nn.Module):
    """Images (B, 1, 28, 28) in [0, 1] to features (B, 4 channels) and class logits (B, 10)."""

    def __init__(self, config: ExtractorConfig) -> None:
        super().__init__()
        width = config.channels
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),  # (B, 4, 14, 14)
            *_block(4, width),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),  # (B, 2 width, 7, 7)
            *_block(2 * width, 4 * width),
            *_block(4 * width, 4 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(4 * width, NUM_CLASSES)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layers(x)
        return features, self.classify(self.dropout(features))


def _block(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()


class ExtractorObjective(TrainingObjective):
    """Cross-entropy with AdamW and a one-cycle learning rate."""

    losses = ("cross_entropy",)

    def __init__(self, model: Extractor, config: ExtractorConfig, fabric: "Fabric", total_steps: int) -> None:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.model, self.optimizer = fabric.setup(model, optimizer)
        self.schedule = OneCycleLR(self.optimizer, max_lr=config.learning_rate, total_steps=total_steps + 1)
        self.fabric = fabric

    def step(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        loss = F.cross_entropy(self.model(x)[1], y)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        self.schedule.step()
        return {"cross_entropy": loss.detach()}

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        logits = self.model(x)[1]
        return {"cross_entropy": F.cross_entropy(logits, y), "accuracy": (logits.argmax(1) == y).float().mean()}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


class Embedding(NamedTuple):
    """Features float32 (N, d) and class logits float32 (N, 10), on the CPU."""

    features: Tensor
    logits: Tensor


@torch.inference_mode()
def embed(extractor: Extractor, images: Tensor) -> Embedding:
    """Features and logits of grey levels `images`, uint8 (N, 1, 28, 28); the extractor is put into eval mode."""
    extractor.eval()
    device = next(extractor.parameters()).device
    parts = [extractor(to_unit(batch.to(device))) for batch in images.split(_EMBED_BATCH)]
    return Embedding(torch.cat([part[0].cpu() for part in parts]), torch.cat([part[1].cpu() for part in parts]))
