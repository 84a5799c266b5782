"""The scores as a whole, on real images: they grow with distortions, and each cheating model is exposed by one."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from generative.checkpoints import Checkpoints
from generative.data import NUM_CLASSES, Split, to_uint8, to_unit
from generative.extractor import Extractor, ExtractorConfig, ExtractorObjective, embed
from generative.runtime import make_rng
from generative.scores.memorisation import memorisation, nearest_neighbours
from generative.training import fit
from stages.evaluate import class_scores, distances
from stages.prepare import read_idx
from stages.scoring import EvaluateConfig, RealFeatures
from tests.small import PARAMS

TRAIN, TEST = 6000, 2000
CONFIG = EvaluateConfig(seed=0, bootstraps=5, kernel_subsets=20, kernel_subset_size=500)


class Protocol(NamedTuple):
    """Real images, a small extractor trained on some of them, and what the scores need of the others."""

    train: Split
    test: Split
    extractor: Extractor
    real: RealFeatures

    def scores(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """What `evaluate` says about `images`, without the trained classifier of CAS."""
        embedded = embed(self.extractor, images)
        overall, _ = class_scores(embedded.features, labels, self.real)
        found = nearest_neighbours(images, self.train.images).distances
        return {
            **distances(embedded.features, self.real, CONFIG),
            **overall,
            **memorisation(found, self.real.test_neighbours)._asdict(),
            "label_accuracy": float((embedded.logits.argmax(1) == labels).double().mean()),
        }


@pytest.fixture(scope="module")
def protocol(raw_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    official = Split(*read_idx(raw_folder, "train"))
    train = Split(official.images[:TRAIN], official.labels[:TRAIN])
    held_out = Split(*read_idx(raw_folder, "t10k"))
    test = Split(held_out.images[:TEST], held_out.labels[:TEST])
    config = ExtractorConfig.parse(PARAMS["extractor"] | {"epochs": 3, "channels": 12}, where="extractor")
    torch.manual_seed(0)
    extractor, fabric = Extractor(config), Fabric(accelerator="cpu", devices=1)
    objective = ExtractorObjective(extractor, config, fabric, 3 * (TRAIN // config.batch_size))
    fit(
        extractor,
        objective,
        train,
        test,
        name="extractor",
        epochs=3,
        batch_size=config.batch_size,
        seed=0,
        fabric=fabric,
        checkpoints=Checkpoints(tmp_path_factory.mktemp("extractor"), "x"),
        on_epoch=lambda _: None,
    )
    embedded = embed(extractor, test.images)
    real = RealFeatures(
        embedded,
        embed(extractor, train.images).features,
        nearest_neighbours(test.images, train.images).distances,
        test.labels,
    )
    return Protocol(train, test, extractor, real)


@pytest.fixture(scope="module")
def fresh(raw_folder: Path) -> Split:
    """Real images that are in neither split."""
    held_out = Split(*read_idx(raw_folder, "t10k"))
    return Split(held_out.images[TEST : 2 * TEST], held_out.labels[TEST : 2 * TEST])


def noise(x: Tensor, strength: float) -> Tensor:
    return x + 0.3 * strength * torch.randn(x.shape, generator=make_rng(1))


def blur(x: Tensor, strength: float) -> Tensor:
    offsets = torch.arange(-6.0, 7)
    weights = torch.exp(-(offsets.square()) / (2 * (2.5 * strength) ** 2))
    weights /= weights.sum()
    return F.conv2d(F.conv2d(x, weights.view(1, 1, 13, 1), padding=(6, 0)), weights.view(1, 1, 1, 13), padding=(0, 6))


def salt_and_pepper(x: Tensor, strength: float) -> Tensor:
    rng = make_rng(1)
    hit = torch.rand(x.shape, generator=rng) < 0.3 * strength
    return torch.where(hit, (torch.rand(x.shape, generator=rng) < 0.5).float(), x)


def swirl(x: Tensor, strength: float) -> Tensor:
    line = torch.linspace(-1, 1, 28)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    angle = 3 * strength * torch.exp(-2 * (rows.square() + columns.square()))
    turned = torch.stack(
        [columns * angle.cos() - rows * angle.sin(), columns * angle.sin() + rows * angle.cos()], dim=-1
    )
    return F.grid_sample(x, turned.expand(len(x), -1, -1, -1), align_corners=True)


def black_rectangle(x: Tensor, strength: float) -> Tensor:
    side = round(20 * strength)
    x = x.clone()
    x[:, :, 4 : 4 + side, 4 : 4 + side] = 0
    return x


def dropped_classes(x: Tensor, strength: float) -> Tensor:
    """Images of the first classes give way to copies of others; `x` is sorted by class."""
    start = round(0.8 * strength * len(x))
    kept = x[start:]
    return kept[torch.arange(len(x)) % len(kept)]


@pytest.mark.parametrize("distort", [noise, blur, salt_and_pepper, swirl, black_rectangle, dropped_classes])
def test_distances_grow_with_the_strength_of_a_distortion(
    distort: Callable[[Tensor, float], Tensor], protocol: Protocol, fresh: Split
) -> None:
    x = to_unit(fresh.images[fresh.labels.argsort(stable=True)])
    rows = [distances(embed(protocol.extractor, to_uint8(x)).features, protocol.real, CONFIG)]
    for strength in (0.33, 0.66, 1.0):
        images = to_uint8(distort(x, strength).clamp(0, 1))
        rows.append(distances(embed(protocol.extractor, images).features, protocol.real, CONFIG))
    for key, error in (
        ("frechet_distance", "frechet_error"),
        ("frechet_infinite", "frechet_infinite_error"),
        ("kernel_x1000", "kernel_error_x1000"),
    ):
        values = [row[key] for row in rows]
        assert values == sorted(values), f"{key}: {values}"
        assert values[-1] - values[0] > 10 * max(row[error] for row in rows[:2])


class TestCheaters:
    def test_honest_images_pass(self, protocol: Protocol, fresh: Split) -> None:
        scores = protocol.scores(fresh.images, fresh.labels)
        assert scores["neighbour_ratio"] == pytest.approx(1, abs=0.05)
        assert scores["copied"] < 0.03
        assert scores["diversity"] == pytest.approx(1, abs=0.05)
        assert min(scores["recall"], scores["coverage"], scores["precision"]) > 0.7

    def test_copies_of_training_images(self, protocol: Protocol) -> None:
        copies = Split(protocol.train.images[:TEST], protocol.train.labels[:TEST])
        scores = protocol.scores(copies.images, copies.labels)
        assert scores["copied"] == 1
        assert scores["neighbour_ratio"] == 0
        assert min(scores["precision"], scores["recall"], scores["label_accuracy"]) > 0.7  # all else looks well

    def test_one_image_per_class(self, protocol: Protocol, fresh: Split) -> None:
        right = embed(protocol.extractor, fresh.images).logits.argmax(1) == fresh.labels
        first = torch.stack([(right & (fresh.labels == label)).nonzero()[0, 0] for label in range(NUM_CLASSES)])
        labels = torch.arange(TEST) % NUM_CLASSES
        scores = protocol.scores(fresh.images[first][labels], labels)
        honest = protocol.scores(fresh.images, fresh.labels)
        assert scores["label_accuracy"] == 1  # looks best of all
        assert scores["diversity"] == 0
        assert scores["recall"] < 0.1
        assert scores["coverage"] < 0.1
        assert scores["frechet_intra"] > 3 * honest["frechet_intra"]

    def test_noise_on_real_images(self, protocol: Protocol, fresh: Split) -> None:
        images = to_uint8(noise(to_unit(fresh.images), 0.33).clamp(0, 1))
        scores = protocol.scores(images, fresh.labels)
        honest = protocol.scores(fresh.images, fresh.labels)
        gap = scores["frechet_distance"] - honest["frechet_distance"]
        assert gap > 5 * max(scores["frechet_error"], honest["frechet_error"])
        assert scores["precision"] < honest["precision"] - 0.05
