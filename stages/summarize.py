"""Stage `summarize`: scores of all models as small JSON files, in git, for `dvc metrics show` and `diff`.

metrics/headline.json holds the few scores that DVC shows by default, by model;
metrics/scores/MODEL.json all of one model, metrics/errors/MODEL.json their standard errors;
metrics/features/EXTRACTOR/MODEL.json the distances in the features of one extractor, with errors;
metrics/per_class/MODEL.json scores by class; metrics/extractors.json the SHA-256 of each extractor's weights.
"""

from typing import Any

from generative.files import read_json, write_json
from generative.tensors import load_metadata
from stages.params import REAL, model_names
from stages.result_paths import (
    ERROR_METRICS,
    EXTRACTOR_METRICS,
    FEATURE_METRICS,
    HEADLINE_METRICS,
    PER_CLASS_METRICS,
    REAL_FEATURES,
    SCORE_METRICS,
    scores,
)

_DECIMALS = 4  # what `dvc metrics show` and a reader can use; DVC itself cuts at 5
_HEADLINE = ("frechet_distance", "label_accuracy", "cas", "mse_x1000", "iw_bound")


def main() -> None:
    """Write the metrics of real images and of every model."""
    headline = {}
    for name in [REAL, *model_names()]:
        result = read_json(scores(name))
        headline[name] = {key: result["scores"][key] for key in _HEADLINE if key in result["scores"]}
        write_json(SCORE_METRICS / f"{name}.json", _rounded(result["scores"]))
        write_json(ERROR_METRICS / f"{name}.json", _rounded(result["errors"]))
        for extractor, values in result["features"].items():
            write_json(FEATURE_METRICS / extractor / f"{name}.json", _rounded(values))
        if result["per_class"]:
            write_json(PER_CLASS_METRICS / f"{name}.json", _rounded(result["per_class"]))
    write_json(HEADLINE_METRICS, _rounded(headline))
    write_json(EXTRACTOR_METRICS, load_metadata(REAL_FEATURES)["extractors"])


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, _DECIMALS)
