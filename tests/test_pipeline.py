"""The whole pipeline on real data, small, through DVC, in a scratch copy of the repository."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from generative.data import IMAGE_SHAPE, load_split
from generative.environment import process_environment
from generative.family import load_family
from generative.tensors import load_tensors
from stages.download import SOURCE_VARIABLE
from tests.small import PARAMS, ROOT
from tools.demo import make_scratch, repro

MODELS = list(PARAMS["models"])
SIZE = 1000
SAMPLES = 200


def lock_of(folder: Path) -> dict[str, object]:
    stages: dict[str, object] = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return stages


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory, raw_folder: Path) -> Iterator[Path]:
    """A finished small run."""
    folder = tmp_path_factory.mktemp("pipeline") / "copy"
    make_scratch(ROOT, folder, train_size=SIZE, num_samples=SAMPLES)
    assert repro(folder, "--jobs=1", raw=raw_folder) == 0
    yield folder
    shutil.rmtree(folder)


def test_every_stage_ran(scratch: Path) -> None:
    per_model = [f"{stage}@{name}" for stage in ("train", "generate", "evaluate") for name in MODELS]
    single = [
        "check_params",
        "download",
        "prepare",
        *(f"train_extractor@{name}" for name in PARAMS["extractors"]),
        "embed_real",
        "evaluate_real",
        "summarize",
        "figures",
    ]
    assert set(lock_of(scratch)) == {*single, "report", *per_model}


def test_splits(scratch: Path) -> None:
    prepared = scratch / "data" / "prepared"
    train, validation, test = (load_split(prepared / f"{name}.safetensors") for name in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (SIZE, PARAMS["prepare"]["validation_size"], 10_000)
    for split in (train, validation, test):
        assert len(set(torch.bincount(split.labels).tolist())) == 1
    seen = {image.numpy().tobytes() for image in train.images}
    assert sum(image.numpy().tobytes() in seen for image in validation.images) <= 2  # the data hold a few twins


@pytest.mark.parametrize("name", MODELS)
def test_interface_of_generated_tensors(scratch: Path, name: str) -> None:
    tensors = load_tensors(scratch / "data" / "generated" / f"{name}.safetensors")
    assert tensors["samples"].dtype == torch.uint8
    assert tensors["samples"].shape == (SAMPLES, *IMAGE_SHAPE)
    assert tensors["labels"].dtype == torch.int64
    counts = torch.bincount(tensors["labels"] + 1, minlength=11).tolist()
    family = load_family(PARAMS["models"][name]["family"], where=name)
    if family.Model.conditional:
        assert counts == [0] + [SAMPLES // 10] * 10
    else:
        assert counts == [SAMPLES] + [0] * 10
    if family.Model.encodes:
        assert tensors["latents"].shape[0] == 10_000
        assert tensors["latents"].dtype == torch.float32
        assert tensors["reconstructions"].shape == (10_000, *IMAGE_SHAPE)
        assert tensors["reconstructions"].dtype == torch.uint8


def test_interpolations_start_and_end_at_reconstructions(scratch: Path) -> None:
    tensors = load_tensors(scratch / "data" / "generated" / "vae.safetensors")
    labels = load_split(scratch / "data" / "prepared" / "test.safetensors").labels
    ends = tensors["interpolation_ends"]
    for column, step in ((0, 0), (1, -1)):
        difference = tensors["interpolations"][:, step].int() - tensors["reconstructions"][ends[:, column]].int()
        assert int(difference.abs().max()) <= 1  # decoded in another batch: the last bit may round differently
    within = len(PARAMS["generate"]["within"])
    assert bool((labels[ends[:within, 0]] == labels[ends[:within, 1]]).all())
    assert bool((labels[ends[within:, 0]] != labels[ends[within:, 1]]).all())
    assert bool((ends[:, 0] != ends[:, 1]).all())


def test_metrics_are_flat_finite_and_complete(scratch: Path) -> None:
    rows = {path.stem: json.loads(path.read_text()) for path in (scratch / "metrics" / "scores").iterdir()}
    assert set(rows) == {"real", *MODELS}
    for row in rows.values():
        assert all(isinstance(value, float) for value in row.values())
    assert {"frechet_distance", "frechet_bottleneck", "kernel_x1000", "recall", "copied"} <= set(rows["vae"])
    assert {"frechet_intra", "kernel_intra_x1000", "diversity", "label_accuracy", "cas"} <= set(rows["cgan"])
    assert set(rows["real"]) - set(rows["cgan"]) == {"frechet_infinite"}  # for which 200 samples are too few
    assert set(rows["cgan"]) < set(rows["real"])
    assert {"mse_x1000", "pca_mse_x1000", "bce", "bce_floor", "psnr", "ssim"} <= set(rows["autoencoder"])
    assert {"elbo", "iw_bound", "loss_recon", "loss_kl", "active_units"} <= set(rows["vae"])
    assert rows["vae"]["iw_bound"] > rows["vae"]["elbo"]
    assert rows["real"]["frechet_distance"] < rows["autoencoder"]["frechet_distance"]
    assert rows["vae"]["elbo"] == pytest.approx(-rows["vae"]["loss_recon"] - rows["vae"]["loss_kl"], abs=1e-3)


def test_scores_come_with_errors_and_a_second_extractor(scratch: Path) -> None:
    metrics = scratch / "metrics"
    for name in ["real", *MODELS]:
        scores, errors = (json.loads((metrics / kind / f"{name}.json").read_text()) for kind in ("scores", "errors"))
        assert set(scores) == set(errors)
        assert all(error >= 0 for error in errors.values())
        assert errors["frechet_distance"] > 0
        first, second = (
            json.loads((metrics / "features" / extractor / f"{name}.json").read_text())
            for extractor in PARAMS["extractors"]
        )
        assert set(first["scores"]) == set(second["scores"]) <= set(scores)
        assert first["scores"]["frechet_distance"] == scores["frechet_distance"]
        assert second["scores"]["frechet_distance"] == scores["frechet_bottleneck"]
    hashes = json.loads((metrics / "extractors.json").read_text())
    for name, digest in hashes.items():
        weights = (scratch / "models" / "extractors" / f"{name}.safetensors").read_bytes()
        assert hashlib.sha256(weights).hexdigest() == digest
    assert set(hashes) == set(PARAMS["extractors"])


def test_metrics_that_dvc_shows_are_few(scratch: Path) -> None:
    shown = subprocess.run(
        ["dvc", "metrics", "show", "--json"], cwd=scratch, capture_output=True, text=True, check=True
    )
    files = json.loads(shown.stdout)[""]["data"]
    assert list(files) == ["metrics/headline.json"]
    rows = files["metrics/headline.json"]["data"]
    assert set(rows) == {"real", *MODELS}
    assert all(1 <= len(row) <= 4 for row in rows.values())


def test_figures_can_be_opened(scratch: Path) -> None:
    folder = scratch / "plots" / "figures"
    names = {path.name for path in folder.iterdir()}
    for stem in ("reconstructions", "latent_space", "samples", "training", "scores", "samples_by_class_cgan"):
        assert f"{stem}.png" in names
    for model in ("autoencoder", "vae"):
        assert {f"latent_grid_{model}.png", f"interpolations_{model}.png", f"interpolation_{model}.gif"} <= names
    for path in folder.iterdir():
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 100


def test_report_is_a_pdf_without_a_date(scratch: Path) -> None:
    content = (scratch / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert b"CreationDate" not in content


def test_outputs_hold_no_pickle_and_no_path_of_this_machine(scratch: Path) -> None:
    for path in [path for folder in ("data", "models", "metrics") for path in scratch.glob(f"{folder}/**/*")]:
        if path.is_file():
            assert path.suffix in {"", ".safetensors", ".json", ".txt"}
            assert str(scratch).encode() not in path.read_bytes()


def test_nothing_to_do_runs_nothing(scratch: Path) -> None:
    result = subprocess.run(["dvc", "repro"], cwd=scratch, capture_output=True, text=True, check=True)
    assert "Running stage" not in result.stdout
    assert "up to date" in result.stdout


def test_run_from_scratch_gives_the_same_hashes_also_with_stages_side_by_side(scratch: Path, raw_folder: Path) -> None:
    before = lock_of(scratch)
    (scratch / "dvc.lock").unlink()
    shutil.rmtree(scratch / ".dvc" / "cache" / "runs")
    command = [sys.executable, "-m", "tools.jobs", "--jobs=2", "--cores=2"]
    environment = os.environ | {SOURCE_VARIABLE: str(raw_folder)}
    printed = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stdout + printed.stderr
    assert printed.stdout.count("Running stage") == len(before)
    assert lock_of(scratch) == before


def test_changed_param_reruns_its_model_alone(scratch: Path) -> None:
    text = (scratch / "params.yaml").read_text()
    params = yaml.safe_load(text)
    params["models"]["vae"]["learning_rate"] *= 2
    try:
        (scratch / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        result = subprocess.run(["dvc", "status"], cwd=scratch, capture_output=True, text=True, check=True)
    finally:
        (scratch / "params.yaml").write_text(text)
    assert "train@vae:" in result.stdout
    assert "train@cgan:" not in result.stdout
    assert "train@autoencoder:" not in result.stdout
    assert "train_extractor@" not in result.stdout


def test_killed_training_goes_on_and_ends_in_the_same_bytes(scratch: Path, tmp_path: Path) -> None:
    """SIGKILL after the first checkpoint, through the real stage and its files."""
    for name in ("stages", "generative"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").symlink_to(scratch / "data")
    params = yaml.safe_load((scratch / "params.yaml").read_text())
    params["models"]["autoencoder"]["epochs"] = 100
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    command = [sys.executable, "-m", "stages", "train", "autoencoder"]
    weights = tmp_path / "models" / "autoencoder.safetensors"
    curves = tmp_path / "plots" / "training" / "autoencoder.tsv"

    def outputs() -> dict[Path, bytes]:
        files = [path for folder in ("models", "plots") for path in (tmp_path / folder).rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files}

    subprocess.run(command, cwd=tmp_path, check=True)
    undisturbed = outputs()
    assert len(undisturbed) == 2 + 100  # weights, curves, and a picture per epoch
    shutil.rmtree(tmp_path / "models")
    shutil.rmtree(tmp_path / "plots")

    process = subprocess.Popen(command, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not curves.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not weights.exists()
    assert second.returncode == 1
    assert "is being trained by another process" in second.stderr

    resumed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "goes on after epoch" in resumed.stdout
    assert outputs() == undisturbed
    assert not list((tmp_path / ".checkpoints").glob("*/*"))


AUDITED = """
import runpy, sys
import safetensors

