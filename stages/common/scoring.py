"""What the stages that score share: settings, features of real images, scores of a feature set, the file of scores."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from generative.config import Config, Seed
from generative.data.splits import Split
from generative.errors import PipelineError
from generative.extractor import Embedding
from generative.io.files import write_json
from generative.io.tensors import load_tensors, require
from generative.scores.diversity import mean_distance
from generative.scores.extrapolation import can_extrapolate, enough_for_covariance, extrapolated_frechet_distance
from generative.scores.frechet import frechet_score
from generative.scores.kernel import kernel_distance
from generative.scores.manifold import Radii, neighbour_radii, overlap
from generative.scores.score import Score, average_score, ratio_score
from stages.common.paths import REAL_FEATURES

Scores = dict[str, Score]
PerClass = dict[str, dict[str, float]]
Row = dict[str, Any]  # of a table: names, numbers

_FEWEST_SUBSETS = 5  # that a kernel distance is averaged over, where images are few


class EvaluateConfig(Config):
    """How samples are scored (params: `evaluate`)."""

    seed: Seed
    kernel_subset_size: Annotated[int, Field(ge=2)]


class RealFeatures(NamedTuple):
    """The real images as one extractor sees them: the test split, and training images in the place of samples."""

    test: Embedding
    test_labels: Tensor
    test_radii: Radii
    train_features: Tensor
    classes: list[str]  # the name of each


class RealImages(NamedTuple):
    """What `embed_real` wrote: the features by extractor, and each test image's distance to the training images."""

    by_extractor: dict[str, RealFeatures]
    test_neighbours: Tensor


def load_real(extractors: list[str], test: Split, classes: list[str]) -> RealImages:
    """The features of real images, as each of `extractors` sees them, checked."""
    tensors, path, size = load_tensors(REAL_FEATURES), REAL_FEATURES, len(test)
    by_extractor = {}
    for name in extractors:
        features = require(tensors, f"{name}.test_features", torch.float32, (size, None), path=path)
        logits = require(tensors, f"{name}.test_logits", torch.float32, (size, None), path=path)
        train = require(tensors, f"{name}.train_features", torch.float32, (None, features.shape[1]), path=path)
        radii = Radii(
            *(require(tensors, f"{name}.radii_{key}", torch.float32, (size,), path=path) for key in Radii._fields)
        )
        by_extractor[name] = RealFeatures(Embedding(features, logits), test.labels, radii, train, classes)
    return RealImages(by_extractor, require(tensors, "test_neighbours", torch.float32, (size,), path=path))


class FeatureScores(NamedTuple):
    """Scores in the features of one extractor: over all samples, and by class where the samples follow labels."""

    overall: Scores
    per_class: PerClass


@dataclass
class Result:
    """All scores of one model; filled by one function for each thing that it made."""

    scores: Scores = field(default_factory=dict)
    features: dict[str, FeatureScores] = field(default_factory=dict)  # by extractor
    per_class: PerClass = field(default_factory=dict)
    sweeps: list[Row] = field(default_factory=list)
    epochs: list[Row] = field(default_factory=list)


