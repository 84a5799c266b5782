"""A stage runs again when what it computes changes, and only then: files and params of a small run are edited, and what
then runs is looked at.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.download import SOURCE_VARIABLE
from tests.small import PARAMS
from tools.edit_params import edited
from tools.staleness import stale_stages
from tools.verify import STALE, main

pytestmark = pytest.mark.slow

MODELS = list(PARAMS["models"])
STEPS = ("lend", "train", "generate", "evaluate", "publish")  # of one model
GATES = {"code", "check_params"}
LAST = {"compare", "report"}


def run(folder: Path, *arguments: str, jobs: int = 1, environment: dict[str, str] | None = None) -> set[str]:
    """The stages that a run of the pipeline in `folder` ran."""
    command = [sys.executable, "-m", "tools.jobs", f"--jobs={jobs}", *arguments]
    result = subprocess.run(
        command, cwd=folder, env=os.environ | (environment or {}), capture_output=True, text=True, check=False
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    return {line.split("'")[1] for line in result.stdout.splitlines() if "Running stage '" in line}


def edit(folder: Path, name: str, before: str, after: str) -> None:
    text = (folder / name).read_text()
    assert before in text, name
    (folder / name).write_text(text.replace(before, after, 1))


def files_of(folder: Path, *names: str) -> dict[str, bytes]:
    paths = [path for name in names for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def stale() -> list[str]:
    """Stages of the root that would run; the small run has made nothing of the zoo."""
    return [name for name in stale_stages() if not name.startswith("zoo/")]


def test_words_format_and_hints_run_nothing(scratch: Path) -> None:
    before = files_of(scratch, "code")
    edit(scratch, "generative/errors.py", "Something outside the code is wrong.", "Something else is wrong.")
    edit(scratch, "generative/networks/coders.py", "last = _map_size", "# of the last layer\n    last: int = _map_size")
    edit(scratch, "generative/training/loop.py", "import math\n", "import math\nfrom collections.abc import Sequence\n")
    edit(scratch, "generative/training/loop.py", "previews: list[Tensor] = []", "previews: Sequence[Tensor] = []")
    edit(scratch, "stages/__main__.py", "the one way in", "the only way in")
    edit(scratch, "stages/common/fitting.py", "name: str,", 'name: "str",')
    edit(scratch, "stages/common/scoring.py", "_FEWEST_SUBSETS = 5", "_FEWEST_SUBSETS = (5)")
    edit(scratch, "stages/evaluate.py", "here: Pipeline, name: str)", "here: Pipeline, name)")
    edit(scratch, "stages/publish.py", '"""Stage', '"""The stage')
    assert run(scratch) == {"code"}
    assert files_of(scratch, "code") == before
    assert run(scratch) == set()


def test_comment_in_params_runs_nothing(scratch: Path) -> None:
    edit(scratch, "params.yaml", "compute:", "# where and how\ncompute:")
    assert run(scratch) == GATES


def test_helper_retrains_the_models_that_import_it_and_no_others(scratch: Path) -> None:
    edit(scratch, "generative/networks/coders.py", "_MAP_SIDE = 7", "_UNUSED = 1\n_MAP_SIDE = 7")
    users = ("autoencoder", "vae", "vae16")
    expected = {f"{stage}@{name}" for stage in ("train", "generate") for name in users}
    assert run(scratch) == expected | GATES | LAST  # their outputs are the same: nothing is scored again


def test_param_of_sampling_retrains_nothing(scratch: Path) -> None:
    with edited(scratch / "params.yaml") as params:
        params["models"]["vae"]["sampling"]["mixture_components"] = 3
    own = {f"{stage}@vae" for stage in ("generate", "evaluate", "publish")}
    assert run(scratch) == own | GATES | LAST


def test_order_of_models_counts_where_they_are_shown(scratch: Path) -> None:
    with edited(scratch / "params.yaml") as params:
        params["models"]["autoencoder"] = params["models"].pop("autoencoder")
    assert run(scratch) == GATES | LAST


def test_files_of_another_branch_leave_the_lock_as_it_is(scratch: Path) -> None:
    before = (scratch / "dvc.lock").read_bytes()
    strays = [scratch / "models" / "extractors" / "other.safetensors", scratch / "metrics" / "scores" / "other.json"]
    strays += [scratch / "plots" / "training_extractors" / "other.tsv", scratch / "plots" / "data" / "other"]
    for path in strays:
        path.write_text("of another branch")
    (ran,) = run(scratch)
    assert ran == "embed_real" or ran.startswith("lend@")  # the first that meets one of them: DVC sorts as it likes
    assert (scratch / "dvc.lock").read_bytes() == before
    assert not [path for path in strays if path.exists()]
    assert run(scratch) == set()


def test_template_of_the_report_runs_the_report(scratch: Path) -> None:
    edit(scratch, "stages/report.typ", "= What was done, and how", "= What was done")
    assert run(scratch) == {"code", "report"}


TOY_FAMILY = '''
"""Templates: one image per class, blurred by noise; as small as a family can be."""

import torch

from generative.capabilities.sampling import DrawsSamples
from generative.family import FamilyConfig, GenerativeModel, SamplingConfig
from generative.networks.templates import template_shape
from generative.objective import TrainingObjective


class Sampling(SamplingConfig):
    spread: float


class Config(FamilyConfig):
    sampling: Sampling

    def describe(self):
        return "one template per class plus noise."

    def sources(self):
        return []


class Model(GenerativeModel, DrawsSamples):
    conditional = True

    def __init__(self, config, num_classes):
        super().__init__(config, num_classes)
        self.templates = torch.nn.Embedding(num_classes, 784)

    def forward(self, y):
        return torch.sigmoid(self.templates(y)).view(template_shape())

    def sample(self, labels, rng):
        x = self(labels)
        return (x + self.sampling.spread * torch.randn(x.shape, generator=rng, device=rng.device)).clamp(0, 1)


class Objective(TrainingObjective):
    losses = {"squared_error": "squared error"}

    def __init__(self, model, config, fabric, total_steps):
        optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
        self.fabric, (self.model, self.optimizer) = fabric, fabric.setup(model, optimizer)

    def step(self, x, y, rng):
        loss = (self.model(y) - x).square().flatten(1).sum(1).mean()
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        return {"squared_error": loss.detach()}

    def validate(self, x, y, rng):
        return {"squared_error": (self.model(y) - x).square().flatten(1).sum(1).mean()}

    def state_dict(self):
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state["optimizer"])
'''


TOY_HELPER = "def template_shape():\n    return (-1, 1, 28, 28)\n"


def test_new_family_with_a_helper_retrains_nothing(scratch: Path) -> None:
    """It is one file, here with a helper, and one block; it is trained, scored, drawn and reported."""
    before = files_of(scratch, "code", "metrics", "plots/data", "plots/figures")
    added = [scratch / "generative" / "families" / "toy.py", scratch / "generative" / "networks" / "templates.py"]
    for path, text in zip(added, (TOY_FAMILY, TOY_HELPER), strict=True):
        path.write_text(text)
    with edited(scratch / "params.yaml") as params:
        training = {"seed": 1, "epochs": 1, "batch_size": 50, "learning_rate": 1.0}
        params["models"]["toy"] = {"family": "toy", "training": training, "sampling": {"spread": 0.1}}
    own = {f"{stage}@toy" for stage in STEPS}
    assert run(scratch) == own | GATES | LAST
    assert "label_accuracy" in json.loads((scratch / "metrics" / "scores" / "toy.json").read_text())
    assert (scratch / "plots" / "figures" / "toy" / "samples_by_class.png").exists()

    for path in added:
        path.unlink()
    with edited(scratch / "params.yaml") as params:
        del params["models"]["toy"]
    assert run(scratch) == GATES | LAST  # and away with it: none of its files stays behind
    assert files_of(scratch, "code", "metrics", "plots/data", "plots/figures") == before


NOT_IN_GIT: tuple[str, ...] = (
    ".dvc/cache",
    ".dvc/tmp",
    "data",
    "models",
    "plots/epochs",
    "plots/training",
    "plots/training_extractors",
)
NOT_IN_GIT += tuple(f"zoo/{name}" for name in ("data", "models", "plots/epochs", "plots/training"))


def without_data(folder: Path, clone: Path) -> Path:
    """A clone: what git keeps of the run in `folder`, an empty cache, and a remote that does not answer."""

    def ignored(place: str, names: list[str]) -> set[str]:
        return {name for name in names if str((Path(place) / name).relative_to(folder)) in NOT_IN_GIT}

    shutil.copytree(folder, clone, ignore=ignored)
    with (clone / ".dvc" / "config.local").open("a") as config:
        config.write("['remote \"local\"']\n    url = http://127.0.0.1:9/nothing\n")
    return clone


def test_one_model_in_a_clone_without_data(scratch: Path, raw_folder: Path, tmp_path: Path) -> None:
    clone = without_data(scratch, tmp_path / "clone")
    kept = ("metrics/scores", "metrics/errors", "plots/data", "plots/figures", "code/stages")
    before = files_of(clone, *kept)
    assert "plots/data/vae/samples.png" in before
    with edited(clone / "params.yaml") as params:
        params["models"]["mine"] = json.loads(json.dumps(params["models"]["vae"]))
        params["models"]["mine"]["training"]["latent_dim"] = 3
    report = (clone / "report.pdf").read_bytes()
    ran = run(clone, "--models=mine", environment={SOURCE_VARIABLE: str(raw_folder)})
    assert {name for name in ran if name.startswith("train")} == {
        "train@mine",
        *(f"train_extractor@{name}" for name in PARAMS["extractors"]),
    }
    assert {f"{stage}@mine" for stage in ("generate", "evaluate", "publish")} | LAST <= ran
    after = files_of(clone, *kept)
    assert {name: after[name] for name in before} == before  # the others stay as they were committed
    assert (clone / "metrics" / "headline" / "mine.json").exists()
    assert "mine" in (clone / "plots" / "curves.tsv").read_text()
    assert (clone / "report.pdf").read_bytes() != report
    assert run(clone, "--models=mine", environment={SOURCE_VARIABLE: str(raw_folder)}) == set()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuch", "params.yaml has no model 'nosuch', only"),
        ("vae", "params.yaml has models without results to stand beside vae: other."),
    ],
)
def test_model_that_cannot_be_made_alone_is_named(name: str, words: str, scratch: Path) -> None:
    with edited(scratch / "params.yaml") as params:
        params["models"]["other"] = json.loads(json.dumps(params["models"]["vae"]))
    command = [sys.executable, "-m", "tools.jobs", f"--models={name}"]
    result = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    with edited(scratch / "params.yaml") as params:
        del params["models"]["other"]
    assert result.returncode == 1
    assert f"error: {words}" in result.stderr
    assert "Traceback" not in result.stderr


def test_models_of_other_params_are_pointed_out(scratch: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with edited(scratch / "params.yaml") as params:
        params["evaluate"]["seed"] += 1
    ran = run(scratch, "--models=vae")
    with edited(scratch / "params.yaml") as params:
        params["evaluate"]["seed"] -= 1
    assert {name for name in ran if name.startswith("evaluate")} == {"evaluate@vae"}
    assert "note: other models are of other code, params or data than vae" in capfd.readouterr().out


def test_checkpoint_survives_what_computes_nothing(scratch: Path) -> None:
    with edited(scratch / "params.yaml") as params:
        epochs = params["models"]["autoencoder"]["training"]["epochs"]
        params["models"]["autoencoder"]["training"]["epochs"] = 10_000
    train, code = ([sys.executable, "-m", "stages", *words] for words in (("train", "autoencoder"), ("code",)))

    def printed_after_a_kill() -> str:
        process = subprocess.Popen(train, cwd=scratch, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        seen = {path: path.stat().st_mtime_ns for path in scratch.glob(".checkpoints/autoencoder/*.pt")}
        while time.monotonic() < deadline:
            now = {path: path.stat().st_mtime_ns for path in scratch.glob(".checkpoints/autoencoder/*.pt")}
            if now != seen and now:
                break
            time.sleep(0.05)
        process.kill()
        return process.communicate()[0]

    assert "goes on after epoch" not in printed_after_a_kill()
    edit(scratch, "generative/training/loop.py", "The training loop, the same", "The one training loop, the same")
    assert "goes on after epoch" in printed_after_a_kill()
    edit(scratch, "generative/training/loop.py", "_EXPLODED = 100.0", "_EXPLODED = 101.0")
    subprocess.run(code, cwd=scratch, check=True)
    assert "goes on after epoch" not in printed_after_a_kill()

    edit(scratch, "generative/training/loop.py", "_EXPLODED = 101.0", "_EXPLODED = 100.0")
    subprocess.run(code, cwd=scratch, check=True)
    shutil.rmtree(scratch / ".checkpoints")
    with edited(scratch / "params.yaml") as params:
        params["models"]["autoencoder"]["training"]["epochs"] = epochs


class TestVerifyWithoutData:
    @pytest.fixture
    def clone(self, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = without_data(finished_run, tmp_path / "clone")
        monkeypatch.chdir(folder)
        return folder

    def test_all_agree(self, clone: Path) -> None:
        assert stale() == []
        edit(clone, "generative/errors.py", "Something outside the code is wrong.", "Something else is wrong.")
        edit(clone, "params.yaml", "compute:", "# where and how\ncompute:")
        assert stale() == []

    @pytest.mark.parametrize(
        ("change", "first", "others"),
        [
            (
                lambda clone: edit(clone, "params.yaml", "decoder_variance: calibrated", "decoder_variance: 0.5"),
                "lend@vae",
                {"train@vae", "generate@vae", "evaluate@vae", "publish@vae", *LAST},
            ),
            (
                lambda clone: edit(
                    clone, "generative/training/adversarial.py", "    average: Mov", "    _unused = 1\n    average: Mov"
                ),
                "train@vae16",
                {
                    "train@cgan",
                    *(f"{stage}@{name}" for stage in ("generate", "evaluate", "publish") for name in ("cgan", "vae16")),
                    *LAST,
                },
            ),
            (
                lambda clone: edit(clone, "metrics/scores/vae.json", "0.", "1."),
                "publish@vae",
                LAST,
            ),
            (lambda clone: edit(clone, "stages/report.typ", "= What was done", "= What is done"), "report", set()),
            (lambda clone: edit(clone, "plots/curves.tsv", "\t", " "), "compare", {"report"}),
            (lambda clone: (clone / "report.pdf").unlink(), "report", set()),
            (lambda clone: (clone / "metrics" / "features" / "vae.json").unlink(), "publish@vae", LAST),
        ],
    )
    def test_names_the_stages_that_would_run(
        self, clone: Path, change: Callable[[Path], Any], first: str, others: set[str]
    ) -> None:
        change(clone)
        found = [name for name in stale() if name not in GATES]
        assert found[0] == first
        assert set(found[1:]) == others

    @pytest.mark.parametrize(
        ("stage", "out", "found"),
        [
            ("evaluate@vae", "data/scores/vae.json", "publish@vae"),
            ("train_extractor@bottleneck", "models/extractors/bottleneck.safetensors", "embed_real"),
        ],
    )
    def test_lock_that_disagrees_with_itself_is_stale(self, clone: Path, stage: str, out: str, found: str) -> None:
        """As when one stage was run by itself, and what depends on it was not."""
        lock = yaml.safe_load((clone / "dvc.lock").read_text())
        (entry,) = (entry for entry in lock["stages"][stage]["outs"] if entry["path"] == out)
        entry["md5"] = entry["md5"][::-1]
        (clone / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
        assert found in stale()

    def test_some_data_that_were_pulled_make_nothing_stale(self, clone: Path, finished_run: Path) -> None:
        (clone / "models" / "extractors").mkdir(parents=True)
        pulled = Path("models") / "extractors" / "classifier.safetensors"
        shutil.copyfile(finished_run / pulled, clone / pulled)
        assert stale() == []
        (clone / pulled).write_bytes(b"other")
        assert {"train_extractor@classifier", "embed_real", "evaluate@vae"} <= set(stale())

    def test_without_a_lock_all_are_stale(self, clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
        stages = set(yaml.safe_load((clone / "dvc.lock").read_text())["stages"])
        (clone / "dvc.lock").unlink()
        assert set(stale()) == stages - GATES
        assert main(["--no-remote"]) == STALE
        assert (
            "dvc.lock is not that of the code and params here: run `make repro` and commit" in capsys.readouterr().out
        )

    def test_code_that_cannot_be_followed_is_an_error(self, clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
        edit(clone, "stages/evaluate.py", "from torch import Tensor\n", "import einops\nfrom torch import Tensor\n")
        assert main(["--no-remote"]) == 4
        assert "error: stages/evaluate.py imports 'einops'" in capsys.readouterr().err
