"""Stage `evaluate_real`: the same scores for real images, the floor that no model can be trusted to beat.

Training images, as many as there are test images, take the place of the samples in the Fréchet distance. The
label accuracy is that of the extractor on the test images, which it has never seen.
"""

from generative.data import load_split
from generative.extractor import Embedding, embed
from generative.files import write_json
from stages.cli import run
from stages.evaluate import finite, load_extractor, sample_scores
from stages.paths import TEST, TRAIN
from stages.result_paths import scores


def main() -> None:
    """Score real images."""
    extractor = load_extractor()
    train, test = load_split(TRAIN), load_split(TEST)
    embedded_test = embed(extractor, test.images)
    embedded_train = embed(extractor, train.images[: len(test)])  # the split is shuffled: a random part
    summary, per_class = sample_scores(
        Embedding(embedded_train.features, embedded_test.logits), test.labels, embedded_test
    )
    write_json(scores("real"), {"summary": finite(summary, "real"), "per_class": per_class})


if __name__ == "__main__":
    run(main)