def feature_scores(
    features: Tensor, labels: Tensor | None, real: RealFeatures, config: EvaluateConfig
) -> FeatureScores:
    """Compare sample `features` (N, d), of the classes `labels` (N,) if they follow any, with the test images.

    A class of real images must have enough for its features; else there are no scores within a class.
    """
    overall = distances(features, real.test.features, real.test_radii, config)
    per_class: PerClass = {}
    if labels is not None and enough_for_covariance(len(real.test.features) // len(real.classes), features.shape[1]):
        means, per_class = class_scores(features, labels, real, config)
        overall |= means
    return FeatureScores(overall, per_class)


def distances(features: Tensor, test: Tensor, radii: Radii, config: EvaluateConfig) -> Scores:
    """Distances of sample `features` (N, d) to those of the `test` images, and how both overlap."""
    result = pair_distances(features, test, config)
    if can_extrapolate(min(len(features), len(test)), features.shape[1]):
        line = extrapolated_frechet_distance(features, test, seed=config.seed)
        error = math.hypot(line.error, result["frechet_distance"].error)
        result["frechet_infinite"] = Score(line.value, error)
    return result | overlap(features, test, radii)._asdict()


def pair_distances(features: Tensor, test: Tensor, config: EvaluateConfig) -> Scores:
    """Fréchet and kernel distance between two feature sets (N, d) and (M, d)."""
    largest = min(len(features), len(test)) // _FEWEST_SUBSETS
    kernel = kernel_distance(features, test, subset_size=min(config.kernel_subset_size, largest), seed=config.seed)
    return {
        "frechet_distance": frechet_score(features, test),
        "kernel_x1000": Score(1000 * kernel.value, 1000 * kernel.error),
    }


def class_scores(
    features: Tensor, labels: Tensor, real: RealFeatures, config: EvaluateConfig
) -> tuple[Scores, PerClass]:
    """Distances, overlap and diversity within each class; the means of the distances and of the diversity."""
    rows = []
    classes = labels.unique().tolist()
    for label in classes:
        ours, theirs = features[labels == label], real.test.features[real.test_labels == label]
        rows.append(
            pair_distances(ours, theirs, config)
            | overlap(ours, theirs, neighbour_radii(theirs))._asdict()
            | {"diversity": ratio_score(mean_distance(ours), mean_distance(theirs))}
        )
    means = {key: average_score([row[key] for row in rows]) for key in rows[0]}
    names = [real.classes[label] for label in classes]
    per_class = {key: {name: row[key].value for name, row in zip(names, rows, strict=True)} for key in rows[0]}
    wanted = {"frechet_intra": "frechet_distance", "kernel_intra_x1000": "kernel_x1000", "diversity": "diversity"}
    return {key: means[source] for key, source in wanted.items()}, per_class


def leading_scores(by_extractor: dict[str, FeatureScores]) -> Scores:
    """The scores in the first extractor's features, and some of those in the features of each other one."""
    overall = {name: found.overall for name, found in by_extractor.items()}
    result = next(iter(overall.values())) | leading_distances(overall)
    for name, scores in list(overall.items())[1:]:
        if "frechet_infinite" in scores:
            result[f"frechet_infinite_{name}"] = scores["frechet_infinite"]
        result[f"recall_{name}"] = scores["recall"]
    return result


def leading_distances(by_extractor: dict[str, Scores]) -> Scores:
    """Both distances in the features of every extractor; the first one's name is left out."""
    result: Scores = {}
    for place, (name, scores) in enumerate(by_extractor.items()):
        result["frechet_distance" if place == 0 else f"frechet_{name}"] = scores["frechet_distance"]
        result["kernel_x1000" if place == 0 else f"kernel_{name}_x1000"] = scores["kernel_x1000"]
    return result


def class_means(values: Tensor, labels: Tensor, classes: list[str]) -> dict[str, float]:
    """Means of `values` (N,) over the images of each class that there is, by its name."""
    return {classes[label]: float(values[labels == label].double().mean()) for label in labels.unique().tolist()}


def write_scores(path: Path, name: str, result: Result) -> None:
    """Write the scores of the model `name` to `path`.

    Raises:
        PipelineError: a score is NaN or infinite.
    """
    features = {key: _split(value.overall, name) for key, value in result.features.items()}
    rest = {"per_class": result.per_class, "sweeps": result.sweeps, "epochs": result.epochs}
    write_json(path, {**_split(result.scores, name), "features": features, **rest})


def _split(result: Scores, name: str) -> dict[str, Any]:
    for key, score in result.items():
        if not all(map(math.isfinite, score)):
            raise PipelineError(f"{name}: the score {key} is {score.value}: its samples are broken, train it again.")
    values = {key: score.value for key, score in result.items()}
    return {"scores": values, "errors": {key: score.error for key, score in result.items()}}
