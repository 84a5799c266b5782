"""Stage `report`: one A4 page for the questions of the exercise and the models that the params name, and an appendix.

Words and numbers are put together here from what git keeps; the layout is stages/report.typ.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from generative.errors import PipelineError
from generative.io.files import write_bytes
from stages.common.dataset import DataConfig, PrepareConfig, read_dataset
from stages.common.generated import PLANE_SIDE
from stages.common.leaderboard import Column, Entries, boards, column_groups, is_ahead, score_text
from stages.common.leftovers import tidy
from stages.common.models import read_model
from stages.common.params import Params, read_params
from stages.common.paths import REAL, ROOT, Pipeline
from stages.common.published import Entry, ReportConfig, outside_extractors, read_entries
from stages.common.typesetting import first_that_fits

TEMPLATE = Path("stages/report.typ")

TEXT_SIZES = (8.8, 8.4, 8.0, 7.6, 7.2, 7.0)  # points
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
LAYOUTS = ("all", "descriptions behind", "table behind", "as long as it takes")  # what stands on the first page

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
    Column("log_p_estimate_binary", "log p(binary x), nats ↑", 1),
    Column("bits_per_dim", "bits per dimension ↓", 2),
)
_LIKELIHOODS = {  # by the name of a score: how it is known, and what it is of
    "log_p_exact": ("exact", "density of dequantised grey levels"),
    "elbo": ("evidence lower bound", "density at grey levels, by a Gaussian around the decoded image"),
    "log_p_estimate_binary": ("estimate, by annealing", "probability of binary pixels"),
    "log_p_lower_binary": ("lower bound, by reverse annealing", "probability of binary pixels"),
}
_GREY_LEVELS = (
    "A density at grey levels can be raised without limit by a decoder of small variance: those in nats do not compare "
    "with the density of another kind of model. Bits per dimension are all of the same dequantised test images, and "
    "do; those of a bound are at most what stands here."
)
_BINARY = (
    " A probability of binary pixels is not on that scale: they are other data, drawn once with the grey levels as "
    "probabilities."
)


_TRANSLATED = (  # scores of each way, with their headings
    ("{}_mse_x1000", "{}: MSE × 1000 ↓", 1),
    ("{}_ssim", "SSIM ↑", 3),
    ("{}_cycle_mse_x1000", "and again: MSE × 1000 ↓", 1),
    ("{}_cycle_ssim", "SSIM ↑", 3),
    ("{}_frechet_distance", "Fréchet ↓", 2),
    ("{}_kernel_x1000", "kernel × 1000 ↓", 0),
)
_RECOGNISED = Column("back_accuracy", "class recognised ↑", 3, with_error=True)


class Cell(NamedTuple):
    """A cell of the table; bold if no other model comes within the error."""

    text: str
    bold: bool


class Footnote(NamedTuple):
    """What a reader has to know of a model's score."""

    name: str
    key: str
    text: str


def main(here: Pipeline) -> None:
    """Typeset the report."""
    params = read_params(here)
    tidy(params)
    data = read_dataset(params)
    config, entries = params.block("report", ReportConfig), read_entries(params)
    configs = read_configs(params, entries)
    first = {name: entries[name] for name in (REAL, *config.models)}
    further = [name for name in params.models if name not in config.models]
    shown, all_shown = columns(params, first), columns(params, entries)
    notes = footnotes(configs, entries, all_shown)
    words = conditional(first, outside_extractors(params))
    context = {
        "title": f"{'Generative' if here == ROOT else 'Further generative'} models on {data.name}",
        "data": data_in_words(data, params.block("prepare", PrepareConfig)),
        "data_source": data.source,
        "authors": config.authors,
        "link": config.link,
        "params": str(here.params),
        "models": [[name, configs[name].describe()] for name in config.models],
        "extractors": listed(extractors_in_words(params)),
        "headings": [column.heading for column in shown],
        "table": _plain(table(first, shown, notes)),
        "footnotes": numbered_footnotes(notes, first),
        "questions": [
            [question, text]
            for question, text in (
                ("How well are the data represented?", representation(first)),
                ("What lies between two points of the latent space?", between_points(first)),
                ("What came out of the conditional model?", words),
                ("What came out of the others?", unconditional(first)),
            )
            if text
        ],
        "figures": {key: _picture(path) for key, path in choose_figures(first).items()},
        "samples_caption": "Samples asked for by class." if words else "Test images, and samples.",
        "sources": numbered_sources([configs[name].sources() for name in params.models]),
        "further": [[name, configs[name].describe(), _strip(entries[name])] for name in further],
        "boards": leaderboard(params, entries, here) if len(entries) > len(first) else [],
        "notes": notes_in_words(params, entries),
        "translations": translations(entries),
        "likelihoods": likelihoods(entries),
        "likelihood_words": likelihood_words(entries),
        "leaderboard": _picture(here.comparison / "leaderboard.png"),
    }
    write_bytes(here.report, typeset(context))


