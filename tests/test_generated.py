"""What `generate` wrote is checked whole before it is scored or drawn: a malformed file is one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generative.capabilities.encoding import EncodesImages
from generative.data.splits import Split, balanced_labels
from generative.errors import FileDamagedError
from generative.io.tensors import save_tensors
from stages.common.generated import PLANE_SIDE, load_generated
from stages.generate import GenerateConfig, Task, make_encodings
from tests.small import CLASSES, PARAMS

TEST_SIZE = 30
PATH = Path("data/generated/vae.safetensors")
WORDS: dict[str, Any] = {
    "within": ["Bag"],
    "between": [["Bag", "Coat"]] * 2,
    "losses": {},
    "stored_numbers": 7,
    "images_seen": 60,
    "decoder_rank": 2,
    "denoiser": {"sigma": 20.0, "lost_directions": 3, "directions": 784},
    "nfe": 1,
    "multiply_adds": 2.0,
    "sweeps": {"steps": [1, 2]},
    "likelihood": {"kind": "bound", "of": "intensities", "shared_error": 0.0},
    "domains": ["photographs", "drawings"],
    "prompts": ["a bag"] * 4,
    "prompt_groups": ["seen"] * 4,
}


SAYING = {
    "samples",
    "latents",
    "grid",
    "log_likelihood",
    "likelihood.loss_kl",
    "log_weights",
    "rendered",
    "prompted",
}  # what there is


def images(*shape: int) -> Tensor:
    return torch.zeros(*shape, 1, 28, 28, dtype=torch.uint8)


TEST = Split(images(TEST_SIZE), balanced_labels(TEST_SIZE, 10))


def whole() -> dict[str, Tensor]:
    """All that a model can have, of few images."""
    return {
        "samples": images(20),
        "labels": torch.arange(20) % 10,
        "latents": torch.zeros(TEST_SIZE, 2),
        "reconstructions": images(TEST_SIZE),
        "interpolations": images(3, 5),
        "interpolation_ends": torch.zeros(3, 2, dtype=torch.int64),
        "animation": images(7),
        "paths": images(4, 3),
        "path_ends": torch.zeros(4, 2, dtype=torch.int64),
        "grid": images(9),
        "grid_axis": torch.zeros(3, 2),
        "plane_nearest": images(TEST_SIZE),
        "sweep.steps.0": images(6),
        "sweep.steps.1": images(6),
        "log_likelihood": torch.zeros(TEST_SIZE),
        "likelihood.loss_kl": torch.zeros(TEST_SIZE),
        "posterior_means": torch.zeros(TEST_SIZE, 2),
        "log_weights": torch.zeros(6, 8),
        "rendered": images(TEST_SIZE),
        **{f"{kind}_{domain}": images(TEST_SIZE) for kind in ("translated", "cycled") for domain in (0, 1)},
        **{f"class_means_{domain}": images(10) for domain in (0, 1)},
        "prompted": images(4),
        "prompt_labels": torch.zeros(4, dtype=torch.int64),
        "prompt_matches": torch.ones(4, dtype=torch.bool),
        "caption_matches": torch.ones(TEST_SIZE, dtype=torch.bool),
    }


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Tensor]], None]:
    monkeypatch.chdir(tmp_path)
    return lambda tensors: save_tensors(PATH, tensors, WORDS)


def test_whole_file_is_read(write: Callable[[dict[str, Tensor]], None]) -> None:
    write(whole())
    made = load_generated(PATH, TEST)
    assert None not in made
    assert made.samples is not None
    assert made.samples.followed_labels is not None
    assert list(made.samples.sweeps["steps"]) == [1, 2]
    assert made.encodings is not None
    assert made.encodings.within == ["Bag"]
    assert made.encodings.between == [("Bag", "Coat")] * 2
    assert made.likelihood is not None
    assert list(made.likelihood.parts) == ["loss_kl"]


def test_unconditional_samples_alone_are_read(write: Callable[[dict[str, Tensor]], None]) -> None:
    write(
        {name: whole()[name] for name in ("samples", "sweep.steps.0", "sweep.steps.1")}
        | {"labels": -torch.ones(20).long()}
    )
    made = load_generated(PATH, TEST)
    assert made.samples is not None
    assert made.samples.followed_labels is None
    assert made[1:7] == (None,) * 6


def test_model_of_two_classes_is_read(write: Callable[[dict[str, Tensor]], None]) -> None:
    write(whole() | {"labels": torch.arange(20) % 2})
    made = load_generated(PATH, TEST)
    assert made.samples is not None
    assert made.samples.followed_labels is not None


@pytest.mark.parametrize("name", sorted(set(whole()) - SAYING))
def test_missing_tensor_is_named(name: str, write: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = whole()
    del tensors[name]
    write(tensors)
    with pytest.raises(FileDamagedError, match=rf"data/generated/vae\.safetensors has no tensor '{name}'"):
        load_generated(PATH, TEST)


@pytest.mark.parametrize("name", sorted(whole()))
@pytest.mark.parametrize("damage", ["type", "dimensions", "numbers"])
def test_wrong_tensor_is_named(name: str, damage: str, write: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = whole()
    if damage == "type":
        tensors[name] = tensors[name].to(torch.int16)
    elif damage == "dimensions":
        tensors[name] = tensors[name].unsqueeze(0)
    elif tensors[name].dtype == torch.float32:
        tensors[name].view(-1)[1] = torch.nan
    elif tensors[name].dtype == torch.bool:
        tensors[name] = tensors[name][1:]
    elif tensors[name].dtype == torch.int64:
        tensors[name].view(-1)[1] = TEST_SIZE
    else:
        tensors[name] = tensors[name][..., :27]
    write(tensors)
    with pytest.raises(FileDamagedError, match=rf"data/generated/vae\.safetensors.*'{name}'"):
        load_generated(PATH, TEST)


@pytest.mark.parametrize(("name", "rows"), [("labels", 19), ("reconstructions", 29), ("path_ends", 3), ("grid", 8)])
def test_tensors_that_do_not_belong_together_are_refused(
    name: str, rows: int, write: Callable[[dict[str, Tensor]], None]
) -> None:
    tensors = whole()
    tensors[name] = tensors[name][:rows]
    write(tensors)
    with pytest.raises(FileDamagedError, match=f"'{name}'"):
        load_generated(PATH, TEST)


@pytest.mark.parametrize("words", [{}, {"within": 3}, {"within": ["Bag"], "between": [["Bag", "Coat"]]}])
def test_words_of_the_interpolations_are_checked(
    words: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    others = {key: value for key, value in WORDS.items() if key not in ("within", "between")}
    save_tensors(PATH, whole(), others | words)
    with pytest.raises(FileDamagedError, match="does not say which classes"):
        load_generated(PATH, TEST)


def test_labels_in_other_numbers_are_refused(write: Callable[[dict[str, Tensor]], None]) -> None:
    write(whole() | {"labels": torch.tensor([0] * 12 + [1] * 8)})
    with pytest.raises(FileDamagedError, match="equally many of each class"):
        load_generated(PATH, TEST)


class _Halves(nn.Module, EncodesImages):
    """Two numbers: the grey level of the upper half of an image, and that of the lower one."""

    def encode(self, x: Tensor) -> Tensor:
        return x.view(len(x), 2, -1).mean(2)

    def decode(self, z: Tensor) -> Tensor:
        return z.repeat_interleave(14 * 28, 1).view(-1, 1, 28, 28).clamp(0, 1)


def test_each_test_image_finds_its_nearest_on_the_plane(rng: torch.Generator) -> None:
    levels = torch.randint(0, 256, (40, 2), generator=rng, dtype=torch.uint8)
    shapes = levels.repeat_interleave(14 * 28, 1).view(-1, 1, 28, 28)
    test = Split(shapes, balanced_labels(40, 10))
    config = GenerateConfig.parse(PARAMS["generate"] | {"path_pairs": 2, "grid_size": 2}, where="generate")
    made = make_encodings(_Halves(), Task(None, config, CLASSES, test, test, torch.device("cpu")))  # type: ignore[arg-type]
    step = 255 / PLANE_SIDE  # of an even plane; that of quantiles is finer where there are images
    far = (made["plane_nearest"].int() - shapes.int()).abs().flatten(1).max(1).values
    assert far.double().mean() < 3 * step
    assert not torch.equal(made["plane_nearest"], made["plane_nearest"].flip(0))
