"""`make score`: somebody's samples get the scores that a model here would get; also in a clone that pulled little."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from generative.io.tensors import load_tensors
from stages.common.paths import ROOT
from tests.servers import serving
from tests.small import SMALL_SAMPLES


def run_score(folder: Path, samples: Path, name: str, width: int = 250) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.score", f"--samples={samples}", f"--name={name}"]
    environment = os.environ | {"COLUMNS": str(width)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def publish(project: Path, folder: Path) -> str:
    """Run `make publish`; what it says."""
    command = [sys.executable, "-m", "tools.publish", f"--folder={folder}"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "zoo/ is left out" in result.stderr  # it was not run
    return result.stdout


@pytest.fixture(scope="module")
def clone(scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git would hand on."""
    folder = tmp_path_factory.mktemp("clone") / "clone"
    shutil.copytree(scratch, folder, ignore=shutil.ignore_patterns("cache", "tmp", "__pycache__"))
    for part in ("data", "models", "plots/epochs", "plots/training", "plots/training_extractors"):
        shutil.rmtree(folder / part)
    return folder


@pytest.fixture(scope="module")
def cgan_samples(scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = load_tensors(scratch / ROOT.generated("cgan"))
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    np.savez(path, images=made["samples"][:, 0].numpy(), labels=made["labels"].numpy())
    return path


@pytest.fixture(scope="module")
def pulled(scratch: Path, clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh clone that has pulled extractors and features over HTTP, by the line that `make publish` prints."""
    with serving("http", tmp_path_factory.mktemp("web") / "site") as server:
        said = publish(scratch, server.folder)
        line = next(line.strip() for line in said.splitlines() if line.startswith("  dvc remote add"))
        told = line.replace("https://ADDRESS", server.url)
        add, verify, pull = told.split(" && ")
        for command in (add, verify, f"{pull} train_extractor embed_real"):
            subprocess.run(command.split(), cwd=clone, check=True)
        yield clone


def test_samples_of_a_model_get_its_scores_in_a_clone_that_pulled_over_http(
    pulled: Path, scratch: Path, cgan_samples: Path
) -> None:
    assert not (pulled / ROOT.generated("cgan")).exists()
    result = run_score(pulled, cgan_samples, "theirs")
    assert result.returncode == 0, result.stderr
    found = json.loads((pulled / "scored/theirs/scores.json").read_text())
    wanted = json.loads((scratch / ROOT.scores("cgan")).read_text())
    costs = {"nfe", "multiply_adds_x1e6", "stored_numbers", "images_seen"}  # which nobody knows of somebody's samples
    for kind in ("scores", "errors"):
        assert found[kind] == {key: value for key, value in wanted[kind].items() if key not in costs}
    assert (found["features"], found["per_class"]) == (wanted["features"], wanted["per_class"])
    assert (found["samples"], found["data"]) == (SMALL_SAMPLES, "Fashion-MNIST")
    assert (pulled / "scored/theirs/samples.png").stat().st_size > 1000
    rows = [line.strip("│ ").split("│")[0].strip() for line in result.stdout.splitlines() if "│" in line]
    assert {"real", "cgan", "vae", "theirs"} <= set(rows)
    assert "on one fast core" in result.stdout


def test_samples_without_labels_get_no_score_of_labels(scratch: Path, cgan_samples: Path, tmp_path: Path) -> None:
    path = tmp_path / "samples.npy"
    np.save(path, np.load(cgan_samples)["images"][:150])
    result = run_score(scratch, path, "few", width=80)
    assert result.returncode == 0, result.stderr
    assert "warning" in result.stderr
    assert f"scored by {SMALL_SAMPLES}" in result.stderr
    table = [line for line in result.stdout.splitlines() if "↓" in line or "↑" in line]
    assert table
    assert all(len(line) <= 80 and "…" not in line for line in table)  # scores downwards, where rows are too long
    found = json.loads((scratch / "scored/few/scores.json").read_text())
    assert not {"label_accuracy", "cas"} & set(found["scores"])
    assert sum(found["per_class"]["share"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (lambda x: x[:19], "x", ["19 samples, too few", f"draw {SMALL_SAMPLES}"]),
        (lambda x: 255 - x, "x", ["looks inverted", "save 255 - x"]),
        (lambda x: x, "vae", ["NAME=vae is a row of the tables already"]),
        (lambda x: x, "../x", ["cannot be a folder"]),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(
    change: object, name: str, words: list[str], scratch: Path, cgan_samples: Path, tmp_path: Path
) -> None:
    path = tmp_path / "samples.npy"
    np.save(path, change(np.load(cgan_samples)["images"]))  # type: ignore[operator]
    result = run_score(scratch, path, name)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert not (scratch / "scored" / name / "scores.json").exists()


def test_what_cannot_be_pulled_is_named(scratch: Path, tmp_path: Path, cgan_samples: Path) -> None:
    folder = tmp_path / "copy"
    ignored = shutil.ignore_patterns("cache", "tmp", "extractors", "generated", "epochs", "training*", "__pycache__")
    shutil.copytree(scratch, folder, ignore=ignored)
    result = run_score(folder, cgan_samples, "theirs")
    assert result.returncode == 1
    for word in ("models/extractors/classifier.safetensors", "cannot be pulled", "docs/remotes.md"):
        assert word in result.stderr
