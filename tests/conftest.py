"""Shared fixtures: small images, random states, and the real data in a folder."""

import os
from pathlib import Path

import pytest
import torch
import yaml

from generative.data import Split, balanced_labels
from generative.runtime import make_rng
from generative.sources import SHA256, fetch_all
from stages.download import SOURCE_VARIABLE

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture
def rng() -> torch.Generator:
    return make_rng(1)


@pytest.fixture(scope="session")
def blobs() -> Split:
    """400 images of a bright disc whose place depends on the class: quick to learn, not constant."""
    rng = make_rng(7)
    labels = balanced_labels(400)
    rows, columns = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
    centre_row = 6 + 4 * (labels % 5) + torch.randint(-1, 2, (400,), generator=rng)
    centre_column = 9 + 10 * (labels // 5) + torch.randint(-1, 2, (400,), generator=rng)
    distance = (rows - centre_row.view(-1, 1, 1)).square() + (columns - centre_column.view(-1, 1, 1)).square()
    images = (255 * torch.exp(-distance / 18)).to(torch.uint8).unsqueeze(1)
    return Split(images, labels)


@pytest.fixture(scope="session")
def raw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four real files: from the workspace if `dvc repro` has fetched them, else fetched here."""
    workspace = ROOT / "data" / "raw"
    folder = tmp_path_factory.mktemp("raw")
    sources = yaml.safe_load((ROOT / "params.yaml").read_text())["download"]["sources"]
    first = os.environ.get(SOURCE_VARIABLE)
    fetch_all([str(workspace), *([first] if first else []), *sources], folder, timeout=20, retries=1)
    assert {path.name for path in folder.iterdir()} == set(SHA256)
    return folder
