"""What a feature extractor is: the contract that every file in `generative/extractors/` fulfils.

A file defines `Config(ExtractorConfig)`, its settings, and either

- `Model(FeatureExtractor)` and `Objective(TrainingObjective)`, where the network is trained here, or
- `Model(FeatureExtractor)` and `fetch(config)`, where its weights come from elsewhere.

A Model is made from its settings and the number of classes.

Samples and real images are compared in the space of an extractor's features, as natural images are in that of
Inception-v3 (Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium", NeurIPS). In the features of another network the distance is called Fréchet distance, not FID.
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from generative.config import BatchSize, Config, PositiveInt, Seed
from generative.data.splits import to_unit
from generative.plugins import load_plugin

PACKAGE = "generative.extractors"


class ExtractorConfig(Config):
    """Settings that every extractor has."""

    kind: str


class TrainedExtractorConfig(ExtractorConfig):
    """Settings of every extractor that is trained here."""

    seed: Seed
    epochs: PositiveInt
    batch_size: BatchSize


class FeatureExtractor(nn.Module):
    """Images (B, 1, 28, 28) in [0, 1] to features (B, d) and class logits (B, C), (B, 0) if it knows no classes."""

    classifies: ClassVar[bool] = False
    embed_batch: ClassVar[int] = 500  # images at a time


class Embedding(NamedTuple):
    """Features float32 (N, d) and class logits float32 (N, C or 0), on the CPU."""

    features: Tensor
    logits: Tensor


@torch.inference_mode()
def embed(extractor: FeatureExtractor, images: Tensor) -> Embedding:
    """Features and logits of grey levels `images`, uint8 (N, 1, 28, 28); the extractor is put into eval mode."""
    extractor.eval()
    device = next(extractor.parameters()).device
    parts = [extractor(to_unit(batch.to(device))) for batch in images.split(extractor.embed_batch)]
    return Embedding(torch.cat([part[0].cpu() for part in parts]), torch.cat([part[1].cpu() for part in parts]))


def load_extractor_kind(name: Any, *, where: str) -> Any:
    """Import one extractor file and return the module; `where` is the block of settings that names it.

    Raises:
        SettingError: there is no such file.
    """
    return load_plugin(PACKAGE, name, key=f"{where}.kind")
