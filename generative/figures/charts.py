"""Figures made of numbers: the latent space, training curves, and scores beside their floor."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from generative.data.fashion_mnist import CLASS_NAMES
from generative.figures.latents import Plane
from generative.figures.style import CLASS_COLOURS, REAL_COLOUR, model_colour, new_figure

_TAIL = 0.002  # share of the points left outside on each side, so that a few far ones do not shrink the rest


def latent_spaces(by_model: dict[str, tuple[Plane, Tensor]]) -> Figure:
    """Latents of test images in a plane, one panel per model, coloured by their labels (N,)."""
    figure, axes = new_figure(4.3 * len(by_model) + 1.3, 4.4, columns=len(by_model))
    for panel, (name, (plane, labels)) in zip(axes, by_model.items(), strict=True):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))  # no class on top
        colours = np.array([CLASS_COLOURS[CLASS_NAMES[label]] for label in labels[order].tolist()])
        x, y = plane.points[order].T.numpy()
        panel.scatter(x, y, c=colours, s=3.5, alpha=0.7, linewidths=0)
        low, high = torch.quantile(plane.points, torch.tensor([_TAIL, 1 - _TAIL]), dim=0)
        margin = (0.04 * (high - low)).clamp(min=1e-3)
        panel.set_xlim(float(low[0] - margin[0]), float(high[0] + margin[0]))
        panel.set_ylim(float(low[1] - margin[1]), float(high[1] + margin[1]))
        panel.set_title(f"{name}: {plane.title}")
        panel.set_xlabel(plane.axes[0])
        panel.set_ylabel(plane.axes[1])
    marks = [
        axes[-1].plot([], [], "o", color=colour, markersize=6, label=name)[0] for name, colour in CLASS_COLOURS.items()
    ]
    figure.legend(handles=marks, loc="outside right center")
    return figure


def training_curves(curves: dict[str, pd.DataFrame]) -> Figure:
    """One panel per network: what it minimised on the training (solid) and the validation split (dashed).

    Where there is a total `loss`, its parts are left out: they are in the curves' files.
    """
    columns = 2
    rows = -(-len(curves) // columns)
    figure, axes = new_figure(4.6 * columns, 2.6 * rows, rows, columns)
    for panel, (name, table) in zip(axes, curves.items(), strict=False):
        keys = [key.removeprefix("train_") for key in table.columns if key.startswith("train_")]
        for index, key in enumerate(["loss"] if "loss" in keys else keys):
            _draw_curve(panel, table, key, model_colour(index))
        panel.set_title(name)
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylabel("loss")
        panel.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    splits = [Line2D([], [], color="black", linestyle=style) for style in ("-", "--")]
    figure.legend(splits, ["training split", "validation split"], loc="outside upper center", ncols=2, fontsize=8)
    for panel in axes[len(curves) :]:
        panel.set_axis_off()
    return figure


def _draw_curve(panel: Axes, table: pd.DataFrame, key: str, colour: str) -> None:
    panel.plot(table["epoch"], table[f"train_{key}"], color=colour, label=key)
    if f"validation_{key}" in table:
        panel.plot(table["epoch"], table[f"validation_{key}"], "--", color=colour)


class Bars(NamedTuple):
    """One score of several models; `real` is what real images reach: the floor or the ceiling."""

    title: str
    values: dict[str, float]
    real: float | None
    log_scale: bool


def score_bars(charts: Sequence[Bars], models: Sequence[str]) -> Figure:
    """One bar chart per score, the score of real images as a line; a model keeps its colour and its place."""
    figure, axes = new_figure(3.1 * len(charts), 2.9, columns=len(charts))
    for panel, chart in zip(axes, charts, strict=True):
        _draw_bars(panel, chart, models)
    return figure


def _draw_bars(panel: Axes, chart: Bars, models: Sequence[str]) -> None:
    shown = [(place, name) for place, name in enumerate(models) if name in chart.values]
    heights = [chart.values[name] for _, name in shown]
    colours = [model_colour(place) for place, _ in shown]
    drawn = panel.bar([place for place, _ in shown], heights, color=colours, width=0.65)
    panel.bar_label(drawn, [f"{height:.3g}" for height in heights], fontsize=8)
    panel.set_xticks(range(len(models)), models)
    panel.set_xlim(-0.6, len(models) - 0.4)
    for place, name in enumerate(models):
        if name not in chart.values:
            panel.annotate("–", (place, 0.02), xycoords=("data", "axes fraction"), ha="center")
    known = [*heights, *([] if chart.real is None else [chart.real])]
    if chart.real is not None:
        panel.axhline(chart.real, color=REAL_COLOUR, linestyle="--", linewidth=1)
        panel.plot([], [], "--", color=REAL_COLOUR, linewidth=1, label=f"real images: {chart.real:.3g}")
        panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    if chart.log_scale:
        panel.set_yscale("log")
        panel.set_ylim(0.5 * min(known), 2 * max(known))
    else:
        panel.set_ylim(0, 1.12 * max(known))
    panel.set_title(chart.title)
