"""The exercise's models can be added to params.yaml, and are what they claim to be."""

import shutil
from pathlib import Path

import pytest
import yaml
from torch import nn

from generative.family import load_family
from stages.common.params import read_yaml
from tests.small import EXERCISE, ROOT
from tools.exercise import add_models


def linear_sizes(network: nn.Module) -> list[tuple[int, int]]:
    return [(layer.in_features, layer.out_features) for layer in network.modules() if isinstance(layer, nn.Linear)]


def test_blocks_are_added_once_and_comments_stay(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", params)
    add_models(ROOT / "exercise.yaml", params)
    once = params.read_text()
    values = yaml.safe_load(once)
    before = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert values == before | {"models": before["models"] | EXERCISE}
    assert once.count("#") >= (ROOT / "params.yaml").read_text().count("#")
    add_models(ROOT / "exercise.yaml", params)
    assert params.read_text() == once


def test_file_is_read_as_params_are() -> None:
    assert read_yaml(ROOT / "exercise.yaml") == EXERCISE


@pytest.mark.parametrize("name", list(EXERCISE))
def test_settings_are_valid(name: str) -> None:
    family = load_family(EXERCISE[name]["family"], where=name)
    assert family.Config.parse(EXERCISE[name], where=name).describe().endswith(".")


def test_vae_has_the_exercise_s_widths() -> None:
    family = load_family("vae", where="test")
    model = family.Model(family.Config.parse(EXERCISE["exercise_vae"], where="test").training)
    assert linear_sizes(model.encoder) == [(784, 512), (512, 4)]  # mean and log-variance of two dimensions
    assert linear_sizes(model.decoder) == [(2, 512), (512, 784)]
    assert float(model.variance) == 0.5
