"""Stages as a user meets them: wrong params, missing and damaged files, and what dvc.yaml declares."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.dependency.param import read_param_file
from dvc_objects.fs.local import localfs

from generative.data.splits import save_split
from generative.errors import SettingError
from stages import check_params
from stages.check_params import BLOCKS
from stages.common.leftovers import leftovers
from stages.common.params import Params, read_params
from stages.common.paths import PIPELINES, TEST, ZOO
from stages.common.problems import run
from stages.common.source import import_closure
from tests.small import PARAMS, ROOT, ZOO_PARAMS, make_blobs, make_folder
from tools.pipelines import pipeline_text

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = PIPELINE["stages"]
LOADERS = [  # modules that load a file by a name in params.yaml: folder, key
    ("stages.common.models", "families", "family"),
    ("stages.common.extractors", "extractors", "kind"),
]


def run_stage(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("python") or sys.executable, "-m", "stages", module, *arguments],
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
        (
            lambda params: params["models"]["cgan"]["training"].update(loss="cosine"),
            ["models.cgan.training.loss", "least_squares"],
        ),
        (lambda params: params["models"]["vae"].update(latentdim=3), ["unknown key 'models.vae.latentdim'"]),
        (lambda params: params["models"]["vae"].update(family="vea"), ["models.vae.family", "'vea'", "cgan", "vae"]),
        (lambda params: params["models"].update(real=params["models"]["vae"]), ["'models.real'"]),
        (lambda params: params["models"].update({"My VAE": params["models"]["vae"]}), ["'models.My VAE'"]),
        (
            lambda params: params["models"]["vae"]["training"].update(batch_size=60000),
            ["models.vae.training.batch_size", "55000"],
        ),
        (lambda params: params.update(modles={}), ["unknown block 'modles'", "compute"]),
        (lambda params: params.pop("extractors"), ["block 'extractors' is missing"]),
        (lambda params: params["extractors"].pop("classifier"), ["extractors.bottleneck", "knows no classes"]),
        (lambda params: params["extractors"]["bottleneck"].update(kind="sift"), ["extractors.bottleneck.kind", "sift"]),
        (lambda params: params["extractors"]["bottleneck"].update(features=0), ["extractors.bottleneck.features"]),
        (lambda params: params["models"]["vae"].update(size=3), ["'models.vae.size' needs another name"]),
        (lambda params: params["generate"]["between"].append(["Trouser", "Hat"]), ["Hat", "Ankle boot"]),
        (lambda params: params["data"]["classes"].append("Bag"), ["'data.classes'", "different names"]),
        (
            lambda params: params["data"]["classes"].append("Hat"),
            ["'prepare.validation_size' is 5000", "multiple of 11"],
        ),
        (lambda params: params["data"].update(classes=["all"]), ["'data.classes'", "at least 2"]),
        (lambda params: params["data"]["files"].popitem(), ["files must be the SHA-256 of each of", "t10k-labels"]),
        (lambda params: params["generate"].update(bound_images=10_001), ["generate.bound_images", "prepare.test_size"]),
        (lambda params: params["prepare"].update(train_size=54999), ["prepare.train_size", "multiple of 10"]),
        (lambda params: params["prepare"].update(train_size=90), ["prepare.train_size", "equal to 100"]),
        (lambda params: params["generate"].update(path_pairs=1), ["'generate.path_pairs' is 1", "equal to 2"]),
        (
            lambda params: params["models"]["vae"]["sampling"].update(mixture_components=18_335),
            ["'models.vae.sampling.mixture_components' is 18335", "at most 18334", "training images"],
        ),
        (
            lambda params: params["models"]["autoencoder"]["sampling"].update(mixture_components=0),
            ["'models.autoencoder.sampling.mixture_components'", "equal to 1"],
        ),
        (lambda params: params["extractors"]["bottleneck"].update(batch_size=1), ["extractors.bottleneck.batch_size"]),
        (
            lambda params: params["compute"].update(devices=3),
            ["'models.autoencoder.training.batch_size' is 128", "3 devices", "equally many"],
        ),
        (lambda params: params["models"].update(vae=3), ["'models.vae' is 3, but must be a block"]),
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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda zoo: zoo["models"].update(vae=PARAMS["models"]["vae"]), ["'models.vae' in zoo/params.yaml", "another"]),
        (lambda zoo: zoo.update(evaluate={}), ["'evaluate' in zoo/params.yaml belongs into params.yaml"]),
        (lambda zoo: zoo["report"].update(models=["vae"]), ["'report.models' has 'vae'", "gan"]),
        (lambda zoo: zoo["models"]["gan"]["training"].update(sampled_epochs=[99]), ["at most epochs"]),
        (lambda zoo: zoo["models"]["exercise_vae"]["training"].update(sampled_epochs=[1]), ["draws no samples"]),
        (lambda zoo: zoo["models"]["gan"].update(sweeps={"steps": [1]}), ["sweeps has 'steps'", "none"]),
        (lambda zoo: zoo["models"]["exercise_vae"].update(sweeps={"refine_steps": [-1]}), ["refine_steps"]),
    ],
)
def test_wrong_params_of_the_zoo_stop_before_any_work(tmp_path: Path, change: Any, words: list[str]) -> None:
    zoo = yaml.safe_load(yaml.safe_dump(ZOO_PARAMS))
    change(zoo)
    (with_params(tmp_path, unchanged) / "zoo").mkdir()
    (tmp_path / "zoo" / "params.yaml").write_text(yaml.safe_dump(zoo, sort_keys=False))
    result = run_stage(tmp_path, "--pipeline", "zoo", "check_params")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


def test_params_that_are_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("models: [")
    result = run_stage(tmp_path, "check_params")
    assert result.returncode == 1
    assert "params.yaml is not valid YAML" in result.stderr


LITERALS = (
    "1e-3 1_0 32-true 1.5 7 .5 +.5 1. yes no on off True TRUE true ~ null 010 0o10 0x1F 0b11 1:30 2020-01-01 1e3 "
)
LITERALS += "1E5 .inf -.inf 1_000.5 '1' \"a\" [1,2e-3] y n 0o9 12e03 1__0 -0 +1"


@pytest.mark.parametrize("literal", LITERALS.split())
def test_literals_are_read_as_dvc_reads_them(literal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(f"a: {literal}\n")
    ours, theirs = read_params().values["a"], read_param_file(localfs, "params.yaml")["a"]
    assert (ours, type(ours)) == (theirs, type(theirs))


def test_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("models: {}\nmodels: {}\n")
    result = run_stage(tmp_path, "check_params")
    assert result.returncode == 1
    assert "params.yaml is not valid YAML" in result.stderr
    assert "models" in result.stderr


def test_params_are_read_once(tmp_path: Path) -> None:
    folder = with_params(tmp_path, unchanged)
    count = """
