"""What git keeps of each model: writing it, and reading back the data behind comparing figures."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from generative.capabilities.diagnosing import Curves, Diagnostic, Table
from generative.config import Config
from generative.data.splits import Split
from generative.figures.charts import Lines
from generative.figures.latents import Plane
from generative.io.files import read_json, write_json
from generative.io.tables import read_table, write_table
from stages.common.params import Params, read_params
from stages.common.paths import METRICS, REAL, ROOT, Pipeline
from stages.common.seeds import spreads

_DECIMALS = 4  # of scores: what `dvc metrics show` and a reader can use; DVC itself cuts at 5
_HEADLINE = (  # what DVC shows by default
    "frechet_distance",
    "kernel_imagenet_x1000",
    "label_accuracy",
    "cas",
    "mse_x1000",
    "iw_bound",
)
_OUTSIDE = ("imagenet", "inception")  # kinds of extractor that were not trained here
_DIAGNOSTICS = "diagnostics"  # a folder of their own: a family names them as it likes
_EXAMPLES = 2  # test images of each class whose reconstructions are shown
_SHOWN_LATENTS = 5000
_LATENT_DECIMALS = 3


class FiguresConfig(Config):
    """How figures look (params: `figures`)."""

    dpi: Annotated[int, Field(ge=30, le=600)]
    sample_columns: Annotated[int, Field(ge=2, le=20)]


class ReportConfig(Config):
    """What the report shows (params: `report`)."""

    models: Annotated[list[str], Field(min_length=1)]
    authors: list[str]
    link: str
    contradictions: Literal["fail", "show"] = "fail"  # of answers and evidence, on the theory sheet


def publish_scores(here: Pipeline, name: str) -> None:
    """Write the metrics of the model `name`, or of real images, from its file of scores."""
    result = read_json(here.scores(name))
    result["headline"] = {key: result["scores"][key] for key in _HEADLINE if key in result["scores"]}
    for kind in METRICS:
        write_json(here.metrics(kind, name), rounded(result[kind]))
    for kind in ("sweeps", "epochs"):
        if result[kind]:
            write_table(here.plot_data(name) / f"{kind}.tsv", pd.DataFrame(rounded(result[kind])))


@dataclass(frozen=True)
class Entry:
    """A row of the tables: a model of this pipeline or of the root, or real images."""

    name: str
    home: Pipeline  # where its files are
    scores: dict[str, float]
    errors: dict[str, float]  # from the images that were scored
    spreads: dict[str, float] = field(default_factory=dict)  # over seeds of the training, where there are others

    @property
    def folder(self) -> Path:
        """What its part of comparing figures is drawn from."""
        return self.home.plot_data(self.name)

    def error(self, score: str) -> float:
        """The standard error of a score: from images and from seeds, as far as known."""
        return math.hypot(self.errors.get(score, 0.0), self.spreads.get(score, 0.0))


def read_entries(params: Params) -> dict[str, Entry]:
    """Real images, the models of the root, and those of the pipeline of `params`, by name, in this order."""
    root = read_params()
    homes = dict.fromkeys((REAL, *root.models), ROOT) | dict.fromkeys(params.models, params.here)
    scores, errors = (
        {name: read_json(home.metrics(kind, name)) for name, home in homes.items()} for kind in ("scores", "errors")
    )
    seeds = spreads(root, scores) | (spreads(params, scores) if params.here != ROOT else {})
    return {name: Entry(name, home, scores[name], errors[name], seeds.get(name, {})) for name, home in homes.items()}


def outside_extractors(params: Params) -> dict[str, str]:
    """The extractors that were not trained here, and to which nothing was tuned: name to kind."""
    kinds = {name: str(block.get("kind")) for name, block in params.items("extractors").items()}
    return {name: kind for name, kind in kinds.items() if kind in _OUTSIDE}


def rounded(value: Any) -> Any:
    """`value`, a number, or mappings and lists of numbers and words, as metrics show it."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, _DECIMALS) if isinstance(value, float) else value


