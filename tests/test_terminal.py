"""What a run of stages side by side shows."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path

import pytest

from tests.small import ROOT
from tools import keeper
from tools.stage_process import Ended, KeptProcess, Screen
from tools.terminal import StatusLines, as_time


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


def keep(tmp_path: Path, code: str, lines: list[str], environment: dict[str, str] | None = None) -> KeptProcess:
    command = [sys.executable, "-c", code]
    return KeptProcess(command, os.environ | (environment or {}), tmp_path, 100, lines.append)


def test_a_stage_writes_to_a_terminal_of_its_own(tmp_path: Path) -> None:
    lines: list[str] = []
    process = keep(tmp_path, SCRIPT, lines)
    drawn = set()
    while (code := process.wait(0.05)) is None:
        drawn.add(process.screen.current)
    assert code == 3
    assert lines == ["Running stage 'work':", "> python -m stages work", "starts True", "ends"]
    assert "half 50%" in drawn


CHILD = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); {}print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "


def processes_in(folder: Path) -> set[int]:
    """Numbers of the processes that work in a folder."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if (entry / "cwd").resolve() == folder:
                found.add(int(entry.name))
    return found


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stopped_stage_ends_with_its_children(tmp_path: Path) -> None:
    lines: list[str] = []
    process = keep(tmp_path, CHILD.format(""), lines)
    wait_for(lambda: lines)
    process.stop()
    wait_for(lambda: process.wait(0.1) is not None)
    wait_for(lambda: not processes_in(tmp_path))


KEEPER_OWNER = """
import os, sys, time
from pathlib import Path
from tools.stage_process import KeptProcess
KeptProcess([sys.executable, "-c", sys.argv[1]], os.environ, Path.cwd(), 80, lambda line: print(line, flush=True))
time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("first", ["", STUBBORN])
def test_a_stage_ends_when_its_worker_is_gone(
    how: signal.Signals, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "keeper.py"
    copy.write_text(Path(keeper.__file__).read_text().replace("GRACE = 20.0", "GRACE = 0.5"))
    folder = tmp_path / "work"
    folder.mkdir()
    script = KEEPER_OWNER.replace(
        "KeptProcess([", f"import tools.keeper; tools.keeper.__file__ = {str(copy)!r}\nKeptProcess(["
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, CHILD.format(first)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert owner.stdout
    assert owner.stdout.readline().strip() == b"up"
    assert len(processes_in(folder)) >= 4  # the owner, the keeper, the command, its child
    owner.send_signal(how)
    owner.wait()
    wait_for(lambda: not processes_in(folder))
    owner.stdout.close()


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    lines: list[str] = []
    process = KeptProcess(["no_such_command"], os.environ, tmp_path, 80, lines.append)
    wait_for(lambda: process.wait(0.1) is not None)
    assert process.wait(0) == 127
    assert lines == ["error: no_such_command cannot be started: No such file or directory"]


def hear(status: StatusLines) -> None:
    for name in ("one", "two"):
        status.handed_in(name)
        status.hear(label=name, host="node1", started=True)
        status.hear(label=name, host="node1", now=f"{name} at work")


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.terminal._EVERY", 0.2)
    printed = io.StringIO()
    with redirect_stdout(printed), StatusLines(total=4, done=1, everywhere=True) as status:
        status.note = "1 of 2 jobs run"
        hear(status)
        status.handed_in("three")
        status.hear(label="one", host="node1", line="said")
        status.hear(label="one", host="node2", started=True)
        time.sleep(0.5)
        status.ended("two", Ended(3, 65.0, worked=True, host="node1", log="two.log"))
        status.ended("one", Ended(0, 5.0, worked=True, host="node2", log="one.log"))
        status.ended("three", Ended(0, 1.0, worked=False, host="node1", log="three.log"))
    lines = printed.getvalue().splitlines()
    assert lines[:2] == ["[one] said", "[one] starts again on node2"]
    assert "[one] node2 0:00 one at work" in lines
    assert "[three] 0:00 waits for a worker" in lines
    assert "1 of 2 jobs run" in lines
    assert lines[-3:] == [
        "[two] failed with exit code 3 on node1 after 1:05 (1 of 4 stages)",
        "[one] done on node2 after 0:05 (2 of 4 stages)",
        "[three] restored or up to date on node1 after 0:01 (3 of 4 stages)",
    ]


LIVE = """
import time
from tests.test_terminal import hear
from tools.terminal import StatusLines
with StatusLines(total=2, done=0) as status:
    hear(status)
    time.sleep(1)
"""


def test_a_terminal_has_a_line_for_each_running_stage_and_a_total(tmp_path: Path) -> None:
    """The run itself is given a terminal here, by a class under test."""
    process = keep(tmp_path, LIVE, [], {"TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": str(ROOT)})
    drawn: list[bytes] = []

    class Recording(Screen):
        def feed(self, content: bytes) -> Iterator[str]:
            drawn.append(content)
            return super().feed(content)

    process.screen = Recording()
    while (code := process.wait(0.1)) is None:
        pass
    assert code == 0
    frames = b"".join(drawn).decode().split("\x1b[2K")
    assert any(
        "one at work" in frame and "two at work" in frame
        for frame in ("".join(frames[at : at + 4]) for at in range(len(frames)))
    )
    assert any("total" in frame and "0 of 2 stages" in frame for frame in frames)


def test_time() -> None:
    assert [as_time(seconds) for seconds in (0.4, 59.9, 65, 3601)] == ["0:00", "0:59", "1:05", "60:01"]
