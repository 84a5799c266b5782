"""What is first done after the last epoch is done before the first; numbers that are none stop everything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import stages.train
from generative.data.splits import Split, save_split, to_uint8
from generative.errors import PipelineError
from generative.families import autoencoder, cgan
from generative.io.tensors import load_tensors, load_weights, save_tensors
from stages import generate
from stages.common.paths import ROOT as PIPELINE
from stages.common.paths import TEST
from tests.small import make_blobs, make_folder


class TestTiedWeights:
    def network(self) -> torch.nn.Module:
        network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        network[1].weight = network[0].weight
        network.add_module("again", network[0])
        return network

    def test_are_written_and_read(self, tmp_path: Path) -> None:
        network, path = self.network(), tmp_path / "tied.safetensors"
        save_tensors(path, dict(network.state_dict()))
        other = self.network()
        load_weights(other, load_tensors(path), path=path)
        x = torch.randn(4, 3)
        assert torch.equal(network(x), other(x))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_folder(tmp_path, epochs=2))
    save_split(TEST, make_blobs())
    return tmp_path


def break_down(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (autoencoder.Model, "sample"),
        (autoencoder.Model, "encode"),
        (autoencoder.Model, "grid_axis"),
        (autoencoder.Model, "prepare_sampling"),
        (autoencoder.Objective, "finish"),
    ],
)
def test_what_fails_after_the_last_epoch_fails_before_the_first(
    owner: type, method: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, break_down)
    monkeypatch.setattr(autoencoder.Objective, "step", lambda *_: pytest.fail("an epoch has begun"))
    with pytest.raises(RuntimeError, match="broken"):
        stages.train.main(PIPELINE, "autoencoder")
    assert not PIPELINE.model("autoencoder").exists()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            lambda x: x.squeeze(1),
            r"sample\(\) gives torch.float32 \(10, 28, 28\), but must give floats \(10, 1, 28, 28\)",
        ),
        (lambda x: x[:3], r"sample\(\) gives torch.float32 \(3, 1, 28, 28\)"),
        (lambda _: None, r"sample\(\) gives a NoneType, but must give a tensor"),
        (lambda x: 255 * x, r"sample\(\) gives intensities from .* to .*, not in \[0, 1\]"),
        (lambda x: (255 * x).to(torch.uint8), r"sample\(\) gives torch.uint8"),
        (lambda x: x / 0, r"sample\(\) gives numbers that are not finite"),
    ],
)
def test_answer_that_breaks_the_contract_blames_the_family_before_the_first_epoch(
    answer: Callable[[torch.Tensor], Any], words: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = autoencoder.Model.sample
    monkeypatch.setattr(autoencoder.Model, "sample", lambda *arguments: answer(original(*arguments)))
    monkeypatch.setattr(autoencoder.Objective, "step", lambda *_: pytest.fail("an epoch has begun"))
    with pytest.raises(PipelineError, match=rf"generative/families/autoencoder\.py: {words}"):
        stages.train.main(PIPELINE, "autoencoder")


def test_rehearsal_leaves_no_trace_in_the_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages.train.main(PIPELINE, "exercise_cgan")  # which draws from the global random state, for its dropout
    weights = PIPELINE.model("exercise_cgan").read_bytes()
    PIPELINE.model("exercise_cgan").unlink()
    monkeypatch.setattr("stages.common.fitting._rehearse", lambda *_: None)
    stages.train.main(PIPELINE, "exercise_cgan")
    assert PIPELINE.model("exercise_cgan").read_bytes() == weights


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_what_is_no_number_is_no_grey_level(number: float) -> None:
    with pytest.raises(PipelineError, match="not finite: train it again"):
        to_uint8(torch.tensor([0.5, number]))


def nan_images(_: Any, labels: torch.Tensor, __: Any) -> torch.Tensor:
    return torch.full((len(labels), 1, 28, 28), torch.nan)


def nan_latents(_: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.full((len(x), 2), torch.nan)


def finite_images(_: Any, z: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(z), 1, 28, 28)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("cgan", {(cgan.Model, "sample"): nan_images}, "images that a model made are not finite"),
        (
            "autoencoder",
            {(autoencoder.Model, "encode"): nan_latents, (autoencoder.Model, "decode"): finite_images},
            "autoencoder: its latents are not finite",
        ),
    ],
)
def test_model_that_makes_no_numbers_is_refused(
    name: str,
    changes: dict[tuple[type, str], Callable[..., torch.Tensor]],
    words: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages.train.main(PIPELINE, name)
    for (owner, method), function in changes.items():
        monkeypatch.setattr(owner, method, function)
    with pytest.raises(PipelineError, match=words):
        generate.main(PIPELINE, name)


def test_split_of_the_rehearsal_is_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Split] = []

    def prepare_sampling(_: Any, __: Any, split: Split) -> None:
        seen.append(split)
        break_down()

    monkeypatch.setattr("stages.common.fitting._REHEARSED", 30)
    monkeypatch.setattr(autoencoder.Model, "prepare_sampling", prepare_sampling)
    with pytest.raises(RuntimeError, match="broken"):
        stages.train.main(PIPELINE, "autoencoder")
    assert [len(split) for split in seen] == [30]
