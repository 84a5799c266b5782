"""Shared fixtures: small images, random states, and the real data in a folder."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock

from generative.compute.runtime import make_rng
from generative.data.sources import FILES, fetch_all
from generative.data.splits import Split
from stages.download import SOURCE_VARIABLE
from tests.preloaded import COMMANDS, preloaded
from tests.small import SMALL_SAMPLES, SMALL_TEST_SIZE, SMALL_TRAIN_SIZE, make_blobs
from tools.demo import make_scratch, repro

ROOT = Path(__file__).parent.parent
LONGEST = (
    "invalidation",
    "same_bytes",
    "zoo",
    "pipeline",
    "toys",
    "resume",
    "remotes",
    "training",
    "surroundings",
    "stages",
)


def pytest_configure(config: pytest.Config) -> None:
    """Let pipelines start their stages quickly, in all test processes."""
    if COMMANDS not in os.environ:  # in the first of them
        commands = ExitStack()
        config.add_cleanup(commands.close)
        os.environ.update(commands.enter_context(preloaded()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a process that began with a long one at the end would keep the others waiting."""
    place = {f"test_{name}.py": index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the test files run side by side


@pytest.fixture
def rng() -> torch.Generator:
    return make_rng(1)


@pytest.fixture(scope="session")
def blobs() -> Split:
    return make_blobs()


@pytest.fixture(scope="session")
def raw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four real files: from the workspace if `dvc repro` has fetched them, else fetched here."""
    workspace = ROOT / "data" / "raw"
    folder = tmp_path_factory.mktemp("raw")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    sources, wanted = params["download"]["sources"], params["data"]["files"]
    first = os.environ.get(SOURCE_VARIABLE)
    fetch_all([str(workspace), *([first] if first else []), *sources], wanted, folder, timeout=20, retries=1)
    assert {path.name for path in folder.iterdir()} == set(FILES)
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, raw_folder: Path) -> Path:
    """A finished small run of the pipeline, made once for all test processes: to be copied, never changed."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, done = shared / "finished", shared / "finished.ok"
    with FileLock(shared / "finished.lock"):
        if not done.exists():
            sizes = {"train_size": SMALL_TRAIN_SIZE, "test_size": SMALL_TEST_SIZE, "num_samples": SMALL_SAMPLES}
            make_scratch(ROOT, folder, **sizes)
            assert repro(folder, "--jobs=2", raw=raw_folder) == 0
            done.touch()
    return folder


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Iterator[Path]:
    """A finished small run of the module's own, in which the repository is copied too."""
    folder = tmp_path_factory.mktemp("pipeline") / "copy"
    shutil.copytree(finished_run, folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
