"""Any family joins by one file and one block: toys of every capability, and twenty models at once, go all the way."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.paths import ROOT as PIPELINE
from tests.small import ROOT
from tests.toys.families import NAMES, block_of, text_of
from tools.edit_params import edited

# All stages of all models in one process: what is tested is what they make, not how DVC starts them.
DRIVER = """
import sys
from importlib import import_module
from stages.common.paths import ROOT

def run(stage, *names):
    import_module(f"stages.{stage}").main(ROOT, *names)

run("code")
run("check_params")
for name in sys.argv[1:]:
    for stage in ("lend", "train", "generate", "evaluate", "publish"):
        run(stage, name)
run("compare")
run("report")
"""

COUNT = 20


@pytest.fixture(scope="module")
def made(scratch: Path) -> Path:
    """A copy in which the toys joined, and enough of their likes to make twenty models beside those that are there."""
    (scratch / "generative/networks/toy_base.py").write_text((ROOT / "tests/toys/toy_base.py").read_text())
    for name in NAMES:
        (scratch / f"generative/families/{name}.py").write_text(text_of(name))
    models = {name: block_of(name) for name in NAMES}
    models |= {f"again{index}": block_of(NAMES[index % len(NAMES)], seed=index) for index in range(COUNT - len(NAMES))}
    with edited(scratch / "params.yaml") as params:
        params["models"] |= models
        params["generate"]["path_pairs"] = 10
    environment = os.environ | {"PYTHONPATH": str(scratch)}
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, *models],
        cwd=scratch,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return scratch


def scores_of(folder: Path, name: str) -> dict[str, float]:
    scores: dict[str, float] = json.loads((folder / PIPELINE.metrics("scores", name)).read_text())
    return scores


@pytest.mark.parametrize(
    ("name", "wanted", "unwanted"),
    [
        ("toy_sampler", {"frechet_distance", "label_accuracy", "cas", "nfe", "multiply_adds_x1e6"}, {"mse_x1000"}),
        ("toy_two_classes", {"frechet_distance", "label_accuracy"}, {"cas"}),
        ("toy_swept", {"frechet_distance", "nfe"}, {"label_accuracy"}),
        ("toy_encoder", {"mse_x1000", "pca_mse_x1000", "psnr"}, {"frechet_distance"}),
        ("toy_likelihood", {"log_p_estimate_binary", "log_p_lower_binary", "term"}, {"bits_per_dim", "elbo"}),
        ("toy_bound", {"elbo", "iw_bound", "active_units", "loss_kl", "bits_per_dim"}, {"frechet_distance"}),
        ("toy_translator", {"there_mse_x1000", "back_cycle_ssim", "back_accuracy"}, {"frechet_distance"}),
        ("toy_prompted", {"prompt_match_seen", "prompt_match_held_out", "prompt_match_real"}, {"frechet_distance"}),
        ("toy_diagnosed", set(), {"frechet_distance"}),
        ("toy_reader", {"frechet_distance", "cas"}, {"mse_x1000"}),
        ("toy_everything", {"frechet_distance", "mse_x1000", "iw_bound", "there_ssim", "prompt_match_seen"}, set()),
    ],
)
def test_a_model_has_the_scores_of_what_it_can_do(made: Path, name: str, wanted: set[str], unwanted: set[str]) -> None:
    found = set(scores_of(made, name))
    assert wanted <= found
    assert not unwanted & found


def test_perfect_code_of_all_pixels_divides_by_nothing(made: Path) -> None:
    scores = scores_of(made, "toy_encoder")
    assert scores["mse_x1000"] == 0
    assert scores["pca_mse_x1000"] == pytest.approx(0, abs=1e-3)
    assert scores["psnr"] < 60


def test_shared_error_is_part_of_the_error(made: Path) -> None:
    errors = json.loads((made / PIPELINE.metrics("errors", "toy_likelihood")).read_text())
    assert errors["log_p_estimate_binary"] >= 0.5


def test_bound_from_below_stands_as_far_below_the_estimate_as_it_is_on_the_images_that_have_one(made: Path) -> None:
    scores = scores_of(made, "toy_likelihood")
    assert scores["log_p_lower_binary"] == pytest.approx(scores["log_p_estimate_binary"] - 1, abs=1e-3)


def test_network_evaluations_are_those_that_the_model_names(made: Path) -> None:
    assert scores_of(made, "toy_swept")["nfe"] == 3


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("toy_sampler", {"samples_by_class", "neighbours", "over_epochs"}),
        ("toy_two_classes", {"samples_by_class"}),
        ("toy_swept", {"sweep_spread", "samples_by_spread"}),
        ("toy_encoder", {"interpolations"}),
        ("toy_translator", {"translation_there", "translation_back"}),
        ("toy_prompted", {"prompts"}),
        ("toy_diagnosed", {"norms", "filters", "numbers"}),
        ("toy_everything", {"samples_by_class", "interpolations", "translation_there", "prompts", "norms"}),
    ],
)
def test_a_model_has_the_figures_of_what_it_can_do(made: Path, name: str, drawn: set[str]) -> None:
    assert drawn <= {path.stem for path in (made / PIPELINE.figures(name)).glob("*.png")}


def test_sweeps_and_epochs_are_tables(made: Path) -> None:
    sweeps = (made / PIPELINE.plot_data("toy_swept") / "sweeps.tsv").read_text().splitlines()
    assert len(sweeps) == 3
    assert {"setting", "value", "classifier.kernel_x1000"} <= set(sweeps[0].split("\t"))
    epochs = (made / PIPELINE.plot_data("toy_sampler") / "epochs.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in epochs] == ["epoch", "1", "2"]


def test_twenty_models_and_more_stand_in_the_report(made: Path) -> None:
    content = (made / "report.pdf").read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 2
    assert len(list((made / "metrics/scores").glob("*.json"))) > COUNT


def test_no_model_may_read_an_extractor_that_was_not_trained_here(made: Path) -> None:
    code = "from importlib import import_module as load; from stages.common.paths import ROOT; "
    code += "load('stages.check_params').main(ROOT)"
    with edited(made / "params.yaml") as params:
        params["models"]["toy_reader"]["training"]["extractor"] = "imagenet"
    environment = os.environ | {"PYTHONPATH": str(made)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=made, env=environment, capture_output=True, text=True, check=False
    )
    with edited(made / "params.yaml") as params:
        params["models"]["toy_reader"]["training"]["extractor"] = "classifier"
    assert "'models.toy_reader.training.extractor' is 'imagenet'" in result.stderr
    assert "one of classifier, bottleneck: a network that was not trained here judges" in result.stderr


def test_they_are_benchmarked(made: Path) -> None:
    code = "import sys; sys.path.insert(0, '.'); from benchmarks import training_speed as b; "
    code += "b.ROUNDS, b.SECONDS_PER_ROUND, b.MATRIX_SIZE = 1, 0.01, 64; b._COUNTED = 4; sys.exit(b.main())"
    environment = os.environ | {"PYTHONPATH": str(made)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=made, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rows = {line.split()[0]: line for line in result.stdout.splitlines()[2:]}
    assert set(NAMES) <= set(rows)
    assert "–" in rows["toy_sampler"]  # which offers no plain step
