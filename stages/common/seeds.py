"""The scores of trainings with other seeds, seeds.tsv: written by `make seeds`, part of the errors in the tables.

A row counts as long as its recipe is that of the model: settings other than the seed, code of its family and of the
training, extractors, data, and how much is generated and scored. Code of the scores is left out: a change of it mostly
leaves them as they were, and costs hours.
"""

import hashlib
import json
import statistics
from pathlib import Path
from typing import Any

import pandas as pd

from generative.io.tables import read_table
from stages.common.params import Params
from stages.common.paths import CODE

COLUMNS = ("model", "recipe", "seed", "score", "value")
_SCORED = ("seed", "num_samples", "path_pairs", "bound_images", "bound_samples")  # in the block `generate`
_FEWEST = 2  # other seeds whose spread says something


def recipe(params: Params, name: str) -> str:
    """A hash of all settings and code that the scores of a model depend on but its seed."""
    block = params.item("models", name)
    training = {key: value for key, value in block.get("training", {}).items() if key != "seed"}
    values: Any = params.values
    generate = {key: value for key, value in values.get("generate", {}).items() if key in _SCORED}
    data = (values.get("data") or {}).get("files")
    shared = [data, values.get("prepare"), generate, values.get("evaluate"), params.items("extractors")]
    files = [CODE / "families" / f"{block.get('family')}.txt", CODE / "stages/train.txt", CODE / "used/extractors.txt"]
    parts = [json.dumps([block | {"training": training}, *shared], sort_keys=True, default=str)]
    parts += [path.read_text(encoding="utf-8") if path.exists() else "" for path in files]
    return "r" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:11]  # never taken for a number


def read_seeds(params: Params) -> pd.DataFrame:
    """The rows of the pipeline's seeds.tsv that are of the present recipes and of other seeds."""
    path: Path = params.here.seeds
    table = read_table(path) if path.exists() else pd.DataFrame(columns=list(COLUMNS))
    current = {name: recipe(params, name) for name in params.models}
    own = {name: params.item("models", name).get("training", {}).get("seed") for name in params.models}
    return table[(table["recipe"] == table["model"].map(current)) & (table["seed"] != table["model"].map(own))]


def spreads(params: Params, committed: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Standard deviation of each score over the seeds, the `committed` one (by model) among them, by model.

    Empty for a model that was not trained with at least two other seeds.
    """
    found: dict[str, dict[str, float]] = {}
    for key, rows in read_seeds(params).groupby(["model", "score"]):
        name, score = map(str, key)
        if len(rows) >= _FEWEST and score in committed.get(name, {}):
            found.setdefault(name, {})[score] = statistics.stdev([committed[name][score], *rows["value"]])
    return found
