"""Stage `compare`: all models side by side: headline metrics, curves in one table, comparing figures.

It reads what git keeps of each model alone: no data, no tensors, no weights.
"""

import pandas as pd

from generative.figures import charts, images
from generative.figures.strips import load_strip
from generative.figures.style import save_figure
from generative.io.files import read_json, write_json
from generative.io.tables import read_table, write_table
from stages.common.leftovers import tidy
from stages.common.params import REAL, Params, read_params
from stages.common.published import FiguresConfig, published_latents
from stages.common.published_paths import COMPARISON, CURVES, HEADLINE_METRICS, PLOT_DATA, SCORE_METRICS

_HEADLINE = ("frechet_distance", "label_accuracy", "cas", "mse_x1000", "iw_bound")  # what DVC shows by default


def main() -> None:
    """Compare the models of params.yaml."""
    params = read_params()
    tidy(params)
    dpi, names = params.block("figures", FiguresConfig).dpi, params.models
    rows = {name: read_json(SCORE_METRICS / f"{name}.json") for name in (REAL, *names)}
    write_json(
        HEADLINE_METRICS,
        {name: {key: row[key] for key in _HEADLINE if key in row} for name, row in rows.items()},
    )
    tables = curve_tables(params)
    write_table(CURVES, long_table(tables))
    squares = {name: load_strip(PLOT_DATA / name / "samples.png") for name in rows}
    figures = {
        "samples": images.sample_panels({"real test images": squares.pop(REAL)} | squares),
        "training": charts.training_curves(tables),
        "scores": charts.score_bars(score_charts(params, rows), names),
    }
    encoders = [name for name in names if (PLOT_DATA / name / "latents.json").exists()]
    if encoders:
        strips = {name: load_strip(PLOT_DATA / name / "reconstructions.png") for name in (REAL, *encoders)}
        figures["reconstructions"] = images.reconstructions(strips.pop(REAL), strips)
        figures["latent_space"] = charts.latent_spaces({name: published_latents(name) for name in encoders})
    for title, figure in figures.items():
        save_figure(figure, COMPARISON / f"{title}.png", dpi)


def curve_tables(params: Params) -> dict[str, pd.DataFrame]:
    """Losses per epoch of every network that was trained here, extractors first."""
    paths = {f"extractor: {name}": PLOT_DATA / REAL / f"{name}.tsv" for name in params.extractors}
    paths |= {name: PLOT_DATA / name / "curves.tsv" for name in params.models}
    tables = {name: read_table(path) for name, path in paths.items()}
    return {name: table for name, table in tables.items() if len(table)}


def long_table(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Curves with one value per row: columns model, quantity, split, epoch, value."""
    parts = []
    for name, table in tables.items():
        part = table.melt("epoch")
        part[["split", "quantity"]] = part["variable"].str.split("_", n=1, expand=True)
        parts.append(part.assign(model=name)[["model", "quantity", "split", "epoch", "value"]])
    return pd.concat(parts, ignore_index=True)


def score_charts(params: Params, rows: dict[str, dict[str, float]]) -> list[charts.Bars]:
    """One chart for each of some scores that a model has."""
    first, *others = params.extractors
    titles = {"frechet_distance": (f"Fréchet distance, {first}\n(lower is better)", True)}
    titles |= {f"frechet_{name}": (f"Fréchet distance, {name}\n(lower is better)", True) for name in others}
    titles |= {
        "label_accuracy": ("Label accuracy of samples\n(higher is better)", False),
        "mse_x1000": ("Reconstruction MSE per pixel\n(× 1000, lower is better)", False),
        "ssim": ("Reconstruction SSIM\n(higher is better)", False),
    }
    result = []
    for key, (title, log_scale) in titles.items():
        values = {name: row[key] for name, row in rows.items() if key in row and name != REAL}
        if values:
            result.append(charts.Bars(title, values, rows[REAL].get(key), log_scale))
    return result
