"""Stage `evaluate@MODEL`: scores what a model generated against the 10,000 test images.

data/scores/MODEL.json holds, each explained with its unit in docs/scores.md,
- `scores`: name to value, with the distances in the features of the first extractor;
- `errors`: the standard errors of the same names;
- `features`: for every extractor the same distances in its features, `scores` and `errors`;
- `per_class`: scores by class.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from generative.data import CLASS_NAMES, IMAGE_SHAPE, Split, load_split
from generative.errors import PipelineError
from generative.extractor import FeatureExtractor, embed
from generative.files import write_json
from generative.runtime import ComputeConfig, start
from generative.scores.classification import classification_accuracy
from generative.scores.diversity import mean_distance
from generative.scores.extrapolation import SAMPLES_PER_DIMENSION, extrapolated_frechet_distance
from generative.scores.frechet import bootstrap_error, frechet_distance, statistics
from generative.scores.kernel import kernel_distance
from generative.scores.likelihood import active_units, importance_weighted_bound, tightened_bound
from generative.scores.manifold import Radii, neighbour_radii, overlap
from generative.scores.memorisation import memorisation, nearest_neighbours
from generative.scores.pca import pca_error
from generative.scores.reconstruction import reconstruction_scores
from generative.scores.score import Score, average_score, mean_score, ratio_score
from generative.tensors import load_tensors, require
from stages.extractors import load_extractor
from stages.params import read_block
from stages.paths import TEST, TRAIN, generated
from stages.result_paths import scores
from stages.scoring import EvaluateConfig, RealFeatures, load_real

Scores = dict[str, Score]
PerClass = dict[str, dict[str, float]]

_FEWEST_SUBSETS = 5  # that a kernel distance is averaged over, where images are few


def main(name: str) -> None:
    """Score the model `name`."""
    config = read_block("evaluate", EvaluateConfig)
    device = start(read_block("compute", ComputeConfig))
    train, test = load_split(TRAIN), load_split(TEST)
    real = load_real(test)
    extractors = {key: load_extractor(key, device) for key in real.by_extractor}
    classifier = next(iter(extractors.values()))
    path = generated(name)
    tensors = load_tensors(path)
    samples = require(tensors, "samples", torch.uint8, (None, *IMAGE_SHAPE), path=path)
    labels = require(tensors, "labels", torch.int64, (len(samples),), path=path)
    followed = labels if bool((labels >= 0).all()) else None

    embedded = {key: embed(network, samples) for key, network in extractors.items()}
    by_extractor = {
        key: feature_scores(embedded[key].features, followed, features, config)
        for key, features in real.by_extractor.items()
    }
    per_class = dict(next(iter(by_extractor.values())).per_class)
    result = headline(by_extractor)
    found = nearest_neighbours(samples, train.images).distances
    result |= memorisation(found, real.test_neighbours)._asdict()
    if followed is not None:
        right = next(iter(embedded.values())).logits.argmax(1) == labels
        result["label_accuracy"] = mean_score(right)
        result["cas"] = classification_accuracy(Split(samples, labels).to(device), test.to(device), seed=config.seed)
        per_class["label_accuracy"] = class_means(right, labels)
    if "latents" in tensors:
        reconstructions = require(tensors, "reconstructions", torch.uint8, tuple(test.images.shape), path=path)
        overall, by_class = reconstruction_summary(test, reconstructions)
        floor = pca_error(train.images, test.images, min(tensors["latents"].shape[1], test.images[0].numel()))
        result |= overall | {"pca_mse_x1000": mean_score(1000 * floor)}
        per_class |= by_class
    if "loss_recon" in tensors:
        result |= likelihood_summary(tensors)
    if "paths" in tensors:
        paths = require(tensors, "paths", torch.uint8, (None, None, *IMAGE_SHAPE), path=path)
        result |= path_summary(classifier, paths, test.labels[tensors["path_ends"]])
    write_scores(name, result, by_extractor, per_class)


class FeatureScores(NamedTuple):
    """Scores in the features of one extractor: over all samples, and by class where the samples follow labels."""

    overall: Scores
    per_class: PerClass


def feature_scores(
    features: Tensor, labels: Tensor | None, real: RealFeatures, config: EvaluateConfig
) -> FeatureScores:
    """Compare sample `features` (N, d), of the classes `labels` (N,) if they follow any, with the test images."""
    overall = distances(features, real.test.features, real.test_radii, config)
    per_class: PerClass = {}
    if labels is not None:
        means, per_class = class_scores(features, labels, real, config)
        overall |= means
    return FeatureScores(overall, per_class)


def distances(features: Tensor, test: Tensor, radii: Radii, config: EvaluateConfig) -> Scores:
    """Distances of sample `features` (N, d) to those of the `test` images, and how both overlap."""
    result = pair_distances(features, test, config)
    if len(features) >= SAMPLES_PER_DIMENSION * features.shape[1]:
        line = extrapolated_frechet_distance(features, statistics(test), seed=config.seed)
        error = math.hypot(line.error, result["frechet_distance"].error)
        result["frechet_infinite"] = Score(line.value, error)
    return result | overlap(features, test, radii)._asdict()


def pair_distances(features: Tensor, test: Tensor, config: EvaluateConfig) -> Scores:
    """Fréchet and kernel distance between two feature sets (N, d) and (M, d)."""
    largest = min(len(features), len(test)) // _FEWEST_SUBSETS
    kernel = kernel_distance(features, test, subset_size=min(config.kernel_subset_size, largest), seed=config.seed)
    return {
        "frechet_distance": Score(
            frechet_distance(statistics(features), statistics(test)),
            bootstrap_error(features, test, resamples=config.bootstraps, seed=config.seed),
        ),
        "kernel_x1000": Score(1000 * kernel.value, 1000 * kernel.error),
    }


def class_scores(
    features: Tensor, labels: Tensor, real: RealFeatures, config: EvaluateConfig
) -> tuple[Scores, PerClass]:
    """Distances, overlap and diversity within each class; the means of the distances and of the diversity."""
    rows = []
    for label in range(len(CLASS_NAMES)):
        ours, theirs = features[labels == label], real.test.features[real.test_labels == label]
        rows.append(
            pair_distances(ours, theirs, config)
            | overlap(ours, theirs, neighbour_radii(theirs))._asdict()
            | {"diversity": ratio_score(mean_distance(ours), mean_distance(theirs))}
        )
    means = {key: average_score([row[key] for row in rows]) for key in rows[0]}
    per_class = {key: {name: row[key].value for name, row in zip(CLASS_NAMES, rows, strict=True)} for key in rows[0]}
    wanted = {"frechet_intra": "frechet_distance", "kernel_intra_x1000": "kernel_x1000", "diversity": "diversity"}
    return {key: means[source] for key, source in wanted.items()}, per_class


def headline(by_extractor: dict[str, FeatureScores]) -> Scores:
    """The scores in the first extractor's features, and the Fréchet distance in those of each other one."""
    first, *others = by_extractor
    result = dict(by_extractor[first].overall)
    for name in others:
        result[f"frechet_{name}"] = by_extractor[name].overall["frechet_distance"]
    return result


