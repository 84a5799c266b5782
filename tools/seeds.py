"""`make seeds`: trains models with other seeds and writes their scores into seeds.tsv of their pipeline.

With EXTRACTORS="1 2" the extractors are trained with those seeds instead, and score the committed samples again; that
goes into extractor_seeds.tsv. From both `make check` knows how far the scores of another processor may lie. With
HALVED=1 models are trained with their own seed and half their epochs, into tests/halved_epochs.tsv: what it must
notice.

How variants of models are run, interrupted and resumed: tools/cells.py. Rows of an earlier recipe (other settings or
code) are replaced. Tables and report show the spread as part of the error. Mean, deviation and number of seeds of every
score go into sweeps/seeds_table.tsv, with a figure beside it.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from generative.errors import PipelineError
from generative.io.files import read_json
from generative.io.tables import read_table, write_table
from stages.common.params import Params, read_params
from stages.common.paths import CODE, REAL, ROOT, Pipeline
from stages.common.published import outside_extractors
from stages.common.seeds import COLUMNS, read_seeds, recipe
from tools.cells import SCRATCH, Cell, copy_of_all, headline_columns, run_cells, summary, write_summary
from tools.entry import run_tool
from tools.pipelines import address, homes_of_models, present_pipelines
from tools.place import add_place_arguments, arguments_of, only_run, place_of

SEEDS = (1, 2)
HALVED = Path("tests/halved_epochs.tsv")
_SHOWN = ["model", "seed", "score", "value"]


def main(arguments: list[str]) -> int:
    """Run the seeds and print one line per model and score; returns the exit code."""
    options = _parse(arguments)
    homes = homes_of_models()
    models = options.models or read_params().models
    for name in models:
        if name not in homes:
            raise PipelineError(f"there is no model '{name}', only {', '.join(homes)}.")
    if options.extractors:
        with only_run(Path(), "run this again"):
            return score_with_other_extractors(
                {name: homes[name] for name in options.models or homes}, options.extractors, options.where
            )
    if options.halved:
        with only_run(Path(), "run this again"):
            return train_half({name: homes[name] for name in models}, options.where)
    cells = [
        Cell(homes[name], name, seed)
        for seed in options.seeds
        for name in models
        if not is_done(homes[name], name, seed)
    ]
    recipes = {cell: recipe(read_params(cell.here), cell.model) for cell in cells}  # of now, whatever is edited later

    def collect(cell: Cell, scores: dict[str, float]) -> None:
        add_scores(cell.here, cell.model, cell.seed, scores, recipes[cell])

    code = run_cells(cells, options.place, collect) if cells else 0
    rows = all_seeds({name: here for name, here in homes.items() if name in models or _has_seeds(here, name)})
    if not rows.empty:
        everywhere = [Cell(here, name, 0) for name, here in homes.items()]
        for path in write_summary("seeds", summary(rows, ["model"]), ["model"], headline_columns(everywhere)):
            print(f"written: {path}")
    print(table({name: homes[name] for name in models}))
    return code


def _has_seeds(here: Pipeline, name: str) -> bool:
    return bool((read_seeds(read_params(here))["model"] == name).any())


def all_seeds(homes: dict[str, Pipeline]) -> pd.DataFrame:
    """The scores of models with all their seeds, the committed one among them: model, seed, score, value."""
    parts = []
    for name, here in homes.items():
        params = read_params(here)
        committed = read_json(here.metrics("scores", name))
        rows = read_seeds(params)
        own = params.item("models", name)["training"]["seed"]
        first = pd.DataFrame([(name, own, score, value) for score, value in committed.items()], columns=_SHOWN)
        parts += [first, rows[(rows["model"] == name) & rows["score"].isin(committed)][_SHOWN]]
    return pd.concat(parts, ignore_index=True)


def score_with_other_extractors(homes: dict[str, Pipeline], seeds: list[int], where: list[str]) -> int:
    """Score the committed samples in the features of extractors of other seeds; returns the exit code."""
    rows = {(ROOT, REAL): "evaluate_real"} | {(here, name): f"evaluate@{name}" for name, here in homes.items()}
    for seed in seeds:
        wanted = {
            key: stage
            for key, stage in rows.items()
            if not _has(read_extractor_seeds(read_params(key[0])), key[1], seed)
        }
        if not wanted:
            continue
        folder = SCRATCH / f"extractors_{seed}"
        copy_of_all(Path.cwd(), folder, partial(seed_extractors, seed=seed))
        if code := _run(folder, [address(here, stage) for (here, _), stage in wanted.items()], where):
            return code
        for here, name in wanted:
            scores = read_json(folder / here.scores(name))["scores"]
            params = read_params(here)
            _add(_extractor_seeds(here), read_extractor_seeds(params), name, scoring_recipe(params, name), seed, scores)
    return 0


def train_half(homes: dict[str, Pipeline], where: list[str]) -> int:
    """Train models for half their epochs and write their scores into HALVED; returns the exit code."""
    folder = SCRATCH / "halved"
    copy_of_all(Path.cwd(), folder, halve_epochs)
    if code := _run(folder, [address(here, f"evaluate@{name}") for name, here in homes.items()], where):
        return code
    for name, here in homes.items():
        params = read_params(here)
        scores, seed = read_json(folder / here.scores(name))["scores"], params.item("models", name)["training"]["seed"]
        _add(HALVED, read_table(HALVED) if HALVED.exists() else _empty(), name, recipe(params, name), seed, scores)
    return 0


def _run(folder: Path, targets: list[str], where: list[str]) -> int:
    """Run stages of a copy, `where` the arguments say; returns the exit code."""
    code = subprocess.run([sys.executable, "-m", "tools.jobs", *where, *targets], cwd=folder, check=False).returncode
    if code:
        print(f"error: the run in {folder}/ failed", file=sys.stderr)
    return code


def halve_epochs(params: dict[str, Any]) -> None:
    """Give every model of some params half its epochs, rounded down."""
    for block in params["models"].values():
        training = block["training"]
        if "epochs" in training:
            training["epochs"] = max(1, training["epochs"] // 2)
        if "sampled_epochs" in training:
            training["sampled_epochs"] = []


def seed_extractors(params: dict[str, Any], seed: int) -> None:
    """Give every extractor that is trained here another seed, and leave out those that are not."""
    extractors = params.get("extractors", {})
    for name in outside_extractors(Params(params)) if extractors else ():
        del extractors[name]
    for block in extractors.values():
        block["seed"] += seed


def is_done(here: Pipeline, name: str, seed: int) -> bool:
    """Whether the scores of a model with this seed are there, of its present recipe."""
    params = read_params(here)
    return seed == params.item("models", name)["training"]["seed"] or _has(read_seeds(params), name, seed)


def add_scores(here: Pipeline, name: str, seed: int, scores: dict[str, float], known: str = "") -> None:
    """Put the scores of a model into seeds.tsv, sorted, and leave out what is of an earlier recipe of any model."""
    params = read_params(here)
    _add(here.seeds, read_seeds(params), name, known or recipe(params, name), seed, scores)


def read_extractor_seeds(params: Params) -> pd.DataFrame:
    """The rows of the pipeline's extractor_seeds.tsv that are of the present models and extractors."""
    path = _extractor_seeds(params.here)
    table = read_table(path) if path.exists() else _empty()
    current = {name: scoring_recipe(params, name) for name in (REAL, *params.models)}
    return table[table["recipe"] == table["model"].map(current)]


