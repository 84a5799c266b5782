"""Files of models and extractors that params.yaml no longer has, or that another branch left here.

DVC cannot list the items of a `foreach` in the deps of another stage, so some stages depend on a folder, and DVC takes
in whatever lies there. Such a stage tidies first: what is recorded afterwards is the hash of what belongs there.
"""

import shutil
from pathlib import Path

from stages.common.params import Params
from stages.common.paths import METRICS, REAL, ROOT, extractor, extractor_curves


def tidy(params: Params) -> None:
    """Remove what belongs to no entry of `params`."""
    for path in leftovers(params):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        print(f"removed {path}: nothing in {params.here.params} has that name")


def leftovers(params: Params) -> list[Path]:
    """Outputs of what the settings no longer have, in folders of their pipeline that a later stage reads as a whole."""
    here, names = params.here, params.models
    rows = [REAL, *names] if here == ROOT else names
    kept = {path(name) for name in names for path in (here.curves, here.generated, here.scores)}
    kept |= {here.metrics(kind, name) for name in rows for kind in METRICS}
    kept |= {path(name) for name in rows for path in (here.plot_data, here.figures)}
    if here == ROOT:
        kept |= {path(name) for name in params.extractors for path in (extractor, extractor_curves)}
        kept.add(here.scores(REAL))
    found = [path for folder in {path.parent for path in kept} for path in folder.glob("[!.]*")]
    return sorted(path for path in found if path not in kept)  # hidden files are being written by other stages
