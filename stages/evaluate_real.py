"""Stage `evaluate_real`: the same scores for real images, the floor that no model can be trusted to beat.

Training images, as many as there are test images, take the place of the samples. The label accuracy is that of the
first extractor on the test images, which it has never seen; memorisation compares the test images with themselves.
"""

from generative.compute.runtime import start
from generative.data.splits import Split, load_split
from generative.scores.classification import classification_accuracy
from generative.scores.memorisation import memorisation
from generative.scores.score import Score, mean_score
from stages.common.dataset import read_dataset
from stages.common.params import read_params
from stages.common.paths import REAL, TEST, TRAIN, Pipeline
from stages.common.scoring import (
    EvaluateConfig,
    Result,
    class_means,
    feature_scores,
    leading_scores,
    load_real,
    write_scores,
)


def main(here: Pipeline) -> None:
    """Score real images."""
    params = read_params(here)
    config = params.block("evaluate", EvaluateConfig)
    device = start(params.compute)
    train, test = load_split(TRAIN), load_split(TEST)
    classes = read_dataset(params).classes
    real = load_real(params.extractors, test, classes)
    first = next(iter(real.by_extractor.values()))
    count = len(first.train_features)
    part = Split(train.images[:count], train.labels[:count])
    by_extractor = {
        key: feature_scores(features.train_features, part.labels, features, config)
        for key, features in real.by_extractor.items()
    }
    right = first.test.logits.argmax(1) == test.labels
    itself = memorisation(real.test_neighbours, real.test_neighbours)._asdict()
    scores = leading_scores(by_extractor) | {key: Score(score.value, 0.0) for key, score in itself.items()}
    scores["label_accuracy"] = mean_score(right)
    scores["cas"] = classification_accuracy(part.to(device), test.to(device), seed=config.seed)
    per_class = next(iter(by_extractor.values())).per_class | {
        "label_accuracy": class_means(right, test.labels, classes)
    }
    write_scores(here.scores(REAL), REAL, Result(scores, by_extractor, per_class))
