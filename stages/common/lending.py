"""Extractors that are lent to the training of a model: what `lend` writes and `train` reads.

DVC cannot let a stage of one item of a `foreach` depend on what another item does not. So a stage between hands each
model the extractor that its settings name, or nothing: a training runs again when what it was handed changes, and not
when any other extractor does.
"""

from pathlib import Path

import torch

from generative.extractor import FeatureExtractor
from generative.family import FamilyConfig, ReadsExtractor
from generative.io.tensors import load_metadata, load_network, load_tensors, save_tensors
from stages.common.extractors import parse_extractor, read_extractor
from stages.common.params import Params
from stages.common.paths import CODE, extractor


def wanted_extractor(config: FamilyConfig) -> str | None:
    """The name of the extractor that the training of a model reads."""
    return config.training.extractor if isinstance(config.training, ReadsExtractor) else None


def lend(params: Params, name: str | None, path: Path) -> None:
    """Write a copy of the extractor `name` to `path`, with its settings and what it depends on in the code.

    Raises:
        SettingError: there is no such extractor.
    """
    if name is None:
        save_tensors(path, {})
        return
    config, _ = read_extractor(params, name)
    code = (CODE / "extractors" / f"{config.kind}.txt").read_text(encoding="utf-8")
    words = load_metadata(extractor(name)) | {"settings": config.model_dump(mode="json"), "code": code}
    save_tensors(path, load_tensors(extractor(name)), words)


def borrow(path: Path, device: torch.device) -> FeatureExtractor:
    """The extractor that `lend` wrote to `path`, on `device`, without gradients for its weights."""
    config, kind = parse_extractor(load_metadata(path)["settings"], where=str(path))
    network: FeatureExtractor = load_network(kind.Model, config, path)
    return network.to(device).eval().requires_grad_(False)
