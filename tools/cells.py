"""Variants of models, each in a scratch copy of the repository with params of its own: run, collected, summed up.

The copies are in .cells/ (ignored by git and DVC) and share the DVC cache, so that data, extractors and features of
real images are taken from there, and so is what an interrupted run has finished. A copy is removed when its scores are
collected; that of a failed or interrupted variant stays, with its checkpoints. Variants that differ in sampling alone
share one training.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from dvc.config import Config
from dvc.repo import Repo
from matplotlib.figure import Figure

from generative.errors import PipelineError
from generative.figures.charts import Dots, Lines, line_charts, score_dots
from generative.figures.style import save_figure
from generative.io.files import read_json
from generative.io.tables import write_table
from stages.common.leaderboard import Column, column_groups
from stages.common.params import read_params, wants_portable_bytes
from stages.common.paths import PIPELINES, Pipeline
from tools.demo import copy_repository
from tools.edit_params import edited
from tools.jobs import cores_and_devices, expected_seconds
from tools.pipelines import address, present_pipelines
from tools.place import Place, only_run
from tools.schedule import Stage

SCRATCH = Path(".cells")
SWEEPS = Path("sweeps")
_KEPT = [here.checkpoints for here in PIPELINES.values()]  # of an earlier copy
_DPI = 110
_ROUNDED = 1e-6  # of a mean: a deviation below counts as none
_WIDE = 10.0  # greatest by least, from which a logarithmic scale shows more


@dataclass(frozen=True)
class Cell:
    """One variant: a model with a seed, and with other values of settings in its block, by dotted names."""

    here: Pipeline
    model: str
    seed: int
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def variant(self) -> str:
        """Its settings in words."""
        return " ".join(f"{key}={as_word(value)}" for key, value in self.settings)

    @property
    def label(self) -> str:
        """What it is called, also as a folder."""
        return " ".join(filter(None, (self.model, self.variant, f"seed={self.seed}")))

    @property
    def folder(self) -> Path:
        """Its copy of the repository."""
        return SCRATCH / self.label.replace(" ", ",").replace("/", "_")

    @property
    def training(self) -> str:
        """What its training depends on, beyond what all cells have in common."""
        settings = [(key, value) for key, value in self.settings if not key.startswith("sampling.")]
        return json.dumps([str(self.here.folder), self.model, self.seed, settings], default=str)

    def change(self, params: dict[str, Any]) -> None:
        """Make some params those of this cell; without sweeps, which are no part of its scores.

        Raises:
            PipelineError: there is no such setting.
        """
        block = params["models"][self.model]
        block["training"]["seed"] = self.seed
        block.pop("sweeps", None)
        for dotted, value in self.settings:
            *path, last = dotted.split(".")
            inner = block
            for key in path:
                inner = inner.get(key, {}) if isinstance(inner, dict) else {}
            if not isinstance(inner, dict) or last not in inner:
                known = ", ".join(f"{part}.{key}" for part in ("training", "sampling") for key in block.get(part, {}))
                raise PipelineError(f"'{self.model}' has no setting '{dotted}', only {known}.")
            inner[last] = value


def run_cells(cells: Sequence[Cell], place: Place, collect: Callable[[Cell, dict[str, float]], None]) -> int:
    """Run each cell up to its scores and hand these to `collect` at once; returns the exit code.

    Raises:
        PipelineError: another run is on, or the cluster cannot be had.
    """
    from tools.runner import run

    with only_run(Path(), "run this again"):
        source = Source(Path.cwd())
        for cell in cells:
            make_copy(source, cell)
        stages = stages_of_cells(cells)
        by_label = {cell.label: cell for cell in cells}

        def after(name: str) -> None:
            if cell := by_label.get(name):
                collect(cell, read_json(cell.folder / cell.here.scores(cell.model))["scores"])
                shutil.rmtree(cell.folder, ignore_errors=True)

        report = run(stages, place, portable=wants_portable_bytes(), after=after)
    with suppress(OSError):
        SCRATCH.rmdir()  # if it is empty
    return report.code


def stages_of_cells(cells: Sequence[Cell]) -> dict[str, Stage]:
    """A task for each cell, and one before those that share a training."""
    cores, devices = cores_and_devices()
    stages: dict[str, Stage] = {}
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.training, []).append(cell)
    for group in groups.values():
        names = {kind: address(group[0].here, f"{kind}@{group[0].model}") for kind in ("train", "generate", "evaluate")}
        times = expected_seconds(list(names.values()))
        rest = times[names["generate"]] + times[names["evaluate"]]
        first = group[0]
        training = Stage(frozenset(), cores, times[names["train"]], devices, first.folder, ("repro", names["train"]))
        shared = f"training of {first.label}"
        if len(group) > 1:
            stages[shared] = training
        for cell in group:
            last = replace(training, folder=cell.folder, command=("repro", names["evaluate"]))
            alone = replace(last, seconds=training.seconds + rest)
            stages[cell.label] = replace(last, needs=frozenset([shared]), seconds=rest) if len(group) > 1 else alone
    return stages


class Source:
    """The repository that copies are made of, and what its DVC is set to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with Repo(str(root)) as repo:
            self.cache = Path(repo.cache.local_cache_dir)
            self.links = repo.config["cache"].get("type") or ["reflink", "hardlink", "symlink", "copy"]
            self.hardlink_lock = bool(repo.config["core"].get("hardlink_lock"))
            _ = repo.index.graph  # what is wrong with its files is said once, not by each copy


