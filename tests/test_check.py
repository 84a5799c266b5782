"""`make check`: the committed results are recognised, another seed is let through, half a training is not."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from generative.io.files import read_json, write_json
from generative.io.tables import read_table
from stages.common.params import read_params
from stages.common.paths import REAL, ZOO, Pipeline
from stages.common.paths import ROOT as PIPELINE
from stages.common.seeds import recipe
from tests.small import ROOT
from tools import check, machine
from tools.check import DIFFERENT, REPRODUCED, UNJUDGED, Verdict, changed_params, judge
from tools.edit_params import edited
from tools.machine import fingerprint, note_machine, outputs, processor
from tools.pipelines import homes_of_models, present_pipelines
from tools.seeds import HALVED, read_seed_tables
from tools.staleness import UnansweredError
from tools.tolerance import Spread, Table, deviations, differing, tolerances

HOMES = homes_of_models()
GIT = ("git init -q", "git add .", "git -c user.name=tester -c user.email=tester@example.org commit -qm results")


def committed(kind: str) -> dict[str, dict[str, float]]:
    """Scores or errors, by model of both pipelines."""
    homes = {**HOMES, REAL: PIPELINE}
    return {name: read_json(here.metrics(kind, name)) for name, here in homes.items()}


def by_seed(rows: pd.DataFrame) -> dict[int, dict[str, dict[str, float]]]:
    """Scores by seed, then by model."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    for model, seed, score, value in rows[["model", "seed", "score", "value"]].itertuples(index=False, name=None):
        found.setdefault(seed, {}).setdefault(model, {})[score] = value
    return found


@pytest.mark.parametrize("place", [0, 1], ids=["models", "extractors"])
def test_a_seed_that_is_left_out_raises_no_alarm(place: int) -> None:
    scores, errors, tables = committed("scores"), committed("errors"), read_seed_tables()
    if tables[place]["seed"].nunique() < 2:
        pytest.skip("the seeds are of another recipe: `make seeds`")
    for seed, found in by_seed(tables[place]).items():
        left = list(tables)
        left[place] = left[place][left[place]["seed"] != seed]
        of_models, of_extractors = (deviations(rows, scores) for rows in left)
        allowed = tolerances(scores, errors, of_models, of_extractors, list(found))
        whole = {model: scores[model] | row for model, row in found.items()}  # imagenet has no other seed
        count, differences = differing(whole, scores, allowed)
        assert count > 10 * len(found)
        assert not differences, [str(one) for one in differences]


def halved() -> pd.DataFrame:
    return read_table(HALVED)


@pytest.mark.parametrize("name", sorted(set(halved()["model"])))
def test_half_the_epochs_raise_an_alarm(name: str) -> None:
    rows = halved()
    own = rows[(rows["model"] == name) & (rows["recipe"] == recipe(read_params(HOMES[name]), name))]
    if not len(own):
        pytest.skip(f'{HALVED} is of another recipe: `make seeds MODELS="{name}" HALVED=1`')
    scores, errors = committed("scores"), committed("errors")
    found = dict(zip(own["score"], own["value"], strict=True))
    together = [model for model in scores if HOMES.get(model, PIPELINE) == HOMES[name]]  # as `make check` compares
    of_models, of_extractors = (deviations(rows, scores) for rows in read_seed_tables())
    allowed = tolerances(scores, errors, of_models, of_extractors, together)
    _, differences = differing({name: found}, scores, {name: allowed[name]})
    assert differences


def test_real_images_alone_say_nothing_of_models() -> None:
    table: Table = {"vae": {"mse": 1.0}, REAL: {"mse": 1.0}}
    assert tolerances(table, table, {}, {REAL: {"mse": Spread(1.0, 3)}}, ["vae", REAL]) == {}


def test_what_never_varies_may_still_be_rounded_otherwise() -> None:
    table: Table = {"vae": {"floor": 46.0966}}
    allowed = tolerances(table, {"vae": {"floor": 0.2}}, {"vae": {"floor": Spread(0.0, 3)}}, {}, ["vae"])
    assert 0.001 < allowed["vae"]["floor"] < 0.01
    assert differing({"vae": {"floor": 46.0967}}, table, allowed) == (1, [])


