"""Inception-v3 as in the FID of papers: TensorFlow's weights of 2015, run by torch-fidelity.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS.
Images are tiled to three channels and enlarged to 299 x 299 as TensorFlow 1 did it. The network is slow on a CPU
(about a second for ten images) and its weights are fetched from the address that torch-fidelity names.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import pooch
import requests
import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from generative.data.splits import to_uint8
from generative.errors import PipelineError
from generative.extractor import ExtractorConfig, FeatureExtractor

DOWNLOAD = "download"
_FEATURES = "2048"  # the last pooling layer, by torch-fidelity's name


class Config(ExtractorConfig):
    """Where the weights are: `download`, or the path of torch-fidelity's file (a state dict saved by torch)."""

    weights: str


class Model(FeatureExtractor):
    """Images (B, 1, 28, 28) in [0, 1] to features (B, 2048); no logits of our classes."""

    embed_batch = 50

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.inception = _without_weights()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (features,) = self.inception(to_uint8(x).expand(-1, 3, -1, -1))
        return features, features[:, :0]


def fetch(config: Config) -> Model:
    """The network with its weights.

    Raises:
        PipelineError: the file is missing or damaged, cannot be fetched, or holds something else.
    """
    path = _download() if config.weights == DOWNLOAD else Path(config.weights)
    model = Model(config)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # runs no code from the file
        model.inception.load_state_dict(state)
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing: 'weights' of an inception extractor is the path of the weights that torch-fidelity "
            f"uses, or '{DOWNLOAD}'."
        ) from None
    except Exception as error:  # torch names no narrower class for what a damaged file can raise
        reason = " ".join(str(error).split())[:300]
        raise PipelineError(
            f"{path} does not hold the Inception weights that torch-fidelity uses ({reason}): delete it and fetch it "
            f"anew from {URL_INCEPTION_V3}."
        ) from None
    return model


def _download() -> Path:
    folder = pooch.os_cache("fashion-mnist-inception")
    name = URL_INCEPTION_V3.rsplit("/", 1)[1]
    try:
        path = Path(pooch.retrieve(URL_INCEPTION_V3, known_hash=None, fname=name, path=folder, progressbar=True))
    except (requests.RequestException, OSError, ValueError) as error:
        raise PipelineError(
            f"the Inception weights cannot be fetched from {URL_INCEPTION_V3} ({' '.join(str(error).split())}): put "
            "the file somewhere and name its path as 'weights' of the inception extractor."
        ) from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(wanted := name.removesuffix(".pth").rsplit("-", 1)[1]):  # the name ends in it
        path.unlink()
        raise PipelineError(f"what {URL_INCEPTION_V3} sent is damaged (SHA-256 {digest}, not {wanted}...): run again.")
    return path


def _without_weights() -> Any:
    """torch-fidelity's network, which it builds with weights only: here with those that torch draws for its layers."""

    class Unfilled(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, state_dict: Any, *arguments: Any, **options: Any) -> Any:
            return super().load_state_dict(state_dict, *arguments, **options) if state_dict else None

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    network: nn.Module = Unfilled("inception", [_FEATURES], feature_extractor_weights_path=empty)
    return network
