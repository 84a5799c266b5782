"""Stage `report`: one A4 page from the committed metrics and figures, in words made from the numbers.

The layout is stages/report.typ; everything that depends on a result is put together here.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import typst

from generative.errors import PipelineError
from generative.files import read_json, write_bytes
from stages.models import read_model
from stages.params import REAL, model_names
from stages.result_paths import ERROR_METRICS, FIGURES, REPORT, SCORE_METRICS

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


COLUMNS = (
    Column("frechet_distance", "Fréchet distance ↓", 2, with_error=True),
    Column("frechet_bottleneck", "the same, second extractor ↓", 2, with_error=True),
    Column("frechet_inception", "FID ↓", 1, with_error=True),
    Column("precision", "precision ↑", 3),
    Column("recall", "recall ↑", 3),
    Column("label_accuracy", "label accuracy ↑", 3),
    Column("cas", "CAS ↑", 3),
    Column("mse_x1000", "MSE × 1000 ↓", 2),
    Column("pca_mse_x1000", "MSE × 1000 of PCA", 2),
    Column("ssim", "SSIM ↑", 3),
    Column("iw_bound", "log p(x) bound, nats ↑", 1),
)


class Cell(NamedTuple):
    """A cell of the table; bold if no other model comes within the error."""

    text: str
    bold: bool


def main() -> None:
    """Typeset the report."""
    names = model_names()
    rows, errors = read_results()
    words = conditional(rows)
    context = {
        "models": [[name, read_model(name)[0].describe()] for name in names],
        "headings": [column.heading for column in columns(rows)],
        "table": [
            [cell._asdict() for cell in (Cell(name, False), *cells)] for name, cells in table(rows, errors).items()
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


def read_results() -> tuple[dict[str, Row], dict[str, Row]]:
    """Scores and their standard errors, of real images and of every model."""
    names = [REAL, *model_names()]
    rows, errors = (
        {name: read_json(folder / f"{name}.json") for name in names} for folder in (SCORE_METRICS, ERROR_METRICS)
    )
    return rows, errors


def columns(rows: dict[str, Row]) -> list[Column]:
    """The columns in which some model has a score."""
    return [column for column in COLUMNS if any(column.key in row for row in rows.values())]


def table(rows: dict[str, Row], errors: dict[str, Row]) -> dict[str, list[Cell]]:
    """The cells of each row; a dash where a model has no such score."""
    best = {column.key: best_model(rows, errors, column) for column in columns(rows)}
    return {
        name: [Cell(_text(row, errors[name], column), best[column.key] == name) for column in columns(rows)]
        for name, row in rows.items()
    }


def best_model(rows: dict[str, Row], errors: dict[str, Row], column: Column) -> str | None:
    """The model that leads in a column by more than the standard error of the lead; real images do not compete."""
    key = column.key
    names = [name for name, row in rows.items() if name != REAL and key in row]
    if len(names) < 2 or column.heading[-1] not in "↓↑":
        return None
    first, second = sorted(names, key=lambda name: rows[name][key], reverse=not column.lower_is_better)[:2]
    lead = abs(rows[first][key] - rows[second][key])
    return first if lead > math.hypot(*(errors[name].get(key, 0.0) for name in (first, second))) else None


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
        excess = row["bce"] - row["bce_floor"]
        sentences.append(
            f"The {name} reconstructs test images with a root-mean-square error of "
            f"{(row['mse_x1000'] / 1000) ** 0.5 * 255:.0f} of 255 grey levels (PSNR {row['psnr']:.1f} dB, "
            f"SSIM {row['ssim']:.2f}); its binary cross-entropy lies {excess:.0f} nats per image above the "
            f"irreducible {row['bce_floor']:.0f}. PCA with as many components leaves "
            f"{row['pca_mse_x1000'] / row['mse_x1000']:.1f} times its squared error."
        )
    if len(encoders) > 1:
        best = min(encoders, key=lambda name: encoders[name]["mse_x1000"])
        worst = max(encoders, key=lambda name: encoders[name]["mse_x1000"])
        ratio = encoders[worst]["mse_x1000"] / encoders[best]["mse_x1000"] - 1
        sentences.append(f"The error of the {worst} is {ratio:.0%} above that of the {best}.")
    for name, row in encoders.items():
        if "loss_kl" in row:
            sentences.append(f"The {name}'s code carries {row['loss_kl']:.1f} nats per image about its input.")
    return " ".join(sentences)


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
            ratio = others[nearest] / row["frechet_distance"]
            relation = f"{ratio:.1f} times nearer" if ratio >= 1 else f"{1 / ratio:.1f} times farther"
            compared = f", {relation} than those of the {nearest}"
        sentences.append(
            f"The classifier sees the label that was asked for in {row['label_accuracy']:.1%} of the {name}'s samples "
            f"(real test images: {real['label_accuracy']:.1%}). Their Fréchet distance to the test images is "
            f"{row['frechet_distance']:.2f}{compared}; real images reach {real['frechet_distance']:.2f}."
        )
    return " ".join(sentences)


def choose_figures(rows: dict[str, Row]) -> dict[str, Path]:
    """The figures of the page: a model with a prior over its latents is shown in detail, else the first encoder."""
    encoders = [name for name, row in rows.items() if "mse_x1000" in row]
    planar = [name for name in encoders if (FIGURES / f"latent_grid_{name}.png").exists()]
    shown = next((name for name in planar if "elbo" in rows[name]), (planar or encoders or [""])[0])
    followers = [name for name, row in rows.items() if name != "real" and "label_accuracy" in row]
    wanted = {
        "reconstructions": "reconstructions",
        "latent_space": "latent_space",
        "interpolations": f"interpolations_{shown}",
        "latent_grid": f"latent_grid_{shown}",
        "samples_by_class": f"samples_by_class_{followers[0]}" if followers else "samples",
        "training": "training",
    }
    paths = {key: FIGURES / f"{name}.png" for key, name in wanted.items()}
    return {key: path for key, path in paths.items() if path.exists()}
