"""The whole pipeline on real data, small, through DVC, in a scratch copy of the repository."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from generative.capabilities.encoding import EncodesImages
from generative.compute.environment import process_environment
from generative.data.images import IMAGE_SHAPE
from generative.data.splits import load_split
from generative.family import load_family
from generative.io.tensors import load_tensors
from stages.common.source import OUTSIDE
from stages.download import SOURCE_VARIABLE
from tests.small import PARAMS, SMALL_SAMPLES, SMALL_TEST_SIZE, SMALL_TRAIN_SIZE

MODELS = list(PARAMS["models"])
STEPS = ("lend", "train", "generate", "evaluate", "publish")  # of one model


def lock_of(folder: Path) -> dict[str, object]:
    stages: dict[str, object] = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return stages


def test_every_stage_ran(scratch: Path) -> None:
    per_model = [f"{stage}@{name}" for stage in STEPS for name in MODELS]
    single = [
        "code",
        "check_params",
        "download",
        "prepare",
        *(f"train_extractor@{name}" for name in PARAMS["extractors"]),
        "embed_real",
        "evaluate_real",
        "publish_real",
        "compare",
    ]
    assert set(lock_of(scratch)) == {*single, "report", *per_model}


def test_splits(scratch: Path) -> None:
    prepared = scratch / "data" / "prepared"
    train, validation, test = (load_split(prepared / f"{name}.safetensors") for name in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (SMALL_TRAIN_SIZE, SMALL_TEST_SIZE, SMALL_TEST_SIZE)
    for split in (train, validation, test):
        assert len(set(torch.bincount(split.labels).tolist())) == 1
    seen = {image.numpy().tobytes() for image in train.images}
    assert sum(image.numpy().tobytes() in seen for image in validation.images) <= 2  # the data hold a few twins


@pytest.mark.parametrize("name", MODELS)
def test_interface_of_generated_tensors(scratch: Path, name: str) -> None:
    tensors = load_tensors(scratch / "data" / "generated" / f"{name}.safetensors")
    assert tensors["samples"].dtype == torch.uint8
    assert tensors["samples"].shape == (SMALL_SAMPLES, *IMAGE_SHAPE)
    assert tensors["labels"].dtype == torch.int64
    counts = torch.bincount(tensors["labels"] + 1, minlength=11).tolist()
    family = load_family(PARAMS["models"][name]["family"], where=name)
    if getattr(family.Model, "conditional", False):
        assert counts == [0] + [SMALL_SAMPLES // 10] * 10
    else:
        assert counts == [SMALL_SAMPLES] + [0] * 10
    if issubclass(family.Model, EncodesImages):
        assert tensors["latents"].shape[0] == SMALL_TEST_SIZE
        assert tensors["latents"].dtype == torch.float32
        assert tensors["reconstructions"].shape == (SMALL_TEST_SIZE, *IMAGE_SHAPE)
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
        assert all(type(value) in (int, float) for value in row.values())
    assert {"frechet_distance", "frechet_bottleneck", "kernel_x1000", "recall", "copied"} <= set(rows["vae"])
    assert {"frechet_intra", "kernel_intra_x1000", "diversity", "label_accuracy", "cas"} <= set(rows["cgan"])
    too_few = {"frechet_infinite", "frechet_infinite_bottleneck"}  # for which 200 samples are too few
    assert set(rows["real"]) - set(rows["cgan"]) == too_few
    costs = {"nfe", "multiply_adds_x1e6", "stored_numbers", "images_seen"}
    assert set(rows["cgan"]) - set(rows["real"]) == costs
    assert rows["cgan"]["nfe"] == 1
    assert 1 < rows["cgan"]["multiply_adds_x1e6"] < 30
    assert {"mse_x1000", "pca_mse_x1000", "bce", "bce_floor", "psnr", "ssim"} <= set(rows["autoencoder"])
    plane = {"plane_mse_x1000", "plane_frechet_distance", "plane_kernel_x1000"}
    planar = {name for name in ("autoencoder", "vae", "vae16") if PARAMS["models"][name]["training"]["latent_dim"] == 2}
    assert {name for name, row in rows.items() if plane <= set(row)} == planar
    assert {"elbo", "iw_bound", "loss_recon", "loss_kl", "active_units"} <= set(rows["vae"])
    assert rows["vae"]["iw_bound"] > rows["vae"]["elbo"]
    assert rows["real"]["frechet_distance"] < rows["autoencoder"]["frechet_distance"]
    assert rows["vae"]["elbo"] == pytest.approx(-rows["vae"]["loss_recon"] - rows["vae"]["loss_kl"], abs=2e-3)


def test_scores_come_with_errors_and_further_extractors(scratch: Path) -> None:
    metrics = scratch / "metrics"
    for name in ["real", *MODELS]:
        scores, errors = (json.loads((metrics / kind / f"{name}.json").read_text()) for kind in ("scores", "errors"))
        assert set(scores) == set(errors)
        assert all(error >= 0 for error in errors.values())
        assert errors["frechet_distance"] > 0
        features = json.loads((metrics / "features" / f"{name}.json").read_text())
        assert list(features) == list(PARAMS["extractors"])
        first, second, third = features.values()
        assert set(first["scores"]) == set(second["scores"]) <= set(scores)
        assert not [key for key in third["scores"] if "intra" in key or key == "diversity"]  # 1,280 dimensions
        assert third["scores"]["kernel_x1000"] == scores["kernel_imagenet_x1000"]
        assert third["scores"]["recall"] == scores["recall_imagenet"]
        assert "frechet_infinite_imagenet" not in scores  # 1,000 training images are too few
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
    files = {path: file for path, file in files.items() if not path.startswith("zoo/")}
    assert set(files) == {f"metrics/headline/{name}.json" for name in ("real", *MODELS)}
    assert all(1 <= len(file["data"]) <= 4 for file in files.values())


def test_figures_can_be_opened(scratch: Path) -> None:
    plots = scratch / "plots"
    folders = ("comparison", "figures", "data")
    names = {str(path.relative_to(plots)) for folder in folders for path in plots.glob(f"{folder}/**/*")}
    compared = ("reconstructions", "latent_space", "samples", "training", "scores", "leaderboard")
    assert {f"comparison/{name}.png" for name in compared} <= names
    assert {"figures/cgan/samples_by_class.png", "data/real/samples.png", "data/vae/latents.tsv"} <= names
    for model in ("autoencoder", "vae"):
        drawn = {"latent_grid.png", "interpolations.png", "interpolation.gif", "neighbours.png"}
        assert {f"figures/{model}/{name}" for name in drawn} <= names
    for name in names:
        if name.endswith((".png", ".gif")):
            with Image.open(plots / name) as image:
                image.load()
                assert min(image.size) >= (28 if "strips" in name else 56)


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


def test_changed_param_reruns_its_model_alone(scratch: Path) -> None:
    text = (scratch / "params.yaml").read_text()
    params = yaml.safe_load(text)
    params["models"]["vae"]["training"]["learning_rate"] *= 2
    try:
        (scratch / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        result = subprocess.run(["dvc", "status"], cwd=scratch, capture_output=True, text=True, check=True)
    finally:
        (scratch / "params.yaml").write_text(text)
    assert "train@vae:" in result.stdout
    assert "train@cgan:" not in result.stdout
    assert "train@autoencoder:" not in result.stdout
    assert "train_extractor@" not in result.stdout


AUDITED = """
import runpy, sys
import safetensors
from stages.common import code_files

