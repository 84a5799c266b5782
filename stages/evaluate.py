"""Stage `evaluate@MODEL`: scores what a model generated against the 10,000 test images.

data/scores/MODEL.json holds `summary`, flat and with units in docs/scores.md, and `per_class`.
"""

import torch
from torch import Tensor

from generative.data import CLASS_NAMES, IMAGE_SHAPE, Split, load_split
from generative.errors import PipelineError
from generative.extractor import Embedding, Extractor, ExtractorConfig, embed
from generative.files import write_json
from generative.runtime import ComputeConfig, start
from generative.scores.frechet import frechet_distance, statistics
from generative.scores.reconstruction import reconstruction_scores
from generative.tensors import load_tensors, load_weights, require
from stages.cli import run
from stages.params import read_block
from stages.paths import EXTRACTOR, TEST, generated
from stages.result_paths import scores

Summary = dict[str, float]
PerClass = dict[str, dict[str, float]]


def main(name: str) -> None:
    """Score the model `name`."""
    extractor = load_extractor()
    test = load_split(TEST)
    path = generated(name)
    tensors = load_tensors(path)
    samples = require(tensors, "samples", torch.uint8, (None, *IMAGE_SHAPE), path=path)
    labels = require(tensors, "labels", torch.int64, (len(samples),), path=path)

    embedded = embed(extractor, samples)
    summary, per_class = sample_scores(embedded, labels, embed(extractor, test.images))
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


def load_extractor() -> Extractor:
    """The trained extractor, on the device that params.yaml names."""
    device = start(read_block("compute", ComputeConfig))
    extractor = Extractor(read_block("extractor", ExtractorConfig))
    load_weights(extractor, load_tensors(EXTRACTOR), path=EXTRACTOR)
    return extractor.to(device).eval()


def sample_scores(samples: Embedding, labels: Tensor, test: Embedding) -> tuple[Summary, PerClass]:
    """Fréchet distance to the test images, and how often the extractor sees the label asked for."""
    distance = frechet_distance(statistics(samples.features), statistics(test.features))
    summary = {"frechet_distance": distance}
    per_class: PerClass = {}
    if bool((labels >= 0).all()):
        right = (samples.logits.argmax(1) == labels).double()
        summary["label_accuracy"] = float(right.mean())
        per_class["label_accuracy"] = _class_means(right, labels)
    return summary, per_class


def reconstruction_summary(test: Split, reconstructions: Tensor) -> tuple[Summary, PerClass]:
    """Means over the test split and over each class of the per-image reconstruction scores."""
    values = reconstruction_scores(test.images, reconstructions)._asdict()
    values["mse_x1000"] = 1000 * values.pop("mse")
    summary = {key: float(value.mean()) for key, value in values.items()}
    return summary, {key: _class_means(value, test.labels) for key, value in values.items()}


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


def _class_means(values: Tensor, labels: Tensor) -> dict[str, float]:
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
