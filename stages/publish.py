"""Stage `publish@MODEL`: what git keeps of one model: scores, errors, curves, figures, and strips of images.

stages/common/paths.py names every file. Leaderboard, comparing figures and report read nothing else. Which figures a
model has says the table FIGURES, by what it made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from generative.capabilities.diagnosing import Curves, Diagnostic, Strip
from generative.data.splits import Split, load_split
from generative.errors import FileDamagedError
from generative.figures import charts, images
from generative.figures.strips import save_strip
from generative.figures.style import save_figure
from generative.io.files import write_json
from generative.io.tables import read_table, write_table
from generative.scores.memorisation import nearest_neighbours
from stages.common.dataset import read_dataset
from stages.common.generated import (
    Encodings,
    Generated,
    Grid,
    Prompted,
    Samples,
    Translations,
    load_generated,
)
from stages.common.params import read_params
from stages.common.paths import TEST, TRAIN, Pipeline
from stages.common.published import (
    FiguresConfig,
    curve_chart,
    examples,
    publish_diagnostic,
    publish_latents,
    publish_scores,
    rank_correlations,
)

_SHOWN = 10  # images in a row
_PROMPTS = 20  # shown, with their images
_OVER_EPOCHS = {"frechet_distance": "Fréchet distance", "kernel_x1000": "kernel distance × 1000"}


@dataclass(frozen=True)
class Context:
    """What figures are drawn with."""

    here: Pipeline
    name: str
    train: Split
    test: Split
    classes: list[str]  # the name of each
    side: int  # samples per class, and of the square of samples


def main(here: Pipeline, name: str) -> None:
    """Publish the model `name`."""
    params = read_params(here)
    config = params.block("figures", FiguresConfig)
    train, test = load_split(TRAIN), load_split(TEST)
    made = load_generated(here.generated(name), test)
    context = Context(here, name, train, test, read_dataset(params).classes, config.sample_columns)
    publish_scores(here, name)
    curves = read_table(here.curves(name))
    write_table(here.plot_data(name) / "curves.tsv", curves)
    write_json(here.plot_data(name) / "losses.json", made.losses)
    here.figures(name).mkdir(parents=True, exist_ok=True)  # an output, also of a model that shows nothing
    figures: dict[str, Figure] = {}
    for part, draw in FIGURES.items():
        if (found := getattr(made, part)) is not None:
            figures |= draw(found, made, context)
    figures |= {title: draw_diagnostic(found) for title, found in made.diagnostics.items()}
    for title, found in made.diagnostics.items():
        publish_diagnostic(here.plot_data(name), title, found)
    figures |= over_settings(here, name) | over_epochs(here, name, curves)
    for title, figure in figures.items():
        save_figure(figure, here.figures(name) / f"{title}.png", config.dpi)


def draw_samples(samples: Samples, _: Generated, context: Context) -> dict[str, Figure]:
    """Samples by class, where the model follows labels, and samples beside the training images nearest to them."""
    name, side, train = context.name, context.side, context.train
    if len(samples.images) < side * side:
        raise FileDamagedError(
            f"{context.here.generated(name)} has {len(samples.images)} samples, but the figures show {side * side}"
        )
    save_strip(samples.images[: side * side], side, context.here.plot_data(name) / "samples.png")
    figures = {}
    chosen, labels = samples.images[:side], samples.followed_labels
    if labels is not None:
        title = f"{name}: samples by class"
        figures["samples_by_class"] = images.samples_by_class(samples.images, labels, side, context.classes, title)
        chosen = torch.stack([samples.images[labels == label][0] for label in labels.unique()])
    nearest = train.images[nearest_neighbours(chosen, train.images).indices]
    figures["neighbours"] = images.neighbours(chosen, nearest, f"{name}: is it a copy?")
    for key, by_value in samples.sweeps.items():
        rows = torch.stack([part[:_SHOWN] for part in by_value.values()])
        words = [f"{key} {_in_words(value)}" for value in by_value]
        figures[f"samples_by_{key}"] = images.strip(rows, words, (), f"{name}: the same seed, other {key}")
    return figures


def draw_encodings(encodings: Encodings, _: Generated, context: Context) -> dict[str, Figure]:
    """Interpolations, and strips for the comparing figures."""
    here, name, test = context.here, context.name, context.test
    reconstructions = encodings.reconstructions[examples(test)]
    save_strip(reconstructions, len(context.classes), here.plot_data(name) / "reconstructions.png")
    publish_latents(here.plot_data(name), encodings.latents, test)
    lines, within = interpolations(encodings, test), len(encodings.within)
    animated = lines[within]._replace(decoded=encodings.animation)
    images.save_animation(animated, here.figures(name) / "interpolation.gif")
    title = f"{name}: straight lines in the latent space, within a class and between two"
    return {"interpolations": images.interpolations(lines, within, title)}


def draw_grid(grid: Grid, made: Generated, context: Context) -> dict[str, Figure]:
    """The decoded latent plane, and one test image of each class beside the nearest image of the plane."""
    assert made.encodings is not None  # who has a plane, encodes
    name, chosen = context.name, examples(context.test)[: len(context.classes)]
    rows = (context.test.images, made.encodings.reconstructions, grid.nearest)
    words = ("test image", "encoded and decoded", "nearest on the plane")
    strip = torch.stack([part[chosen] for part in rows])
    return {
        "latent_grid": images.latent_grid(grid.images, grid.axis, f"{name}: decoded latent grid"),
        "plane_nearest": images.strip(strip, words, (), f"{name}: what two numbers can hold"),
    }


def draw_translations(translations: Translations, _: Generated, context: Context) -> dict[str, Figure]:
    """One test image of each class in both domains: given, translated, the truth, and back."""
    chosen = examples(context.test)[: len(context.classes)]
    figures = {}
    domains = (context.test.images, translations.rendered)
    for source, way in enumerate(("there", "back")):
        first, second = translations.domains[source], translations.domains[1 - source]
        rows = (domains[source], translations.there[source], domains[1 - source], translations.back[source])
        words = (first, f"as {second}", f"true {second}", f"back to {first}")
        strip = torch.stack([part[chosen] for part in rows])
        figures[f"translation_{way}"] = images.strip(strip, words, (), f"{context.name}: {first} to {second}")
    return figures


def draw_prompted(prompted: Prompted, _: Generated, context: Context) -> dict[str, Figure]:
    """Prompts and what came of them."""
    texts = list(dict.fromkeys(prompted.texts[:_PROMPTS]))
    rows = [prompted.images[torch.tensor([other == text for other in prompted.texts])][:_SHOWN] for text in texts]
    fewest = min(map(len, rows))
    strip = torch.stack([row[:fewest] for row in rows])
    return {"prompts": images.strip(strip, texts, (), f"{context.name}: prompts and samples", light_on_black=True)}


FIGURES: dict[str, Callable[[Any, Generated, Context], dict[str, Figure]]] = {  # by the part of what was generated
    "samples": draw_samples,
    "encodings": draw_encodings,
    "grid": draw_grid,
    "translations": draw_translations,
    "prompted": draw_prompted,
}


def draw_diagnostic(found: Diagnostic) -> Figure:
    """A figure of the one kind that a diagnostic is of."""
    if isinstance(found, Curves):
        return charts.line_charts([curve_chart(found, found.title)])
    if isinstance(found, Strip):
        return images.strip(found.images, found.rows, found.columns, found.title)
    return charts.number_table(found.title, found.numbers, found.rows, found.columns)


def over_settings(here: Pipeline, name: str) -> dict[str, Figure]:
    """For each setting that was swept, distances, overlap and label accuracy over its values."""
    path = here.plot_data(name) / "sweeps.tsv"
    if not path.exists():
        return {}
    figures = {}
    for setting, table in read_table(path).groupby("setting", sort=False):
        shown = [_lines(table, "value", str(setting), "kernel_x1000", "kernel distance × 1000", log_scale=True)]
        first = next(column for column in map(str, table) if column.endswith(".precision")).removesuffix(".precision")
        overlap = {key: table[f"{first}.{key}"].tolist() for key in ("precision", "recall")}
        if "label_accuracy" in table:
            overlap["label accuracy"] = table["label_accuracy"].tolist()
        values = table["value"].tolist()
        shown.append(charts.Lines("overlap with real images", str(setting), "share", values, overlap))
        words = [_in_words(value) for value in values]
        traded = {str(setting): overlap["precision"]}
        shown.append(
            charts.Lines(f"each point: one {setting}", "recall", "precision", overlap["recall"], traded, words=words)
        )
        figures[f"sweep_{setting}"] = charts.line_charts(shown)
    return figures


def over_epochs(here: Pipeline, name: str, curves: pd.DataFrame) -> dict[str, Figure]:
    """Distances over the training, beside what was minimised, or, where there are any, estimates of a distance."""
    path = here.plot_data(name) / "epochs.tsv"
    if not path.exists():
        return {}
    table = read_table(path)
    shown = [_lines(table, "epoch", "epoch", key, word, log_scale=True) for key, word in _OVER_EPOCHS.items()]
    related = rank_correlations(table, curves)
    estimates = [column for column in related if column.endswith("_estimate")]
    columns = estimates or [column for column in related if column.startswith("validation_")]
    words = [f"{column.replace('_', ', ', 1)} ({related[column]:.2f})" for column in columns]
    lines = {word: curves[column].tolist() for word, column in zip(words, columns, strict=True)}
    title, axis = ("the critic's estimate", "estimate") if estimates else ("what is minimised", "loss")
    x_label = "epoch\n(in brackets: rank correlation with the Fréchet distance)"
    if lines:
        shown.append(charts.Lines(title, x_label, axis, curves["epoch"].tolist(), lines))
    return {"over_epochs": charts.line_charts(shown)}


def _in_words(value: Any) -> str:
    """A value of a setting that was swept."""
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def _lines(table: pd.DataFrame, x: str, x_label: str, score: str, label: str, *, log_scale: bool) -> charts.Lines:
    """One line for each extractor."""
    columns = [column for column in map(str, table) if column.endswith(f".{score}")]
    lines = {column.removesuffix(f".{score}"): table[column].tolist() for column in columns}
    return charts.Lines(label, x_label, label, table[x].tolist(), lines, log_scale)


def interpolations(encodings: Encodings, test: Split) -> list[images.Interpolation]:
    """The interpolations of one model, those within a class first."""
    words = [f"{label} to {label}" for label in encodings.within]
    words += [f"{first} to {second}" for first, second in encodings.between]
    first, last = (test.images[encodings.interpolation_ends[:, end]] for end in (0, 1))
    return [images.Interpolation(*row) for row in zip(words, first, encodings.interpolations, last, strict=True)]
