"""Stage `evaluate_real`: the same scores for real images, the floor that no model can be trusted to beat.

Training images, as many as there are test images, take the place of the samples. The label accuracy is that of the
extractor on the test images, which it has never seen; memorisation compares the test images with themselves.
"""

from generative.data import Split, load_split
from generative.files import write_json
from generative.runtime import ComputeConfig, start
from generative.scores.classification import classification_accuracy
from generative.scores.memorisation import memorisation
from stages.cli import run
from stages.evaluate import class_means, class_scores, distances, finite
from stages.params import read_block
from stages.paths import TEST, TRAIN
from stages.result_paths import scores
from stages.scoring import EvaluateConfig, load_real


def main() -> None:
    """Score real images."""
    config = read_block("evaluate", EvaluateConfig)
    device = start(read_block("compute", ComputeConfig))
    train, test = load_split(TRAIN), load_split(TEST)
    real = load_real(test)
    count = len(real.train_features)
    part = Split(train.images[:count], train.labels[:count])
    summary = distances(real.train_features, real, config)
    summary |= memorisation(real.test_neighbours, real.test_neighbours)._asdict()
    overall, per_class = class_scores(real.train_features, part.labels, real)
    right = (real.test.logits.argmax(1) == test.labels).double()
    summary |= overall | {
        "label_accuracy": float(right.mean()),
        "cas": classification_accuracy(part.to(device), test.to(device), seed=config.seed),
    }
    per_class["label_accuracy"] = class_means(right, test.labels)
    write_json(scores("real"), {"summary": finite(summary, "real"), "per_class": per_class})


if __name__ == "__main__":
    run(main)