def test_a_score_that_is_missing_is_a_difference() -> None:
    table: Table = {"vae": {"mse": 1.0}}
    assert [str(one) for one in differing({"vae": {}}, table, {"vae": {"mse": 9.0}})[1]] == [
        "vae mse nan, committed 1 ± 9"
    ]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What git has of the results, committed, and one file of weights of each pipeline, as after a run."""
    folder = tmp_path / "clone"
    for here in present_pipelines(ROOT):
        for path in (
            here.params,
            here.definition,
            here.definition.with_suffix(".lock"),
            here.seeds,
            here.folder / "extractor_seeds.tsv",
        ):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, folder / path)
        for path in (here.code, here.folder / "metrics"):
            shutil.copytree(ROOT / path, folder / path)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(check, "stale_stages", list)
    for here in present_pipelines():
        note_machine(here)
    for words in GIT:
        subprocess.run(words.split(), check=True)
    for here in present_pipelines():
        weights = here.model(read_params(here).models[0])
        weights.parent.mkdir(parents=True)
        weights.touch()
    return folder


def other_bytes(here: Pipeline) -> None:
    """As after a run on another processor: other weights of the first model."""
    lock = here.definition.with_suffix(".lock")
    path = str(here.model(read_params(here).models[0]))
    lock.write_text(lock.read_text().replace(outputs(lock.read_text())[path], "0" * 32))


def change(here: Pipeline, name: str, score: str, factor: float) -> None:
    path = here.metrics("scores", name)
    write_json(path, read_json(path) | {score: read_json(path)[score] * factor})


@pytest.mark.usefixtures("clone")
@pytest.mark.parametrize(("here", "name"), [(PIPELINE, "vae"), (ZOO, "gan")], ids=["root", "zoo"])
class TestVerdict:
    def word(self, here: Pipeline) -> str:
        return "make zoo" if here == ZOO else "make repro"

    def test_the_committed_bytes(self, here: Pipeline, name: str) -> None:
        assert judge(here) == (REPRODUCED, f"{self.word(here)}: these are the committed results, byte for byte.")

    def test_other_bytes_with_the_same_scores(self, here: Pipeline, name: str) -> None:
        other_bytes(here)
        verdict = judge(here)
        assert verdict.code == REPRODUCED
        assert f"to the last digit; other bytes have {here.model(read_params(here).models[0])}" in verdict.sentence

    def test_scores_within_the_spread_of_seeds(self, here: Pipeline, name: str) -> None:
        other_bytes(here)
        change(here, name, "frechet_imagenet", 1.001)
        verdict = judge(here)
        assert verdict.code == REPRODUCED, verdict.sentence
        assert "these are the committed results, though not their bytes: all " in verdict.sentence
        assert verdict.sentence.endswith(" They were made on a machine like this.")

    def test_what_differs_between_the_machines_is_said(
        self, here: Pipeline, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other_bytes(here)
        change(here, name, "frechet_imagenet", 1.001)
        monkeypatch.setattr(machine, "processor", lambda: "another")
        words = f" The committed ones are of processor {processor()}, here another."
        assert judge(here).sentence.endswith(words)
        (here.folder / "made_on.json").write_text("<<<<<<<")  # only that of the commit counts
        assert judge(here).sentence.endswith(words)

    def test_a_score_outside_of_it_is_named(self, here: Pipeline, name: str) -> None:
        other_bytes(here)
        change(here, name, "frechet_imagenet", 3)
        verdict = judge(here)
        assert verdict.code == DIFFERENT
        value = read_json(here.metrics("scores", name))["frechet_imagenet"]
        assert f"{name} frechet_imagenet {value:.4g}, committed {value / 3:.4g} ± " in verdict.sentence
        assert "1 of " in verdict.sentence

    def test_without_known_seeds(self, here: Pipeline, name: str) -> None:
        other_bytes(here)
        change(here, name, "frechet_imagenet", 1.001)
        for home in present_pipelines():
            home.seeds.unlink()
        verdict = judge(here)
        assert verdict.code == UNJUDGED
        assert "how far scores spread is not known: run `make seeds`" in verdict.sentence

    def test_a_model_without_committed_scores(self, here: Pipeline, name: str) -> None:
        for path in (here.metrics("scores", name), here.metrics("errors", name)):
            for words in (f"git rm -q --cached {path}", *GIT[2:]):
                subprocess.run(words.split(), check=True)
            other_bytes(here)
            assert judge(here).code == UNJUDGED
            assert judge(here).sentence.endswith(f"the last commit has no scores of {name}.")
            for words in GIT[1:]:
                subprocess.run(words.split(), check=True)

    @pytest.mark.parametrize("content", ["", "{", "<<<<<<< HEAD\n", "null", "\x00"])
    @pytest.mark.parametrize("file", ["dvc.lock", "params.yaml", "seeds.tsv", "extractor_seeds.tsv", "metrics"])
    def test_damaged_files(self, here: Pipeline, name: str, file: str, content: str) -> None:
        other_bytes(here)
        change(here, name, "frechet_imagenet", 1.001)
        path = here.metrics("scores", name) if file == "metrics" else here.folder / file
        path.write_text(content)
        verdict = judge(here)
        assert verdict.code == UNJUDGED
        assert len(verdict.sentence.splitlines()) == 1

    def test_other_settings(self, here: Pipeline, name: str) -> None:
        with edited(here.params) as params:
            epochs = params["models"][name]["training"]["epochs"]
            params["models"][name]["training"]["epochs"] = epochs + 1
            params["models"]["mine"] = dict(params["models"][name])
            params["report"]["link"] = "elsewhere"
        other_bytes(here)
        verdict = judge(here)
        assert verdict.code == UNJUDGED
        wanted = f"(models.{name}.training.epochs: {epochs + 1}, committed {epochs}, models.mine: new)"
        assert wanted in verdict.sentence

    def test_other_code(self, here: Pipeline, name: str) -> None:
        other_bytes(here)
        change(here, name, "frechet_imagenet", 1.001)
        path = next((ROOT / PIPELINE.code / "families").glob("vae.txt")).relative_to(ROOT)
        line = path.read_text().splitlines()[0]
        path.write_text(path.read_text().replace(line.split()[0], "0" * len(line.split()[0])))
        assert judge(here) == (
            UNJUDGED,
            f"{self.word(here)}: whether these are the committed results cannot be judged: code is not that of the "
            f"last commit ({line.split(maxsplit=1)[-1]}).",
        )

    def test_an_unfinished_run(self, here: Pipeline, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        prefix = "zoo/dvc.yaml:" if here == ZOO else ""
        monkeypatch.setattr(check, "stale_stages", lambda: ["train@x", "zoo/dvc.yaml:train@y"])
        verdict = judge(here)
        assert verdict.code == UNJUDGED
        assert f"would still run {prefix}train@{'y' if prefix else 'x'}." in verdict.sentence
        assert judge(here, finished=True).code == REPRODUCED

    def test_nothing_was_run(self, here: Pipeline, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        here.model(read_params(here).models[0]).unlink()
        assert judge(here) == (
            UNJUDGED,
            f"{self.word(here)}: whether these are the committed results cannot be judged: nothing was run here yet.",
        )
        assert check.main() == (UNJUDGED if here == PIPELINE else REPRODUCED)
        assert ("make zoo" in capsys.readouterr().out) == (here == PIPELINE)

    @pytest.mark.parametrize("lose", [lambda: shutil.rmtree(".git"), lambda: None], ids=["no repository", "no git"])
    def test_without_git(
        self, here: Pipeline, name: str, lose: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lose()
        if Path(".git").exists():
            monkeypatch.setenv("PATH", "")
        verdict = judge(here)
        assert verdict.code == UNJUDGED
        assert ("there is no git." in verdict.sentence) == Path(".git").exists()
        assert ("git says 'fatal: not a git repository" in verdict.sentence) != Path(".git").exists()

    def test_what_cannot_be_read(self, here: Pipeline, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken() -> list[str]:
            raise UnansweredError("dvc.yaml cannot be read.")

        monkeypatch.setattr(check, "stale_stages", broken)
        assert judge(here).code == UNJUDGED
        assert judge(here).sentence.endswith("cannot be judged: dvc.yaml cannot be read.")

    def test_the_worst_verdict_decides(
        self, here: Pipeline, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        verdicts = {PIPELINE: Verdict(UNJUDGED, "one"), ZOO: Verdict(REPRODUCED, "two")}
        monkeypatch.setattr(check, "judge", verdicts.get)
        assert check.main() == UNJUDGED
        verdicts[here] = Verdict(DIFFERENT, "three")
        assert check.main() == DIFFERENT
        assert "three" in capsys.readouterr().out


def test_figures_and_report_change_no_score(clone: Path) -> None:
    with edited(Path("params.yaml")) as params:
        params["figures"]["dpi"] = 50
        params["generate"]["seed"] = 3
    assert changed_params(PIPELINE) == ["generate.seed: 3, committed 0"]


def test_the_machine_is_noted_once_for_the_same_results(clone: Path) -> None:
    noted = json.loads(Path("made_on.json").read_text())
    assert noted["results"] == fingerprint(Path("dvc.lock").read_text())
    assert noted["threads"] == yaml.safe_load(Path("params.yaml").read_text())["compute"]["threads"]
    assert noted["instructions"] in ("AVX-512", "AVX2")
    Path("made_on.json").write_text(json.dumps(noted | {"processor": "another"}))
    note_machine(PIPELINE)
    assert json.loads(Path("made_on.json").read_text())["processor"] == "another"
    other_bytes(PIPELINE)
    note_machine(PIPELINE)
    assert json.loads(Path("made_on.json").read_text())["processor"] == noted["processor"]


def test_the_machine_of_the_committed_results_comes_back_with_them(clone: Path) -> None:
    before = {name: Path(name).read_text() for name in ("made_on.json", "dvc.lock")}
    other_bytes(PIPELINE)
    for damaged in ("", "[]", "{"):
        Path("made_on.json").write_text(damaged)
        note_machine(PIPELINE)
        assert json.loads(Path("made_on.json").read_text())["results"] != json.loads(before["made_on.json"])["results"]
    Path("dvc.lock").write_text(before["dvc.lock"])
    note_machine(PIPELINE)
    assert Path("made_on.json").read_text() == before["made_on.json"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_ends_with_the_verdict(jobs: int, scratch: Path) -> None:
    if not (scratch / ".git").exists():
        for words in GIT:
            subprocess.run(words.split(), cwd=scratch, check=True)
    command = [sys.executable, "-m", "tools.jobs", f"--jobs={jobs}"]
    printed = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "make repro: these are the committed results, byte for byte."
