"""Stage `check_params`: every block of params.yaml is checked before any other stage works.

The output never changes, so that a param that passes makes only those stages run that read it.
"""

from pathlib import Path
from typing import Any

from generative.config import Config
from generative.errors import PipelineError
from generative.extractor import TrainedExtractorConfig
from generative.files import write_text
from generative.runtime import ComputeConfig, start
from stages.download import DownloadConfig
from stages.extractors import read_extractor
from stages.figures import FiguresConfig
from stages.generate import GenerateConfig
from stages.models import read_model
from stages.params import REAL, extractor_names, model_names, read_block, read_params
from stages.paths import PARAMS_CHECKED, curves, extractor, extractor_curves, generated
from stages.prepare import OFFICIAL_TRAIN_SIZE, PrepareConfig
from stages.result_paths import scores
from stages.scoring import EvaluateConfig

_TAKEN = ("distance", "infinite", "intra")  # scores of the first extractor are called frechet_ and this
_OVERLOOKED = ("size", "nfiles")  # dvc.stage.cache, release 3.67

BLOCKS: dict[str, type[Config]] = {
    "compute": ComputeConfig,
    "download": DownloadConfig,
    "prepare": PrepareConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "figures": FiguresConfig,
}


def main() -> None:
    """Check names, types and ranges, and what must hold between blocks."""
    unknown = sorted(set(read_params()) - set(BLOCKS) - {"models", "extractors"})
    if unknown:
        raise PipelineError(f"params: unknown block '{unknown[0]}'; allowed: {', '.join(BLOCKS)}, extractors, models.")
    _no_names_that_dvc_overlooks(read_params())
    for name, config_class in BLOCKS.items():
        read_block(name, config_class)
    prepare, generate = read_block("prepare", PrepareConfig), read_block("generate", GenerateConfig)
    available = OFFICIAL_TRAIN_SIZE - prepare.validation_size
    _at_most(
        "prepare.train_size",
        prepare.train_size,
        available,
        f"what 'prepare.validation_size' leaves of {OFFICIAL_TRAIN_SIZE}",
    )
    side = read_block("figures", FiguresConfig).sample_columns
    fitting = int(generate.num_samples**0.5)
    _at_most("figures.sample_columns", side, fitting, "the root of 'generate.num_samples'")
    batch_sizes = {f"models.{name}": read_model(name)[0].batch_size for name in model_names()}
    extractors = {name: read_extractor(name) for name in extractor_names()}
    first = next(iter(extractors))
    if not extractors[first][1].Model.classifies:
        raise PipelineError(
            f"params: 'extractors.{first}' is the first extractor, but knows no classes: put a classifier before it."
        )
    for name in set(extractors) & set(_TAKEN):
        raise PipelineError(
            f"params: 'extractors.{name}' needs another name: 'frechet_{name}' is the name of another score."
        )
    batch_sizes |= {
        f"extractors.{name}": config.batch_size
        for name, (config, _) in extractors.items()
        if isinstance(config, TrainedExtractorConfig)
    }
    for name, batch_size in batch_sizes.items():
        _at_most(f"{name}.batch_size", batch_size, prepare.train_size, "'prepare.train_size'")
    start(read_block("compute", ComputeConfig))
    for path in leftovers(model_names(), extractor_names()):
        path.unlink()
        print(f"removed {path}: nothing in params.yaml has that name")
    write_text(PARAMS_CHECKED, "params.yaml: every key is known, every value has its type and range\n")


def _no_names_that_dvc_overlooks(values: Any, where: str = "") -> None:
    """DVC leaves these keys out of what it compares, at any depth, when it restores an earlier run."""
    for key, value in values.items() if isinstance(values, dict) else ():
        if key in _OVERLOOKED:
            raise PipelineError(
                f"params: '{where}{key}' needs another name: DVC ignores keys called {' and '.join(_OVERLOOKED)} when "
                "it looks for an earlier run, and would restore the results of another value."
            )
        _no_names_that_dvc_overlooks(value, f"{where}{key}.")


def _at_most(key: str, value: int, limit: int, meaning: str) -> None:
    if value > limit:
        raise PipelineError(f"params: '{key}' is {value}, but must be at most {limit}: {meaning}.")


def leftovers(models: list[str], extractors: list[str]) -> list[Path]:
    """Outputs of what params.yaml no longer has, in folders that a later stage reads as a whole."""
    kept = {path(name) for name in models for path in (curves, generated, scores)} | {scores(REAL)}
    kept |= {path(name) for name in extractors for path in (extractor, extractor_curves)}
    files = [path for folder in {path.parent for path in kept} for path in folder.glob("*") if path.is_file()]
    return sorted(path for path in files if path not in kept)
