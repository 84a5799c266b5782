"""Stage `evaluate@MODEL`: scores what a model made against the 10,000 test images.

Which scores a model has says the table SCORERS, by what it made. data/scores/MODEL.json holds, each explained with its
unit in docs/scores.md,
- `scores`: name to value, with the distances in the features of the first extractor;
- `errors`: the standard errors of the same names;
- `features`: for every extractor the same distances in its features, `scores` and `errors`;
- `per_class`: scores by class;
- `sweeps`, `epochs`: rows of scores over a setting of sampling, and over the training, of 2,000 samples each.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generative.compute.runtime import start
from generative.data.images import NUM_PIXELS
from generative.data.splits import Split, load_split
from generative.extractor import Embedding, FeatureExtractor, embed
from generative.io.tensors import load_tensors
from generative.scores.classification import classification_accuracy
from generative.scores.extrapolation import enough_for_covariance
from generative.scores.frechet import frechet_distance, statistics
from generative.scores.kernel import kernel_distance
from generative.scores.likelihood import active_units, importance_weighted_bound, tightened_bound
from generative.scores.manifold import overlap
from generative.scores.memorisation import memorisation, nearest_neighbours
from generative.scores.pca import pca_error
from generative.scores.reconstruction import reconstruction_scores
from generative.scores.score import Score, mean_score
from stages.common.dataset import read_dataset
from stages.common.extractors import load_extractor
from stages.common.generated import (
    Denoiser,
    Encodings,
    Generated,
    Grid,
    LikelihoodOf,
    Posterior,
    Prompted,
    Samples,
    Translations,
    load_generated,
)
from stages.common.params import read_params
from stages.common.paths import TEST, TRAIN, Pipeline
from stages.common.scoring import (
    EvaluateConfig,
    PerClass,
    RealImages,
    Result,
    Row,
    Scores,
    class_means,
    feature_scores,
    leading_distances,
    leading_scores,
    load_real,
    pair_distances,
    write_scores,
)

_UNIT = math.log(2) * NUM_PIXELS  # nats of one bit per dimension
_BITS = 8  # of a grey level


@dataclass(frozen=True)
class Context:
    """What everything is scored with."""

    config: EvaluateConfig
    train: Split
    test: Split
    real: RealImages
    classes: list[str]  # the name of each
    extractors: dict[str, FeatureExtractor]  # the first knows the classes
    device: torch.device

    def classes_seen(self, images: Tensor) -> Tensor:
        """The class (N,) that the first extractor sees in each of `images`."""
        return embed(next(iter(self.extractors.values())), images).logits.argmax(1)


def main(here: Pipeline, name: str) -> None:
    """Score the model `name`."""
    params = read_params(here)
    device = start(params.compute)
    train, test = load_split(TRAIN), load_split(TEST)
    made = load_generated(here.generated(name), test)
    classes = read_dataset(params).classes
    real = load_real(params.extractors, test, classes)
    extractors = {key: load_extractor(params, key, device) for key in real.by_extractor}
    context = Context(params.block("evaluate", EvaluateConfig), train, test, real, classes, extractors, device)
    result = Result()
    for part, score in SCORERS.items():
        if (found := getattr(made, part)) is not None:
            score(result, found, made, context)
    result.scores |= {"stored_numbers": Score(made.stored_numbers, 0.0), "images_seen": Score(made.images_seen, 0.0)}
    result.epochs = score_epochs(load_tensors(here.kept(name)), context)
    write_scores(here.scores(name), name, result)


def score_samples(result: Result, samples: Samples, _: Generated, context: Context) -> None:
    """Distances to the test images, diversity, memorisation, and where labels were followed, how well; the sweeps."""
    labels = samples.followed_labels
    embedded = {key: embed(network, samples.images) for key, network in context.extractors.items()}
    score_images(result, samples.images, labels, embedded, context)
    result.scores["nfe"] = Score(float(samples.nfe), 0.0)
    result.scores["multiply_adds_x1e6"] = Score(samples.multiply_adds / 1e6, 0.0)
    score_labels(result, samples.images, labels, embedded, context)
    for key, by_value in samples.sweeps.items():
        for value, images in by_value.items():
            row = few_scores(images, None if labels is None else labels[: len(images)], context)
            result.sweeps.append({"setting": key, "value": value} | row)


def score_images(
    result: Result, images: Tensor, labels: Tensor | None, embedded: dict[str, Embedding], context: Context
) -> None:
    """Distances of sample `images` to the test images, in all and within classes, diversity and memorisation.

    Args:
        result: gets the scores.
        images: uint8 (N, 1, 28, 28).
        labels: the classes (N,) that they follow; None if they follow none.
        embedded: the images, as each extractor sees them.
        context: what they are compared with.
    """
    result.features = {
        key: feature_scores(embedded[key].features, labels, features, context.config)
        for key, features in context.real.by_extractor.items()
    }
    result.per_class |= next(iter(result.features.values())).per_class
    result.scores |= leading_scores(result.features)
    found = nearest_neighbours(images, context.train.images).distances
    result.scores |= memorisation(found, context.real.test_neighbours)._asdict()


def score_labels(
    result: Result, images: Tensor, labels: Tensor | None, embedded: dict[str, Embedding], context: Context
) -> None:
    """How well sample `images` follow their labels; the shares of the classes if they follow none."""
    seen = next(iter(embedded.values())).logits.argmax(1)
    if labels is None:
        result.per_class["share"] = class_shares(seen, context.classes)
    else:
        right = seen == labels
        result.scores["label_accuracy"] = mean_score(right)
        result.per_class["label_accuracy"] = class_means(right, labels, context.classes)
        if len(labels.unique()) == len(context.classes):
            made, test = Split(images, labels).to(context.device), context.test.to(context.device)
            result.scores["cas"] = classification_accuracy(made, test, seed=context.config.seed)


def class_shares(seen: Tensor, classes: list[str]) -> dict[str, float]:
    """Which share of samples the classifier gives each class."""
    shares = torch.bincount(seen, minlength=len(classes)).double() / len(seen)
    return dict(zip(classes, shares.tolist(), strict=True))


def few_scores(images: Tensor, labels: Tensor | None, context: Context) -> Row:
    """Scores that 2,000 samples allow: distances in every extractor's features, overlap, and label accuracy."""
    row: Row = {}
    for key, network in context.extractors.items():
        embedded, real = embed(network, images), context.real.by_extractor[key]
        size = min(context.config.kernel_subset_size, len(images) // 5)
        kernel = kernel_distance(embedded.features, real.test.features, subset_size=size, seed=context.config.seed)
        row[f"{key}.kernel_x1000"], row[f"{key}.kernel_x1000_error"] = 1000 * kernel.value, 1000 * kernel.error
        if enough_for_covariance(*embedded.features.shape):
            sets = statistics(embedded.features), statistics(real.test.features)
            row[f"{key}.frechet_distance"] = frechet_distance(*sets)
        shared = overlap(embedded.features, real.test.features, real.test_radii)._asdict()
        row |= {f"{key}.{score}": shared[score].value for score in ("precision", "recall")}
        if labels is not None and network.classifies and "label_accuracy" not in row:
            row["label_accuracy"] = float((embedded.logits.argmax(1) == labels).double().mean())
    return row


def score_epochs(kept: dict[str, Tensor], context: Context) -> list[Row]:
    """Scores of the samples that were kept during the training, by epoch."""
    return [{"epoch": int(epoch)} | few_scores(kept[epoch], None, context) for epoch in sorted(kept, key=int)]


def score_encodings(result: Result, encodings: Encodings, _: Generated, context: Context) -> None:
    """Reconstructions of the test split, a linear method's beside them, and interpolations."""
    test, latents = context.test, encodings.latents
    overall, by_class = reconstruction_summary(test, encodings.reconstructions, context.classes)
    floor = pca_error(context.train.images, test.images, min(latents.shape[1], test.images[0].numel()))
    result.scores |= overall | {"pca_mse_x1000": mean_score(1000 * floor)}
    result.scores["latent_dimensions"] = Score(latents.shape[1], 0.0)
    result.scores["decoder_rank"] = Score(encodings.decoder_rank, 0.0)
    seen = context.classes_seen(encodings.paths.flatten(0, 1)).view(encodings.paths.shape[:2])
    result.scores |= path_summary(seen, test.labels[encodings.path_ends])
    result.per_class |= by_class


def score_grid(result: Result, grid: Grid, _: Generated, context: Context) -> None:
    """What the plane can hold: its nearest image to each test image, in the place of reconstructions and samples."""
    errors = reconstruction_scores(context.test.images, grid.nearest).mse
    result.scores["plane_mse_x1000"] = mean_score(1000 * errors)
    different, places = torch.unique(grid.nearest, dim=0, return_inverse=True)  # nearest to more than one
    by_extractor = {
        key: pair_distances(
            embed(network, different).features[places], context.real.by_extractor[key].test.features, context.config
        )
        for key, network in context.extractors.items()
    }
    result.scores |= {f"plane_{key}": score for key, score in leading_distances(by_extractor).items()}


def reconstruction_summary(test: Split, reconstructions: Tensor, classes: list[str]) -> tuple[Scores, PerClass]:
    """Means over the test split and over each class of the per-image reconstruction scores."""
    values = reconstruction_scores(test.images, reconstructions)._asdict()
    values["mse_x1000"] = 1000 * values.pop("mse")
    summary = {key: mean_score(value) for key, value in values.items()}
    return summary, {key: class_means(value, test.labels, classes) for key, value in values.items()}


def path_summary(seen: Tensor, ends: Tensor) -> Scores:
    """How often the classes `seen` (P, S) at points of interpolations are one of their `ends` (P, 2)."""
    kept = (seen.unsqueeze(2) == ends.unsqueeze(1)).any(2).double().mean(1)
    within = ends[:, 0] == ends[:, 1]
    return {"path_within_kept": mean_score(kept[within]), "path_between_kept": mean_score(kept[~within])}


def score_likelihood(result: Result, likelihood: LikelihoodOf, made: Generated, _: Context) -> None:
    """The log-likelihood (nats per image) by its kind, its parts, and bits per dimension of dequantised images."""
    mean = mean_score(likelihood.nats.double())
    score = Score(mean.value, math.hypot(mean.error, likelihood.shared_error))
    name = "elbo" if made.posterior is not None else f"log_p_{likelihood.kind}"
    suffix = "_binary" if likelihood.of == "binary" else ""
    result.scores[name + suffix] = score
    dequantised = likelihood.nats if likelihood.of == "dequantised" else likelihood.dequantised
    if dequantised is not None:
        density = mean_score(dequantised.double())
        result.scores["bits_per_dim"] = Score(_BITS - density.value / _UNIT, density.error / _UNIT)
    if likelihood.lower_bound is not None:
        part = likelihood.nats[: len(likelihood.lower_bound)].double()
        below = tightened_bound(likelihood.nats.double(), part, likelihood.lower_bound.double())
        result.scores[f"log_p_lower{suffix}"] = below
    result.scores |= {key: mean_score(part.double()) for key, part in likelihood.parts.items()}


def score_posterior(result: Result, posterior: Posterior, made: Generated, _: Context) -> None:
    """The importance-weighted bound (nats per image), and active units."""
    assert made.likelihood is not None
    weights = posterior.log_weights.double()
    bound = tightened_bound(made.likelihood.nats.double(), weights.mean(1), importance_weighted_bound(weights))
    result.scores["iw_bound"] = bound
    result.scores["active_units"] = Score(float(active_units(posterior.means)), 0.0)


def score_translations(result: Result, translations: Translations, _: Generated, context: Context) -> None:
    """Translations, cycles, and distances to the target domain; what a classifier of the first domain makes of both.

    Beside the translation of each image stand the untranslated image, and the mean training image of its class.
    """
    domains = (context.test.images, translations.rendered)
    for source, way in enumerate(("there", "back")):
        given, truth, answer = domains[source], domains[1 - source], translations.there[source]
        compared = {
            way: (truth, answer),
            f"{way}_untranslated": (truth, given),
            f"{way}_class_mean": (truth, translations.class_means[1 - source][context.test.labels]),
            f"{way}_cycle": (given, translations.back[source]),
        }
        for key, (wanted, found) in compared.items():
            values = reconstruction_scores(wanted, found)
            result.scores[f"{key}_mse_x1000"] = mean_score(1000 * values.mse)
            result.scores[f"{key}_ssim"] = mean_score(values.ssim)
        by_extractor = {
            key: pair_distances(embed(network, answer).features, embed(network, truth).features, context.config)
            for key, network in context.extractors.items()
        }
        result.scores |= {f"{way}_{key}": score for key, score in leading_distances(by_extractor).items()}
    judged = {"source": domains[0], "target": domains[1], "back": translations.there[1]}
    for key, images in judged.items():
        result.scores[f"{key}_accuracy"] = mean_score(context.classes_seen(images) == context.test.labels)


def score_prompted(result: Result, prompted: Prompted, _: Generated, context: Context) -> None:
    """How often class and attributes are those of the prompt, by group of prompts, and for real images."""
    right = context.classes_seen(prompted.images) == prompted.labels
    for group in dict.fromkeys(prompted.groups):
        chosen = torch.tensor([other == group for other in prompted.groups])
        result.scores[f"prompt_class_{group}"] = mean_score(right[chosen])
        result.scores[f"prompt_attributes_{group}"] = mean_score(prompted.matches[chosen])
        result.scores[f"prompt_match_{group}"] = mean_score((right & prompted.matches)[chosen])
    real = next(iter(context.real.by_extractor.values())).test.logits.argmax(1) == context.test.labels
    result.scores["prompt_match_real"] = mean_score(real & prompted.caption_matches)


def score_denoiser(result: Result, denoiser: Denoiser, _: Generated, __: Context) -> None:
    """The share of directions of strong noise that leave no trace in what the network makes of it."""
    result.scores["lost_directions"] = Score(denoiser.lost_directions / denoiser.directions, 0.0)


SCORERS: dict[str, Callable[[Result, Any, Generated, Context], None]] = {  # by the part of what was generated
    "samples": score_samples,
    "encodings": score_encodings,
    "grid": score_grid,
    "likelihood": score_likelihood,
    "posterior": score_posterior,
    "translations": score_translations,
    "prompted": score_prompted,
    "denoiser": score_denoiser,
}
