"""The quick processes of the tests behave as new ones do."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.preloaded import COMMANDS
from tests.small import listen_to_interrupts

pytestmark = pytest.mark.skipif(COMMANDS not in os.environ, reason="there is no server here")

STAGE = """
import json, os, sys, time
from pathlib import Path

print(json.dumps([os.getcwd(), sys.argv[1:], os.environ.get("WORD"), "torch" in sys.modules, sys.stdin.read()]))
print("said", file=sys.stderr)
if sys.argv[1:] == ["wait"]:
    Path("number").write_text(str(os.getpid()))
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)
sys.exit(7)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "__main__.py").write_text(STAGE)
    (tmp_path / "stages" / "__init__.py").touch()
    return tmp_path


def within(seconds: float, happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.02)
    return happened()


@pytest.mark.parametrize(
    ("more", "preloaded"), [({}, "true"), ({"PYTHONPATH": "/nowhere"}, "true"), ({"MKL_CBWR": "AVX2"}, "false")]
)
def test_folder_arguments_environment_streams_and_exit_code(folder: Path, more: dict[str, str], preloaded: str) -> None:
    done = subprocess.run(
        ["python", "-m", "stages", "two words", "b"],
        cwd=folder,
        env=os.environ | {"WORD": "ü"} | more,
        input="given",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f'["{folder}", ["two words", "b"], "\\u00fc", {preloaded}, "given"]\n'
    assert (done.stderr, done.returncode) == ("said\n", 7)


def test_other_commands_are_started_as_ever(folder: Path) -> None:
    code = "import sys; print('torch' in sys.modules)"
    assert subprocess.run(["python", "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    version = subprocess.run(["dvc", "--version"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert version.count(".") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_arrive_and_nothing_outlives_the_command(folder: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        ["python", "-m", "stages", "wait"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=listen_to_interrupts,
    )
    assert within(60, lambda: (folder / "number").exists() and bool((folder / "number").read_text()))
    child = Path("/proc") / (folder / "number").read_text()
    assert child.name != str(process.pid)
    process.send_signal(number)
    assert process.wait(timeout=60) == (130 if number == signal.SIGINT else -number)
    assert within(20, lambda: not child.exists())
