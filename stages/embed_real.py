"""Stage `embed_real`: what the scores of every model need of the real images, computed once.

data/features/real.safetensors holds, for each extractor E,
- `E.test_features` float32 (10000, d), `E.test_logits` float32 (10000, 10 or 0): the extractor on the test split;
- `E.train_features` float32 (10000, d): on as many training images, which take the place of samples in the row `real`;
- `E.radii_small`, `E.radii_large` float32 (10000,): the balls around the test features (generative/scores/manifold.py);
and `test_neighbours` float32 (10000,): pixel distance from each test image to the nearest training image. The
metadata hold the SHA-256 of each extractor's weights, and what its training minimised.
"""

import hashlib

from torch import Tensor

from generative.compute.runtime import start
from generative.data.splits import load_split
from generative.extractor import embed
from generative.io.tensors import load_metadata, save_tensors
from generative.scores.manifold import neighbour_radii
from generative.scores.memorisation import nearest_neighbours
from stages.common.extractors import load_extractor
from stages.common.leftovers import tidy
from stages.common.params import read_params
from stages.common.paths import REAL_FEATURES, TEST, TRAIN, Pipeline, extractor


def main(here: Pipeline) -> None:
    """Embed the real images with every extractor."""
    params = read_params(here)
    tidy(params)
    device = start(params.compute)
    train, test = load_split(TRAIN), load_split(TEST)
    tensors: dict[str, Tensor] = {"test_neighbours": nearest_neighbours(test.images, train.images).distances}
    for name in params.extractors:
        network = load_extractor(params, name, device)
        embedded = embed(network, test.images)
        radii = neighbour_radii(embedded.features)
        tensors |= {
            f"{name}.test_features": embedded.features,
            f"{name}.test_logits": embedded.logits,
            f"{name}.train_features": embed(network, train.images[: len(test)]).features,  # the split is shuffled
            f"{name}.radii_small": radii.small,
            f"{name}.radii_large": radii.large,
        }
    hashes = {name: hashlib.sha256(extractor(name).read_bytes()).hexdigest() for name in params.extractors}
    losses = {name: load_metadata(extractor(name)).get("losses", {}) for name in params.extractors}
    save_tensors(REAL_FEATURES, tensors, {"extractors": hashes, "losses": losses})
