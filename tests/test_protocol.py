"""The scores as a whole, on real images: they grow with distortions, and each cheating model is exposed by one."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from benchmarks import distortions
from generative.data.splits import Split, to_uint8, to_unit
from generative.extractor import FeatureExtractor, embed, load_extractor_kind
from generative.scores.manifold import neighbour_radii
from generative.scores.memorisation import memorisation, nearest_neighbours
from generative.scores.score import Score, mean_score
from generative.training.checkpoints import Checkpoints
from generative.training.loop import fit
from stages.common.scoring import EvaluateConfig, FeatureScores, RealFeatures, feature_scores, leading_scores
from stages.prepare import read_idx
from tests.small import CLASSES, PARAMS

TRAIN, TEST = 6000, 2000
OUTSIDE = "imagenet"
STEPS = {"classifier": 1, "bottleneck": 1, OUTSIDE: 8}  # the slow extractor sees every eighth image
CONFIG = EvaluateConfig(seed=0, kernel_subset_size=500)


class Protocol(NamedTuple):
    """Real images, extractors (small ones, trained on some of them, and one from outside), and what scores need."""

    train: Split
    test: Split
    extractors: dict[str, FeatureExtractor]
    real: dict[str, RealFeatures]
    test_neighbours: Tensor

    def features(self, images: Tensor, labels: Tensor | None) -> dict[str, FeatureScores]:
        """What `evaluate` says about `images` in the features of each extractor."""
        found = {}
        for key, network in self.extractors.items():
            step = STEPS[key]
            chosen = None if labels is None else labels[::step]
            found[key] = feature_scores(embed(network, images[::step]).features, chosen, self.real[key], CONFIG)
        return found

    def classes(self, images: Tensor) -> Tensor:
        """What the classifier takes `images` for."""
        return embed(self.extractors["classifier"], images).logits.argmax(1)

    def scores(self, images: Tensor, labels: Tensor) -> dict[str, Score]:
        """What `evaluate` says about `images`, without the trained classifier of CAS."""
        found = nearest_neighbours(images, self.train.images).distances
        return {
            **leading_scores(self.features(images, labels)),
            **memorisation(found, self.test_neighbours)._asdict(),
            "label_accuracy": mean_score(self.classes(images) == labels),
        }


def train_extractor(name: str, train: Split, test: Split, folder: Path, **changes: Any) -> FeatureExtractor:
    kind = load_extractor_kind(name, where="test")
    config = kind.Config.parse(PARAMS["extractors"][name] | changes, where="test")
    torch.manual_seed(0)
    network, fabric = kind.Model(config, train.num_classes), Fabric(accelerator="cpu", devices=1)
    objective = kind.Objective(network, config, fabric, config.epochs * (len(train) // config.batch_size))
    settings: dict[str, Any] = {"name": name, "epochs": config.epochs, "batch_size": config.batch_size, "seed": 0}
    checkpoints = Checkpoints(folder / name, "x")
    fit(network, objective, train, test, fabric=fabric, checkpoints=checkpoints, on_epoch=lambda _: None, **settings)
    return network


@pytest.fixture(scope="module")
def protocol(raw_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    official = Split(*read_idx(raw_folder, "train", CLASSES))
    train = Split(official.images[:TRAIN], official.labels[:TRAIN])
    held_out = Split(*read_idx(raw_folder, "t10k", CLASSES))
    test = Split(held_out.images[:TEST], held_out.labels[:TEST])
    folder = tmp_path_factory.mktemp("extractors")
    extractors = {
        "classifier": train_extractor("classifier", train, test, folder, epochs=3, channels=12),
        "bottleneck": train_extractor("bottleneck", train, test, folder, epochs=4, channels=16, features=32),
    }
    imagenet = load_extractor_kind(OUTSIDE, where="test")
    extractors[OUTSIDE] = imagenet.fetch(imagenet.Config(kind=OUTSIDE, image_size=112))
    real = {}
    for name, network in extractors.items():
        step = STEPS[name]
        embedded = embed(network, test.images[::step])
        radii = neighbour_radii(embedded.features)
        seen = train.images[: TEST if name == OUTSIDE else TRAIN : step]
        real[name] = RealFeatures(embedded, test.labels[::step], radii, embed(network, seen).features, CLASSES)
    return Protocol(train, test, extractors, real, nearest_neighbours(test.images, train.images).distances)


@pytest.fixture(scope="module")
def fresh(raw_folder: Path) -> Split:
    """Real images that are in neither split."""
    held_out = Split(*read_idx(raw_folder, "t10k", CLASSES))
    return Split(held_out.images[TEST : 2 * TEST], held_out.labels[TEST : 2 * TEST])


@pytest.mark.parametrize("distort", distortions.ALL)
def test_distances_grow_with_the_strength_of_a_distortion(
    distort: distortions.Distortion, protocol: Protocol, fresh: Split
) -> None:
    x = to_unit(fresh.images[fresh.labels.argsort(stable=True)])
    distorted = [x, *(distort(x, strength).clamp(0, 1) for strength in (0.33, 0.66, 1.0))]
    rows = [protocol.features(to_uint8(images), None) for images in distorted]
    for extractor in protocol.extractors:
        wanted = {"frechet_distance", "frechet_infinite", "kernel_x1000"} & set(rows[0][extractor].overall)
        assert len(wanted) == 3 or extractor == OUTSIDE  # which has more dimensions than there are images
        for key in wanted:
            scores = [row[extractor].overall[key] for row in rows]
            values = [score.value for score in scores]
            assert values == sorted(values), f"{extractor}, {key}: {values}"
            assert values[-1] - values[0] > 10 * max(score.error for score in scores[:2])


class TestCheaters:
    def test_honest_images_pass(self, protocol: Protocol, fresh: Split) -> None:
        scores = protocol.scores(fresh.images, fresh.labels)
        assert scores["neighbour_ratio"].value == pytest.approx(1, abs=0.05)
        assert scores["copied"].value < 0.03
        assert scores["diversity"].value == pytest.approx(1, abs=0.05)
        assert min(scores["recall"].value, scores["coverage"].value, scores["precision"].value) > 0.7

    def test_copies_of_training_images(self, protocol: Protocol) -> None:
        copies = Split(protocol.train.images[:TEST], protocol.train.labels[:TEST])
        scores = protocol.scores(copies.images, copies.labels)
        assert scores["copied"].value == 1
        assert scores["neighbour_ratio"].value == 0
        assert (
            min(scores["precision"].value, scores["recall"].value, scores["label_accuracy"].value) > 0.7
        )  # all else looks well

    def test_one_image_per_class(self, protocol: Protocol, fresh: Split) -> None:
        right = protocol.classes(fresh.images) == fresh.labels
        first = torch.stack([(right & (fresh.labels == label)).nonzero()[0, 0] for label in range(len(CLASSES))])
        labels = torch.arange(TEST) % len(CLASSES)
        scores = protocol.scores(fresh.images[first][labels], labels)
        honest = protocol.scores(fresh.images, fresh.labels)
        assert scores["label_accuracy"].value == 1  # looks best of all
        assert scores["diversity"].value == 0
        assert scores["recall"].value < 0.1
        assert scores["coverage"].value < 0.1
        assert scores["frechet_intra"].value > 3 * honest["frechet_intra"].value

    def test_noise_on_real_images(self, protocol: Protocol, fresh: Split) -> None:
        images = to_uint8(distortions.noise(to_unit(fresh.images), 0.33).clamp(0, 1))
        scores = protocol.scores(images, fresh.labels)
        honest = protocol.scores(fresh.images, fresh.labels)
        gap = scores["frechet_distance"].value - honest["frechet_distance"].value
        assert gap > 5 * max(scores["frechet_distance"].error, honest["frechet_distance"].error)
        assert scores["precision"].value < honest["precision"].value - 0.05
