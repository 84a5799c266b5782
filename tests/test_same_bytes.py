"""A run of the whole pipeline ends in the same bytes: from nothing, on one core, and after a training was killed."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from stages.download import SOURCE_VARIABLE
from tests.preloaded import preloaded
from tests.small import ROOT
from tests.test_pipeline import lock_of

pytestmark = pytest.mark.slow


def test_run_from_scratch_gives_the_same_hashes_also_with_stages_one_by_one(scratch: Path, raw_folder: Path) -> None:
    before = lock_of(scratch)
    (scratch / "dvc.lock").unlink()
    shutil.rmtree(scratch / ".dvc" / "cache" / "runs")
    command = [sys.executable, "-m", "tools.jobs", "--jobs=1"]
    with preloaded(PYTHONHASHSEED="1") as environment:  # sets in another order than in the first run
        environment |= {SOURCE_VARIABLE: str(raw_folder)}
        printed = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stdout + printed.stderr
    assert printed.stdout.count("Running stage") == len(before)
    assert lock_of(scratch) == before


def test_killed_training_goes_on_and_ends_in_the_same_bytes(scratch: Path, tmp_path: Path) -> None:
    """SIGKILL after the first checkpoint, through the real stage and its files."""
    for name in ("stages", "generative", "code"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").symlink_to(scratch / "data")
    params = yaml.safe_load((scratch / "params.yaml").read_text())
    params["models"]["autoencoder"]["training"]["epochs"] = 40
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    command = [sys.executable, "-m", "stages", "train", "autoencoder"]
    weights = tmp_path / "models" / "autoencoder.safetensors"
    curves = tmp_path / "plots" / "training" / "autoencoder.tsv"

    def outputs() -> dict[Path, bytes]:
        files = [path for folder in ("models", "plots") for path in (tmp_path / folder).rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files}

    subprocess.run(command, cwd=tmp_path, check=True)
    undisturbed = outputs()
    assert len(undisturbed) == 2 + 40  # weights, curves, and a picture per epoch
    shutil.rmtree(tmp_path / "models")
    shutil.rmtree(tmp_path / "plots")

    process = subprocess.Popen(command, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not curves.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not weights.exists()
    assert second.returncode == 1
    assert "is being trained by another process" in second.stderr

    resumed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "goes on after epoch" in resumed.stdout
    assert outputs() == undisturbed
    assert not list((tmp_path / ".checkpoints").glob("*/*"))
