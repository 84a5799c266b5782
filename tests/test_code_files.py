"""A stage starts only if its code is the code that DVC will record beside its results."""

import shutil
from pathlib import Path

import pytest
import yaml

from generative.errors import FileMissingError, PipelineError
from stages.common.code_files import check_code, code_texts
from stages.common.params import Params
from stages.common.paths import CODE
from stages.common.paths import ROOT as PIPELINE
from stages.common.source import write_hashes
from tests.small import PARAMS, ROOT


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for package in ("generative", "stages"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.lock", "dvc.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False))
    write_hashes(tmp_path, CODE, code_texts(tmp_path, Params(PARAMS)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(path: Path) -> None:
    path.write_text(f"{path.read_text()}\n_EDITED = True\n")


def test_unchanged_code_passes(repository: Path) -> None:
    for stage in ("code", "check_params", "prepare", "report"):
        check_code(PIPELINE, stage)
    check_code(PIPELINE, "train", "vae")
    check_code(PIPELINE, "train_extractor", "bottleneck")


@pytest.mark.parametrize(
    ("file", "stopped", "free"),
    [
        ("generative/training/loop.py", [("train", "vae"), ("train_extractor", "classifier")], [("generate", "vae")]),
        ("generative/families/vae.py", [("train", "vae"), ("generate", "vae"), ("report",)], [("train", "vae16")]),
        ("generative/extractors/bottleneck.py", [("embed_real",), ("evaluate", "vae")], [("evaluate_real",)]),
        ("stages/publish.py", [("publish", "vae")], [("compare",), ("code",)]),
    ],
)
def test_edited_code_stops_the_stages_that_depend_on_it(
    repository: Path, file: str, stopped: list[tuple[str, ...]], free: list[tuple[str, ...]]
) -> None:
    edit(repository / file)
    for stage in stopped:
        with pytest.raises(
            PipelineError, match=r"code or params were edited after code/.*\.txt was written: run `dvc repro`"
        ):
            check_code(PIPELINE, *stage)
    for stage in free:
        check_code(PIPELINE, *stage)


def test_docstring_stops_nothing(repository: Path) -> None:
    path = repository / "generative" / "training" / "loop.py"
    path.write_text(path.read_text().replace("The training loop, the same", "The training loop: the same"))
    check_code(PIPELINE, "train", "vae")


def test_missing_file_is_named(repository: Path) -> None:
    (repository / CODE / "families" / "vae.txt").unlink()
    with pytest.raises(FileMissingError, match=r"code/families/vae\.txt is missing"):
        check_code(PIPELINE, "train", "vae")


def test_without_a_pipeline_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_code(PIPELINE, "train", "vae")