code_files.check_code = lambda *_: None  # it reads all code, to compare it: what it reads decides nothing

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


def lines_of(path: Path) -> list[str]:
    """Lines of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return [line for file in files if file.is_file() for line in file.read_text().splitlines()]


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


STAGES = ["download", "prepare", "embed_real", "evaluate_real", "publish_real", "compare", "report"]
STAGES += ["train_extractor@bottleneck", *(f"{stage}@vae" for stage in STEPS)]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_opens_nothing_that_it_does_not_declare(
    stage: str, scratch: Path, raw_folder: Path, tmp_path: Path
) -> None:
    entry: Any = lock_of(scratch)[stage]
    declared = {Path(item["path"]) for kind in ("deps", "outs") for item in entry[kind]} | {Path("params.yaml")}
    hashed = [line.split()[-1] for path in declared if path.parts[0] == "code" for line in lines_of(scratch / path)]
    declared |= {Path(name) for name in hashed}  # the code, by the hash of what it computes
    declared |= {Path(*name.split(".")).with_suffix(".py") for name in OUTSIDE}
    arguments = entry["cmd"].removeprefix("python -m ").split()
    log = tmp_path / "opened.txt"
    command = [sys.executable, "-c", AUDITED, str(log), *arguments]
    environment = process_environment(os.environ, portable=True)  # so that the stage need not start anew
    subprocess.run(command, cwd=scratch, check=True, env=environment | {SOURCE_VARIABLE: str(raw_folder)})
    opened = opened_files(scratch.resolve(), log)
    assert opened & declared  # the log is not empty
    undeclared = {path for path in opened if not declared & {path, *path.parents}}
    assert not undeclared, f"{stage} opens {sorted(map(str, undeclared))}, which dvc.yaml does not declare"
