"""Stages as a user meets them: wrong params, missing and damaged files, and what dvc.yaml declares."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.check_params import BLOCKS, leftovers
from stages.params import read_params
from tests.small import PARAMS, ROOT
from tools.deps import KINDS, code_deps, is_code, main
from tools.imports import import_closure

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = PIPELINE["stages"]


def run_stage(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages", module, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def unchanged(_: Any) -> None:
    """The committed params."""


def with_params(folder: Path, change: Any) -> Path:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    change(params)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def test_committed_params_pass(tmp_path: Path) -> None:
    result = run_stage(with_params(tmp_path, unchanged), "check_params")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "data" / "params_checked.txt").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda params: params["models"]["cgan"].update(loss="hinge"), ["models.cgan.loss", "least_squares"]),
        (lambda params: params["models"]["vae"].update(latentdim=3), ["unknown key 'models.vae.latentdim'"]),
        (lambda params: params["models"]["vae"].update(family="vea"), ["models.vae.family", "'vea'", "cgan", "vae"]),
        (lambda params: params["models"].update(real=params["models"]["vae"]), ["'models.real'"]),
        (lambda params: params["models"].update({"My VAE": params["models"]["vae"]}), ["'models.My VAE'"]),
        (lambda params: params["models"]["vae"].update(batch_size=60000), ["models.vae.batch_size", "55000"]),
        (lambda params: params.update(modles={}), ["unknown block 'modles'", "compute"]),
        (lambda params: params.pop("extractors"), ["block 'extractors' is missing"]),
        (lambda params: params["extractors"].pop("classifier"), ["extractors.bottleneck", "knows no classes"]),
        (lambda params: params["extractors"]["bottleneck"].update(kind="sift"), ["extractors.bottleneck.kind", "sift"]),
        (lambda params: params["extractors"]["bottleneck"].update(features=0), ["extractors.bottleneck.features"]),
        (lambda params: params["models"]["vae"].update(size=3), ["'models.vae.size' needs another name"]),
        (lambda params: params["generate"]["between"].append(["Trouser", "Hat"]), ["Hat", "Ankle boot"]),
        (lambda params: params["prepare"].update(train_size=54999), ["prepare.train_size", "multiple of 10"]),
    ],
)
def test_wrong_params_stop_before_any_work(tmp_path: Path, change: Any, words: list[str]) -> None:
    result = run_stage(with_params(tmp_path, change), "check_params")
    assert result.returncode == 1
    assert "error: params: " in result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert not (tmp_path / "data").exists()


def test_params_that_are_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("models: [")
    result = run_stage(tmp_path, "check_params")
    assert result.returncode == 1
    assert "params.yaml is not valid YAML" in result.stderr


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("a: 1e-3\nb: 1_0\nc: 32-true\nd: 1.5\ne: 7\nf: .5\n")
    assert read_params() == {"a": 0.001, "b": 10, "c": "32-true", "d": 1.5, "e": 7, "f": 0.5}


@pytest.mark.parametrize(
    ("module", "arguments", "culprit"),
    [
        ("prepare", [], "data/raw"),
        ("train", ["vae"], "data/prepared/train.safetensors is missing"),
        ("train", ["nosuch"], "there is no model 'nosuch'"),
        ("generate", ["vae"], "models/vae.safetensors is missing"),
        ("train_extractor", ["nosuch"], "there is no extractor 'nosuch'"),
        ("embed_real", [], "data/prepared/train.safetensors is missing"),
        ("evaluate", ["vae"], "data/prepared/train.safetensors is missing"),
        ("summarize", [], "data/scores/real.json is missing"),
        ("figures", [], "data/generated/autoencoder.safetensors is missing"),
        ("report", [], "metrics/scores/real.json is missing"),
    ],
)
def test_missing_input_is_one_sentence(tmp_path: Path, module: str, arguments: list[str], culprit: str) -> None:
    result = run_stage(with_params(tmp_path, unchanged), module, *arguments)
    assert result.returncode == 1
    assert culprit in result.stderr
    assert "Traceback" not in result.stderr


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = with_params(tmp_path, unchanged)
    (folder / "models").mkdir()
    (folder / "models" / "vae.safetensors").write_bytes(b"\x80\x04evil pickle")
    result = run_stage(folder, "generate", "vae")
    assert result.returncode == 1
    assert "models/vae.safetensors is not a readable safetensors file" in result.stderr


def test_full_disk_is_one_sentence_and_leaves_nothing_behind(raw_folder: Path, small_disk: Path) -> None:
    folder = with_params(small_disk, unchanged)
    (folder / "data").mkdir()
    (folder / "data" / "raw").symlink_to(raw_folder)
    result = run_stage(folder, "prepare")
    assert result.returncode == 1
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in (folder / "data").iterdir()] in (["raw"], ["raw", "prepared"], ["prepared", "raw"])
    assert not list(folder.glob("data/prepared/*"))


def test_files_of_removed_models_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = ["data/generated/vae.safetensors", "data/scores/real.json", "plots/training/extractor_bottleneck.tsv"]
    kept.append("models/extractors/bottleneck.safetensors")
    stale = ["data/generated/old.safetensors", "data/scores/old.json", "plots/training/old.tsv"]
    stale += ["models/extractors/old.safetensors", "plots/training/extractor_old.tsv"]
    for name in kept + stale:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert sorted(map(str, leftovers(["vae", "cgan"], ["bottleneck"]))) == sorted(stale)


class TestPipelineFile:
    def test_every_block_of_params_is_checked_and_every_checked_block_is_there(self) -> None:
        assert set(PARAMS) == {*BLOCKS, "extractors", "models"}

    @pytest.mark.parametrize("name", STAGES)
    def test_declared_code_is_the_code_that_is_imported(self, name: str) -> None:
        stage = STAGES[name]
        body = stage.get("do", stage)
        declared = sorted(dep for dep in body["deps"] if is_code(dep))
        assert declared == code_deps(ROOT, body["cmd"], stage.get("foreach"))

    @pytest.mark.parametrize("name", STAGES)
    def test_every_stage_says_what_it_does(self, name: str) -> None:
        stage = STAGES[name]
        assert stage.get("do", stage)["desc"]

    def test_no_stage_names_a_model(self) -> None:
        text = (ROOT / "dvc.yaml").read_text()
        assert not any(f"models.{name}" in text or f"@{name}" in text for name in PARAMS["models"])

    def test_outputs_are_ignored_by_git_or_kept_out_of_the_cache(self) -> None:
        for stage in STAGES.values():
            for out in stage.get("do", stage)["outs"]:
                path, settings = (out, {}) if isinstance(out, str) else next(iter(out.items()))
                cached, path = settings.get("cache", True), path.replace("${key}", "vae")
                ignored = subprocess.run(["git", "check-ignore", "-q", "--no-index", path], cwd=ROOT, check=False)
                assert (ignored.returncode == 0) == cached, path

    def test_deps_tool_finds_and_mends_a_missing_and_a_superfluous_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for folder in ("generative", "stages"):
            shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
        right = (ROOT / "dvc.yaml").read_text()
        wrong = right.replace("      - generative/sources.py\n", "", 1)
        wrong = wrong.replace("      - stages/summarize.py\n", "      - stages/summarize.py\n      - stages/train.py\n")
        (tmp_path / "dvc.yaml").write_text(wrong)
        monkeypatch.chdir(tmp_path)
        assert main(["--check"]) == 1
        printed = capsys.readouterr().out
        assert "missing dep generative/sources.py" in printed
        assert "summarize: superfluous dep stages/train.py" in printed
        assert main([]) == 0
        assert (tmp_path / "dvc.yaml").read_text() == right


def test_import_closure_follows_every_form_of_import(tmp_path: Path) -> None:
    package = tmp_path / "generative"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text("import os\nfrom generative import b\nimport generative.c as c\n")
    (package / "b.py").write_text("def f():\n    from generative.d import x\n")
    (package / "c.py").write_text("from generative.a import y\n")
    (package / "d.py").write_text("x = 1\n")
    (package / "e.py").write_text("x = 1\n")
    assert import_closure(tmp_path, "generative.a") == {f"generative/{name}.py" for name in "abcd"}


def test_library_never_imports_stages() -> None:
    for path in (ROOT / "generative").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.stem != "__init__":
            assert not any(file.startswith("stages/") for file in import_closure(ROOT, module)), path
    assert all((ROOT / kinds.folder).is_dir() for kinds in KINDS)