import sys
opened = []
def note(event, arguments):
    if event == "open" and "params.yaml" in str(arguments[0]):
        opened.append(arguments[0])
sys.addaudithook(note)
from stages.check_params import main
from stages.common.paths import ROOT
main(ROOT)
print(len(opened))
"""
    command = [sys.executable, "-c", count]
    printed = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert printed.stdout.split()[-1] == "1"


@pytest.mark.parametrize(
    ("module", "arguments", "culprit"),
    [
        ("prepare", [], "data/raw"),
        ("train", ["vae"], "data/prepared/train.safetensors is missing: `dvc repro` makes it"),
        ("train", ["nosuch"], "there is no model 'nosuch'"),
        ("generate", ["vae"], "data/prepared/train.safetensors is missing"),
        ("train_extractor", ["nosuch"], "there is no extractor 'nosuch'"),
        ("embed_real", [], "data/prepared/train.safetensors is missing"),
        ("evaluate", ["vae"], "data/prepared/train.safetensors is missing"),
        ("publish", ["vae"], "data/prepared/train.safetensors is missing"),
        ("publish_real", [], "data/prepared/test.safetensors is missing"),
        ("compare", [], "metrics/scores/real.json is missing"),
        ("report", [], "metrics/scores/real.json is missing"),
    ],
)
def test_missing_input_is_one_sentence(tmp_path: Path, module: str, arguments: list[str], culprit: str) -> None:
    result = run_stage(with_params(tmp_path, unchanged), module, *arguments)
    assert result.returncode == 1
    assert culprit in result.stderr
    assert "Traceback" not in result.stderr


def test_download_without_a_source_says_what_to_do(tmp_path: Path) -> None:
    folder = with_params(tmp_path, lambda params: params["download"].update(sources=["nowhere"]))
    result = run_stage(folder, "download")
    assert result.returncode == 1
    for words in ("Tried:\n  nowhere: no such folder", "FASHION_MNIST_SOURCE=", "download.sources in params.yaml"):
        assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, epochs=1)
    save_split(folder / TEST, make_blobs())
    (folder / "models").mkdir()
    (folder / "models" / "vae.safetensors").write_bytes(b"\x80\x04evil pickle")
    result = run_stage(folder, "generate", "vae")
    assert result.returncode == 1
    assert "models/vae.safetensors is not a readable safetensors file" in result.stderr
    assert "delete it, then `dvc pull` or `dvc repro`" in result.stderr


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


def test_file_that_is_too_large_for_the_user_is_one_sentence(raw_folder: Path, tmp_path: Path) -> None:
    folder = with_params(tmp_path, unchanged)
    (folder / "data").mkdir()
    (folder / "data" / "raw").symlink_to(raw_folder)
    command = f"ulimit -f 1000; exec {sys.executable} -m stages prepare"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "cannot be read or written (File too large): nothing half-written is left" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_want_of_memory_is_one_sentence(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run(work)
    assert ended.value.code == 1
    assert "error: there is not enough memory for this" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda params: params["generate"].update(num_samples=10**21),
        lambda params: params["generate"].update(animation_frames=10**10),
        lambda params: params["models"]["vae"]["training"].update(epochs=10**21),
        lambda params: params["models"]["vae"]["training"].update(learning_rate=1e-320),
        lambda params: params["extractors"]["imagenet"].update(image_size=10**9),
        lambda params: params["download"].update(timeout=1e21),
        lambda params: params["models"].update({300 * "a": params["models"]["vae"]}),
    ],
)
def test_numbers_that_no_machine_can_do_with_are_refused(
    change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(with_params(tmp_path, change))
    with pytest.raises(SettingError):
        check_params.main(PIPELINES[""])


def test_files_of_removed_models_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = ["data/generated/vae.safetensors", "data/scores/real.json", "plots/training_extractors/bottleneck.tsv"]
    kept += ["models/extractors/bottleneck.safetensors", "metrics/scores/real.json", "metrics/errors/vae.json"]
    kept += ["plots/data/real/samples.png", "plots/figures/vae/neighbours.png"]
    kept.append("models/extractors/.bottleneck.safetensors.part")  # that another stage is writing
    stale = ["data/generated/old.safetensors", "data/scores/old.json", "plots/training/old.tsv"]
    stale += ["models/extractors/old.safetensors", "plots/training_extractors/old.tsv"]
    stale += ["metrics/scores/old.json", "metrics/features/old.json", "metrics/per_class/old.json"]
    for name in [*kept, *stale, "plots/data/old/samples.png", "plots/figures/old/neighbours.png"]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    params = Params({"models": {"vae": {}, "cgan": {}}, "extractors": {"bottleneck": {}}})
    assert sorted(map(str, leftovers(params))) == sorted([*stale, "plots/data/old", "plots/figures/old"])


def outputs_of(stage: dict[str, Any]) -> list[str]:
    """Paths of the outputs of a stage, as dvc.yaml has them."""
    return [out if isinstance(out, str) else next(iter(out)) for out in stage.get("do", stage)["outs"]]


class TestPipelineFile:
    def test_every_block_of_params_is_checked_and_every_checked_block_is_there(self) -> None:
        assert set(PARAMS) == {*BLOCKS, "extractors", "models"}

    @pytest.mark.parametrize("name", [name for name in STAGES if name != "code"])
    def test_every_stage_depends_on_its_code(self, name: str) -> None:
        body = STAGES[name].get("do", STAGES[name])
        stage = body["cmd"].split()[3]
        assert f"code/stages/{stage}.txt" in body["deps"]
        closure = import_closure(ROOT, f"stages.{stage}")
        for loader, folder, item in LOADERS:
            needed = [f"code/{folder}/${{item.{item}}}.txt", f"code/used/{folder}.txt", f"code/{folder}"]
            needed += ["data/lent/${key}.safetensors"] * (
                folder == "extractors"
            )  # which holds the code of what is lent
            assert loader not in closure or any(dep in body["deps"] for dep in needed), (name, folder)

    def test_no_stage_but_the_first_depends_on_the_code_itself(self) -> None:
        for name, stage in STAGES.items():
            deps = stage.get("do", stage)["deps"]
            assert any(dep.split("/")[0] in ("generative", "stages") for dep in deps) == (name == "code")

    @pytest.mark.parametrize("name", STAGES)
    def test_every_stage_says_what_it_does(self, name: str) -> None:
        stage = STAGES[name]
        assert stage.get("do", stage)["desc"]

    def test_no_stage_names_a_model(self) -> None:
        text = (ROOT / "dvc.yaml").read_text()
        assert not any(f"models.{name}" in text or f"@{name}" in text for name in PARAMS["models"])

    def test_zoo_has_the_stages_of_models_and_reads_the_rest_from_the_root(self) -> None:
        text = (ROOT / "dvc.yaml").read_text()
        assert (ROOT / "zoo" / "dvc.yaml").read_text() == pipeline_text(
            text, ZOO, (ROOT / "zoo" / "dvc.yaml").read_text()
        )
        zoo = yaml.safe_load((ROOT / "zoo" / "dvc.yaml").read_text())["stages"]
        own = {out for stage in zoo.values() for out in outputs_of(stage)}
        assert all(out.startswith("zoo/") for out in own)
        made = own | {out for stage in STAGES.values() for out in outputs_of(stage)}
        sources = (
            "generative",
            "stages",
            "requirements.lock",
            "params.yaml",
            "zoo/params.yaml",
            "seeds.tsv",
            "zoo/seeds.tsv",
        )
        for stage in zoo.values():
            for dep in stage.get("do", stage)["deps"]:
                places = (dep, *map(str, Path(dep).parents))
                inside = any(out.startswith(f"{dep}/") for out in made)
                assert inside or {*places} & {*made, *sources} or dep in made, dep

    def test_outputs_are_ignored_by_git_or_kept_out_of_the_cache(self) -> None:
        zoo = yaml.safe_load((ROOT / "zoo" / "dvc.yaml").read_text())["stages"]
        for stage in (*STAGES.values(), *zoo.values()):
            for out in stage.get("do", stage)["outs"]:
                path, settings = (out, {}) if isinstance(out, str) else next(iter(out.items()))
                cached, path = settings.get("cache", True), path.replace("${key}", "vae")
                ignored = subprocess.run(["git", "check-ignore", "-q", "--no-index", path], cwd=ROOT, check=False)
                assert (ignored.returncode == 0) == cached, path
