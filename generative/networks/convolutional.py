"""Generator and discriminator of convolutions, for all families in which a discriminator judges.

Convolutions work at 14 x 14 and 7 x 7, where they cost little: the discriminator folds 2 x 2 pixels into
channels first, and the generator has a few channels at 28 x 28.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative.compute.portable import Linear

FEATURES = 128  # of a discriminator's last layer
_PIXEL_CHANNELS = 16  # of the generator at 28 x 28
_SLOPE = 0.2  # of the leaky ReLUs (Radford et al. 2016, "DCGAN", section 4)
_BEYOND = (
    0.03  # how far the generator's range exceeds [0, 1] on each side before it is cut: black and white are reached
)
_DETAIL_GAIN = 20.0  # grey levels that differ from their surroundings by a twentieth of the range count nearly fully


class Generator(nn.Module):
    """Noise z (B, latent_dim) and labels (B,) to images (B, 1, 28, 28) in [0, 1].

    The label enters through the normalisations alone, or not at all. Fed in beside the noise it takes over: the
    generator then learns one image per class (docs/recipes.md).

    Args:
        latent_dim: of the noise.
        channels: at 14 x 14; twice as many at 7 x 7.
        num_classes: of the labels that are seen; 0 if the label is not.
    """

    def __init__(self, latent_dim: int, channels: int, *, num_classes: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.project = Linear(latent_dim, wide * 7 * 7)
        layers = [
            lambda: nn.Conv2d(wide, wide, 3, padding=1),
            lambda: nn.Sequential(nn.Conv2d(wide, 4 * channels, 3, padding=1), nn.PixelShuffle(2)),
            lambda: nn.Conv2d(channels, channels, 3, padding=1),  # at 14 x 14
            lambda: to_pixels(channels),
        ]
        widths = (wide, wide, channels, channels)
        self.blocks = nn.ModuleList(
            _Block(layer(), ModulatedBatchNorm(width, latent_dim, num_classes=num_classes))
            for layer, width in zip(layers, widths, strict=True)
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        h = self.project(z).view(len(z), -1, 7, 7).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h, z, y)
        return intensities(h)


def to_pixels(channels: int) -> nn.Sequential:
    """Maps (B, C, 14, 14) to (B, 1, 28, 28); the last convolution smooths the seams of the shuffle."""
    return nn.Sequential(
        nn.Conv2d(channels, 4 * _PIXEL_CHANNELS, 3, padding=1),
        nn.PixelShuffle(2),
        nn.LeakyReLU(_SLOPE),
        nn.Conv2d(_PIXEL_CHANNELS, 1, 3, padding=1),
    )


def intensities(h: Tensor) -> Tensor:
    """Real numbers as intensities in [0, 1], of which black and white are reached."""
    return ((1 + 2 * _BEYOND) * torch.sigmoid(h) - _BEYOND).clamp(0, 1).contiguous()


class _Block(nn.Module):
    def __init__(self, layer: nn.Module, normalise: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.layer = layer

    def forward(self, h: Tensor, z: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.layer(F.relu(self.normalise(h, z, y)))
        return out


class ModulatedBatchNorm(nn.Module):
    """Batch normalisation of (B, C, H, W) whose scale and shift depend on noise z (B, latent_dim), and on the label.

    Noise: Chen, Lucic, Houlsby, Gelly 2019, "On Self Modulation for Generative Adversarial Networks", ICLR, here a
    linear map. Label: Dumoulin, Shlens, Kudlur 2017, "A Learned Representation for Artistic Style", ICLR; de Vries et
    al. 2017, "Modulating Early Visual Processing by Language", NeurIPS.
    """

    def __init__(self, channels: int, latent_dim: int, *, num_classes: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(channels, affine=False)
        self.of_noise = Linear(latent_dim, 2 * channels)
        nn.init.zeros_(self.of_noise.weight)
        nn.init.zeros_(self.of_noise.bias)
        self.of_label = nn.Embedding(num_classes, 2 * channels) if num_classes else None
        if self.of_label is not None:
            nn.init.zeros_(self.of_label.weight)

    def forward(self, h: Tensor, z: Tensor, y: Tensor) -> Tensor:
        modulation = self.of_noise(z)
        if self.of_label is not None:
            modulation = modulation + self.of_label(y)
        scale, shift = modulation[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1)
        return torch.addcmul(shift, self.normalise(h), 1 + scale)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation of (B, C, H, W) whose scale and shift are linear in conditions (B, D); at first plain.

    Brock, Donahue, Simonyan 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR, appendix
    B: conditions are an embedding of the class, shared by all normalisations, and a part of the noise.
    """

    def __init__(self, channels: int, conditions: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(channels, affine=False)
        self.modulate = Linear(conditions, 2 * channels, bias=False)
        nn.init.zeros_(self.modulate.weight)

    def forward(self, h: Tensor, conditions: Tensor) -> Tensor:
        scale, shift = self.modulate(conditions)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1)
        return torch.addcmul(shift, self.normalise(h), 1 + scale)


class DetailView(nn.Module):
    """Images (B, 1, 28, 28) in [0, 1] to two maps (B, 2, 28, 28) in [-1, 1]: grey levels, and enlarged fine detail.

    Detail d is what a binomial 3 x 3 filter takes away, as d / (1 + |d|) after a gain: the faint grain by which
    generated cloth differs from plain cloth becomes nearly as visible as an outline.
    """

    row: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("row", row, persistent=False)  # flat: processes cannot share one that is channels_last

    def forward(self, x: Tensor) -> Tensor:
        smooth = torch.outer(self.row, self.row)[None, None].to(memory_format=torch.channels_last)
        detail = x - F.conv2d(x, smooth, padding=1)
        return torch.cat([2 * x - 1, F.softsign(_DETAIL_GAIN * detail)], dim=1)


def discriminator_layers(channels: int, dropout: float = 0.0) -> nn.Sequential:
    """A network from images (B, 1, 28, 28) to features (B, `FEATURES`), without any normalisation.

    `dropout` is the share of what comes out behind each activation that is dropped in training.

    Few layers, and weights that keep the variance of what passes through them (He et al. 2015, "Delving Deep into
    Rectifiers", ICCV, equation 10): with smaller ones the network learns too slowly to see anything (docs/recipes.md).
    """
    layers = nn.Sequential(
        DetailView(),
        nn.PixelUnshuffle(2),  # (B, 8, 14, 14)
        nn.Conv2d(8, channels, 3, padding=1),
        nn.LeakyReLU(_SLOPE),
        nn.Conv2d(channels, 2 * channels, 3, padding=1, stride=2),  # (B, 2 channels, 7, 7)
        nn.LeakyReLU(_SLOPE),
        nn.Flatten(),
        Linear(2 * channels * 7 * 7, FEATURES),
        nn.LeakyReLU(_SLOPE),
    )
    for place, layer in reversed(list(enumerate(layers))):
        if isinstance(layer, nn.LeakyReLU) and dropout:
            layers.insert(place + 1, nn.Dropout(dropout))
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return layers.to(memory_format=torch.channels_last)


class Discriminator(nn.Module):
    """Images (B, 1, 28, 28) in [0, 1] to one number (B,): high where the image looks real."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = discriminator_layers(channels)
        self.judge = Linear(FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.judge(self.features(x))
        return logits.squeeze(1)
