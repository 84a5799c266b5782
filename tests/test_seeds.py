"""The runs with other seeds: copies that share the cache, and the table of how far scores spread."""

from pathlib import Path

import yaml
from dvc.repo import Repo

from generative.io.files import write_json
from stages.common.published_paths import SCORE_METRICS
from tests.small import PARAMS, ROOT
from tools.seeds import make_copy, table


def test_copy_differs_in_the_seeds_alone_and_uses_the_same_cache(tmp_path: Path) -> None:
    make_copy(ROOT, tmp_path / "copy", seed=7)
    params = yaml.safe_load((tmp_path / "copy" / "params.yaml").read_text())
    assert all(block["training"].pop("seed") == 7 for block in params["models"].values())
    for block in params["models"].values():
        block["training"]["seed"] = 0
    assert params == PARAMS
    with Repo(str(tmp_path / "copy")) as copy:
        assert copy.cache.local_cache_dir == str(ROOT / ".dvc" / "cache")
    assert (tmp_path / "copy" / "dvc.lock").read_bytes() == (ROOT / "dvc.lock").read_bytes()


def test_table_gives_the_committed_score_and_the_spread_of_the_others(tmp_path: Path) -> None:
    for name, value in (("committed", 2.0), ("a", 1.0), ("b", 4.0)):
        write_json(tmp_path / name / SCORE_METRICS / "vae.json", {"mse_x1000": value})
    rows = table([tmp_path / name for name in ("committed", "a", "b")], ["vae"]).splitlines()
    assert rows[2:] == ["| vae | mse_x1000 | 2 | 2.5 | 1 | 4 |"]
