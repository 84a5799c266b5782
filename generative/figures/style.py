"""One look for every figure: font, class names and colours, and bytes that depend on the data alone."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from generative.data.fashion_mnist import CLASS_NAMES
from generative.io.files import atomic_path

# Ten hues that stay apart in a scatter plot; clothes of the upper body are warm, shoes are blue.
CLASS_COLOURS = dict(
    zip(
        CLASS_NAMES,
        ("#e6550d", "#31a354", "#d62728", "#e377c2", "#8c2d04", "#6baed6", "#fdae31", "#2171b5", "#756bb1", "#08306b"),
        strict=True,
    )
)
MODEL_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#eeca3b")
REAL_COLOUR = "#444444"
INK = "gray_r"  # clothes dark on white paper

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "savefig.facecolor": "white",
}


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches and its `rows` x `columns` axes, row by row."""
    matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
    plt.rcParams.update(_RC)
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    return figure, list(axes.flat)


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


def model_colour(index: int) -> str:
    """The colour of the model at position `index`."""
    return MODEL_COLOURS[index % len(MODEL_COLOURS)]
