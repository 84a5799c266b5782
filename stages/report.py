"""Stage `report`: one A4 page from the committed metrics and figures, in words made from the numbers.

The layout is stages/report.typ; everything that depends on a result is put together here.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import typst

from generative.errors import PipelineError
from generative.io.files import read_json, write_bytes
from stages.common.leftovers import tidy
from stages.common.models import read_model
from stages.common.params import REAL, Params, read_params
from stages.common.published_paths import COMPARISON, ERROR_METRICS, FIGURES, REPORT, SCORE_METRICS

TEMPLATE = Path("stages/report.typ")

TEXT_SIZES = (8.4, 7.8, 7.2, 6.6, 6.0, 5.4, 4.8)  # points; many models need small print

Row = dict[str, float]


class Column(NamedTuple):
    """A column of the table of results."""

    key: str  # in metrics/scores/
    heading: str
    decimals: int
    with_error: bool = False

    @property
    def lower_is_better(self) -> bool:
        """As the arrow in the heading says."""
        return self.heading.endswith("↓")


_DISTANCE = (Column("frechet_distance", "Fréchet distance ↓", 2, with_error=True),)
_SCORES = (
    Column("precision", "precision ↑", 3),
    Column("recall", "recall ↑", 3),
    Column("label_accuracy", "label accuracy ↑", 3),
    Column("cas", "CAS ↑", 3),
    Column("mse_x1000", "MSE × 1000 ↓", 2),
    Column("pca_mse_x1000", "MSE × 1000 of PCA", 2),
    Column("ssim", "SSIM ↑", 3),
    Column("iw_bound", "log p(x) bound, nats ↑", 1),
)
_PAPER_NAMES = {"inception": "FID ↓"}  # of the distance in the features of a kind of extractor


class Cell(NamedTuple):
    """A cell of the table; bold if no other model comes within the error."""

    text: str
    bold: bool


def main() -> None:
    """Typeset the report."""
    params = read_params()
    tidy(params)
    rows, errors = read_results(params)
    shown, words = columns(params, rows), conditional(rows)
    context = {
        "models": [[name, read_model(params, name)[0].describe()] for name in params.models],
        "extractors": ", ".join(params.extractors),
        "headings": [column.heading for column in shown],
        "table": [
            [cell._asdict() for cell in (Cell(name, False), *cells)]
            for name, cells in table(rows, errors, shown).items()
        ],
        "representation": representation(rows),
        "paths": between_points(rows),
        "conditional": words,
        "figures": {key: f"/{path}" for key, path in choose_figures(rows).items()},
        "samples_caption": "Samples asked for by class." if words else "Test images, and samples.",
    }
    write_bytes(REPORT, typeset(context))


def typeset(context: dict[str, Any]) -> bytes:
    """The PDF, in the largest of TEXT_SIZES that fits one page; the same bytes for the same arguments and figures.

    Raises:
        PipelineError: a figure is missing, or there is too much for one page in any size.
    """
    reason = ""
    for size in TEXT_SIZES:
        try:
            pdf = typst.compile(
                str(TEMPLATE),
                root=".",
                ignore_system_fonts=True,
                sys_inputs={"context": json.dumps(context | {"text_size": size}, sort_keys=True)},
                timestamp=0,
            )
        except typst.TypstError as error:
            reason = error.message
            continue
        assert isinstance(pdf, bytes)
        return pdf
    raise PipelineError(f"the report cannot be typeset: {reason}: are there too many models?")


def read_results(params: Params) -> tuple[dict[str, Row], dict[str, Row]]:
    """Scores and their standard errors, of real images and of every model."""
    names = [REAL, *params.models]
    rows, errors = (
        {name: read_json(folder / f"{name}.json") for name in names} for folder in (SCORE_METRICS, ERROR_METRICS)
    )
    return rows, errors


def columns(params: Params, rows: dict[str, Row]) -> list[Column]:
    """The columns in which some model has a score; one Fréchet distance for each extractor of the params."""
    _, *others = params.extractors
    kinds = {name: str(block.get("kind")) for name, block in params.items("extractors").items()}
    further = [
        Column(f"frechet_{name}", _PAPER_NAMES.get(kinds[name], f"the same, {name} ↓"), 2, with_error=True)
        for name in others
    ]
    return [column for column in (*_DISTANCE, *further, *_SCORES) if any(column.key in row for row in rows.values())]


def table(rows: dict[str, Row], errors: dict[str, Row], shown: list[Column]) -> dict[str, list[Cell]]:
    """The cells of each row; a dash where a model has no such score."""
    best = {column.key: best_model(rows, errors, column) for column in shown}
    return {
        name: [Cell(_text(row, errors[name], column), best[column.key] == name) for column in shown]
        for name, row in rows.items()
    }


def best_model(rows: dict[str, Row], errors: dict[str, Row], column: Column) -> str | None:
    """The model that is ahead of every other in a column by more than the standard error of that lead.

    Real images do not compete.
    """
    names = [name for name, row in rows.items() if name != REAL and column.key in row]
    if len(names) < 2 or column.heading[-1] not in "↓↑":
        return None
    first, *others = sorted(names, key=lambda name: rows[name][column.key], reverse=not column.lower_is_better)

    def is_ahead_of(other: str) -> bool:
        lead = abs(rows[first][column.key] - rows[other][column.key])
        return lead > math.hypot(*(errors[name].get(column.key, 0.0) for name in (first, other)))

    return first if all(map(is_ahead_of, others)) else None


def _text(row: Row, error: Row, column: Column) -> str:
    if column.key not in row:
        return "–"
    text = f"{row[column.key]:.{column.decimals}f}"
    if column.with_error:
        text += f" ± {error.get(column.key, 0):.{column.decimals}f}"
    return text


def representation(rows: dict[str, Row]) -> str:
    """How well the encoders represent the data."""
    sentences = []
    encoders = {name: row for name, row in rows.items() if "mse_x1000" in row}
    for name, row in encoders.items():
        sentences.append(
            f"The {name} reconstructs test images with a root-mean-square error of "
            f"{(row['mse_x1000'] / 1000) ** 0.5 * 255:.0f} of 255 grey levels (PSNR {row['psnr']:.1f} dB, "
            f"SSIM {row['ssim']:.2f}); its binary cross-entropy lies {row['bce'] - row['bce_floor']:.0f} nats per "
            f"image above the irreducible {row['bce_floor']:.0f}. PCA with as many components leaves "
            f"{_times(row['pca_mse_x1000'], row['mse_x1000'])} its squared error."
        )
    if len(encoders) > 1:
        best = min(encoders, key=lambda name: encoders[name]["mse_x1000"])
        worst = max(encoders, key=lambda name: encoders[name]["mse_x1000"])
        least, most = (encoders[name]["mse_x1000"] for name in (best, worst))
        if least:
            sentences.append(f"The error of the {worst} is {most / least - 1:.0%} above that of the {best}.")
    for name, row in encoders.items():
        if "loss_kl" in row:
            sentences.append(f"The {name}'s code carries {row['loss_kl']:.1f} nats per image about its input.")
    return " ".join(sentences)


def _times(above: float, below: float) -> str:
    """How many times `below` is contained in `above`, in words that also hold for 0."""
    if not below:
        return "infinitely many times" if above else "exactly"
    return f"{above / below:.1f} times"


def between_points(rows: dict[str, Row]) -> str:
    """What lies between two points of the latent space."""
    sentences = []
    for name, row in rows.items():
        if "path_within_kept" not in row:
            continue
        within, between = row["path_within_kept"], row["path_between_kept"]
        sentences.append(
            f"On straight lines between two test images of one class, the {name} decodes an image of that class "
            f"{within:.0%} of the time; between images of two classes it shows one of the two {between:.0%} of the "
            f"time, and otherwise crosses the region of a third."
        )
    return " ".join(sentences)


def conditional(rows: dict[str, Row]) -> str:
    """What came out of the models that follow a label."""
    real = rows["real"]
    sentences = []
    for name, row in rows.items():
        if name == "real" or "label_accuracy" not in row:
            continue
        others = {key: other["frechet_distance"] for key, other in rows.items() if "label_accuracy" not in other}
        compared = ""
        if others:
            nearest = min(others, key=lambda key: others[key])
            near, far = sorted((row["frechet_distance"], others[nearest]))
            relation = "nearer" if row["frechet_distance"] == near else "farther"
            compared = f", {_times(far, near)} {relation} than those of the {nearest}"
        sentences.append(
            f"The classifier sees the label that was asked for in {row['label_accuracy']:.1%} of the {name}'s samples "
            f"(real test images: {real['label_accuracy']:.1%}). Their Fréchet distance to the test images is "
            f"{row['frechet_distance']:.2f}{compared}; real images reach {real['frechet_distance']:.2f}."
        )
    return " ".join(sentences)


def choose_figures(rows: dict[str, Row]) -> dict[str, Path]:
    """The figures of the page: a model with a prior over its latents is shown in detail, else the first encoder."""
    encoders = [name for name, row in rows.items() if "mse_x1000" in row]
    planar = [name for name in encoders if (FIGURES / name / "latent_grid.png").exists()]
    shown = next((name for name in planar if "elbo" in rows[name]), (planar or encoders or [""])[0])
    followers = [name for name, row in rows.items() if name != "real" and "label_accuracy" in row]
    wanted = {
        "reconstructions": COMPARISON / "reconstructions.png",
        "latent_space": COMPARISON / "latent_space.png",
        "interpolations": FIGURES / shown / "interpolations.png",
        "latent_grid": FIGURES / shown / "latent_grid.png",
        "samples_by_class": FIGURES / followers[0] / "samples_by_class.png"
        if followers
        else COMPARISON / "samples.png",
        "training": COMPARISON / "training.png",
    }
    return {key: path for key, path in wanted.items() if path.exists()}