def read_seed_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The present rows of both pipelines: of other seeds of the models, and of the extractors."""
    settings = [read_params(here) for here in present_pipelines()]
    models, extractors = ([read(params) for params in settings] for read in (read_seeds, read_extractor_seeds))
    return pd.concat(models), pd.concat(extractors)


def scoring_recipe(params: Params, name: str) -> str:
    """A hash of all that the scores of a model, or of real images, depend on but the extractors' seeds."""
    blocks = {key: block | {"seed": 0} for key, block in params.items("extractors").items() if "seed" in block}
    parts = [
        json.dumps(blocks, sort_keys=True, default=str),
        (CODE / "used/extractors.txt").read_text(encoding="utf-8"),
    ]
    if name != REAL:
        parts.append(f"{recipe(params, name)} {params.item('models', name)['training']['seed']}")
    return "r" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:11]


def _empty() -> pd.DataFrame:
    return pd.DataFrame(columns=list(COLUMNS))


def _extractor_seeds(here: Pipeline) -> Path:
    return here.folder / "extractor_seeds.tsv"


def _has(rows: pd.DataFrame, name: str, seed: int) -> bool:
    return bool(((rows["model"] == name) & (rows["seed"] == seed)).any())


def _add(path: Path, known: pd.DataFrame, name: str, recipe: str, seed: int, scores: dict[str, float]) -> None:
    kept = known[~((known["model"] == name) & (known["seed"] == seed))]
    rows = [(name, recipe, seed, key, value) for key, value in scores.items()]
    table = pd.concat([kept, pd.DataFrame(rows, columns=list(COLUMNS))], ignore_index=True)
    write_table(path, table.sort_values(["model", "seed", "score"], kind="stable"))


def table(homes: dict[str, Pipeline]) -> str:
    """Scores of models as Markdown: the committed one, then mean, standard deviation and range over all seeds."""
    lines = [
        "| model | score | committed | mean | deviation | least | greatest |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, here in homes.items():
        committed = read_json(here.metrics("scores", name))
        rows = read_seeds(read_params(here))
        for score, first in committed.items():
            others = rows[(rows["model"] == name) & (rows["score"] == score)]["value"]
            values = pd.Series([first, *others])
            numbers = (first, values.mean(), values.std(), values.min(), values.max())
            lines.append(f"| {name} | {score} | " + " | ".join(f"{number:.4g}" for number in numbers) + " |")
    return "\n".join(lines)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make seeds", description=__doc__)
    parser.add_argument("--models", type=str.split, default=[], help="of both pipelines; by default those of the root")
    parser.add_argument("--seeds", type=_numbers, default=list(SEEDS))
    parser.add_argument("--extractors", type=_others, default=[], help="seeds of the extractors instead")
    parser.add_argument("--halved", action="store_true", help="half the epochs and no other seed instead")
    add_place_arguments(parser)
    options = parser.parse_args(arguments)
    options.place = place_of(options)
    options.where = arguments_of(options.place)
    return options


def _numbers(text: str) -> list[int]:
    return list(dict.fromkeys(int(part) for part in text.split()))


def _others(text: str) -> list[int]:
    if 0 in (numbers := _numbers(text)):
        raise argparse.ArgumentTypeError("0 are the committed extractors")
    return numbers


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
