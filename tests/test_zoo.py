"""The second pipeline, small, through DVC: it reads the first one's data, and leaves its models alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.common.paths import ZOO
from tests.small import PARAMS, ZOO_PARAMS
from tests.test_invalidation import GATES, files_of, run
from tools.edit_params import edited
from tools.staleness import stale_stages

pytestmark = pytest.mark.slow

MODELS = list(ZOO_PARAMS["models"])
STEPS = ("lend", "train", "generate", "evaluate", "publish")


def own(*names: str) -> set[str]:
    return {f"{ZOO.definition}:{name}" for name in names}


@pytest.fixture(scope="module")
def zoo(scratch: Path) -> Path:
    """A copy in which both pipelines have run."""
    before = files_of(scratch, "metrics", "plots", "models")
    ran = run(scratch, "--pipeline=zoo", jobs=2)
    per_model = own(*(f"{step}@{name}" for step in STEPS for name in MODELS))
    assert ran == per_model | own(*GATES, "compare", "report", "theory")
    assert files_of(scratch, "metrics", "plots", "models") == before  # the root's own stay as they were
    return scratch


def test_all_is_up_to_date_and_the_root_never_runs_it(zoo: Path) -> None:
    assert run(zoo, "--pipeline=zoo", jobs=2) == set()
    (zoo / ZOO.report).unlink()
    printed = subprocess.run(["dvc", "repro"], cwd=zoo, capture_output=True, text=True, check=True).stdout
    assert "zoo" not in printed
    assert run(zoo, "--pipeline=zoo", jobs=2) == own("report")
    assert (zoo / ZOO.report).exists()


def test_sheet_stops_where_evidence_is_forged(zoo: Path) -> None:
    sheet = zoo / ZOO.folder / "theory.pdf"
    assert sheet.read_bytes().startswith(b"%PDF-")  # with models of one epoch, whose contradictions are shown
    with edited(zoo / ZOO.params) as params:
        params["report"]["contradictions"] = "fail"
    scores = zoo / ZOO.metrics("scores", "flow")
    kept, before = scores.read_text(), sheet.read_bytes()
    scores.write_text(json.dumps(json.loads(kept) | {"decoder_rank": 700.0}))
    command = [sys.executable, "-m", "stages", "--pipeline", "zoo", "theory"]
    found = subprocess.run(command, cwd=zoo, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "'flow: it keeps the dimension' has the answer yes, but the evidence says no" in found.stderr
    assert "rank 700" in found.stderr
    assert sheet.read_bytes() == before
    scores.write_text(kept)
    with edited(zoo / ZOO.params) as params:
        params["report"]["contradictions"] = "show"
    assert run(zoo, "--pipeline=zoo", jobs=2) <= own(*GATES, "theory", "report", "compare")


def test_tables_show_the_models_of_both(zoo: Path) -> None:
    shown = subprocess.run(["dvc", "metrics", "show", "--json"], cwd=zoo, capture_output=True, text=True, check=True)
    files = set(json.loads(shown.stdout)[""]["data"])
    expected = {f"metrics/headline/{name}.json" for name in ("real", *PARAMS["models"])}
    assert files == expected | {f"zoo/metrics/headline/{name}.json" for name in MODELS}
    for name in ("leaderboard", "samples", "reconstructions", "training", "scores"):
        assert (zoo / ZOO.comparison / f"{name}.png").exists()
    strips = {path.stem for path in (zoo / ZOO.comparison / "strips").iterdir()}
    assert {"real", "cgan", "gan", "flow"} <= strips
    assert "cyclegan" not in strips
    assert (zoo / ZOO.report).read_bytes().startswith(b"%PDF-")


def test_kept_samples_are_scored(zoo: Path) -> None:
    for name in ("gan", "wgan_gp"):
        lines = (zoo / ZOO.plot_data(name) / "epochs.tsv").read_text().splitlines()
        assert len(lines) == 2
        assert (zoo / ZOO.figures(name) / "over_epochs.png").exists()


def test_figures_put_models_side_by_side(zoo: Path) -> None:
    for name in ("class_shares", "gradient_norms"):
        assert (zoo / ZOO.comparison / f"{name}.png").exists()
    for name in ("wgan", "wgan_gp", "wgan_ct"):
        for diagnostic in ("gradient_norms", "gradient_shares"):
            assert (zoo / ZOO.plot_data(name) / "diagnostics" / f"{diagnostic}.tsv").exists()
    assert (zoo / ZOO.figures("biggan") / "sweep_truncation.png").exists()


def test_a_part_is_made_beside_the_others(zoo: Path) -> None:
    with edited(zoo / ZOO.params) as params:
        params["models"]["gan"]["training"]["learning_rate"] /= 2
    ran = run(zoo, "--pipeline=zoo", "--models=gan", jobs=2)
    assert ran - own(*GATES) == own(
        *(f"{step}@gan" for step in STEPS if step != "lend"), "lend@gan", "compare", "report", "theory"
    )
    with edited(zoo / ZOO.params) as params:
        params["models"]["gan"]["training"]["learning_rate"] *= 2
    assert not {name for name in run(zoo, "--pipeline=zoo", jobs=2) if "train@" in name}  # from the run-cache


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda zoo: (zoo / ZOO.metrics("scores", "gan")).write_text("{}"), "publish@gan"),
        (lambda zoo: (zoo / ZOO.report).unlink(), "report"),
    ],
)
def test_verify_looks_at_both(
    zoo: Path, change: Callable[[Path], object], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(zoo)
    assert stale_stages() == []
    kept = files_of(zoo, "zoo/metrics") | {str(ZOO.report): (zoo / ZOO.report).read_bytes()}
    change(zoo)
    assert own(found) <= set(stale_stages())
    for name, content in kept.items():
        (zoo / name).write_bytes(content)


def test_removed_model_leaves_nothing_behind(zoo: Path) -> None:
    with edited(zoo / ZOO.params) as params:
        del params["models"]["gan"]
        params["report"]["models"].remove("gan")
    assert run(zoo, "--pipeline=zoo", jobs=2) == own(*GATES, "compare", "report", "theory")
    for path in (ZOO.generated, ZOO.scores, ZOO.curves, ZOO.plot_data, ZOO.figures):
        assert not (zoo / path("gan")).exists()
    assert not list((zoo / "zoo/metrics").glob("*/gan.json"))
