"""Figures made of numbers: the latent space, curves, and scores beside their floor."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter
from torch import Tensor

from generative.figures.latents import Plane
from generative.figures.style import REAL_COLOUR, class_colours, model_colour, model_marker, new_figure, panel_grid

_TAIL = 0.002  # share of the points left outside on each side, so that a few far ones do not shrink the rest
_FAR = 0.7  # from an even share, as a part of it, where letters have to be light
_EMPTY = 0.01  # of the top of a chart: a line below it counts as 0
_ROW = 0.26  # inches of a model in a chart with one row for each


def latent_spaces(by_model: dict[str, tuple[Plane, Tensor]], classes: Sequence[str]) -> Figure:
    """Latents of test images in a plane, one panel per model, coloured by their labels (N,), which are of `classes`."""
    palette = class_colours(len(classes))
    rows, columns = panel_grid(len(by_model), widest=3)
    figure, axes = new_figure(4.0 * columns + 1.4, 4.2 * rows, rows, columns, used=len(by_model))
    for panel, (name, (plane, labels)) in zip(axes, by_model.items(), strict=True):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))  # no class on top
        colours = np.array([palette[label] for label in labels[order].tolist()])
        x, y = plane.points[order].T.numpy()
        panel.scatter(x, y, c=colours, s=5, alpha=0.7, linewidths=0)
        low, high = torch.quantile(plane.points, torch.tensor([_TAIL, 1 - _TAIL]), dim=0)
        margin = (0.04 * (high - low)).clamp(min=1e-3)
        panel.set_xlim(float(low[0] - margin[0]), float(high[0] + margin[0]))
        panel.set_ylim(float(low[1] - margin[1]), float(high[1] + margin[1]))
        panel.set_title(f"{name}\n{plane.title}")
        panel.set_xlabel(plane.axes[0])
        panel.set_ylabel(plane.axes[1])
    marks = [
        axes[0].plot([], [], "o", color=colour, markersize=7, label=name)[0]
        for name, colour in zip(classes, palette, strict=True)
    ]
    figure.legend(handles=marks, loc="outside right center", fontsize=10)
    return figure


class Training(NamedTuple):
    """Curves of one network, and the words for what it minimised, with the unit, by their name in the table."""

    table: pd.DataFrame
    losses: Mapping[str, str]


def training_curves(curves: dict[str, Training], *, widest: int = 3, scale: float = 1.0) -> Figure:
    """One panel per network: what it minimised on the training (solid) and the validation split (dashed).

    Panels are `widest` side by side at most, `scale` times as large as usual, with letters as large as ever.
    """
    rows, columns = panel_grid(len(curves), widest=widest)
    figure, axes = new_figure(4.1 * scale * columns, 2.7 * scale * rows, rows, columns, used=len(curves))
    for panel, (name, training) in zip(axes, curves.items(), strict=True):
        _draw_curves(panel, training)
        panel.set_title(name)
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    splits = [Line2D([], [], color="black", linestyle=style) for style in ("-", "--")]
    figure.legend(splits, ["training split", "validation split"], loc="outside upper center", ncols=2, fontsize=9)
    return figure


def _draw_curves(panel: Axes, training: Training) -> None:
    """All losses; those in another unit than the first have an axis of their own on the right."""
    keys = [key for key in training.losses if f"train_{key}" in training.table]
    if len(keys) == 1:
        _draw_curve(panel, training.table, keys[0], model_colour(0))
        panel.set_ylabel(fill(training.losses[keys[0]], 24), fontsize=9)
        return
    names, units = zip(*(_name_and_unit(training.losses[key]) for key in keys), strict=True)
    sides = dict.fromkeys(units, panel)
    if others := [unit for unit in dict.fromkeys(units) if unit != units[0]]:
        right = panel.twinx()
        right.spines["right"].set_visible(True)
        sides |= dict.fromkeys(others, right)
        right.set_ylabel(", ".join(filter(None, others)) or "loss", fontsize=9)
    for index, (key, unit) in enumerate(zip(keys, units, strict=True)):
        _draw_curve(sides[unit], training.table, key, model_colour(index))
    panel.set_ylabel(units[0] or "loss", fontsize=9)
    lines = [Line2D([], [], color=model_colour(index)) for index in range(len(keys))]
    words = [name if unit == units[0] else f"{name} (right)" for name, unit in zip(names, units, strict=True)]
    for side in set(sides.values()):
        low, high = side.get_ylim()
        side.set_ylim(low, high + 0.25 * len(keys) * (high - low))  # room for the legend
    panel.legend(lines, words, fontsize=7, loc="upper right", framealpha=0.6, handlelength=1.2)


def _name_and_unit(words: str) -> tuple[str, str]:
    """What a loss is, and its unit: what stands behind the last comma, if anything."""
    name, comma, unit = words.rpartition(", ")
    return (name, unit) if comma else (unit, "")


def _draw_curve(panel: Axes, table: pd.DataFrame, key: str, colour: str) -> None:
    for split, style in (("train", "-"), ("validation", "--")):
        column = f"{split}_{key}"
        if column in table:
            known = table[table[column].notna()]
            panel.plot(known["epoch"], known[column], style, color=colour)


class Dots(NamedTuple):
    """One score of several models, with its error; `real` is what real images reach: the floor or the ceiling."""

    title: str
    values: dict[str, tuple[float, float]]
    real: tuple[float, float] | None
    log_scale: bool
    lower_is_better: bool


def score_dots(charts: Sequence[Dots], models: Sequence[str], *, widest: int = 3) -> Figure:
    """One chart per score: a row for each model, best on top, with the standard error; real images as a band.

    A model has the same colour and mark in every chart, by its place in `models`.
    """
    rows, columns = panel_grid(len(charts), widest=widest)
    most = max(len(chart.values) for chart in charts)
    height = _ROW * (most + 1) + 1.15
    figure, axes = new_figure(4.0 * columns, height * rows, rows, columns, used=len(charts))
    for panel, chart in zip(axes, charts, strict=True):
        _draw_dots(panel, chart, models)
    return figure


def _draw_dots(panel: Axes, chart: Dots, models: Sequence[str]) -> None:
    order = sorted(chart.values, key=lambda name: chart.values[name][0], reverse=not chart.lower_is_better)
    log_scale = chart.log_scale and min(value for value, _ in chart.values.values()) > 0
    shown = list(chart.values.values())
    if chart.real is not None:
        value, error = chart.real
        panel.set_xlabel(f"real images: {short(value)}", fontsize=9)
        if value > 0 or not log_scale:
            panel.set_xlabel(f"dashed: real images, {short(value)}", fontsize=9)
            panel.axvline(value, color=REAL_COLOUR, linestyle="--", linewidth=1)
            panel.axvspan(value - 2 * error, value + 2 * error, color=REAL_COLOUR, alpha=0.18, linewidth=0)
            shown.append(chart.real)
    for row, name in enumerate(order):
        value, error = chart.values[name]
        place = models.index(name)
        panel.errorbar(
            value, row, xerr=error, fmt=model_marker(place), color=model_colour(place), markersize=6, capsize=3
        )
        panel.annotate(short(value), (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    panel.set_yticks(range(len(order)), order)
    panel.set_ylim(len(order) - 0.4, -0.6)
    if log_scale:
        panel.set_xscale("log")
        panel.set_xlim(0.6 * min(value for value, _ in shown), 1.7 * max(value for value, _ in shown))
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.xaxis.set_minor_formatter(NullFormatter())
    else:
        low, high = min(value - 2 * error for value, error in shown), max(value + 2 * error for value, error in shown)
        margin = 0.06 * ((high - low) or abs(low) or 1.0)
        panel.set_xlim(low - margin, high + margin)
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.set_title(chart.title)


def short(value: float) -> str:
    """Three digits, or as many as stand before the point."""
    return f"{value:.3g}" if round(abs(value)) < 1000 else f"{value:.0f}"


class Lines(NamedTuple):
    """A chart of lines: `y` by name, each over `x`; `words`, if any, stand beside the points of the first."""

    title: str
    x_label: str
    y_label: str
    x: Sequence[float]
    y: Mapping[str, Sequence[float]]
    log_scale: bool = False
    words: Sequence[str] = ()


def line_charts(charts: Sequence[Lines], *, same_axes: bool = False) -> Figure:
    """The charts side by side; with `same_axes` over one stretch: that in which some line is not flat at 0."""
    rows, columns = panel_grid(len(charts), widest=3)
    figure, axes = new_figure(4.2 * columns, 3.1 * rows, rows, columns, used=len(charts))
    for panel, chart in zip(axes, charts, strict=True):
        mark = "" if len(chart.x) > 30 else "o"
        for index, (name, values) in enumerate(chart.y.items()):
            panel.plot(chart.x, values, marker=mark, markersize=4, color=model_colour(index), label=name)
        for word, x, y in zip(chart.words, chart.x, next(iter(chart.y.values())), strict=False):
            panel.annotate(word, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8)
        known = [value for values in chart.y.values() for value in values]
        if chart.log_scale and min(known) > 0:
            panel.set_yscale("log")
        if all(float(x).is_integer() for x in chart.x):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_title(chart.title)
        panel.set_xlabel(chart.x_label)
        panel.set_ylabel(chart.y_label)
        if len(chart.y) > 1 and not (same_axes and panel is not axes[0]):
            panel.legend(fontsize=8)
    if same_axes:
        _cut_empty_ends(axes, charts)
        for side in ("x", "y"):
            ranges = [getattr(panel, f"get_{side}lim")() for panel in axes]
            low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
            for panel in axes:
                getattr(panel, f"set_{side}lim")(low, high)
    return figure


def _cut_empty_ends(axes: Sequence[Axes], charts: Sequence[Lines]) -> None:
    """Narrow every panel to where a line rises above a hundredth of its top, if all lie above 0."""
    for panel, chart in zip(axes, charts, strict=True):
        values = np.array(list(chart.y.values()))
        high = (values > _EMPTY * values.max()).any(axis=0)
        if values.min() >= 0 and high.any():
            x = np.array(chart.x)[high]
            margin = 0.15 * (x.max() - x.min()) or 0.5
            panel.set_xlim(x.min() - margin, x.max() + margin)


def class_shares(shares: Mapping[str, Sequence[float]], classes: Sequence[str]) -> Figure:
    """The share of each class among the samples of each model, as a table; blue where too few, red where too many.

    Args:
        shares: by model, in [0, 1], one for each class.
        classes: their names, all equally frequent in the data.
    """
    even = 100 / len(classes)
    percent = 100 * np.array(list(shares.values()))
    figure, (panel,) = new_figure(0.75 * len(classes) + 2.2, 0.36 * len(shares) + 1.4)
    drawn = panel.imshow(percent, cmap="RdBu_r", vmin=0, vmax=2 * even, aspect="auto")
    for row, values in enumerate(percent):
        for column, value in enumerate(values):
            far = abs(value - even) > _FAR * even
            panel.text(
                column, row, f"{value:.1f}", ha="center", va="center", color="white" if far else "black", fontsize=9
            )
    panel.set_xticks(range(len(classes)), [fill(name, 12) for name in classes], rotation=35, ha="right", fontsize=9)
    panel.set_yticks(range(len(shares)), list(shares))
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    panel.set_title(f"share of each class among samples drawn without labels, % (data: {even:g})")
    figure.colorbar(drawn, ax=panel, label="%", shrink=0.9)
    return figure


def number_table(title: str, numbers: Tensor, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Numbers (R, C) with a word for each row and column."""
    figure, (panel,) = new_figure(1.6 + 1.3 * len(columns), 0.7 + 0.3 * len(rows))
    panel.set_axis_off()
    text = [[_as_text(value) for value in row] for row in numbers.tolist()]
    panel.table(text, rowLabels=list(rows), colLabels=list(columns), loc="center", cellLoc="right")
    panel.set_title(title)
    return figure


def _as_text(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"
