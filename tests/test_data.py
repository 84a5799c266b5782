"""Pixels, splits and the files that hold them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from generative.compute.runtime import make_rng
from generative.data.splits import Split, balanced_labels, load_split, save_split, stratified_split, to_uint8, to_unit
from generative.errors import PipelineError
from generative.io.files import write_bytes
from generative.io.tensors import load_metadata, load_tensors, require, save_tensors
from tests.small import CLASSES, ROOT


def test_every_grey_level_survives_the_round_trip() -> None:
    levels = torch.arange(256).to(torch.uint8)
    assert torch.equal(to_uint8(to_unit(levels)), levels)


def test_to_uint8_rounds_to_the_nearest_level_and_clips() -> None:
    x = torch.tensor([-0.3, 0.49 / 255, 0.51 / 255, 254.6 / 255, 1.7])
    assert to_uint8(x).tolist() == [0, 0, 1, 255, 255]


def test_conversions_leave_their_argument_alone() -> None:
    x = torch.tensor([0.25, 2.0])
    to_uint8(x)
    to_unit(x)
    assert x.tolist() == [0.25, 2.0]


def test_stratified_split_is_disjoint_and_balanced(rng: torch.Generator) -> None:
    labels = torch.randint(10, (2000,), generator=rng)
    first, second = stratified_split(labels, (900, 300), CLASSES, rng)
    assert torch.bincount(labels[first]).tolist() == [90] * 10
    assert torch.bincount(labels[second]).tolist() == [30] * 10
    assert len(torch.cat([first, second]).unique()) == 1200


def test_stratified_split_depends_on_the_seed_alone() -> None:
    labels = balanced_labels(200, 10)
    splits = [stratified_split(labels, (100, 50), CLASSES, make_rng(seed)) for seed in (3, 3, 4)]
    assert torch.equal(splits[0][0], splits[1][0])
    assert not torch.equal(splits[0][0], splits[2][0])


def test_stratified_split_refuses_more_than_there_is(rng: torch.Generator) -> None:
    with pytest.raises(PipelineError, match=r"has 20 images.*need 21"):
        stratified_split(balanced_labels(200, 10), (200, 10), CLASSES, rng)
    with pytest.raises(PipelineError, match="multiples of 10"):
        stratified_split(balanced_labels(200, 10), (105,), CLASSES, rng)


def test_split_file_round_trip(tmp_path: Path, blobs: Split) -> None:
    save_split(tmp_path / "split.safetensors", blobs)
    loaded = load_split(tmp_path / "split.safetensors")
    assert torch.equal(loaded.images, blobs.images)
    assert torch.equal(loaded.labels, blobs.labels)


def test_split_with_an_impossible_label_is_refused(tmp_path: Path, blobs: Split) -> None:
    save_split(tmp_path / "split.safetensors", Split(blobs.images, blobs.labels - 1))
    with pytest.raises(PipelineError, match="labels must not be negative"):
        load_split(tmp_path / "split.safetensors")


def test_tensor_files_have_the_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    tensors = {name: torch.full((3,), float(index)) for index, name in enumerate("dacb")}
    save_tensors(tmp_path / "one", tensors, {"b": 1, "a": [2]})
    save_tensors(tmp_path / "two", dict(reversed(tensors.items())), {"a": [2], "b": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert load_metadata(tmp_path / "two") == {"a": [2], "b": 1}


def test_channels_last_tensors_are_stored_by_value(tmp_path: Path) -> None:
    tensor = torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    save_tensors(tmp_path / "file", {"w": tensor})
    assert torch.equal(load_tensors(tmp_path / "file")["w"], tensor)


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "empty"])
def test_unreadable_tensor_file_is_one_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "file.safetensors"
    save_tensors(path, {"w": torch.zeros(1000)})
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"truncated": content[:-1], "garbage": b"\xff" * 64, "empty": b""}[damage])
    with pytest.raises(PipelineError, match=r"file\.safetensors"):
        load_tensors(path)


def test_require_names_tensor_and_shape(tmp_path: Path) -> None:
    tensors = {"labels": torch.zeros(4, dtype=torch.int64)}
    assert require(tensors, "labels", torch.int64, (4,), path=tmp_path) is tensors["labels"]
    for name, dtype, shape in [("x", torch.int64, (4,)), ("labels", torch.uint8, (4,)), ("labels", torch.int64, (5,))]:
        with pytest.raises(PipelineError, match=name):
            require(tensors, name, dtype, shape, path=tmp_path)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    save_tensors(path, {"w": torch.zeros(3)})
    before = path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_tensors(path, {"w": torch.ones(3)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_next_write_replaces_what_a_killed_one_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    killed_while_writing = (
        "import os, signal, sys; from pathlib import Path; from generative.io.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half a longer text'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", killed_while_writing, str(path)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    assert not path.exists()
    write_bytes(path, b"whole")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"file": b"whole"}