log, module = open(sys.argv[1], "w"), sys.argv[2]
del sys.argv[1:3]

def note(path):
    print(path, file=log, flush=True)

def safe_open(path, *arguments, **options):  # opens in Rust, where Python's hooks see nothing
    note(path)
    return original(path, *arguments, **options)

original, safetensors.safe_open = safetensors.safe_open, safe_open
sys.addaudithook(lambda event, arguments: note(arguments[0]) if event == "open" else None)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def opened_files(folder: Path, log: Path) -> set[Path]:
    """Files in `folder` that the audited process opened and that are still there; sources in the place of bytecode."""
    found = set()
    for line in log.read_text().splitlines():
        path = (folder / line).resolve()
        if path.parent.name == "__pycache__":
            path = path.parent.parent / f"{path.name.split('.')[0]}.py"
        if path.is_relative_to(folder) and path.is_file() and path.name != "__init__.py":
            found.add(path.relative_to(folder))
    return {path for path in found if path.parts[0] not in (".checkpoints", ".git")}


STAGES = ["download", "prepare", "embed_real", "evaluate_real", "summarize", "figures", "report"]


@pytest.mark.parametrize("stage", [*STAGES, "train_extractor@bottleneck", "train@vae", "generate@vae", "evaluate@vae"])
def test_stage_opens_nothing_that_it_does_not_declare(
    stage: str, scratch: Path, raw_folder: Path, tmp_path: Path
) -> None:
    entry: Any = lock_of(scratch)[stage]
    declared = {Path(item["path"]) for kind in ("deps", "outs") for item in entry[kind]} | {Path("params.yaml")}
    arguments = entry["cmd"].removeprefix("python -m ").split()
    log = tmp_path / "opened.txt"
    command = [sys.executable, "-c", AUDITED, str(log), *arguments]
    environment = process_environment(os.environ, portable=True)  # so that the stage need not start anew
    subprocess.run(command, cwd=scratch, check=True, env=environment | {SOURCE_VARIABLE: str(raw_folder)})
    opened = opened_files(scratch.resolve(), log)
    assert opened & declared  # the log is not empty
    undeclared = {path for path in opened if not declared & {path, *path.parents}}
    assert not undeclared, f"{stage} opens {sorted(map(str, undeclared))}, which dvc.yaml does not declare"


