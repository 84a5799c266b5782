"""`make score SAMPLES=path [LABELS=path] NAME=name`: score your own samples as the models here.

The samples are a folder of PNG files of 28 x 28 pixels (one subfolder for each class, if they follow labels), or an
array (N, 28, 28) in a file .npy, .npz or .safetensors, uint8 or floats in [0, 1], light on black as the data are.
scored/NAME/scores.json gets all scores with their errors, scored/NAME/samples.png shows samples above the training
images nearest to them. Needed are the prepared data, the extractors and the features of real images: what is missing
is pulled.
"""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from generative.compute.environment import process_environment, restart_with
from generative.compute.runtime import start
from generative.data.splits import load_split
from generative.errors import PipelineError
from generative.extractor import Embedding, FeatureExtractor, embed
from generative.figures import images as pictures
from generative.figures.style import save_figure
from generative.io.files import read_json, write_json
from generative.scores.memorisation import nearest_neighbours
from stages import report
from stages.common.dataset import read_dataset
from stages.common.extractors import load_extractor
from stages.common.leaderboard import Column
from stages.common.params import Params, read_params, wants_portable_bytes
from stages.common.paths import REAL, REAL_FEATURES, ROOT, TEST, TRAIN, extractor
from stages.common.published import Entry, FiguresConfig, read_entries
from stages.common.scoring import EvaluateConfig, Result, load_real, write_scores
from stages.evaluate import Context, score_images, score_labels
from stages.generate import GenerateConfig
from tools.entry import run_tool
from tools.fetch import fetch_missing
from tools.pipelines import homes_of_models, present_pipelines
from tools.samples import SampleSet, read_samples, refuse_inverted

FOLDER = Path("scored")
_FEWEST = 10  # a tenth of the samples that models are scored by; and samples of each class
_SHOWN, _ROWS = 10, 3
_USUAL = "10,000 take a minute and a half on one fast core"


class Wanted(NamedTuple):
    """What is asked for."""

    samples: Path
    labels: Path | None
    name: str


def main(arguments: list[str]) -> int:
    """Score the samples, print their row, and write the files; returns the exit code."""
    restart_with(process_environment(os.environ, portable=wants_portable_bytes()))
    wanted = _parse(arguments)
    params = read_params()
    _check_name(wanted.name)
    classes = read_dataset(params).classes
    usual = params.block("generate", GenerateConfig).num_samples
    samples = _of_usual_size(read_samples(wanted.samples, wanted.labels, classes), usual, wanted.samples)
    fetch_missing(needs(params))
    context = make_context(params, classes)
    refuse_inverted(samples.images, context.test.images, where=str(wanted.samples))
    how = "with labels" if samples.labels is not None else "without labels"
    print(f"{wanted.name}: {len(samples.images):,} samples {how}; {_USUAL}")
    result = score(samples, context)
    folder = FOLDER / wanted.name
    path = folder / "scores.json"
    write_scores(path, wanted.name, result)
    found = read_json(path)
    words = {"name": wanted.name, "data": read_dataset(params).name, "samples": len(samples.images)}
    write_json(path, words | {key: found[key] for key in ("scores", "errors", "features", "per_class")})
    figure = draw(samples, context, wanted.name)
    save_figure(figure, folder / "samples.png", params.block("figures", FiguresConfig).dpi)
    print_rows(params, Entry(wanted.name, ROOT, found["scores"], found["errors"]))
    print(f"all scores: {path}; samples above the training images nearest to them: {folder}/samples.png")
    return 0


def needs(params: Params) -> list[Path]:
    """The files that scoring reads."""
    return [TRAIN, TEST, REAL_FEATURES, *(extractor(name) for name in params.extractors)]


def make_context(params: Params, classes: list[str]) -> Context:
    """All that samples are compared with."""
    device = start(params.compute)
    train, test = load_split(TRAIN), load_split(TEST)
    real = load_real(params.extractors, test, classes)
    extractors = {name: load_extractor(params, name, device) for name in params.extractors}
    return Context(params.block("evaluate", EvaluateConfig), train, test, real, classes, extractors, device)


def score(samples: SampleSet, context: Context) -> Result:
    """Every score that samples of a model here get, with a progress bar."""
    result = Result()
    count = len(samples.images)
    with tqdm(
        total=count * (len(context.extractors) + 2), unit=" images", unit_scale=True, leave=False, disable=None
    ) as bar:
        embedded = {key: _embed(network, samples.images, bar) for key, network in context.extractors.items()}
        bar.set_description("distances")
        score_images(result, samples.images, samples.labels, embedded, context)
        bar.update(count)
        bar.set_description("labels")
        score_labels(result, samples.images, samples.labels, embedded, context)
        bar.update(count)
    return result


