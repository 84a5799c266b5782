"""Stage `check_params`: every block of params.yaml is checked before any other stage works.

The output never changes, so that a param that passes makes only those stages run that read it.
"""

from typing import Any

from generative.compute.runtime import start
from generative.compute.settings import ComputeConfig
from generative.config import Config
from generative.errors import SettingError
from generative.extractor import ExtractorConfig, TrainedExtractorConfig
from generative.family import FamilyConfig
from generative.io.files import write_text
from generative.objective import TrainingObjective
from stages.common.dataset import DataConfig, PrepareConfig, read_dataset
from stages.common.extractors import read_extractor
from stages.common.leftovers import tidy
from stages.common.lending import wanted_extractor
from stages.common.models import read_model
from stages.common.params import Params, read_params
from stages.common.paths import ROOT, Pipeline
from stages.common.published import FiguresConfig, ReportConfig
from stages.common.scoring import EvaluateConfig
from stages.download import DownloadConfig
from stages.generate import GenerateConfig

_TAKEN = ("distance", "infinite", "intra")  # scores of the first extractor are called frechet_ and this
_OVERLOOKED = ("size", "nfiles")  # dvc.stage.cache, release 3.67

BLOCKS: dict[str, type[Config]] = {
    "compute": ComputeConfig,
    "data": DataConfig,
    "download": DownloadConfig,
    "prepare": PrepareConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "figures": FiguresConfig,
    "report": ReportConfig,
}


def main(here: Pipeline) -> None:
    """Check names, types and ranges, and what must hold between blocks."""
    params = read_params(here)
    if unknown := sorted(set(params.values) - set(BLOCKS) - {"models", "extractors"}):
        raise SettingError(f"unknown block '{unknown[0]}'; allowed: {', '.join(BLOCKS)}, extractors, models.")
    _no_names_that_dvc_overlooks(params.values)
    for name, config_class in BLOCKS.items():
        params.block(name, config_class)
    models = {name: read_model(params, name) for name in params.models}
    extractors = {name: read_extractor(params, name) for name in params.extractors}
    _check_extractors(extractors)
    _check_models(params, models, extractors)
    _check_classes(params)
    _check_sizes(
        params,
        {name: config for name, (config, _) in models.items()},
        {name: config for name, (config, _) in extractors.items()},
    )
    start(params.compute)
    tidy(params)
    write_text(here.params_checked, f"{here.params}: every key is known, every value has its type and range\n")


def _no_names_that_dvc_overlooks(values: Any, where: str = "") -> None:
    """DVC leaves these keys out of what it compares, at any depth, when it restores an earlier run."""
    for key, value in values.items() if isinstance(values, dict) else ():
        if key in _OVERLOOKED:
            raise SettingError(
                f"'{where}{key}' needs another name: DVC ignores keys called {' and '.join(_OVERLOOKED)} when "
                "it looks for an earlier run, and would restore the results of another value."
            )
        _no_names_that_dvc_overlooks(value, f"{where}{key}.")


def _check_extractors(extractors: dict[str, tuple[ExtractorConfig, Any]]) -> None:
    first = next(iter(extractors))
    if not extractors[first][1].Model.classifies:
        raise SettingError(
            f"'extractors.{first}' is the first extractor, but knows no classes: put a classifier before it."
        )
    for name in set(extractors) & set(_TAKEN):
        raise SettingError(f"'extractors.{name}' needs another name: a score is called so, as in 'frechet_{name}'.")


def _check_models(
    params: Params,
    models: dict[str, tuple[FamilyConfig, Any]],
    extractors: dict[str, tuple[ExtractorConfig, Any]],
) -> None:
    """Names that must be known elsewhere, or must not be, and what a family cannot do."""
    if params.here != ROOT and (taken := set(models) & set(read_params().models)):
        raise SettingError(f"'models.{min(taken)}' in {params.here.params} needs another name: {ROOT.params} has it.")
    trained = [name for name, (config, _) in extractors.items() if isinstance(config, TrainedExtractorConfig)]
    for name, (config, family) in models.items():
        if config.training.sampled_epochs and family.Objective.draw is TrainingObjective.draw:
            raise SettingError(
                f"'models.{name}.training.sampled_epochs': {config.family} draws no samples in training."
            )
        lent = wanted_extractor(config)
        if lent is not None and lent not in trained:
            why = ": a network that was not trained here judges, and no model may use it" if lent in extractors else ""
            raise SettingError(
                f"'models.{name}.training.extractor' is '{lent}', but must be one of {', '.join(trained)}{why}."
            )
    for name in params.block("report", ReportConfig).models:
        if name not in models:
            raise SettingError(f"'report.models' has '{name}', but the models are {', '.join(models)}.")


def _check_classes(params: Params) -> None:
    """Names of classes, and numbers of images of which each class has a share."""
    classes = read_dataset(params).classes
    prepare, generate = params.block("prepare", PrepareConfig), params.block("generate", GenerateConfig)
    named = {
        "generate.within": generate.within,
        "generate.between": [name for pair in generate.between for name in pair],
    }
    for key, names in named.items():
        for name in names:
            if name not in classes:
                raise SettingError(f"'{key}' has {name!r}, but must have one of 'data.classes': {', '.join(classes)}.")
    shared = {f"prepare.{key}": getattr(prepare, key) for key in ("train_size", "validation_size", "test_size")}
    for key, value in (shared | {"generate.num_samples": generate.num_samples}).items():
        if value % len(classes):
            raise SettingError(
                f"'{key}' is {value}, but must be a multiple of {len(classes)}, the number of 'data.classes': "
                "every class counts alike."
            )


def _check_sizes(params: Params, models: dict[str, FamilyConfig], extractors: dict[str, ExtractorConfig]) -> None:
    """Numbers that other numbers limit: each would fail later, some of them after hours."""
    prepare, generate = params.block("prepare", PrepareConfig), params.block("generate", GenerateConfig)
    _at_most("generate.bound_images", generate.bound_images, prepare.test_size, "'prepare.test_size'")
    side = params.block("figures", FiguresConfig).sample_columns
    _at_most("figures.sample_columns", side, int(generate.num_samples**0.5), "the root of 'generate.num_samples'")
    batch_sizes = {f"models.{name}.training": config.training.batch_size for name, config in models.items()}
    batch_sizes |= {
        f"extractors.{name}": config.batch_size
        for name, config in extractors.items()
        if isinstance(config, TrainedExtractorConfig)
    }
    devices = params.compute.devices
    for name, batch_size in batch_sizes.items():
        _at_most(f"{name}.batch_size", batch_size, prepare.train_size, "'prepare.train_size'")
        if batch_size % devices or batch_size < 2 * devices:
            raise SettingError(
                f"'{name}.batch_size' is {batch_size}, but each of the {devices} devices of 'compute.devices' must get "
                "equally many images, at least 2."
            )
    for name, model in models.items():
        for key, limit in model.sampling.limits(prepare.train_size).items():
            where = f"models.{name}.sampling.{key}"
            _at_most(where, getattr(model.sampling, key), limit, "the training images that it is fitted to")


def _at_most(key: str, value: int, limit: int, meaning: str) -> None:
    if value > limit:
        raise SettingError(f"'{key}' is {value}, but must be at most {limit}: {meaning}.")
