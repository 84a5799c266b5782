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
import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from generative.data.splits import to_uint8
from generative.errors import PipelineError
from generative.extractor import ExtractorConfig, FeatureExtractor
from generative.io.download import DownloadError, download

DOWNLOAD = "download"
_LARGEST_FILE = 200_000_000  # bytes, twice what it has
_TIMEOUT, _RETRIES = 30.0, 3  # seconds without a byte to speak of, and how often a broken download is tried again
_FEATURES = "2048"  # the last pooling layer, by torch-fidelity's name


class Config(ExtractorConfig):
    """Where the weights are: `download`, or the path of torch-fidelity's file (a state dict saved by torch)."""

    weights: str


class Model(FeatureExtractor):
    """Images (B, 1, 28, 28) in [0, 1] to features (B, 2048); no logits of our classes."""

    embed_batch = 50

    def __init__(self, config: Config, num_classes: int) -> None:
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
    model = Model(config, 0)
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
    path: Path = pooch.os_cache("fashion-mnist-inception") / URL_INCEPTION_V3.rsplit("/", 1)[1]
    wanted = path.stem.rsplit("-", 1)[1]  # the name ends in how the hash begins
    if path.exists() and _sha256(path).startswith(wanted):
        return path
    try:
        download(URL_INCEPTION_V3, path, largest=_LARGEST_FILE, timeout=_TIMEOUT, retries=_RETRIES)
    except (DownloadError, OSError) as error:
        raise PipelineError(f"{path.name}: {error}. {_way_out()}") from None
    digest = _sha256(path)
    if not digest.startswith(wanted):
        with path.open("rb") as file:
            what = "a web page" if file.read(100).lstrip()[:1] == b"<" else f"a file of the SHA-256 {digest}"
        path.unlink()
        raise PipelineError(f"{path.name}: got {what} instead of one that begins with {wanted}. {_way_out()}")
    return path


def _way_out() -> str:
    return (
        f"Check the network and run again; or put the file of {URL_INCEPTION_V3} somewhere and name its path as "
        "'weights' of the inception extractor."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
