"""The runs with other seeds: copies that share the cache, and how far scores spread."""

import shutil
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from generative.io.files import write_json
from generative.io.tables import read_table
from stages.common.params import read_params
from stages.common.paths import ROOT as PIPELINE
from stages.common.published import Entry
from stages.common.seeds import spreads
from tests.small import PARAMS, ROOT
from tools.cells import Cell, Source, make_copy
from tools.edit_params import edited
from tools.seeds import add_scores, is_done, table


def test_copy_differs_in_its_own_settings_alone_and_uses_the_same_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cell = Cell(PIPELINE, "vae", 7, (("sampling.refine_steps", 3),))
    make_copy(Source(ROOT), cell)
    params = yaml.safe_load((cell.folder / "params.yaml").read_text())
    vae = params["models"]["vae"]
    assert (vae["training"]["seed"], vae["sampling"]["refine_steps"]) == (7, 3)
    vae["training"]["seed"], vae["sampling"]["refine_steps"] = 0, 10
    assert params == PARAMS
    with Repo(str(cell.folder)) as copy:
        assert copy.cache.local_cache_dir == str(ROOT / ".dvc" / "cache")
    assert (cell.folder / "dvc.lock").read_bytes() == (ROOT / "dvc.lock").read_bytes()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    shutil.copytree(ROOT / "code", tmp_path / "code")
    write_json(tmp_path / PIPELINE.metrics("scores", "vae"), {"mse_x1000": 2.0})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_table_gives_the_committed_score_and_the_spread_over_all_seeds(folder: Path) -> None:
    for seed, value in ((2, 4.0), (1, 1.0)):
        add_scores(PIPELINE, "vae", seed, {"mse_x1000": value})
    assert table({"vae": PIPELINE}).splitlines()[2:] == ["| vae | mse_x1000 | 2 | 2.333 | 1.528 | 1 | 4 |"]
    assert read_table(PIPELINE.seeds)["seed"].tolist() == [1, 2]


def test_what_was_run_is_not_run_again_until_the_recipe_changes(folder: Path) -> None:
    assert is_done(PIPELINE, "vae", 0)  # the committed seed
    assert not is_done(PIPELINE, "vae", 1)
    add_scores(PIPELINE, "vae", 1, {"mse_x1000": 1.0})
    assert is_done(PIPELINE, "vae", 1)
    with edited(folder / "params.yaml") as params:
        params["models"]["vae"]["training"]["epochs"] += 1
    assert not is_done(PIPELINE, "vae", 1)
    add_scores(PIPELINE, "vae", 2, {"mse_x1000": 3.0})
    assert read_table(PIPELINE.seeds)["seed"].tolist() == [2]  # the row of the earlier recipe is gone


def test_spread_is_part_of_the_error(folder: Path) -> None:
    committed = {"vae": {"mse_x1000": 2.0}}
    add_scores(PIPELINE, "vae", 1, {"mse_x1000": 1.0})
    assert spreads(read_params(), committed) == {}  # of one other seed says nothing
    add_scores(PIPELINE, "vae", 2, {"mse_x1000": 4.0})
    assert spreads(read_params(), committed)["vae"]["mse_x1000"] == pytest.approx(1.5275, abs=1e-4)
    entry = Entry("vae", PIPELINE, committed["vae"], {"mse_x1000": 2.0}, {"mse_x1000": 1.5})
    assert entry.error("mse_x1000") == pytest.approx(2.5)
