"""A discriminator that judges patches of an image, each by itself."""

import torch
from torch import Tensor, nn

_SLOPE = 0.2  # of the leaky ReLUs


class PatchDiscriminator(nn.Module):
    """Images (B, 1, 28, 28) in [0, 1] to verdicts (B * 49,): high where a patch of 18 x 18 pixels looks real.

    Isola, Zhu, Zhou, Efros 2017, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR, section
    3.2.2. Patches overlap, and their centres are 4 pixels apart.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),  # (B, 4, 14, 14)
            nn.Conv2d(4, channels, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(channels, wide, 3, padding=1, stride=2),  # (B, 2 channels, 7, 7)
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(wide, wide, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(wide, 1, 1),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        verdicts: Tensor = self.layers(x)
        return verdicts.flatten()
