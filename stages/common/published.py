"""What git keeps of each model: writing it, and reading back the data behind comparing figures."""

from typing import Annotated, Any

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from generative.config import Config
from generative.data.fashion_mnist import CLASS_NAMES
from generative.data.splits import Split
from generative.figures.latents import Plane
from generative.io.files import read_json, write_json
from generative.io.tables import read_table, write_table
from stages.common.paths import scores
from stages.common.published_paths import (
    ERROR_METRICS,
    FEATURE_METRICS,
    PER_CLASS_METRICS,
    PLOT_DATA,
    SCORE_METRICS,
)

_DECIMALS = 4  # of scores: what `dvc metrics show` and a reader can use; DVC itself cuts at 5
_EXAMPLES = 2  # test images of each class whose reconstructions are shown
_SHOWN_LATENTS = 5000
_LATENT_DECIMALS = 3


class FiguresConfig(Config):
    """How figures look (params: `figures`)."""

    dpi: Annotated[int, Field(ge=30, le=600)]
    sample_columns: Annotated[int, Field(ge=2, le=20)]


def publish_scores(name: str) -> None:
    """Write the metrics of the model `name`, or of real images, from its file of scores."""
    result = read_json(scores(name))
    for folder, key in (
        (SCORE_METRICS, "scores"),
        (ERROR_METRICS, "errors"),
        (FEATURE_METRICS, "features"),
        (PER_CLASS_METRICS, "per_class"),
    ):
        write_json(folder / f"{name}.json", rounded(result[key]))


def rounded(value: Any) -> Any:
    """`value`, a number or mappings of numbers, as metrics show it."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, _DECIMALS)


def examples(labels: Tensor) -> Tensor:
    """Indices (20,) of the first two test images of each class: all classes in order, then all again."""
    members = torch.stack([(labels == label).nonzero()[:_EXAMPLES, 0] for label in range(len(CLASS_NAMES))])
    return members.T.flatten()


def publish_latents(name: str, z: Tensor, test: Split) -> None:
    """Write where latent vectors `z` (N, d) of the test images lie in the plane that a figure shows."""
    plane = Plane.of(z)
    table = pd.DataFrame(plane.points[:_SHOWN_LATENTS].double().numpy(), columns=["x", "y"]).round(_LATENT_DECIMALS)
    write_table(PLOT_DATA / name / "latents.tsv", table.assign(label=test.labels[:_SHOWN_LATENTS].numpy()))
    write_json(PLOT_DATA / name / "latents.json", {"title": plane.title, "axes": plane.axes})


def published_latents(name: str) -> tuple[Plane, Tensor]:
    """What `publish_latents` wrote: the plane, and the labels (N,) of its points."""
    table, words = read_table(PLOT_DATA / name / "latents.tsv"), read_json(PLOT_DATA / name / "latents.json")
    points = torch.tensor(table[["x", "y"]].to_numpy(), dtype=torch.float32)
    return Plane(points, words["title"], tuple(words["axes"])), torch.tensor(table["label"].to_numpy())