def make_copy(source: Source, cell: Cell) -> None:
    """The copy of a cell, with what an interrupted run left of its checkpoints."""
    kept = {folder: cell.folder.with_name(f"{cell.folder.name}.{place}") for place, folder in enumerate(_KEPT)}
    for folder, aside in kept.items():
        if (cell.folder / folder).exists():
            shutil.rmtree(aside, ignore_errors=True)
            (cell.folder / folder).rename(aside)
    scratch_copy(source, cell.folder, {cell.here: cell.change})
    for folder, aside in kept.items():
        if aside.exists():
            (cell.folder / folder).parent.mkdir(parents=True, exist_ok=True)
            aside.rename(cell.folder / folder)


def scratch_copy(source: Source, scratch: Path, changes: Mapping[Pipeline, Callable[[dict[str, Any]], None]]) -> None:
    """A copy of a repository in `scratch`, with its DVC cache and with `changes` made to params.

    Files of the cache are linked, not copied, where the file system can do that: stages never write into a file.
    """
    copy_repository(source.root, scratch)
    with Config(str(scratch / ".dvc")).edit("local") as settings:
        settings["core"] = {"no_scm": True, "hardlink_lock": source.hardlink_lock}
        settings["cache"] = {"dir": os.path.relpath(source.cache), "type": source.links}
    for here, change in changes.items():
        with edited(scratch / here.params) as params:
            change(params)


def copy_of_all(root: Path, scratch: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A copy of the repository at `root` with `change` made to the params of every pipeline."""
    scratch_copy(Source(root), scratch, dict.fromkeys(present_pipelines(root), change))


def summary(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of each score, for each combination of the columns `by`."""
    groups = rows.groupby([*by, "score"], sort=False)["value"]
    table = groups.agg(["mean", "std", "count"]).reset_index()
    return table.rename(columns={"std": "deviation"})


def write_summary(name: str, table: pd.DataFrame, by: list[str], columns: Iterable[Column]) -> list[Path]:
    """Write sweeps/NAME_table.tsv and sweeps/NAME.png; returns their paths."""
    paths = [SWEEPS / f"{name}_table.tsv", SWEEPS / f"{name}.png"]
    write_table(paths[0], table)
    known = set(table["score"])
    shown = [column for column in columns if column.key in known and column.is_ranked]
    if not shown:
        return paths[:1]
    numbers = [key for key in by if pd.api.types.is_numeric_dtype(table[key])]
    lines = by == numbers and 1 <= len(by) <= 2 and len(table[by[-1]].unique()) > 1
    figure = _lines(table, by, shown) if lines else _dots(table, by, shown)
    save_figure(figure, paths[1], _DPI)
    return paths


def headline_columns(cells: Iterable[Cell]) -> list[Column]:
    """The scores of the leaderboard, for the pipelines of some cells."""
    columns = {
        column.key: column
        for here in dict.fromkeys(cell.here for cell in cells)
        for group in column_groups(read_params(here)).values()
        for column in group
    }
    return list(columns.values())


def _dots(table: pd.DataFrame, by: list[str], columns: Sequence[Column]) -> Figure:
    """A row for each combination, with the number of its seeds: the mean, and as its error the deviation over them."""

    def name(row: Mapping[Any, Any]) -> str:
        words = " ".join(str(row[key]) if key == "model" else f"{_last(key)}={as_word(row[key])}" for key in by)
        return f"{words} ({row['count']})" if row["count"] > 1 else words

    charts = []
    for column in columns:
        rows = table[table["score"] == column.key].fillna({"deviation": 0.0})
        if (rows["count"] > 1).any() and not (rows["deviation"] > _ROUNDED * rows["mean"].abs()).any():
            continue  # what a sample costs, for example, whatever the seed
        values = {name(row): (float(row["mean"]), float(row["deviation"])) for row in rows.to_dict("records")}
        low = column.lower_is_better
        wide = low and rows["mean"].max() > _WIDE * rows["mean"].min()
        charts.append(Dots(column.heading, values, None, log_scale=bool(wide), lower_is_better=low))
    return score_dots(charts, list(dict.fromkeys(name for chart in charts for name in chart.values)))


def _lines(table: pd.DataFrame, by: list[str], columns: Sequence[Column]) -> Figure:
    """The means over the setting with most values, a line for each value of the other one."""
    *others, along = sorted(by, key=lambda key: table[key].nunique())
    charts = []
    for column in columns:
        part = table[table["score"] == column.key]
        x = sorted(part[along].unique())
        y = {}
        for value in sorted(part[others[0]].unique()) if others else [None]:
            rows = part if value is None else part[part[others[0]] == value]
            means = rows.set_index(along)["mean"].reindex(x)
            y[_last(along) if value is None else f"{_last(others[0])} {as_word(value)}"] = means.tolist()
        charts.append(Lines(column.heading, _last(along), "", x, y))
    return line_charts(charts)


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def as_word(value: Any) -> str:
    """A value in labels and tables."""
    return f"{value:g}" if isinstance(value, float) else str(value)
