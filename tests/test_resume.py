"""Every training stage, killed at random moments and started again, ends in the files of an undisturbed run."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from stages.common.paths import ROOT as PIPELINE
from tests.small import MODELS, PARAMS, ROOT, listen_to_interrupts, make_folder

EPOCHS = 12
KILLS = 4  # at least; more until one came after the first epoch
MOST_KILLS = 40
STAGES = [("train", name) for name in MODELS]
STAGES += [("train_extractor", name) for name, block in PARAMS["extractors"].items() if "epochs" in block]

_context = multiprocessing.get_context("forkserver")  # forks processes that have torch imported already
_context.set_forkserver_preload(["lightning_fabric", "stages.train", "stages.train_extractor"])


def work(folder: str, stage: str, name: str) -> None:
    os.chdir(folder)
    import_module(f"stages.{stage}").main(PIPELINE, name)


def start(folder: Path, stage: str, name: str) -> BaseProcess:
    process = _context.Process(target=work, args=(str(folder), stage, name))
    process.start()
    return process


def outputs(folder: Path) -> dict[str, bytes]:
    files = [path for kind in ("models", "plots") for path in (folder / kind).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """Start the server that forks, so that no measured duration holds its imports."""
    process = _context.Process(target=abs, args=(1,))
    process.start()
    process.join()


@pytest.mark.parametrize(("stage", "name"), STAGES)
def test_killed_at_random_moments_ends_in_the_same_bytes(stage: str, name: str, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed of the moments: {seed}")
    moments = random.Random(seed)
    calm, killed = make_folder(tmp_path / "calm", epochs=EPOCHS), make_folder(tmp_path / "killed", epochs=EPOCHS)
    started = time.monotonic()
    process = start(calm, stage, name)
    process.join()
    duration = time.monotonic() - started
    assert process.exitcode == 0
    assert len(outputs(calm)) >= 2

    kills, resumed = 0, False
    while kills < KILLS or not resumed:
        process = start(killed, stage, name)
        process.join(moments.uniform(0, 0.7 * duration))
        process.kill()
        process.join()
        kills += 1
        resumed |= bool(list((killed / ".checkpoints").glob("*/*.pt")))
        assert kills < MOST_KILLS, "no kill came after the first epoch"
    process = start(killed, stage, name)
    process.join()
    assert process.exitcode == 0
    assert outputs(killed) == outputs(calm)
    assert not list((killed / ".checkpoints").glob("*/*"))


def test_interrupted_training_says_that_it_can_go_on(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "interrupted", epochs=10_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages", "train", "vae"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen_to_interrupts,
    )
    deadline = time.monotonic() + 120
    while not (folder / "plots" / "training" / "vae.tsv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (
        printed.splitlines()[-1]
        == "error: interrupted: run the same command again to go on from the last finished epoch."
    )
    assert list((folder / ".checkpoints" / "vae").glob("*.pt"))
    shutil.rmtree(folder)
