"""Another data set is a change of params: digits go through the whole pipeline, and nothing speaks of clothes."""

import ast
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from generative.data.sources import FILES
from generative.data.splits import load_split
from stages.common.paths import REAL, ROOT, TEST
from tests.small import PARAMS
from tools.demo import configure, copy_repository, repro, shrink
from tools.edit_params import edited

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent
NAMES = ["zero", "one", "two", "three", "four", "five", "six"]  # not ten: the last three digits are left out
SIZE = 60  # test images of each class; 100 to train on


def write_idx(path: Path, array: np.ndarray) -> None:
    """LeCun's IDX format: two zeros, the type (8: uint8), the number of dimensions, their sizes, the bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scikit-learn's digits, enlarged from 8 x 8 to 28 x 28, as IDX files."""
    folder = tmp_path_factory.mktemp("digits")
    found = load_digits()
    chosen = found.target < len(NAMES)
    images = torch.from_numpy(found.images[chosen]).float().unsqueeze(1) / 16
    labels = found.target[chosen]
    large = F.interpolate(images, size=(28, 28), mode="bicubic").clamp(0, 1)
    levels = (255 * large[:, 0]).round().numpy()
    half = len(labels) // 2
    for prefix, part in (("train", slice(half)), ("t10k", slice(half, None))):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", levels[part])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels[part])
    return folder


@pytest.fixture(scope="module")
def run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small pipeline on the digits, after a change of params.yaml alone."""
    folder = tmp_path_factory.mktemp("own") / "copy"
    copy_repository(REPOSITORY, folder)
    configure(folder, "core.no_scm", "true")
    (folder / "dvc.lock").unlink(missing_ok=True)
    count = len(NAMES)
    with edited(folder / "params.yaml") as params:
        shrink(ROOT, params, train_size=70 * count, test_size=SIZE * count, num_samples=100 * count)
        params["prepare"]["validation_size"] = 10 * count
        params["data"]["name"], params["data"]["source"] = "Digits", "Alpaydin, Kaynak 1998, optical digits, UCI"
        params["data"]["classes"] = NAMES
        params["data"]["files"] = {name: hashlib.sha256((digits / name).read_bytes()).hexdigest() for name in FILES}
        params["generate"]["within"], params["generate"]["between"] = ["two"], [["one", "six"]]
        params["models"] = {name: params["models"][name] for name in ("vae", "cgan")}
        params["report"]["models"] = ["vae", "cgan"]
        for model in params["models"].values():
            model["training"]["batch_size"] = 64
        params["models"]["vae"]["sampling"]["mixture_components"] = 5
    assert repro(folder, "--jobs=2", raw=digits) == 0
    return folder


def test_splits_are_of_the_classes_that_are_named(run: Path) -> None:
    test = load_split(run / TEST)
    assert torch.bincount(test.labels).tolist() == [SIZE] * len(NAMES)


def test_scores_are_by_the_names_of_the_classes(run: Path) -> None:
    rows = json.loads((run / ROOT.metrics("per_class", "cgan")).read_text())
    assert list(rows["label_accuracy"]) == NAMES
    for name in (REAL, "vae", "cgan"):
        assert json.loads((run / ROOT.metrics("scores", name)).read_text())["frechet_distance"] >= 0
    assert (run / ROOT.report).stat().st_size > 10_000


WORDS = ("Fashion", "Trouser", "trouser", "cloth", "T-shirt", "sneaker")
_SAYS = """
import json, stages.report as report
from stages.common.paths import ROOT
report.typeset = lambda context: json.dumps(context).encode()
report.main(ROOT)
"""


def test_report_speaks_of_the_digits_alone(run: Path) -> None:
    kept = (run / ROOT.report).read_bytes()
    subprocess.run([sys.executable, "-c", _SAYS], cwd=run, env=os.environ, check=True)
    said = (run / ROOT.report).read_text()
    (run / ROOT.report).write_bytes(kept)
    assert "Generative models on Digits" in said
    assert "equally many of each of 7 classes" in said
    assert "Alpaydin" in said
    template = (REPOSITORY / "stages/report.typ").read_text()
    assert not [word for word in WORDS if word in said or word in template]


def test_library_and_stages_know_no_data_set_by_name() -> None:
    """Figures and sentences get every word from strings; docstrings and the names of settings are no such words."""
    for path in [*REPOSITORY.glob("generative/**/*.py"), *REPOSITORY.glob("stages/**/*.py")]:
        tree = ast.parse(path.read_text())
        docs = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs:
                assert not [word for word in WORDS if word in node.value], f"{path}: {node.value}"


def test_committed_params_are_of_fashion_mnist() -> None:
    assert PARAMS["data"]["name"] == "Fashion-MNIST"
    assert len(PARAMS["data"]["classes"]) == 10