def typeset(context: dict[str, Any]) -> bytes:
    """The PDF: as much as can be of what belongs there on the first page, in the largest of TEXT_SIZES that fits it.

    The same bytes for the same arguments and figures.

    Raises:
        PipelineError: a figure is missing, or the template is wrong.
    """
    contexts = (
        context | {"text_size": size, "layout": layout} for layout in range(len(LAYOUTS)) for size in TEXT_SIZES
    )
    return first_that_fits(TEMPLATE, contexts, name="report")


def columns(params: Params, entries: Entries) -> list[Column]:
    """The columns in which some model has a score; one Fréchet distance for each extractor of the params.

    Of a network that was not trained here there are more: nothing was tuned to it.
    """
    _, *others = params.extractors
    outside = outside_extractors(params)
    further = []
    for name in others:
        heading = "FID ↓" if outside.get(name) == "inception" else f"the same, {name} ↓"
        further.append(Column(f"frechet_{name}", heading, 1 if name in outside else 2, with_error=True))
        if name in outside:
            further.append(Column(f"frechet_infinite_{name}", f"{name}, extrapolated ↓", 1, with_error=True))
            further.append(Column(f"kernel_{name}_x1000", f"kernel distance × 1000, {name} ↓", 1, with_error=True))
    rows = [entry.scores for entry in entries.values()]
    return [column for column in (*_DISTANCE, *further, *_SCORES) if any(column.key in row for row in rows)]


def table(entries: Entries, shown: Sequence[Column], notes: Sequence[Footnote] = ()) -> dict[str, list[Cell]]:
    """The cells of each row; a dash where a model has no such score, a small number where one has a footnote."""
    best = {column.key: best_model(entries, column) for column in shown}
    marks = {(note.name, note.key): superscript(number) for number, note in enumerate(notes, start=1)}
    return {
        name: [
            Cell(score_text(entry, column) + marks.get((name, column.key), ""), best[column.key] == name)
            for column in shown
        ]
        for name, entry in entries.items()
    }


def leaderboard(params: Params, entries: Entries, here: Pipeline) -> list[dict[str, Any]]:
    """The boards for the template: of each model its name, a row of its samples, texts and places."""
    return [
        {
            "title": found.title,
            "headings": found.headings,
            "rows": [
                {"name": name, "strip": _row_of_samples(here, name), "cells": [cell._asdict() for cell in cells]}
                for name, cells in found.rows.items()
            ],
        }
        for found in boards(params, entries)
    ]


def _row_of_samples(here: Pipeline, name: str) -> str:
    """Where the row of samples of a model is; empty if it has none."""
    path = here.comparison / "strips" / f"{name}.png"
    return f"/{path}" if path.exists() else ""


def translations(entries: Entries) -> list[list[str]]:
    """A table of translations of test images, headings first: models, and what stands for them without any.

    Nothing where no model translates.
    """
    found = {name: entry for name, entry in entries.items() if "back_accuracy" in entry.scores}
    if not found:
        return []
    ways = {"there": "to the second domain", "back": "to photographs"}
    columns = [
        Column(key.format(way), heading.format(words), decimals, with_error=True)
        for way, words in ways.items()
        for key, heading, decimals in _TRANSLATED
    ]
    rows = [
        [name, *(score_text(entry, column) for column in columns), score_text(entry, _RECOGNISED)]
        for name, entry in found.items()
    ]
    first = next(iter(found.values()))  # what stands beside models is the same for all
    for name, kind, accuracy in (
        ("the image itself", "untranslated", "target_accuracy"),
        ("mean of its true class", "class_mean", ""),
        ("photographs", "", "source_accuracy"),
    ):
        others = [column._replace(key=_stand_in(column.key, kind)) for column in columns]
        others.append(_RECOGNISED._replace(key=accuracy))
        rows.append([name, *(score_text(first, column) for column in others)])
    return [["", *(column.heading for column in (*columns, _RECOGNISED))], *rows]


