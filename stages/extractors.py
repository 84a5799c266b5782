"""The entries of `extractors` in params.yaml, with the kind that each names."""

from typing import Any

import torch

from generative.errors import PipelineError
from generative.extractor import ExtractorConfig, FeatureExtractor, load_extractor_kind
from generative.tensors import load_tensors, load_weights
from stages.params import extractor_names, get_block, read_params
from stages.paths import extractor


def read_extractor(name: str) -> tuple[ExtractorConfig, Any]:
    """The settings of one extractor and the module of its kind.

    Raises:
        PipelineError: no such extractor or kind, or naming each missing, unknown or wrong key.
    """
    if name not in extractor_names():
        raise PipelineError(f"params: there is no extractor '{name}'; there are: {', '.join(extractor_names())}.")
    block, where = get_block(read_params(), "extractors")[name], f"extractors.{name}"
    kind = load_extractor_kind(block.get("kind") if isinstance(block, dict) else None, where=where)
    config: ExtractorConfig = kind.Config.parse(block, where=where)
    return config, kind


def load_extractor(name: str, device: torch.device) -> FeatureExtractor:
    """The extractor `name` with its weights, on `device`.

    Raises:
        PipelineError: its file is missing, damaged or holds another network.
    """
    config, kind = read_extractor(name)
    network: FeatureExtractor = kind.Model(config)
    load_weights(network, load_tensors(extractor(name)), path=extractor(name))
    return network.to(device).eval()