def examples(test: Split) -> Tensor:
    """Indices (2 C,) of the first two `test` images of each class: all classes in order, then all again."""
    members = torch.stack([(test.labels == label).nonzero()[:_EXAMPLES, 0] for label in range(test.num_classes)])
    return members.T.flatten()


def publish_diagnostic(folder: Path, name: str, found: Diagnostic) -> None:
    """Write the numbers of a diagnostic of the model whose data `folder` holds, to be put beside other models'."""
    path = folder / _DIAGNOSTICS / f"{name}.tsv"
    if isinstance(found, Curves):
        table = pd.DataFrame({found.x_label: found.x.double().numpy()})
        lines = {line: values.double().numpy() for line, values in found.y.items()}
        words = {"title": found.title, "y_label": found.y_label, "log_scale": found.log_scale}
        write_table(path, table.assign(**lines).round(_DECIMALS))
        write_json(path.with_suffix(".json"), words)
    elif isinstance(found, Table):
        table = pd.DataFrame(found.numbers.double().numpy(), columns=found.columns).round(_DECIMALS)
        table.insert(0, found.title, found.rows)
        write_table(path, table)


def published_curves(folder: Path) -> dict[str, Curves]:
    """The lines that `publish_diagnostic` wrote for the model whose data `folder` holds, by name."""
    found = {}
    for path in sorted((folder / _DIAGNOSTICS).glob("*.json")):
        table, words = read_table(path.with_suffix(".tsv")), read_json(path)
        x, *y = (torch.tensor(table[column].to_numpy()) for column in table)
        x_label, *lines = map(str, table)
        found[path.stem] = Curves(
            words["title"], x_label, words["y_label"], x, dict(zip(lines, y, strict=True)), words["log_scale"]
        )
    return found


def published_table(folder: Path, name: str) -> pd.DataFrame | None:
    """The numbers of a diagnostic of the model whose data `folder` holds, words first; None if it has none."""
    path = folder / _DIAGNOSTICS / f"{name}.tsv"
    return read_table(path) if path.exists() else None


def curve_chart(found: Curves, title: str) -> Lines:
    """A diagnostic as a chart."""
    lines = {name: values.tolist() for name, values in found.y.items()}
    return Lines(title, found.x_label, found.y_label, found.x.tolist(), lines, found.log_scale)


def rank_correlations(table: pd.DataFrame, curves: pd.DataFrame) -> dict[str, float]:
    """Of every recorded quantity, its rank correlation with the Fréchet distance over the epochs.

    Spearman's, in [-1, 1], with the distance in the features of the first extractor that has one; NaN where one of the
    two is constant.

    Args:
        table: distances of the epochs whose samples were kept.
        curves: what was recorded after every epoch.
    """
    distance = next(column for column in map(str, table) if column.endswith(".frechet_distance"))
    both = table[["epoch", distance]].merge(curves, on="epoch")
    related = both.corr(method="spearman")[distance]
    return {column: float(related[column]) for column in map(str, curves) if column != "epoch"}


def publish_latents(folder: Path, z: Tensor, test: Split) -> None:
    """Write into `folder` where latent vectors `z` (N, d) of the test images lie in the plane that a figure shows."""
    plane = Plane.of(z)
    table = pd.DataFrame(plane.points[:_SHOWN_LATENTS].double().numpy(), columns=["x", "y"]).round(_LATENT_DECIMALS)
    write_table(folder / "latents.tsv", table.assign(label=test.labels[:_SHOWN_LATENTS].numpy()))
    write_json(folder / "latents.json", {"title": plane.title, "axes": plane.axes})


def published_latents(folder: Path) -> tuple[Plane, Tensor]:
    """What `publish_latents` wrote into `folder`: the plane, and the labels (N,) of its points."""
    table, words = read_table(folder / "latents.tsv"), read_json(folder / "latents.json")
    points = torch.tensor(table[["x", "y"]].to_numpy(), dtype=torch.float32)
    return Plane(points, words["title"], tuple(words["axes"])), torch.tensor(table["label"].to_numpy())
