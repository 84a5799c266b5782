"""`make seeds`: trains models with other seeds and writes their scores into seeds.tsv of their pipeline.

Each seed has a scratch copy in .seeds/ (ignored by git and DVC) that shares the DVC cache: data and extractors are
taken from there. Models are run one after the other, and a model's scores are written as soon as they are there, so
that a run that was interrupted goes on where it was; rows of an earlier recipe (other settings or code) are replaced.
Tables and report show the spread as part of the error.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
from dvc.repo import Repo

from generative.errors import PipelineError
from generative.io.files import read_json
from generative.io.tables import write_table
from stages.common.params import read_params
from stages.common.paths import Pipeline
from stages.common.seeds import COLUMNS, read_seeds, recipe
from tools.demo import configure, copy_repository
from tools.edit_params import edited
from tools.entry import run_tool
from tools.jobs import address
from tools.pipelines import homes_of_models, present_pipelines

SCRATCH = Path(".seeds")
SEEDS = (1, 2, 3)


def main(arguments: list[str]) -> int:
    """Run the seeds and print one line per model and score; returns the exit code."""
    options = _parse(arguments)
    homes = homes_of_models()
    models = options.models or read_params().models
    for name in models:
        if name not in homes:
            raise PipelineError(f"there is no model '{name}', only {', '.join(homes)}.")
    for seed in options.seeds:
        wanted = [name for name in models if not is_done(homes[name], name, seed)]
        if not wanted:
            continue
        folder = SCRATCH / str(seed)
        make_copy(Path.cwd(), folder, seed)
        for name in wanted:
            target = address(homes[name], f"evaluate@{name}")
            code = subprocess.run([sys.executable, "-m", "tools.jobs", target], cwd=folder, check=False).returncode
            if code:
                print(f"error: {name} with seed {seed} failed; its copy is in {folder}/", file=sys.stderr)
                return code
            add_scores(homes[name], name, seed, read_json(folder / homes[name].scores(name))["scores"])
    print(table({name: homes[name] for name in models}))
    return 0


def make_copy(root: Path, scratch: Path, seed: int) -> None:
    """A copy of the repository at `root` in `scratch`, with its DVC cache and with `seed` for every model."""
    copy_repository(root, scratch)
    with Repo(str(root)) as repo:
        cache, links = repo.cache.local_cache_dir, repo.config["cache"].get("type")
    configure(scratch, "core.no_scm", "true")
    configure(scratch, "cache.dir", os.path.relpath(cache, scratch))  # what is around both may have any name
    if links:
        configure(scratch, "cache.type", ",".join(links))
    for here in present_pipelines(scratch):
        with edited(scratch / here.params) as params:
            for block in params["models"].values():
                block["training"]["seed"] = seed


def is_done(here: Pipeline, name: str, seed: int) -> bool:
    """Whether the scores of a model with this seed are there, of its present recipe."""
    params = read_params(here)
    rows = read_seeds(params)
    own_seed = params.item("models", name)["training"]["seed"]
    return seed == own_seed or bool(((rows["model"] == name) & (rows["seed"] == seed)).any())


def add_scores(here: Pipeline, name: str, seed: int, scores: dict[str, float]) -> None:
    """Put the scores of a model into seeds.tsv, sorted, and leave out what is of an earlier recipe of any model."""
    params = read_params(here)
    known = read_seeds(params)
    kept = known[~((known["model"] == name) & (known["seed"] == seed))]
    rows = [(name, recipe(params, name), seed, key, value) for key, value in scores.items()]
    table = pd.concat([kept, pd.DataFrame(rows, columns=list(COLUMNS))], ignore_index=True)
    write_table(here.seeds, table.sort_values(["model", "seed", "score"], kind="stable"))


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
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split()]


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