TOY_FAMILY = '''
"""Templates: one image per class, blurred by noise; as small as a family can be."""

import torch

from generative.data import IMAGE_SHAPE
from generative.family import FamilyConfig, GenerativeModel, TrainingObjective


class Config(FamilyConfig):
    spread: float

    def describe(self):
        return "one template per class plus noise."


class Model(GenerativeModel):
    conditional = True

    def __init__(self, config):
        super().__init__(config)
        self.templates = torch.nn.Embedding(10, 784)

    def forward(self, y):
        return torch.sigmoid(self.templates(y)).view(-1, *IMAGE_SHAPE)

    def sample(self, labels, rng):
        x = self(labels)
        return (x + self.config.spread * torch.randn(x.shape, generator=rng, device=rng.device)).clamp(0, 1)


class Objective(TrainingObjective):
    losses = ("squared_error",)

    def __init__(self, model, config, fabric, total_steps):
        optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
        self.fabric, (self.model, self.optimizer) = fabric, fabric.setup(model, optimizer)

    def step(self, x, y, rng):
        loss = (self.model(y) - x).square().flatten(1).sum(1).mean()
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        return {"squared_error": loss.detach()}

    def validate(self, x, y, rng):
        return {"squared_error": (self.model(y) - x).square().flatten(1).sum(1).mean()}

    def state_dict(self):
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state["optimizer"])
'''


