"""The entries of `extractors` in params.yaml, with the kind that each names."""

from typing import Any

import torch

from generative.extractor import ExtractorConfig, FeatureExtractor, load_extractor_kind
from generative.io.tensors import load_network
from stages.common.params import Params
from stages.common.paths import extractor


def read_extractor(params: Params, name: str) -> tuple[ExtractorConfig, Any]:
    """The settings of one extractor and the module of its kind.

    Raises:
        SettingError: no such extractor or kind, or naming each missing, unknown or wrong key.
    """
    return parse_extractor(params.item("extractors", name), where=f"extractors.{name}")


def parse_extractor(block: dict[str, Any], *, where: str) -> tuple[ExtractorConfig, Any]:
    """The settings in `block`, which stands at `where` in the params, and the module of the kind it names.

    Raises:
        SettingError: no such kind, or naming each missing, unknown or wrong key.
    """
    kind = load_extractor_kind(block.get("kind"), where=where)
    config: ExtractorConfig = kind.Config.parse(block, where=where)
    return config, kind


def load_extractor(params: Params, name: str, device: torch.device) -> FeatureExtractor:
    """The extractor `name` with its weights, on `device`.

    Raises:
        PipelineError: its file is missing, damaged or holds another network.
    """
    config, kind = read_extractor(params, name)
    network: FeatureExtractor = load_network(kind.Model, config, extractor(name))
    return network.to(device).eval()
