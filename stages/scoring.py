"""What the stages that score share: their settings, and the features of real images."""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from generative.config import Config, Seed
from generative.data import Split
from generative.extractor import Embedding
from generative.scores.manifold import Radii
from generative.tensors import load_tensors, require
from stages.params import extractor_names
from stages.result_paths import REAL_FEATURES


class EvaluateConfig(Config):
    """How samples are scored (params: `evaluate`)."""

    seed: Seed
    bootstraps: Annotated[int, Field(ge=2)]
    kernel_subset_size: Annotated[int, Field(ge=2)]


class RealFeatures(NamedTuple):
    """The real images as one extractor sees them: the test split, and training images in the place of samples."""

    test: Embedding
    test_labels: Tensor
    test_radii: Radii
    train_features: Tensor


class RealImages(NamedTuple):
    """What `embed_real` wrote: the features by extractor, and each test image's distance to the training images."""

    by_extractor: dict[str, RealFeatures]
    test_neighbours: Tensor


def load_real(test: Split) -> RealImages:
    """The features of real images, checked."""
    tensors, path, size = load_tensors(REAL_FEATURES), REAL_FEATURES, len(test)
    by_extractor = {}
    for name in extractor_names():
        features = require(tensors, f"{name}.test_features", torch.float32, (size, None), path=path)
        logits = require(tensors, f"{name}.test_logits", torch.float32, (size, None), path=path)
        train = require(tensors, f"{name}.train_features", torch.float32, (None, features.shape[1]), path=path)
        radii = Radii(
            *(require(tensors, f"{name}.radii_{key}", torch.float64, (size,), path=path) for key in Radii._fields)
        )
        by_extractor[name] = RealFeatures(Embedding(features, logits), test.labels, radii, train)
    return RealImages(by_extractor, require(tensors, "test_neighbours", torch.float32, (size,), path=path))
