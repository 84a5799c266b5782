"""Stage `evaluate@MODEL`: scores what a model generated against the 10,000 test images.

data/scores/MODEL.json holds `summary`, flat and with units in docs/scores.md, and `per_class`.
"""

import torch
from torch import Tensor

from generative.data import CLASS_NAMES, IMAGE_SHAPE, Split, load_split
from generative.errors import PipelineError
from generative.extractor import Extractor, embed
from generative.files import write_json
from generative.scores.classification import classification_accuracy
from generative.scores.diversity import mean_distance
from generative.scores.extrapolation import extrapolated_frechet_distance
from generative.scores.frechet import bootstrap_error, frechet_distance, statistics
from generative.scores.kernel import kernel_distance
from generative.scores.manifold import overlap
from generative.scores.memorisation import memorisation, nearest_neighbours
from generative.scores.reconstruction import reconstruction_scores
from generative.tensors import load_tensors, require
from stages.cli import run
from stages.params import read_block
from stages.paths import TEST, TRAIN, generated
from stages.result_paths import scores
from stages.scoring import EvaluateConfig, RealFeatures, load_extractor, load_real

Summary = dict[str, float]
PerClass = dict[str, dict[str, float]]


def main(name: str) -> None:
    """Score the model `name`."""
    config = read_block("evaluate", EvaluateConfig)
    extractor = load_extractor()
    device = next(extractor.parameters()).device
    train, test = load_split(TRAIN), load_split(TEST)
    real = load_real(test)
    path = generated(name)
    tensors = load_tensors(path)
    samples = require(tensors, "samples", torch.uint8, (None, *IMAGE_SHAPE), path=path)
    labels = require(tensors, "labels", torch.int64, (len(samples),), path=path)

    embedded = embed(extractor, samples)
    summary = distances(embedded.features, real, config)
    summary |= memorisation(nearest_neighbours(samples, train.images).distances, real.test_neighbours)._asdict()
    per_class: PerClass = {}
    if bool((labels >= 0).all()):
        overall, per_class = class_scores(embedded.features, labels, real)
        right = (embedded.logits.argmax(1) == labels).double()
        summary |= overall | {
            "label_accuracy": float(right.mean()),
            "cas": classification_accuracy(Split(samples, labels).to(device), test.to(device), seed=config.seed),
        }
        per_class["label_accuracy"] = class_means(right, labels)
    if "reconstructions" in tensors:
        reconstructions = require(tensors, "reconstructions", torch.uint8, tuple(test.images.shape), path=path)
        overall, by_class = reconstruction_summary(test, reconstructions)
        summary |= overall
        per_class |= by_class
    if "loss_recon" in tensors:
        summary |= likelihood_summary(tensors["loss_recon"], tensors["loss_kl"])
    if "paths" in tensors:
        paths = require(tensors, "paths", torch.uint8, (None, None, *IMAGE_SHAPE), path=path)
        summary |= path_summary(extractor, paths, test.labels[tensors["path_ends"]])
    write_json(scores(name), {"summary": finite(summary, name), "per_class": per_class})


def distances(features: Tensor, real: RealFeatures, config: EvaluateConfig) -> Summary:
    """Distances of sample `features` (N, d) to the test images, with standard errors, and how both overlap."""
    test = real.test.features
    test_statistics = statistics(test)
    extrapolated = extrapolated_frechet_distance(features, test_statistics, seed=config.seed)
    kernel = kernel_distance(
        features, test, subsets=config.kernel_subsets, subset_size=config.kernel_subset_size, seed=config.seed
    )
    return {
        "frechet_distance": frechet_distance(statistics(features), test_statistics),
        "frechet_error": bootstrap_error(features, test, resamples=config.bootstraps, seed=config.seed),
        "frechet_infinite": extrapolated.distance,
        "frechet_infinite_error": extrapolated.error,
        "kernel_x1000": 1000 * kernel.mean,
        "kernel_error_x1000": 1000 * kernel.error,
        **overlap(features, test)._asdict(),
    }


def class_scores(features: Tensor, labels: Tensor, real: RealFeatures) -> tuple[Summary, PerClass]:
    """Fréchet distance and diversity within each class, and their means."""
    per_class: PerClass = {"frechet_distance": {}, "diversity": {}}
    for label, name in enumerate(CLASS_NAMES):
        ours, theirs = features[labels == label], real.test.features[real.test_labels == label]
        per_class["frechet_distance"][name] = frechet_distance(statistics(ours), statistics(theirs))
        per_class["diversity"][name] = mean_distance(ours) / mean_distance(theirs)
    means = {key: sum(values.values()) / len(values) for key, values in per_class.items()}
    return {"frechet_intra": means["frechet_distance"], "diversity": means["diversity"]}, per_class


def reconstruction_summary(test: Split, reconstructions: Tensor) -> tuple[Summary, PerClass]:
    """Means over the test split and over each class of the per-image reconstruction scores."""
    values = reconstruction_scores(test.images, reconstructions)._asdict()
    values["mse_x1000"] = 1000 * values.pop("mse")
    summary = {key: float(value.mean()) for key, value in values.items()}
    return summary, {key: class_means(value, test.labels) for key, value in values.items()}


def likelihood_summary(loss_recon: Tensor, loss_kl: Tensor) -> Summary:
    """Means of the evidence lower bound and its terms, nats per image."""
    recon, kl = float(loss_recon.double().mean()), float(loss_kl.double().mean())
    return {"elbo": -(recon + kl), "loss_recon": recon, "loss_kl": kl}


def path_summary(extractor: Extractor, paths: Tensor, ends: Tensor) -> Summary:
    """How often the extractor gives points of an interpolation (P, S, ...) a class of its `ends` (P, 2)."""
    seen = embed(extractor, paths.flatten(0, 1)).logits.argmax(1).view(paths.shape[:2])
    kept = (seen.unsqueeze(2) == ends.unsqueeze(1)).any(2).double().mean(1)
    within = ends[:, 0] == ends[:, 1]
    return {"path_within_kept": float(kept[within].mean()), "path_between_kept": float(kept[~within].mean())}


def class_means(values: Tensor, labels: Tensor) -> dict[str, float]:
    """Means of `values` (N,) over the images of each class."""
    return {name: float(values[labels == label].mean()) for label, name in enumerate(CLASS_NAMES)}


def finite(summary: Summary, name: str) -> Summary:
    """The same summary.

    Raises:
        PipelineError: a score is NaN or infinite.
    """
    for key, value in summary.items():
        if not torch.isfinite(torch.tensor(value)):
            raise PipelineError(f"{name}: the score {key} is {value}: its samples are broken, train it again.")
    return summary


if __name__ == "__main__":
    run(main)
