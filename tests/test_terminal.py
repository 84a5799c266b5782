"""What a run of stages side by side shows."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout

import pytest

from tests.small import ROOT
from tools.terminal import RunningStage, Screen, StatusLines, as_time


def test_lines_and_what_is_drawn_over() -> None:
    screen = Screen()
    assert list(screen.feed(b"first\nsec")) == ["first"]
    assert list(screen.feed(b"ond\r\nthird")) == ["second"]
    assert list(screen.feed(b"\rcgan 1/15:  3%|")) == []
    assert screen.current == "cgan 1/15:  3%|"
    assert list(screen.feed(b"\rcgan 1/15:  5%|\r")) == []
    assert list(screen.feed(b"\ndone\n")) == ["cgan 1/15:  5%|", "done"]  # the pieces cut a line end in two
    assert screen.current == ""


def test_colours_and_cut_characters() -> None:
    screen = Screen()
    word = "\x1b[31mfünf\x1b[0m\x1b[K\n".encode()
    cut = word.index(b"\xc3") + 1
    assert list(screen.feed(word[:cut])) == []
    assert list(screen.feed(word[cut:])) == ["fünf"]


SCRIPT = """
import sys, time
print("Running stage 'work':")
print("> python -m stages work")
print("starts", sys.stderr.isatty(), flush=True)
sys.stderr.write("\\rhalf 50%")
sys.stderr.flush()
time.sleep(0.6)
sys.stderr.write("\\r        \\r")
print("ends")
sys.exit(3)
"""


def test_a_stage_writes_to_a_terminal_and_its_line_is_what_it_last_drew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.terminal._EVERY", 0.2)
    printed = io.StringIO()
    running: dict[str, RunningStage] = {}
    with redirect_stdout(printed), StatusLines(running, total=4, done=1) as status:
        stage = running["work"] = RunningStage("work", [sys.executable, "-c", SCRIPT], os.environ, status)
        while (code := stage.poll()) is None:
            time.sleep(0.01)
    lines = printed.getvalue().splitlines()
    assert code == 3
    assert stage.worked
    assert lines[0] == "[work] Running stage 'work':"
    assert lines[1] == "[work] starts True"
    assert any(line.startswith("[work] 0:0") and line.endswith("half 50%") for line in lines)
    assert lines[-2].strip() == "[work] ends"
    assert lines[-1].startswith("[work] failed with exit code 3 after 0:0")
    assert lines[-1].endswith("(1 of 4 stages)")


LIVE = """
import os, sys, time
from tools.terminal import RunningStage, StatusLines
running = {}
with StatusLines(running, total=2, done=0) as status:
    for name in ("one", "two"):
        code = f"import sys, time; sys.stderr.write('\\\\r{name} at work'); sys.stderr.flush(); time.sleep(1.5)"
        running[name] = RunningStage(name, [sys.executable, "-c", code], os.environ, status)
    while any(stage.poll() is None for stage in running.values()):
        time.sleep(0.02)
"""


def test_a_terminal_has_a_line_for_each_running_stage() -> None:
    """The run itself is given a terminal here, by the class under test."""
    with redirect_stdout(io.StringIO()), StatusLines({}, total=1, done=0) as status:
        drawn: list[bytes] = []

        class Recording(Screen):
            def feed(self, content: bytes) -> Iterator[str]:
                drawn.append(content)
                return super().feed(content)

        environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
        stage = RunningStage("run", [sys.executable, "-c", LIVE], environment | {"PYTHONPATH": str(ROOT)}, status)
        stage.screen = Recording()
        while (code := stage.poll()) is None:
            time.sleep(0.01)
    assert code == 0
    frames = b"".join(drawn).decode()
    assert "one at work" in frames
    assert "two at work" in frames
    assert any("one at work" in frame and "two at work" in frame for frame in frames.split("\x1b[2K"))


def test_time() -> None:
    assert [as_time(seconds) for seconds in (0.4, 59.9, 65, 3601)] == ["0:00", "0:59", "1:05", "60:01"]


def test_module_runs_without_a_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", LIVE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if "done" in line or "restored" in line]