def reconstruction_summary(test: Split, reconstructions: Tensor) -> tuple[Scores, PerClass]:
    """Means over the test split and over each class of the per-image reconstruction scores."""
    values = reconstruction_scores(test.images, reconstructions)._asdict()
    values["mse_x1000"] = 1000 * values.pop("mse")
    summary = {key: mean_score(value) for key, value in values.items()}
    return summary, {key: class_means(value, test.labels) for key, value in values.items()}


def likelihood_summary(tensors: dict[str, Tensor]) -> Scores:
    """The evidence lower bound, its terms, the importance-weighted bound (nats per image), and active units."""
    recon, kl, weights = (tensors[key].double() for key in ("loss_recon", "loss_kl", "log_weights"))
    return {
        "elbo": mean_score(-(recon + kl)),
        "iw_bound": tightened_bound(-(recon + kl), weights.mean(1), importance_weighted_bound(weights)),
        "loss_recon": mean_score(recon),
        "loss_kl": mean_score(kl),
        "active_units": Score(float(active_units(tensors["posterior_means"])), 0.0),
    }


def path_summary(classifier: FeatureExtractor, paths: Tensor, ends: Tensor) -> Scores:
    """How often the classifier gives points of an interpolation (P, S, ...) a class of its `ends` (P, 2)."""
    seen = embed(classifier, paths.flatten(0, 1)).logits.argmax(1).view(paths.shape[:2])
    kept = (seen.unsqueeze(2) == ends.unsqueeze(1)).any(2).double().mean(1)
    within = ends[:, 0] == ends[:, 1]
    return {"path_within_kept": mean_score(kept[within]), "path_between_kept": mean_score(kept[~within])}


def class_means(values: Tensor, labels: Tensor) -> dict[str, float]:
    """Means of `values` (N,) over the images of each class."""
    return {name: float(values[labels == label].double().mean()) for label, name in enumerate(CLASS_NAMES)}


def write_scores(name: str, result: Scores, by_extractor: dict[str, FeatureScores], per_class: PerClass) -> None:
    """Write data/scores/`name`.json.

    Raises:
        PipelineError: a score is NaN or infinite.
    """
    features = {key: _split(value.overall, name) for key, value in by_extractor.items()}
    write_json(scores(name), {**_split(result, name), "features": features, "per_class": per_class})


def _split(result: Scores, name: str) -> dict[str, Any]:
    for key, score in result.items():
        if not all(map(math.isfinite, score)):
            raise PipelineError(f"{name}: the score {key} is {score.value}: its samples are broken, train it again.")
    values = {key: score.value for key, score in result.items()}
    return {"scores": values, "errors": {key: score.error for key, score in result.items()}}
