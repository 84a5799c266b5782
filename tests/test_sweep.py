"""Sweeps over settings and seeds: what is run, shared, kept, summed up and drawn."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from generative.errors import PipelineError
from generative.io.tables import read_table, write_table
from stages.common.paths import ROOT as PIPELINE
from tests.small import ROOT
from tools import sweep
from tools.cells import SCRATCH, SWEEPS, Cell, headline_columns, stages_of_cells, summary, write_summary
from tools.place import Place

VARY = "sampling.refine_steps=0,1 training.epochs=1,2"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    shutil.copytree(ROOT / "code", tmp_path / "code")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_cells_that_differ_in_sampling_alone_share_a_training(folder: Path) -> None:
    cells = [
        Cell(PIPELINE, "vae", seed, (("sampling.refine_steps", steps), ("training.epochs", 1)))
        for seed in (0, 1)
        for steps in (0, 1, 2)
    ]
    stages = stages_of_cells(cells)
    trainings = [name for name in stages if name.startswith("training of")]
    assert len(stages) == 6 + 2
    assert len(trainings) == 2
    assert all(stages[cell.label].needs < {*trainings} for cell in cells)
    assert len({stages[cell.label].needs for cell in cells[:3]}) == 1
    assert stages[trainings[0]].command == ("repro", "train@vae")
    assert {stages[cell.label].command for cell in cells} == {("repro", "evaluate@vae")}
    assert not stages_of_cells(cells[:1])[cells[0].label].needs


class TestWhatIsMissing:
    @pytest.fixture
    def ran(self, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
        """What was run, by what takes the place of the runs: the second cell of each call fails."""
        calls: list[list[str]] = []

        def run_cells(cells: list[Cell], place: Place, collect: object) -> int:
            calls.append([cell.label for cell in cells])
            for number, cell in enumerate(cells):
                if number != 1:
                    collect(cell, {"mse_x1000": 1.0 + number, "kernel_x1000": 3.0})  # type: ignore[operator]
            return int(len(cells) > 1)

        monkeypatch.setattr("tools.sweep.run_cells", run_cells)
        return calls

    def test_an_interrupted_sweep_goes_on(self, folder: Path, ran: list[list[str]]) -> None:
        assert sweep.main(["--name=vae", f"--vary={VARY}"]) == 1
        assert len(ran[0]) == 4
        assert sweep.main(["--name=vae", f"--vary={VARY}"]) == 0
        assert ran[1] == [ran[0][1]]
        assert sweep.main(["--name=vae", f"--vary={VARY}"]) == 0
        assert len(ran) == 2
        table = read_table(SWEEPS / "vae_table.tsv")
        assert list(table.columns) == [
            "sampling.refine_steps",
            "training.epochs",
            "score",
            "mean",
            "deviation",
            "count",
        ]
        assert len(table) == 4 * 2
        assert (SWEEPS / "vae.png").stat().st_size > 10_000

    def test_other_code_or_settings_are_run_again(self, folder: Path, ran: list[list[str]]) -> None:
        sweep.main(["--name=vae", "--vary=training.epochs=1"])
        text = (folder / "params.yaml").read_text()
        (folder / "params.yaml").write_text(text.replace("kernel_subset_size: 1000", "kernel_subset_size: 500"))
        sweep.main(["--name=vae", "--vary=training.epochs=1"])
        (folder / "code/families/vae.txt").write_text("other\n")
        sweep.main(["--name=vae", "--vary=training.epochs=1"])
        assert ran == [["vae training.epochs=1 seed=0"]] * 3

    def test_more_values_add_to_what_is_there(self, folder: Path, ran: list[list[str]]) -> None:
        sweep.main(["--name=vae", "--vary=training.epochs=1"])
        sweep.main(["--name=vae", "--vary=training.epochs=1,3", "--seeds=0"])
        assert ran[1] == ["vae training.epochs=3 seed=0"]
        assert len(read_table(SWEEPS / "vae.tsv")) == 2 * 2

    def test_a_setting_that_is_not_there_is_named(self, folder: Path, ran: list[list[str]]) -> None:
        with pytest.raises(PipelineError, match=r"'vae' has no setting 'training\.epoch', only training\.seed, "):
            sweep.main(["--name=vae", "--vary=training.epoch=1"])
        with pytest.raises(PipelineError, match="there is no model 'vea', only autoencoder"):
            sweep.main(["--name=vea", "--vary=training.epochs=1"])
        assert not ran

    def test_a_table_of_something_else_is_not_overwritten(self, folder: Path, ran: list[list[str]]) -> None:
        write_table(SWEEPS / "vae.tsv", pd.DataFrame({"a": [1]}))
        with pytest.raises(PipelineError, match=r"sweeps/vae\.tsv is no table of a sweep: move it away"):
            sweep.main(["--name=vae", "--vary=training.epochs=1"])


@pytest.mark.parametrize(
    "vary", ["", "epochs=1", "training.epochs", "training.epochs=", "training.epochs=1,1", "training.seed=1"]
)
def test_wrong_words_are_refused(vary: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        sweep.main(["--name=vae", f"--vary={vary}"])
    assert refused.value.code == 2
    assert "error: argument --vary" in capsys.readouterr().err


def test_summary_over_seeds(folder: Path) -> None:
    rows = pd.DataFrame(
        [("vae", 0, "mse_x1000", 1.0), ("vae", 1, "mse_x1000", 3.0), ("cgan", 0, "mse_x1000", 5.0)],
        columns=["model", "seed", "score", "value"],
    )
    table = summary(rows, ["model"])
    assert table["count"].tolist() == [2, 1]
    assert table["mean"].tolist() == [2.0, 5.0]
    assert table["deviation"].tolist()[0] == pytest.approx(2**0.5)
    cells = [Cell(PIPELINE, name, 0) for name in ("vae", "cgan")]
    written = write_summary("some", table, ["model"], headline_columns(cells))
    assert written == [SWEEPS / "some_table.tsv", SWEEPS / "some.png"]
    assert all(path.exists() for path in written)


@pytest.mark.slow
def test_a_sweep_of_a_small_pipeline(scratch: Path) -> None:
    """Four cells with two trainings of two epochs; then the one that is deleted, from the cache."""
    for words in ("git init -q", "git add -A"):
        subprocess.run(words.split(), cwd=scratch, check=True)
    command = [sys.executable, "-m", "tools.sweep", "--name=autoencoder", f"--vary={VARY}", "--jobs=2"]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (scratch / SCRATCH).exists()
    rows = read_table(scratch / SWEEPS / "autoencoder.tsv")
    scores = rows.pivot_table(index="cell", columns="score", values="value")
    assert len(scores) == 4
    assert scores["mse_x1000"].nunique() == 4
    params = yaml.safe_load((scratch / "params.yaml").read_text())["models"]["autoencoder"]
    assert params["training"]["epochs"] == 1
    assert params["sampling"]["refine_steps"] == 10
    first = rows["cell"].iloc[0]
    write_table(scratch / SWEEPS / "autoencoder.tsv", rows[rows["cell"] != first])
    again = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 of 1 stages" in again.stdout
    assert "Running stage 'train@autoencoder'" not in again.stdout
    renewed = read_table(scratch / SWEEPS / "autoencoder.tsv").pivot_table(
        index="cell", columns="score", values="value"
    )
    pd.testing.assert_frame_equal(renewed, scores)
