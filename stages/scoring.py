"""What the stages that score share: their settings, the extractor, and the features of real images."""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from generative.config import Config, Seed
from generative.data import NUM_CLASSES, Split
from generative.extractor import Embedding, Extractor, ExtractorConfig
from generative.runtime import ComputeConfig, start
from generative.tensors import load_tensors, load_weights, require
from stages.params import read_block
from stages.paths import EXTRACTOR
from stages.result_paths import REAL_FEATURES


class EvaluateConfig(Config):
    """How samples are scored (params: `evaluate`)."""

    seed: Seed
    bootstraps: Annotated[int, Field(ge=2)]
    kernel_subsets: Annotated[int, Field(ge=2)]
    kernel_subset_size: Annotated[int, Field(ge=2)]


class RealFeatures(NamedTuple):
    """What `embed_real` wrote, and the labels of the test split."""

    test: Embedding
    train_features: Tensor
    test_neighbours: Tensor
    test_labels: Tensor


def load_extractor() -> Extractor:
    """The trained extractor, on the device that params.yaml names."""
    device = start(read_block("compute", ComputeConfig))
    extractor = Extractor(read_block("extractor", ExtractorConfig))
    load_weights(extractor, load_tensors(EXTRACTOR), path=EXTRACTOR)
    return extractor.to(device).eval()


def load_real(test: Split) -> RealFeatures:
    """The features of real images, checked."""
    tensors = load_tensors(REAL_FEATURES)
    size = len(test)
    features = require(tensors, "test_features", torch.float32, (size, None), path=REAL_FEATURES)
    train_features = require(tensors, "train_features", torch.float32, (None, features.shape[1]), path=REAL_FEATURES)
    logits = require(tensors, "test_logits", torch.float32, (size, NUM_CLASSES), path=REAL_FEATURES)
    neighbours = require(tensors, "test_neighbours", torch.float32, (size,), path=REAL_FEATURES)
    return RealFeatures(Embedding(features, logits), train_features, neighbours, test.labels)