def _stand_in(key: str, kind: str) -> str:
    """The name of a score of what stands for a translation: way, kind, score."""
    way, _, score = key.partition("_")
    return f"{way}_{kind}_{score}" if score in ("mse_x1000", "ssim") else ""


def likelihoods(entries: Entries) -> list[list[str]]:
    """Rows of a table of what is known of log p(x); none where no model has more than a bound."""
    rows = []
    for name, entry in entries.items():
        for key, (kind, of) in _LIKELIHOODS.items():
            if key in entry.scores:
                nats, bits = (Column(key, "", 1, with_error=True), Column("bits_per_dim", "", 3, with_error=True))
                rows.append([name, kind, of, score_text(entry, nats), score_text(entry, bits)])
    return rows if any("bound" not in row[1] for row in rows) else []


def likelihood_words(entries: Entries) -> str:
    """What a reader of that table has to know."""
    binary = any("log_p_estimate_binary" in entry.scores for entry in entries.values())
    return _GREY_LEVELS + (_BINARY if binary else "")


def read_configs(params: Params, entries: Entries) -> dict[str, Any]:
    """The settings of every model among `entries`, of this pipeline or of the root."""
    settings = {ROOT: read_params(), params.here: params}
    return {name: read_model(settings[entry.home], name)[0] for name, entry in entries.items() if name != REAL}


def footnotes(configs: dict[str, Any], entries: Entries, shown: Sequence[Column]) -> list[Footnote]:
    """What the families say of scores that are in the table, in the order of its rows."""
    keys = {column.key for column in shown}
    return [
        Footnote(name, key, text)
        for name, config in configs.items()
        for key, text in config.footnotes.items()
        if key in entries[name].scores.keys() & keys
    ]


def numbered_footnotes(notes: Sequence[Footnote], entries: Entries) -> str:
    """The footnotes of a table of `entries`, as `table` numbers them."""
    return " ".join(
        f"{superscript(number)} {note.name}: {note.text}."
        for number, note in enumerate(notes, start=1)
        if note.name in entries
    )


def notes_in_words(params: Params, entries: Entries) -> str:
    """What the families say of scores of the leaderboard, without numbers."""
    shown = [column for columns_ in column_groups(params).values() for column in columns_]
    headings = {column.key: column.heading.rstrip(" ↑↓") for column in shown}
    every = footnotes(read_configs(params, entries), entries, shown)
    return " ".join(f"{note.name}, {headings[note.key]}: {note.text}." for note in every)


def superscript(number: int) -> str:
    """A number as small raised digits."""
    return str(number).translate(_RAISED)


def best_model(entries: Entries, column: Column) -> str | None:
    """The model that is ahead of every other in a column by more than the standard error of that lead.

    Real images do not compete.
    """
    names = [name for name, entry in entries.items() if name != REAL and column.key in entry.scores]
    if len(names) < 2 or not column.is_ranked:
        return None

    first, *others = sorted(
        names, key=lambda name: entries[name].scores[column.key], reverse=not column.lower_is_better
    )
    return first if all(is_ahead(entries[first], entries[other], column) for other in others) else None


def _plain(rows: dict[str, list[Cell]]) -> list[list[dict[str, Any]]]:
    return [[cell._asdict() for cell in (Cell(name, False), *cells)] for name, cells in rows.items()]


def data_in_words(data: DataConfig, sizes: PrepareConfig) -> str:
    """Which images are trained on, and which are scored."""
    return (
        f"{sizes.train_size:,} training images of {data.name}, equally many of each of {len(data.classes)} classes, "
        f"are trained on, and {sizes.validation_size:,} more steer that; {sizes.test_size:,} test images serve for "
        "scores alone."
    )


