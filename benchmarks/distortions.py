"""What each extractor says about real images that were spoiled: `python -m benchmarks.distortions [SHEET.png]`.

Prints, for distortions at strengths that look about equally bad, the distances of 5,000 distorted test images to the
5,000 others, as multiples of what the same images reach undistorted; the table of docs/scores.md. With a path it also
draws what was judged, one distortion in each row.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from generative.compute.runtime import make_rng, start
from generative.data.splits import load_split, to_uint8, to_unit
from generative.extractor import embed
from generative.figures.strips import save_strip
from stages.common.extractors import load_extractor
from stages.common.params import read_params
from stages.common.paths import TEST
from stages.common.scoring import EvaluateConfig, pair_distances

Distortion = Callable[[Tensor, float], Tensor]  # images (N, 1, 28, 28) in [0, 1] and a strength in [0, 1], to images

_CLOTH = 0.1  # intensity above which a pixel belongs to the garment
_SHOWN = 20  # images in a row of the sheet


def noise(x: Tensor, strength: float) -> Tensor:
    """Gaussian noise everywhere."""
    return x + 0.3 * strength * torch.randn(x.shape, generator=make_rng(1))


def blur(x: Tensor, strength: float) -> Tensor:
    """A Gaussian window."""
    offsets = torch.arange(-6.0, 7)
    weights = torch.exp(-(offsets.square()) / (2 * (2.5 * strength) ** 2))
    weights /= weights.sum()
    return F.conv2d(F.conv2d(x, weights.view(1, 1, 13, 1), padding=(6, 0)), weights.view(1, 1, 1, 13), padding=(0, 6))


def salt_and_pepper(x: Tensor, strength: float) -> Tensor:
    """Single pixels black or white."""
    rng = make_rng(1)
    hit = torch.rand(x.shape, generator=rng) < 0.3 * strength
    return torch.where(hit, (torch.rand(x.shape, generator=rng) < 0.5).float(), x)


def swirl(x: Tensor, strength: float) -> Tensor:
    """The middle turned against the border."""
    line = torch.linspace(-1, 1, 28)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    angle = 3 * strength * torch.exp(-2 * (rows.square() + columns.square()))
    turned = torch.stack(
        [columns * angle.cos() - rows * angle.sin(), columns * angle.sin() + rows * angle.cos()], dim=-1
    )
    return F.grid_sample(x, turned.expand(len(x), -1, -1, -1), align_corners=True)


def black_rectangle(x: Tensor, strength: float) -> Tensor:
    """A square of the image covered."""
    side = round(20 * strength)
    x = x.clone()
    x[:, :, 4 : 4 + side, 4 : 4 + side] = 0
    return x


def dropped_classes(x: Tensor, strength: float) -> Tensor:
    """Images of the first classes give way to copies of others; `x` is sorted by class."""
    first = round(0.8 * strength * len(x))
    kept = x[first:]
    return kept[torch.arange(len(x)) % len(kept)]


def grain(x: Tensor, strength: float) -> Tensor:
    """Every pixel of the garment lighter or darker by a share of its own."""
    return x * (1 + strength * torch.randn(x.shape, generator=make_rng(1)))


def holes(x: Tensor, strength: float) -> Tensor:
    """White patches of 2 x 2 pixels inside the garment."""
    inside = -F.max_pool2d(-_garment(x), 3, stride=1, padding=1)
    corners = inside * (torch.rand(x.shape, generator=make_rng(1)) < 0.12 * strength)
    patches = F.max_pool2d(F.pad(corners, (1, 0, 1, 0)), 2, stride=1)
    return torch.maximum(x, patches)


def torn_outlines(x: Tensor, strength: float) -> Tensor:
    """Bites out of the border of the garment, three pixels deep."""
    garment = _garment(x)
    inside = -F.max_pool2d(-F.pad(garment, (3, 3, 3, 3)), 7, stride=1)
    bitten = torch.rand((len(x), 1, 10, 10), generator=make_rng(1)) < 0.7 * strength
    bites = F.interpolate(bitten.float(), scale_factor=3)[:, :, 1:29, 1:29]
    return x * (1 - (garment - inside) * bites)


def _garment(x: Tensor) -> Tensor:
    """1 where the garment is, 0 elsewhere; gaps of one pixel are closed."""
    grown = F.max_pool2d((x > _CLOTH).float(), 3, stride=1, padding=1)
    return -F.max_pool2d(-F.pad(grown, (1, 1, 1, 1), value=1.0), 3, stride=1)


ALL: tuple[Distortion, ...] = (
    noise,
    blur,
    salt_and_pepper,
    swirl,
    black_rectangle,
    dropped_classes,
    grain,
    holes,
    torn_outlines,
)
EQUALLY_BAD = {  # by eye, on the sheet
    noise: 0.25,
    blur: 0.33,
    salt_and_pepper: 0.08,
    swirl: 0.2,
    grain: 0.2,
    holes: 0.12,
    torn_outlines: 0.2,
}


def main(arguments: list[str]) -> None:
    """Print the table, and draw the sheet if a path is given."""
    params = read_params()
    device, config = start(params.compute), params.block("evaluate", EvaluateConfig)
    test = load_split(TEST)
    half = len(test) // 2
    x = to_unit(test.images[:half])
    spoiled = {"none": test.images[:half]}
    spoiled |= {f.__name__: to_uint8(f(x, strength).clamp(0, 1)) for f, strength in EQUALLY_BAD.items()}
    if arguments:
        rows = [images[:_SHOWN] for images in spoiled.values()]
        save_strip(torch.cat(rows), _SHOWN, Path(arguments[0]))
    for name in params.extractors:
        network = load_extractor(params, name, device)
        real = embed(network, test.images[half:]).features
        floor = 0.0
        for title, images in spoiled.items():
            features = embed(network, images).features
            found = pair_distances(features, real, config)
            distance, kernel = found["frechet_distance"], found["kernel_x1000"]
            floor = floor or distance.value
            print(
                f"{name:12} {title:16} Fréchet {distance.value:9.3f} = {distance.value / floor:7.1f} floors, "
                f"kernel x 1000 {kernel.value:8.2f} +- {kernel.error:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