def _embed(network: FeatureExtractor, images: Tensor, bar: Any) -> Embedding:
    bar.set_description("features")
    parts = []
    for part in images.split(network.embed_batch):
        parts.append(embed(network, part))
        bar.update(len(part))
    return Embedding(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def draw(samples: SampleSet, context: Context, name: str) -> Figure:
    """Samples, of each class in turn if they follow labels, above the training images nearest to them."""
    order = torch.arange(len(samples.images))
    if samples.labels is not None:
        order = by_class_in_turn(samples.labels)
    chosen = samples.images[order[: _SHOWN * _ROWS]]
    nearest = context.train.images[nearest_neighbours(chosen, context.train.images).indices]
    rows = [part for pair in zip(chosen.split(_SHOWN), nearest.split(_SHOWN), strict=True) for part in pair]
    rows = [row for row in rows if len(row) == len(rows[0])]
    words = ["samples", "nearest training images"] * (len(rows) // 2)
    return pictures.strip(torch.stack(rows), words, (), f"{name}: samples, and the training images nearest to them")


def by_class_in_turn(labels: Tensor) -> Tensor:
    """Indices of all images: the first of each class, then the second of each, ..."""
    rank = torch.zeros_like(labels)
    for label in labels.unique():
        members = labels == label
        rank[members] = torch.arange(int(members.sum()))
    return torch.argsort(rank * (int(labels.max()) + 1) + labels)


def print_rows(params: Params, new: Entry) -> None:
    """The new row among those of all models here, as the leaderboard shows them; beside few where there is no room."""
    entries = {name: entry for here in present_pipelines() for name, entry in read_entries(read_params(here)).items()}
    entries = {name: entry for name, entry in entries.items() if name != new.name} | {new.name: new}
    columns = [column for column in report.columns(params, entries) if column.key in new.scores]
    key = columns[0].key
    order = sorted(
        (name for name in entries if key in entries[name].scores),
        key=lambda name: (name != REAL, entries[name].scores[key]),
    )
    cells = {name: [cell.text for cell in report.table({name: entries[name]}, columns)[name]] for name in order}
    console = Console()
    table = Table(*["", *(column.heading for column in columns)])
    for name in order:
        table.add_row(name, *cells[name], style="bold" if name == new.name else None)
    if _width(console, table) > console.width:  # then scores downwards, and the nearest rows that there is room for
        place = order.index(new.name)
        shown = [REAL, new.name]
        for name in sorted(order, key=lambda name: abs(order.index(name) - place)):
            wider = [other for other in order if other in (*shown, name)]
            if _width(console, _downwards(wider, columns, cells)) <= console.width:
                shown = wider
        table = _downwards(shown, columns, cells)
    console.print(table)


def _downwards(names: list[str], columns: list[Column], cells: dict[str, list[str]]) -> Table:
    table = Table(*["", *names], box=None)
    for at, column in enumerate(columns):
        table.add_row(column.heading, *(cells[name][at] for name in names))
    return table


def _width(console: Console, table: Table) -> int:
    """Characters that a table takes where no cell is broken."""
    return console.measure(table, options=console.options.update(width=10_000)).maximum


def _of_usual_size(samples: SampleSet, usual: int, where: Path) -> SampleSet:
    """The samples that are scored: as many as models here are scored by, or a warning.

    Raises:
        PipelineError: there are too few, in all or of a class.
    """
    count = len(samples.images)
    if count < usual / _FEWEST:
        raise PipelineError(
            f"{where} has {count} samples, too few for distances: draw {usual:,}, as the models here are scored by."
        )
    if count > usual:
        print(f"{where} has {count:,} samples: the first {usual:,} are scored, as of every model here")
        samples = SampleSet(*(None if part is None else part[:usual] for part in samples))  # type: ignore[arg-type]
    elif count < usual:
        print(
            f"warning: {where} has {count:,} samples, the models here are scored by {usual:,}: with fewer, Fréchet "
            f"distances are too large, so that only the kernel distance can be compared; draw {usual:,}",
            file=sys.stderr,
        )
    if samples.labels is not None:
        counts = torch.bincount(samples.labels)
        fewest = int(counts[counts > 0].min())
        if fewest < _FEWEST:
            label = int((counts == fewest).nonzero()[0])
            raise PipelineError(
                f"of label {label} there {'is' if fewest == 1 else 'are'} only {fewest}: at least {_FEWEST} of each "
                "class are needed, best equally many."
            )
        if len(counts[counts > 0].unique()) > 1:
            print("warning: classes have different numbers of samples and weigh accordingly", file=sys.stderr)
    return samples


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise PipelineError(f"NAME={name[:70]!r} cannot be a folder: use at most 64 letters, digits, _ . and -.")
    if name == REAL or name in homes_of_models():
        raise PipelineError(f"NAME={name} is a row of the tables already: choose another.")


def _parse(arguments: list[str]) -> Wanted:
    parser = argparse.ArgumentParser(prog="python -m tools.score", description="score your own samples")
    parser.add_argument("--samples", required=True, type=Path, help="folder of PNG files, or .npy, .npz, .safetensors")
    parser.add_argument("--labels", type=Path, help="the class of each: .npy, .npz, .safetensors, .txt or .csv")
    parser.add_argument("--name", required=True, help="what to call them")
    options = parser.parse_args(arguments)
    return Wanted(options.samples, options.labels, options.name)


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
