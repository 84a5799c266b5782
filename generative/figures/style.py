"""One look for every figure: font, colours, and bytes that depend on the data alone."""

import math
import os
from pathlib import Path
from typing import Any

os.environ["MPLBACKEND"] = "Agg"  # before the import, which refuses what a notebook sets

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from generative.io.files import atomic_path

# Ten hues that stay apart in a scatter plot; of Fashion-MNIST clothes of the upper body are warm, shoes are blue.
_CLASS_COLOURS = (
    "#e6550d",
    "#31a354",
    "#d62728",
    "#e377c2",
    "#8c2d04",
    "#6baed6",
    "#fdae31",
    "#2171b5",
    "#756bb1",
    "#08306b",
)
_MANY_CLASSES = "turbo"  # the map that colours of more classes are taken from
# Ten hues, each with five marks: fifty models stay apart.
MODEL_COLOURS = (
    "#4c78a8",
    "#f58518",
    "#54a24b",
    "#b279a2",
    "#e45756",
    "#17a2a2",
    "#9d755d",
    "#c9a400",
    "#333333",
    "#d64f9b",
)
MODEL_MARKERS = ("o", "s", "^", "D", "v")
REAL_COLOUR = "#444444"
INK = "gray_r"  # clothes dark on white paper
LIGHT = "gray"  # a colour map: as the data are, light on black

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "savefig.facecolor": "white",
}


def panel_grid(count: int, *, widest: int) -> tuple[int, int]:
    """Rows and columns for `count` panels, at most `widest` side by side; as even as can be."""
    rows = math.ceil(count / widest)
    return rows, math.ceil(count / rows)


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, *, used: int | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches and its `rows` x `columns` axes, row by row, without those not `used`."""
    matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
    plt.rcParams.update(_RC)
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    panels = list(axes.flat)
    for panel in panels[used:] if used is not None else []:
        panel.remove()
    return figure, panels[:used]


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a PNG, cut to its content, without time stamp or version, and close the figure."""
    with atomic_path(path) as temporary:
        figure.savefig(
            temporary,
            format="png",
            dpi=dpi,
            bbox_inches="tight",
            pad_inches=0.05,
            metadata={"Software": None},
            pil_kwargs={"optimize": True},
        )
    plt.close(figure)


def class_colours(count: int) -> list[str]:
    """A colour for each of `count` classes."""
    if count <= len(_CLASS_COLOURS):
        return list(_CLASS_COLOURS[:count])
    return [to_hex(colour) for colour in matplotlib.colormaps[_MANY_CLASSES](np.linspace(0, 1, count))]


def model_colour(index: int) -> str:
    """The colour of the model at position `index`."""
    return MODEL_COLOURS[index % len(MODEL_COLOURS)]


def model_marker(index: int) -> str:
    """The mark of the model at position `index`."""
    return MODEL_MARKERS[index // len(MODEL_COLOURS) % len(MODEL_MARKERS)]
