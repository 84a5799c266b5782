"""`make sweep`: a model with every combination of some settings, and with some seeds.

    make sweep NAME=diffusion VARY="sampling.guidance=1,2 sampling.evaluations=6,12" SEEDS="0 1"

Every score of every combination goes into sweeps/NAME.tsv as soon as it is there; at the end their means, deviations
and numbers over the seeds into sweeps/NAME_table.tsv, and the scores of the leaderboard into sweeps/NAME.png. What is
there, of the same settings and code, is not run again. How variants are run and resumed: tools/cells.py.
"""

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from generative.errors import PipelineError
from generative.io.tables import read_table, write_table
from stages.common.params import Params, read_params
from stages.common.seeds import recipe
from tools.cells import SWEEPS, Cell, as_word, headline_columns, run_cells, summary, write_summary
from tools.entry import run_tool
from tools.pipelines import homes_of_models
from tools.place import add_place_arguments, place_of

_COLUMNS = ["cell", "recipe", "seed", "score", "value"]
_MOST = 10_000  # combinations


def main(arguments: list[str]) -> int:
    """Run what is missing, and write the table and the figure; returns the exit code."""
    options = _parse(arguments)
    homes = homes_of_models()
    if options.name not in homes:
        raise PipelineError(f"there is no model '{options.name}', only {', '.join(homes)}.")
    here = homes[options.name]
    seeds = options.seeds or [read_params(here).item("models", options.name)["training"]["seed"]]
    combinations = list(itertools.product(*([(key, value) for value in values] for key, values in options.vary)))
    if len(combinations) * len(seeds) > _MOST:
        raise PipelineError(f"these are {len(combinations) * len(seeds)} combinations, more than {_MOST}.")
    cells = [Cell(here, options.name, seed, settings) for settings in combinations for seed in seeds]
    recipes = {cell: _recipe(cell) for cell in cells}
    path = SWEEPS / f"{options.title or options.name}.tsv"
    wanted = [cell for cell in cells if _rows_of(_read(path), cell, recipes[cell]).empty]

    def collect(cell: Cell, scores: dict[str, float]) -> None:
        new = [(cell.variant, recipes[cell], cell.seed, key, value) for key, value in scores.items()]
        table = _read(path)
        kept = table[(table["cell"] != cell.variant) | (table["seed"] != cell.seed)]
        write_table(path, pd.concat([kept, pd.DataFrame(new, columns=_COLUMNS)], ignore_index=True))

    code = run_cells(wanted, options.place, collect) if wanted else 0
    rows = [_rows_of(_read(path), cell, recipes[cell]).assign(**dict(cell.settings)) for cell in cells]
    found = pd.concat(rows, ignore_index=True)
    if not found.empty:
        by = [key for key, _ in options.vary]
        for written in write_summary(path.stem, summary(found, by), by, headline_columns(cells)):
            print(f"written: {written}")
    return code


def _recipe(cell: Cell) -> str:
    """The recipe of the model with the settings of the cell."""
    values = Params(_copy(read_params(cell.here).values), cell.here)
    cell.change(values.values)
    return recipe(values, cell.model)


def _copy(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _copy(value) for key, value in values.items()}
    return [_copy(value) for value in values] if isinstance(values, list) else values


def _read(path: Path) -> pd.DataFrame:
    table = read_table(path) if path.exists() else pd.DataFrame(columns=_COLUMNS)
    if list(table.columns) != _COLUMNS:
        raise PipelineError(f"{path} is no table of a sweep: move it away.")
    return table


def _rows_of(table: pd.DataFrame, cell: Cell, known: str) -> pd.DataFrame:
    return table[(table["cell"] == cell.variant) & (table["recipe"] == known) & (table["seed"] == cell.seed)]


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make sweep", description=__doc__)
    parser.add_argument("--name", required=True, help="a model of either pipeline")
    parser.add_argument("--vary", type=_settings, required=True, help="KEY=VALUE,VALUE ... in the model's block")
    parser.add_argument("--seeds", type=_numbers, default=[], help="of the training; by default that of the params")
    parser.add_argument("--title", default="", help="of the files in sweeps/; by default the model's name")
    add_place_arguments(parser)
    options = parser.parse_args(arguments)
    options.place = place_of(options)
    return options


def _settings(text: str) -> list[tuple[str, list[Any]]]:
    """Settings and their values: `sampling.guidance=1,2 training.epochs=5`."""
    found: dict[str, list[Any]] = {}
    for word in text.split():
        key, equals, values = word.partition("=")
        if not equals or not values or not key.startswith(("training.", "sampling.")) or key == "training.seed":
            raise argparse.ArgumentTypeError(
                f"{word!r} is not of the kind sampling.guidance=1,2 or training.epochs=5,10 (seeds: SEEDS)"
            )
        try:
            found[key] = [YAML(typ="safe").load(value) for value in values.split(",")]
        except YAMLError:
            raise argparse.ArgumentTypeError(f"{values!r} are no values") from None
        if not all(isinstance(value, bool | int | float | str) for value in found[key]):
            raise argparse.ArgumentTypeError(f"{values!r} has a value that is empty or a list")
        if len({as_word(value) for value in found[key]}) < len(found[key]):
            raise argparse.ArgumentTypeError(f"{values!r} has a value twice, in six digits")
    if not found:
        raise argparse.ArgumentTypeError("nothing is varied")
    return list(found.items())


def _numbers(text: str) -> list[int]:
    return list(dict.fromkeys(int(part) for part in text.split()))


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
