"""Stage `evaluate@MODEL`: scores what a model generated against the 10,000 test images.

data/scores/MODEL.json holds, each explained with its unit in docs/scores.md,
- `scores`: name to value, with the distances in the features of the first extractor;
- `errors`: the standard errors of the same names;
- `features`: for every extractor the same distances in its features, `scores` and `errors`;
- `per_class`: scores by class.
"""

from torch import Tensor

from generative.compute.runtime import start
from generative.data.splits import Split, load_split
from generative.extractor import FeatureExtractor, embed
from generative.scores.classification import classification_accuracy
from generative.scores.likelihood import active_units, importance_weighted_bound, tightened_bound
from generative.scores.memorisation import memorisation, nearest_neighbours
from generative.scores.pca import pca_error
from generative.scores.reconstruction import reconstruction_scores
from generative.scores.score import Score, mean_score
from stages.common.extractors import load_extractor
from stages.common.generated import Bounds, load_generated
from stages.common.params import read_params
from stages.common.paths import TEST, TRAIN
from stages.common.scoring import (
    EvaluateConfig,
    PerClass,
    Scores,
    class_means,
    feature_scores,
    leading_scores,
    load_real,
    write_scores,
)


def main(name: str) -> None:
    """Score the model `name`."""
    params = read_params()
    config = params.block("evaluate", EvaluateConfig)
    device = start(params.compute)
    train, test = load_split(TRAIN), load_split(TEST)
    made = load_generated(name, len(test))
    real = load_real(params.extractors, test)
    extractors = {key: load_extractor(params, key, device) for key in real.by_extractor}
    classifier = next(iter(extractors.values()))

    labels = made.followed_labels
    embedded = {key: embed(network, made.samples) for key, network in extractors.items()}
    by_extractor = {
        key: feature_scores(embedded[key].features, labels, features, config)
        for key, features in real.by_extractor.items()
    }
    per_class = dict(next(iter(by_extractor.values())).per_class)
    result = leading_scores(by_extractor)
    found = nearest_neighbours(made.samples, train.images).distances
    result |= memorisation(found, real.test_neighbours)._asdict()
    if labels is not None:
        right = next(iter(embedded.values())).logits.argmax(1) == labels
        samples = Split(made.samples, labels).to(device)
        result["label_accuracy"] = mean_score(right)
        result["cas"] = classification_accuracy(samples, test.to(device), seed=config.seed)
        per_class["label_accuracy"] = class_means(right, labels)
    if made.encodings is not None:
        overall, by_class = reconstruction_summary(test, made.encodings.reconstructions)
        components = min(made.encodings.latents.shape[1], test.images[0].numel())
        floor = pca_error(train.images, test.images, components)
        result |= overall | {"pca_mse_x1000": mean_score(1000 * floor)}
        result |= path_summary(classifier, made.encodings.paths, test.labels[made.encodings.path_ends])
        per_class |= by_class
    if made.bounds is not None:
        result |= likelihood_summary(made.bounds)
    write_scores(name, result, by_extractor, per_class)


def reconstruction_summary(test: Split, reconstructions: Tensor) -> tuple[Scores, PerClass]:
    """Means over the test split and over each class of the per-image reconstruction scores."""
    values = reconstruction_scores(test.images, reconstructions)._asdict()
    values["mse_x1000"] = 1000 * values.pop("mse")
    summary = {key: mean_score(value) for key, value in values.items()}
    return summary, {key: class_means(value, test.labels) for key, value in values.items()}


def likelihood_summary(bounds: Bounds) -> Scores:
    """The evidence lower bound, its terms, the importance-weighted bound (nats per image), and active units."""
    recon, kl, weights = bounds.loss_recon.double(), bounds.loss_kl.double(), bounds.log_weights.double()
    return {
        "elbo": mean_score(-(recon + kl)),
        "iw_bound": tightened_bound(-(recon + kl), weights.mean(1), importance_weighted_bound(weights)),
        "loss_recon": mean_score(recon),
        "loss_kl": mean_score(kl),
        "active_units": Score(float(active_units(bounds.posterior_means)), 0.0),
    }


def path_summary(classifier: FeatureExtractor, paths: Tensor, ends: Tensor) -> Scores:
    """How often the classifier gives points of an interpolation (P, S, ...) a class of its `ends` (P, 2)."""
    seen = embed(classifier, paths.flatten(0, 1)).logits.argmax(1).view(paths.shape[:2])
    kept = (seen.unsqueeze(2) == ends.unsqueeze(1)).any(2).double().mean(1)
    within = ends[:, 0] == ends[:, 1]
    return {"path_within_kept": mean_score(kept[within]), "path_between_kept": mean_score(kept[~within])}
