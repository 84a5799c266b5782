"""Stage `summarize`: scores of all models as small JSON files, in git, for `dvc metrics show` and `diff`.

metrics/scores/MODEL.json is one row of the table, metrics/per_class/MODEL.json the same by class.
"""

from typing import Any

from generative.files import read_json, write_json
from stages.cli import run
from stages.params import model_names
from stages.result_paths import PER_CLASS_METRICS, SCORE_METRICS, scores

_DECIMALS = 4  # what `dvc metrics show` and a reader can use; DVC itself cuts at 5


def main() -> None:
    """Write the metrics of real images and of every model."""
    for name in ["real", *model_names()]:
        result = read_json(scores(name))
        write_json(SCORE_METRICS / f"{name}.json", _rounded(result["summary"]))
        if result["per_class"]:
            write_json(PER_CLASS_METRICS / f"{name}.json", _rounded(result["per_class"]))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, _DECIMALS)


if __name__ == "__main__":
    run(main)
