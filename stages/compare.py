"""Stage `compare`: all models side by side: curves in one table, comparing figures, the leaderboard.

It reads what git keeps of each model alone: no data, no tensors, no weights. Beside the models of its own pipeline it
shows those of the root.
"""

import pandas as pd
from matplotlib.figure import Figure

from generative.figures import charts, images
from generative.figures.strips import load_strip, save_strip
from generative.figures.style import save_figure
from generative.io.files import read_json
from generative.io.tables import read_table, write_table
from stages.common.dataset import read_dataset
from stages.common.leftovers import tidy
from stages.common.params import Params, read_params
from stages.common.paths import REAL, ROOT, Pipeline
from stages.common.published import (
    Entry,
    FiguresConfig,
    ReportConfig,
    curve_chart,
    outside_extractors,
    published_curves,
    published_latents,
    read_entries,
)

_ROW = 10  # samples of a model that stand beside its scores
_FEW = 6  # panels that stand in two columns of the report


def main(here: Pipeline) -> None:
    """Compare the models of a pipeline, and those of the root."""
    params = read_params(here)
    tidy(params)
    classes = read_dataset(params).classes
    dpi, entries = params.block("figures", FiguresConfig).dpi, read_entries(params)
    tables = curve_tables(params)
    write_table(here.all_curves, long_table(tables))
    named = {name: tables[name] for name in params.block("report", ReportConfig).models if name in tables}
    figures = {
        "training": charts.training_curves(tables),
        "training_for_report": charts.training_curves(
            named or tables, widest=2 if len(named or tables) <= _FEW else 3, scale=0.75
        ),
        "leaderboard": charts.score_dots(distance_charts(params, entries), list(entries), widest=2),
        "scores": charts.score_dots(score_charts(params, entries), list(entries)),
    }
    squares = {name: entry.folder / "samples.png" for name, entry in entries.items()}
    shown = {name: load_strip(path) for name, path in squares.items() if path.exists()}
    for name, samples in shown.items():
        row = samples[:_ROW]
        save_strip(row, len(row), here.comparison / "strips" / f"{name}.png")
    figures["samples"] = images.sample_panels({"real test images": shown.pop(REAL)} | shown)
    encoders = [name for name, entry in entries.items() if (entry.folder / "latents.json").exists()]
    if encoders:
        strips = {name: load_strip(entries[name].folder / "reconstructions.png") for name in (REAL, *encoders)}
        figures["reconstructions"] = images.reconstructions(strips.pop(REAL), strips, classes)
        figures["latent_space"] = charts.latent_spaces(
            {name: published_latents(entries[name].folder) for name in encoders}, classes
        )
    if shares := class_shares(entries):
        figures["class_shares"] = charts.class_shares(shares, classes)
    figures |= shared_curves(entries)
    for title, figure in figures.items():
        save_figure(figure, here.comparison / f"{title}.png", dpi)


def curve_tables(params: Params) -> dict[str, charts.Training]:
    """Losses per epoch of every network of the pipeline that was trained here, extractors first."""
    here, found = params.here, {}
    if here == ROOT:
        losses = read_json(here.plot_data(REAL) / "losses.json")
        for name in params.extractors:
            table = read_table(here.plot_data(REAL) / f"{name}.tsv")
            found[f"extractor: {name}"] = charts.Training(table, losses.get(name, {}))
    for name in params.models:
        folder = here.plot_data(name)
        found[name] = charts.Training(read_table(folder / "curves.tsv"), read_json(folder / "losses.json"))
    return {name: training for name, training in found.items() if len(training.table)}


def long_table(tables: dict[str, charts.Training]) -> pd.DataFrame:
    """Curves with one value per row: columns model, quantity, split, epoch, value."""
    parts = []
    for name, training in tables.items():
        part = training.table.melt("epoch")
        part[["split", "quantity"]] = part["variable"].str.split("_", n=1, expand=True)
        parts.append(part.assign(model=name)[["model", "quantity", "split", "epoch", "value"]])
    return pd.concat(parts, ignore_index=True)


def distance_charts(params: Params, entries: dict[str, Entry]) -> list[charts.Dots]:
    """The Fréchet distance in the features of each extractor, and the kernel distance in those of outside networks."""
    first, *others = params.extractors
    titles = {"frechet_distance": f"Fréchet distance, {first}"}
    titles |= {f"frechet_{name}": f"Fréchet distance, {name}" for name in others}
    titles |= {f"kernel_{name}_x1000": f"kernel distance × 1000, {name}" for name in outside_extractors(params)}
    return _charts({key: (title, True, True) for key, title in titles.items()}, entries)


def score_charts(params: Params, entries: dict[str, Entry]) -> list[charts.Dots]:
    """Other scores, those that some model has."""
    outside = {
        f"recall_{name}": (f"recall, {name} (higher is better)", False, False) for name in outside_extractors(params)
    }
    titles = {
        "precision": ("precision (higher is better)", False, False),
        "recall": ("recall (higher is better)", False, False),
        **outside,
        "label_accuracy": ("label accuracy of samples (higher is better)", False, False),
        "cas": ("classification accuracy score (higher is better)", False, False),
        "mse_x1000": ("reconstruction MSE × 1000 (lower is better)", False, True),
        "ssim": ("reconstruction SSIM (higher is better)", False, False),
    }
    return _charts(titles, entries)


def class_shares(entries: dict[str, Entry]) -> dict[str, list[float]]:
    """Which share of its samples the classifier gives each class, of every model that draws without labels."""
    found = {name: read_json(entry.home.metrics("per_class", name)).get("share") for name, entry in entries.items()}
    return {name: list(shares.values()) for name, shares in found.items() if shares}


def shared_curves(entries: dict[str, Entry]) -> dict[str, Figure]:
    """Lines of one name that several models have as diagnostics, side by side."""
    by_model = {name: published_curves(entry.folder) for name, entry in entries.items()}
    figures = {}
    for title in sorted({title for curves in by_model.values() for title in curves}):
        found = [curve_chart(curves[title], name) for name, curves in by_model.items() if title in curves]
        if len(found) > 1:
            figures[title] = charts.line_charts(found, same_axes=True)
    return figures


def _charts(titles: dict[str, tuple[str, bool, bool]], entries: dict[str, Entry]) -> list[charts.Dots]:
    result = []
    for key, (title, log_scale, lower_is_better) in titles.items():
        values = {name: (entry.scores[key], entry.error(key)) for name, entry in entries.items() if key in entry.scores}
        real = values.pop(REAL, None)
        if values:
            result.append(charts.Dots(title, values, real, log_scale, lower_is_better))
    return result
