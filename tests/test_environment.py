"""How processes start: quiet threads and kept memory whoever starts them, the same instructions where asked for."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from generative.compute.environment import PORTABLE, QUIET, process_environment
from tests.small import PARAMS, ROOT, listen_to_interrupts, make_folder

RESTARTS = """
import os, sys
from generative.compute.environment import process_environment, restart_with

print(os.getpid(), sys.argv[1:], os.environ.get("OMP_WAIT_POLICY"), sys.flags.dev_mode)
restart_with(process_environment(os.environ, portable=False))
print("started")
"""


def test_users_settings_win_over_quiet_ones_but_not_over_what_decides_bytes() -> None:
    users = {"OMP_WAIT_POLICY": "active", "MKL_CBWR": "AVX512", "HOME": "/home/user"}
    assert process_environment(users, portable=False) == QUIET | users
    assert process_environment(users, portable=True) == QUIET | users | PORTABLE


def test_a_process_starts_anew_once_with_its_arguments_and_its_number() -> None:
    clean = {key: value for key, value in os.environ.items() if key not in QUIET}
    command = [sys.executable, "-X", "dev", "-c", RESTARTS, "one", "two words"]
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=True)
    first, second, end = done.stdout.splitlines()
    assert first.endswith("['one', 'two words'] None True")
    assert second.endswith("['one', 'two words'] passive True")
    assert first.split()[0] == second.split()[0]
    assert end == "started"


@pytest.mark.parametrize("portable", [True, False])
def test_a_stage_has_what_it_needs_whoever_starts_it(portable: bool, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, epochs=10_000)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["compute"]["portable"] = portable
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    clean = {key: value for key, value in os.environ.items() if key not in {*QUIET, *PORTABLE}}
    process = subprocess.Popen(
        [sys.executable, "-m", "stages", "train", "vae"],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(ROOT)},
        preexec_fn=listen_to_interrupts,
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder / "plots" / "training" / "vae.tsv").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        seen = Path(f"/proc/{process.pid}/environ").read_bytes().decode().split("\0")
    finally:
        process.kill()
        process.wait()
    has = dict(variable.split("=", 1) for variable in seen if variable)
    assert has.items() >= QUIET.items()
    assert (PORTABLE.items() <= has.items()) == portable


def test_every_stage_is_started_by_the_one_way_in() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    commands = [stage.get("do", stage)["cmd"] for stage in stages.values()]
    assert len(commands) >= 10
    assert all(command.startswith("python -m stages ") for command in commands)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which stage?"),
        (["params"], "'params' is no stage"),
        (["train"], "stage 'train': missing a required argument: 'name'"),
        (["prepare", "vae"], "stage 'prepare': too many positional arguments"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "stages", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {said}")
    assert len(done.stderr.splitlines()) == 1


def test_committed_results_are_portable() -> None:
    assert PARAMS["compute"]["portable"] is True
    assert PARAMS["compute"]["threads"] == 1