def extractors_in_words(params: Params) -> list[str]:
    """The extractors, and which of them nobody here trained."""
    outside = outside_extractors(params)
    return [f"{name} (trained on photographs, by others)" if name in outside else name for name in params.extractors]


def listed(words: Sequence[str]) -> str:
    """`words` in a sentence: a, b and c."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def representation(entries: Entries) -> str:
    """How well the encoders represent the data."""
    rows = {name: entry.scores for name, entry in entries.items() if "mse_x1000" in entry.scores}
    if not rows:
        return ""

    def each(form: Callable[[dict[str, float]], str], *, of: dict[str, dict[str, float]] = rows) -> str:
        return listed([form(row) for row in of.values()])

    grey_levels = each(lambda row: f"{(row['mse_x1000'] / 1000) ** 0.5 * 255:.0f}")
    above_entropy = each(lambda row: f"{row['bce'] - row['bce_floor']:.0f}")
    ssim, psnr = each(lambda row: f"{row['ssim']:.2f}"), each(lambda row: f"{row['psnr']:.1f}")
    linear = each(lambda row: _times(row["pca_mse_x1000"], row["mse_x1000"]))
    sentences = [
        f"Encoded and decoded again, test images come back with a root-mean-square error of {grey_levels} of 255 grey "
        f"levels ({_by(rows)}): SSIM {ssim}, PSNR {psnr} dB, "
        f" and a binary cross-entropy {above_entropy} nats per image above the entropy of the images themselves.",
        f"A linear code of the same length, PCA, leaves {linear} the squared error.",
    ]
    best, worst = (
        min(rows, key=lambda name: rows[name]["mse_x1000"]),
        max(rows, key=lambda name: rows[name]["mse_x1000"]),
    )
    least, most = rows[best]["mse_x1000"], rows[worst]["mse_x1000"]
    if least and len(rows) > 1:
        sentences.append(f"Between the best ({best}) and the worst ({worst}) lies a factor of {most / least:.2g}.")
    coded = {name: row for name, row in rows.items() if "loss_kl" in row}
    if coded:
        carried = each(lambda row: f"{row['loss_kl']:.1f}", of=coded)
        sentences.append(
            f"By its KL term a code carries {carried} nats about its image"
            f"{'' if len(coded) == len(rows) else f' ({_by(coded)})'}."
        )
    planar = {name: row for name, row in rows.items() if "plane_mse_x1000" in row}
    if planar:
        nearest = each(lambda row: f"{row['plane_mse_x1000']:.1f}", of=planar)
        encoded = each(lambda row: f"{row['mse_x1000']:.1f}", of=planar)
        distance = each(lambda row: f"{row['plane_frechet_distance']:.1f}", of=planar)
        sentences.append(
            f"Blur is what two numbers can hold ({_by(planar)}): the nearest of {PLANE_SIDE}² images decoded over the "
            f"plane is {nearest} (MSE × 1000) from a test image, its code's {encoded}; the Fréchet distance of those "
            f"nearest images is {distance}."
        )
    return " ".join(sentences)


def _by(rows: dict[str, Any]) -> str:
    """The names that a list of numbers belongs to."""
    return ", ".join(rows)


def _times(above: float, below: float) -> str:
    """How many times `below` is contained in `above`, in words that also hold for 0."""
    if not below:
        return "infinitely many times" if above else "exactly"
    return f"{above / below:.1f} times"


def between_points(entries: Entries) -> str:
    """What lies between two points of the latent space."""
    rows = {name: entry.scores for name, entry in entries.items() if "path_within_kept" in entry.scores}
    if not rows:
        return ""
    within = listed([f"{row['path_within_kept']:.0%}" for row in rows.values()])
    between = listed([f"{row['path_between_kept']:.0%}" for row in rows.values()])
    smoothest = max(rows, key=lambda name: rows[name]["path_between_kept"])
    sentences = (
        f"Points of a straight line between two images of one class decode to that class {within} of the time "
        f"({_by(rows)}), as the classifier sees it. Between two classes one of the two is seen {between} of the time; "
        "the rest of the way leads through the region of a third."
    )
    return sentences + (f" Least strays {smoothest}." if len(rows) > 1 else "")


def conditional(entries: Entries, outside: Iterable[str]) -> str:
    """What came out of the models that follow a label, also to the extractors `outside`, not trained here."""
    real = entries[REAL].scores
    rows = {name: entry.scores for name, entry in entries.items() if name != REAL and "label_accuracy" in entry.scores}
    if not rows:
        return ""
    accuracies = listed([f"{row['label_accuracy']:.1%}" for row in rows.values()])
    distances = listed([f"{row['frechet_distance']:.2f}" for row in rows.values()])
    text = (
        f"The class that was asked for is what the classifier sees in {accuracies} of the samples of "
        f"{listed(list(rows))}; of real test images it recognises {real['label_accuracy']:.1%}. The samples lie at a "
        f"Fréchet distance of {distances} from the test images, training images at {real['frechet_distance']:.2f}."
    )
    for name in outside:
        key = f"frechet_{name}"
        if key in real and all(key in row for row in rows.values()):
            others = listed([f"{row[key]:.0f}" for row in rows.values()])
            text += f" To {name}, by which nothing was tuned, they are at {others}, training images at {real[key]:.0f}."
    learned = {name: row["cas"] for name, row in rows.items() if "cas" in row}
    if learned and "cas" in real:
        text += (
            f" A classifier that has learned from {listed(list(learned))} alone is right on "
            f"{listed([f'{value:.1%}' for value in learned.values()])} of real images, one that learned from as many "
            f"real images on {real['cas']:.1%}."
        )
    return text


def unconditional(entries: Entries) -> str:
    """What came out of the models that draw samples of no class in particular."""
    rows = {
        name: entry.scores
        for name, entry in entries.items()
        if name != REAL and "frechet_distance" in entry.scores and "label_accuracy" not in entry.scores
    }
    if not rows:
        return ""
    order = sorted(rows, key=lambda name: rows[name]["frechet_distance"])
    distances = listed([f"{rows[name]['frechet_distance']:.2f} ({name})" for name in order])
    return f"Samples that no class was asked of lie at a Fréchet distance of {distances}."


def choose_figures(entries: Entries) -> dict[str, Path]:
    """The figures of the page: a model with a prior over its latents is shown in detail, else the first encoder.

    Samples by class are those of the model with the least Fréchet distance.
    """
    home = next(entry.home for name, entry in entries.items() if name != REAL)
    encoders = [name for name, entry in entries.items() if "mse_x1000" in entry.scores]
    planar = [name for name in encoders if (home.figures(name) / "latent_grid.png").exists()]
    shown = next((name for name in planar if "elbo" in entries[name].scores), (planar or encoders or [""])[0])
    followers = [name for name, entry in entries.items() if name != REAL and "label_accuracy" in entry.scores]
    nearest = min(followers, key=lambda name: entries[name].scores["frechet_distance"], default="")
    wanted = {
        "reconstructions": home.comparison / "reconstructions.png",
        "latent_space": home.comparison / "latent_space.png",
        "interpolations": home.figures(shown) / "interpolations.png",
        "latent_grid": home.figures(shown) / "latent_grid.png",
        "samples": home.figures(nearest) / "samples_by_class.png" if followers else home.comparison / "samples.png",
        "training": home.comparison / "training_for_report.png",
    }
    return {key: path for key, path in wanted.items() if path.exists()}


def _strip(entry: Entry) -> dict[str, Any] | None:
    """A picture of one model: its samples, else the first of its figures; nothing if it has none."""
    path = entry.folder / "samples.png"
    found = [path] if path.exists() else sorted(entry.home.figures(entry.name).glob("*.png"))[:1]
    return _picture(found[0]) | {"crop": path.exists()} if found else None


def _picture(path: Path) -> dict[str, Any]:
    """A picture for the template: where it is, and its width over its height."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except OSError as error:
        raise PipelineError(f"{path} cannot be read ({error}): run `dvc repro`.") from None
    return {"path": f"/{path}", "aspect": width / height}


def numbered_sources(by_model: Sequence[Sequence[str]]) -> list[str]:
    """Every source once, in the order of the models."""
    return list(dict.fromkeys(source for sources in by_model for source in sources))
