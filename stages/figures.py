"""Stage `figures`: draws plots/figures/ from tensors, curves and metrics; no model runs here.

It also writes plots/curves.tsv, the curves of all networks in one table, for `dvc plots`.
"""

from typing import Annotated, Any

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from generative.config import Config
from generative.data import Split, load_split
from generative.figures import charts, images
from generative.figures.style import save_figure
from generative.files import read_json
from generative.scores.memorisation import nearest_neighbours
from generative.tables import read_table, write_table
from generative.tensors import load_metadata, load_tensors
from stages.params import REAL, extractor_names, model_names, read_block
from stages.paths import TEST, TRAIN, curves, extractor_curves, generated
from stages.result_paths import CURVES, FIGURES, SCORE_METRICS

Tensors = dict[str, Tensor]

# Scores that get a bar chart: title, whether its scale is logarithmic.
CHARTS = {
    "frechet_distance": ("Fréchet distance of samples\n(lower is better)", True),
    "frechet_bottleneck": ("The same, second extractor\n(lower is better)", True),
    "label_accuracy": ("Label accuracy of samples\n(higher is better)", False),
    "mse_x1000": ("Reconstruction MSE per pixel\n(× 1000, lower is better)", False),
    "ssim": ("Reconstruction SSIM\n(higher is better)", False),
}


class FiguresConfig(Config):
    """How figures look (params: `figures`)."""

    dpi: Annotated[int, Field(ge=30, le=600)]
    sample_columns: Annotated[int, Field(ge=2, le=20)]


def main() -> None:
    """Draw every figure that the models allow."""
    config = read_block("figures", FiguresConfig)
    names = model_names()
    made = {name: load_tensors(generated(name)) for name in names}
    train, test = load_split(TRAIN), load_split(TEST)
    encoders = {name: tensors for name, tensors in made.items() if "latents" in tensors}

    def save(figure: Any, name: str) -> None:
        save_figure(figure, FIGURES / f"{name}.png", config.dpi)

    side = config.sample_columns
    save(images.sample_panels({"real test images": test.images} | _pick(made, "samples"), side), "samples")
    for name, tensors in made.items():
        if bool((tensors["labels"] >= 0).all()):
            title = f"{name}: samples by class"
            save(
                images.samples_by_class(tensors["samples"], tensors["labels"], side, title),
                f"samples_by_class_{name}",
            )
    for name, tensors in made.items():
        chosen = one_per_class(tensors["samples"], tensors["labels"], side)
        nearest = train.images[nearest_neighbours(chosen, train.images).indices]
        save(images.neighbours(chosen, nearest, f"{name}: is it a copy?"), f"neighbours_{name}")
    if encoders:
        reconstructions = _pick(encoders, "reconstructions")
        save(images.reconstructions(test.images, test.labels, reconstructions), "reconstructions")
        save(charts.latent_spaces(_pick(encoders, "latents"), test.labels), "latent_space")
    for name, tensors in encoders.items():
        draw_latent_paths(name, tensors, test, save)
    paths = {f"extractor: {name}": extractor_curves(name) for name in extractor_names()}
    tables = {name: read_table(path) for name, path in (paths | {name: curves(name) for name in names}).items()}
    tables = {name: table for name, table in tables.items() if len(table)}  # what was not trained here has no rows
    save(charts.training_curves(tables), "training")
    write_table(CURVES, long_table(tables))
    save(charts.score_bars(score_charts(names), names), "scores")


def one_per_class(samples: Tensor, labels: Tensor, count: int) -> Tensor:
    """The first sample of each class; of an unconditional model the first `count`."""
    if bool((labels < 0).any()):
        return samples[:count]
    return torch.stack([samples[labels == label][0] for label in labels.unique()])


def draw_latent_paths(name: str, tensors: Tensors, test: Split, save: Any) -> None:
    """The latent grid, the interpolations and the animation of one model."""
    metadata = load_metadata(generated(name))
    within, between = metadata["within"], metadata["between"]
    words = [f"{label} to {label}" for label in within] + [f"{first} to {second}" for first, second in between]
    first, last = (test.images[tensors["interpolation_ends"][:, end]] for end in (0, 1))
    rows = [images.Interpolation(*row) for row in zip(words, first, tensors["interpolations"], last, strict=True)]
    title = f"{name}: straight lines in the latent space, within a class and between two"
    save(images.interpolations(rows, len(within), title), f"interpolations_{name}")
    animated = rows[len(within)]._replace(decoded=tensors["animation"])
    images.save_animation(animated, FIGURES / f"interpolation_{name}.gif")
    if "grid" in tensors:
        save(
            images.latent_grid(tensors["grid"], tensors["grid_axis"], f"{name}: decoded latent grid"),
            f"latent_grid_{name}",
        )


def long_table(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Curves with one value per row: columns model, quantity, split, epoch, value."""
    parts = []
    for name, table in tables.items():
        part = table.melt("epoch")
        part[["split", "quantity"]] = part["variable"].str.split("_", n=1, expand=True)
        parts.append(part.assign(model=name)[["model", "quantity", "split", "epoch", "value"]])
    return pd.concat(parts, ignore_index=True)


def score_charts(names: list[str]) -> list[charts.Bars]:
    """One chart for each score in CHARTS that a model has."""
    real = read_json(SCORE_METRICS / f"{REAL}.json")
    rows = {name: read_json(SCORE_METRICS / f"{name}.json") for name in names}
    result = []
    for key, (title, log_scale) in CHARTS.items():
        values = {name: row[key] for name, row in rows.items() if key in row}
        if values:
            result.append(charts.Bars(title, values, real.get(key), log_scale))
    return result


def _pick(made: dict[str, Tensors], key: str) -> Tensors:
    return {name: torch.as_tensor(tensors[key]) for name, tensors in made.items()}
