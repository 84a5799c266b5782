"""Files of models and extractors that params.yaml no longer has, or that another branch left here.

DVC cannot list the items of a `foreach` in the deps of another stage, so some stages depend on a folder, and DVC takes
in whatever lies there. Such a stage tidies first: what is recorded afterwards is the hash of what belongs there.
"""

import shutil
from pathlib import Path

from stages.common.params import REAL, Params
from stages.common.paths import curves, extractor, extractor_curves, generated, scores
from stages.common.published_paths import (
    ERROR_METRICS,
    FEATURE_METRICS,
    FIGURES,
    PER_CLASS_METRICS,
    PLOT_DATA,
    SCORE_METRICS,
)


def tidy(params: Params) -> None:
    """Remove what belongs to no entry of `params`."""
    for path in leftovers(params):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        print(f"removed {path}: nothing in params.yaml has that name")


def leftovers(params: Params) -> list[Path]:
    """Outputs of what params.yaml no longer has, in folders that a later stage reads as a whole."""
    metrics = (SCORE_METRICS, ERROR_METRICS, FEATURE_METRICS, PER_CLASS_METRICS)
    kept = {path(name) for name in params.models for path in (curves, generated, scores)}
    kept |= {path(name) for name in params.extractors for path in (extractor, extractor_curves)}
    kept |= {folder / f"{name}.json" for name in (REAL, *params.models) for folder in metrics} | {scores(REAL)}
    kept |= {folder / name for name in (REAL, *params.models) for folder in (PLOT_DATA, FIGURES)}
    found = [path for folder in {path.parent for path in kept} for path in folder.glob("[!.]*")]
    return sorted(path for path in found if path not in kept)  # hidden files are being written by other stages
