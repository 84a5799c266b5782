"""Generator and discriminator of convolutions, for the families of generative adversarial networks.

Convolutions work at 14 x 14 and 7 x 7, where they cost little: the discriminator folds 2 x 2 pixels into
channels first, and the generator has a few channels at 28 x 28.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative.compute.portable import Linear
from generative.data.fashion_mnist import NUM_CLASSES

_PIXEL_CHANNELS = 8  # of the generator at 28 x 28
_SLOPE = 0.2  # of the leaky ReLUs (Radford et al. 2016, "DCGAN", section 4)


class Generator(nn.Module):
    """Noise z (B, latent_dim) and labels (B,) to images (B, 1, 28, 28) in [0, 1].

    The label enters through the normalisations alone, or not at all. Fed in beside the noise it takes over: the
    generator then learns one image per class (docs/recipes.md).

    Args:
        latent_dim: of the noise.
        channels: at 14 x 14; twice as many at 7 x 7.
        normalise: makes the normalisation of so many channels, a module of maps (B, C, H, W) and labels (B,).
    """

    def __init__(self, latent_dim: int, channels: int, normalise: Callable[[int], nn.Module]) -> None:
        super().__init__()
        wide = 2 * channels
        self.project = Linear(latent_dim, wide * 7 * 7)
        layers = [
            lambda: nn.Conv2d(wide, wide, 3, padding=1),
            lambda: nn.Sequential(nn.Conv2d(wide, 4 * channels, 3, padding=1), nn.PixelShuffle(2)),
            lambda: nn.Conv2d(channels, channels, 3, padding=1),  # at 14 x 14
            lambda: _to_pixels(channels),
        ]
        widths = (wide, wide, channels, channels)
        self.blocks = nn.ModuleList(
            _Block(layer(), normalise(width)) for layer, width in zip(layers, widths, strict=True)
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        h = self.project(z).view(len(z), -1, 7, 7).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h, y)
        return torch.sigmoid(h).contiguous()


def _to_pixels(channels: int) -> nn.Sequential:
    """Maps (B, C, 14, 14) to (B, 1, 28, 28); the last convolution smooths the seams of the shuffle."""
    return nn.Sequential(
        nn.Conv2d(channels, 4 * _PIXEL_CHANNELS, 3, padding=1),
        nn.PixelShuffle(2),
        nn.LeakyReLU(_SLOPE),
        nn.Conv2d(_PIXEL_CHANNELS, 1, 3, padding=1),
    )


class _Block(nn.Module):
    def __init__(self, layer: nn.Module, normalise: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.layer = layer

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.layer(F.relu(self.normalise(h, y)))
        return out


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation of (B, C, H, W) whose scale and shift depend on the label.

    Dumoulin, Shlens, Kudlur 2017, "A Learned Representation for Artistic Style", ICLR; de Vries et al. 2017,
    "Modulating Early Visual Processing by Language", NeurIPS.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(channels, affine=False)
        self.embedding = nn.Embedding(NUM_CLASSES, 2 * channels)
        nn.init.zeros_(self.embedding.weight)

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        scale, shift = self.embedding(y)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1)
        return torch.addcmul(shift, self.normalise(h), 1 + scale)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation of (B, C, H, W) that is given labels and sees none."""

    def forward(self, h: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(h)


def discriminator_layers(channels: int, features: int) -> nn.Sequential:
    """A network from images (B, 1, 28, 28) to features (B, `features`), without any normalisation."""
    layers = nn.Sequential(
        nn.PixelUnshuffle(2),  # (B, 4, 14, 14)
        nn.Conv2d(4, channels, 3, padding=1),
        nn.LeakyReLU(_SLOPE),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.LeakyReLU(_SLOPE),
        nn.Conv2d(channels, 2 * channels, 3, padding=1, stride=2),  # (B, 2 channels, 7, 7)
        nn.LeakyReLU(_SLOPE),
        nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
        nn.LeakyReLU(_SLOPE),
        nn.Flatten(),
        Linear(2 * channels * 7 * 7, features),
        nn.LeakyReLU(_SLOPE),
    )
    return layers.to(memory_format=torch.channels_last)


class Discriminator(nn.Module):
    """Images (B, 1, 28, 28) in [0, 1] to one number (B,): high where the image looks real."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.features = discriminator_layers(channels, features)
        self.judge = Linear(features, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.judge(self.features(2 * x - 1))
        return logits.squeeze(1)
