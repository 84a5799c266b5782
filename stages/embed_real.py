"""Stage `embed_real`: what the scores of every model need of the real images, computed once.

data/features/real.safetensors holds
- `test_features` float32 (10000, d), `test_logits` float32 (10000, 10): the extractor on the test split;
- `train_features` float32 (10000, d): on as many training images, which take the place of samples in the row `real`;
- `test_neighbours` float32 (10000,): pixel distance from each test image to the nearest training image.
"""

from generative.data import load_split
from generative.extractor import embed
from generative.scores.memorisation import nearest_neighbours
from generative.tensors import save_tensors
from stages.cli import run
from stages.paths import TEST, TRAIN
from stages.result_paths import REAL_FEATURES
from stages.scoring import load_extractor


def main() -> None:
    """Embed the real images."""
    extractor = load_extractor()
    train, test = load_split(TRAIN), load_split(TEST)
    embedded = embed(extractor, test.images)
    tensors = {
        "test_features": embedded.features,
        "test_logits": embedded.logits,
        "train_features": embed(extractor, train.images[: len(test)]).features,  # the split is shuffled
        "test_neighbours": nearest_neighbours(test.images, train.images).distances,
    }
    save_tensors(REAL_FEATURES, tensors, {})


if __name__ == "__main__":
    run(main)
