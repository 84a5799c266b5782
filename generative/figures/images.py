"""Figures made of images: reconstructions, samples, latent grids, interpolations, and an animation."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from generative.data.images import IMAGE_SHAPE, WHITE
from generative.figures.style import INK, LIGHT, new_figure, panel_grid
from generative.io.files import atomic_path

_GAP = 2  # pixels between two images
_SIDE = IMAGE_SHAPE[-1]
_CELL = _SIDE + _GAP
_BLOCK_GAP = 8  # more pixels, between blocks of rows or columns
_MANY = 6  # models


def row_tops(rows: int, gaps_after_rows: Sequence[int] = ()) -> list[int]:
    """First pixel line of each row that `tile` draws."""
    return [row * _CELL + _BLOCK_GAP * sum(after < row for after in gaps_after_rows) for row in range(rows)]


def tile(images: Tensor, gaps_after_rows: Sequence[int] = ()) -> np.ndarray:
    """Images uint8 (R, C, 1, 28, 28) side by side on white (here 0: the figures are printed inverted).

    A wider gap is left under each row in `gaps_after_rows`, none of them the last.
    """
    rows, columns = images.shape[:2]
    tops = row_tops(rows, gaps_after_rows)
    canvas = np.zeros((tops[-1] + _SIDE, columns * _CELL - _GAP), dtype=np.uint8)
    for row, top in enumerate(tops):
        for column in range(columns):
            left = column * _CELL
            canvas[top : top + _SIDE, left : left + _SIDE] = images[row, column, 0].numpy()
    return canvas


def show_tiles(
    axes: Axes,
    canvas: np.ndarray,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    gaps_after_rows: Sequence[int] = (),
    *,
    ink: str = INK,
) -> None:
    """Draw what `tile` made, with words beside the rows and above the columns."""
    axes.imshow(canvas, cmap=ink, vmin=0, vmax=WHITE, interpolation="nearest")
    for spine in axes.spines.values():
        spine.set_visible(False)
    tops = row_tops(len(row_labels), gaps_after_rows)
    axes.set_yticks([top + _SIDE / 2 for top in tops], row_labels)
    axes.set_xticks([column * _CELL + _SIDE / 2 for column in range(len(column_labels))], column_labels)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)


def reconstructions(images: Tensor, by_model: dict[str, Tensor], classes: Sequence[str]) -> Figure:
    """Test images of every class above their reconstructions by each model; one of each class if models are many.

    Args:
        images: uint8 (E C, 1, 28, 28): all C classes in order, E times.
        by_model: reconstructions like `images`, by model name.
        classes: the name of each.
    """
    rows: list[Tensor] = []
    names: list[str] = []
    per_class = len(images) // len(classes)
    examples = per_class if len(by_model) < _MANY else 1
    parts = [strip.chunk(per_class)[:examples] for strip in (images, *by_model.values())]
    for part in zip(*parts, strict=True):
        rows += part
        names += ["test image", *by_model]
    block = 1 + len(by_model)
    gaps = [block * (example + 1) - 1 for example in range(examples - 1)]
    figure, (axes,) = new_figure(0.72 * len(classes) + 1, 0.72 * len(rows) + 0.5)
    show_tiles(axes, tile(torch.stack(rows), gaps), names, classes, gaps)
    axes.tick_params(axis="x", labelsize=8)
    return figure


def samples_by_class(samples: Tensor, labels: Tensor, columns: int, classes: Sequence[str], title: str) -> Figure:
    """The first `columns` samples (N, 1, 28, 28) of each of `classes` that there is, one class per row."""
    present = labels.unique().tolist()
    rows = torch.stack([samples[labels == label][:columns] for label in present])
    figure, (axes,) = new_figure(0.62 * columns + 1.2, 0.62 * len(present) + 0.4)
    show_tiles(axes, tile(rows), [classes[label] for label in present])
    axes.set_title(title)
    return figure


def neighbours(samples: Tensor, nearest: Tensor, title: str) -> Figure:
    """Samples (N, 1, 28, 28) above the training images (N, 1, 28, 28) that are nearest to them."""
    figure, (axes,) = new_figure(0.62 * len(samples) + 1.5, 1.9)
    show_tiles(axes, tile(torch.stack([samples, nearest])), ["sample", "nearest training image"])
    axes.set_title(title)
    return figure


def sample_panels(panels: dict[str, Tensor]) -> Figure:
    """For each title images (S * S, 1, 28, 28) as a square."""
    rows, columns = panel_grid(len(panels), widest=4)
    figure, axes = new_figure(3.2 * columns, 3.4 * rows, rows, columns, used=len(panels))
    figure.set_layout_engine("constrained", wspace=0.08)
    for panel, (title, images) in zip(axes, panels.items(), strict=True):
        side = math.isqrt(len(images))
        show_tiles(panel, tile(images.unflatten(0, (side, side))))
        panel.set_title(title)
    return figure


def latent_grid(grid: Tensor, axis: Tensor, title: str) -> Figure:
    """Decoded points of a 2-D latent space.

    Args:
        grid: uint8 (G * G, 1, 28, 28), row by row, the second coordinate falling from row to row.
        axis: float (G, 2), the coordinates of the columns, and of the rows from below.
    """
    count = len(axis)
    canvas = tile(grid.unflatten(0, (count, count)))
    figure, (panel,) = new_figure(6.6, 6.8)
    panel.imshow(canvas, cmap=INK, vmin=0, vmax=WHITE, interpolation="nearest")
    middles = np.arange(count) * _CELL + _SIDE / 2
    ticks = [_round_ticks(axis[:, dimension].double().numpy()) for dimension in (0, 1)]
    panel.set_xticks(np.interp(ticks[0], axis[:, 0], middles), [f"{tick:g}" for tick in ticks[0]])
    panel.set_yticks(np.interp(ticks[1], axis[:, 1], middles[::-1]), [f"{tick:g}" for tick in ticks[1]])
    panel.set_xlabel("latent $z_1$")
    panel.set_ylabel("latent $z_2$")
    panel.set_title(title)
    return figure


def _round_ticks(coordinates: np.ndarray) -> list[float]:
    """Round numbers within rising `coordinates`."""
    low, high = coordinates[0], coordinates[-1]
    return [float(tick) for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]


def strip(
    images: Tensor, rows: Sequence[str], columns: Sequence[str], title: str, *, light_on_black: bool = False
) -> Figure:
    """Images uint8 (R, C, 1, 28, 28) in rows and columns, with words for each row and column, or none.

    They are printed inverted, as ink on paper, but for `light_on_black`, where words speak of light and dark.
    """
    figure, (axes,) = new_figure(0.62 * images.shape[1] + 1.2, 0.62 * len(images) + 0.5)
    words = [word.replace(" ", "\n") for word in columns]  # as narrow as the images
    show_tiles(axes, tile(images), rows, words, ink=LIGHT if light_on_black else INK)
    axes.set_title(title)
    return figure


class Interpolation(NamedTuple):
    """A row of decoded images uint8 (S, 1, 28, 28) between two originals (1, 28, 28), and what they are."""

    name: str
    first: Tensor
    decoded: Tensor
    last: Tensor


def interpolations(rows: Sequence[Interpolation], within: int, title: str) -> Figure:
    """One interpolation per row, the first `within` of them within a class; originals at both ends."""
    steps = len(rows[0].decoded)
    images = torch.stack([torch.cat([row.first[None], row.decoded, row.last[None]]) for row in rows])
    gaps = [within - 1] if 0 < within < len(rows) else []
    figure, (axes,) = new_figure(9.2, 0.56 * len(rows) + 0.7)
    words = ["original", *[f"{step / (steps - 1):.2g}" for step in range(steps)], "original"]
    canvas = tile(images, gaps)
    for column in (1, 1 + steps):  # set the originals apart
        canvas = np.insert(canvas, [column * _CELL + (_BLOCK_GAP if column > 1 else 0)] * _BLOCK_GAP, 0, axis=1)
    show_tiles(axes, canvas, [row.name for row in rows], (), gaps)
    lefts = [0, *(_BLOCK_GAP + _CELL * (1 + step) for step in range(steps)), 2 * _BLOCK_GAP + _CELL * (1 + steps)]
    axes.set_xticks([left + _SIDE / 2 for left in lefts], words)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title(title)
    return figure


_SCALE = 5
_FRAME_MS = 60
_HOLD_MS = 900


def save_animation(row: Interpolation, path: Path) -> None:
    """Write an endless GIF that goes from the first original to the last and back, decoded image in the middle."""
    font = ImageFont.load_default(size=14)
    side = _SIDE * _SCALE
    width, height = 3 * side + 40, side + 52
    count = len(row.decoded)
    order = [*range(count), *range(count - 2, 0, -1)]
    frames = []
    for step in order:
        frame = Image.new("L", (width, height), WHITE)
        draw = ImageDraw.Draw(frame)
        parts = (("original", row.first), ("decoded", row.decoded[step]), ("original", row.last))
        for index, (word, image) in enumerate(parts):
            left = 10 + index * (side + 10)
            picture = Image.fromarray(WHITE - image[0].numpy()).resize((side, side), Image.Resampling.NEAREST)
            frame.paste(picture, (left, 26))
            draw.text((left + side / 2, 13), word, fill=0, font=font, anchor="mm")
        left, right, y = 10 + side + 10, 10 + 2 * side + 10, height - 12
        draw.line((left, y, right, y), fill=190, width=3)
        draw.line((left, y, left + (right - left) * step / (count - 1), y), fill=0, width=3)
        frames.append(frame)
    durations = [_HOLD_MS if step in (0, count - 1) else _FRAME_MS for step in order]
    with atomic_path(path) as temporary:
        frames[0].save(temporary, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