def test_new_family_is_one_file_and_one_block(scratch: Path) -> None:
    """It is trained, scored, drawn and reported, and nothing that was there is trained again."""
    before = lock_of(scratch)
    (scratch / "generative" / "families" / "toy.py").write_text(TOY_FAMILY)
    params = yaml.safe_load((scratch / "params.yaml").read_text())
    params["models"]["toy"] = {
        "family": "toy",
        "seed": 1,
        "epochs": 1,
        "batch_size": 50,
        "learning_rate": 1.0,
        "spread": 0.1,
    }
    (scratch / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert repro(scratch) == 0
    after = lock_of(scratch)
    assert set(after) - set(before) == {"train@toy", "generate@toy", "evaluate@toy"}
    assert all(after[f"train@{name}"] == before[f"train@{name}"] for name in MODELS)
    assert "label_accuracy" in json.loads((scratch / "metrics" / "scores" / "toy.json").read_text())
    assert (scratch / "plots" / "figures" / "samples_by_class_toy.png").exists()

    (scratch / "generative" / "families" / "toy.py").unlink()
    del params["models"]["toy"]  # and away with it: its files do not stay behind to change what others read
    (scratch / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert repro(scratch) == 0
    for stage in ("summarize", "figures", "report"):
        assert lock_of(scratch)[stage] == before[stage]
