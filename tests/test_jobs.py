"""`make repro JOBS=N`: order, limits, failures, interruption, and the same dvc.lock as a serial run."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import yaml

from generative.errors import PipelineError
from generative.training.checkpoints import Checkpoints
from tests.small import ROOT, listen_to_interrupts
from tools.entry import INTERRUPTED
from tools.jobs import MEASURED, main, refuse_second_writer
from tools.schedule import Room, Stage, schedule


class Recorder:
    """A crew whose stages end after two looks, and that notes what ran beside what."""

    def __init__(self, stages: int, cores: int, devices: int = 0, codes: dict[str, int] | None = None) -> None:
        self.codes = codes or {}
        self.started: list[str] = []
        self.running: dict[str, int] = {}  # looks until the end
        self.together: list[set[str]] = []
        self._room = Room(stages, cores, devices)

    def room(self) -> Room:
        return self._room

    def start(self, name: str) -> None:
        self.started.append(name)
        self.running[name] = 2
        self.together.append(set(self.running))

    def wait(self) -> dict[str, int]:
        self.running = {name: looks - 1 for name, looks in self.running.items()}
        ended = [name for name, looks in self.running.items() if not looks]
        return {name: self.codes.get(name, 0) for name in ended if self.running.pop(name) == 0}


def stage(*needs: str, cores: int = 0, seconds: float = 0.0, devices: int = 0) -> Stage:
    return Stage(frozenset(needs), cores, seconds, devices)


DIAMOND = {"a": stage(), "b": stage("a"), "c": stage("a"), "d": stage("b", "c")}


class TestSchedule:
    def test_a_stage_starts_when_what_it_needs_is_done(self) -> None:
        recorder = Recorder(4, 4)
        outcome = schedule(DIAMOND, recorder)
        assert recorder.started == ["a", "b", "c", "d"]
        assert recorder.together == [{"a"}, {"b"}, {"b", "c"}, {"d"}]
        assert outcome.failed == {}
        assert outcome.skipped == []

    def test_no_more_jobs_than_asked_for(self) -> None:
        recorder = Recorder(3, 1)
        schedule({str(index): stage() for index in range(7)}, recorder)
        assert max(map(len, recorder.together)) == 3
        assert len(recorder.started) == 7

    def test_the_longest_way_to_the_end_comes_first(self) -> None:
        recorder = Recorder(1, 1)
        stages = {
            "short": stage(seconds=2),
            "long": stage(seconds=5),
            "before_long": stage(seconds=1),
            "after": stage("before_long", seconds=9),
        }
        schedule(stages, recorder)
        assert recorder.started == ["before_long", "after", "long", "short"]

    def test_what_is_done_is_not_started(self) -> None:
        recorder = Recorder(2, 2)
        outcome = schedule(DIAMOND, recorder, done={"a", "b"})
        assert recorder.started == ["c", "d"]
        assert outcome.skipped == []

    def test_threads_of_all_running_stages_fit_the_cores(self) -> None:
        recorder = Recorder(9, 5)
        stages = {str(index): stage(cores=2) for index in range(5)} | {"light": stage()}
        schedule(stages, recorder)
        assert max(len(names - {"light"}) for names in recorder.together) == 2
        assert {"0", "1", "light"} in recorder.together

    def test_devices_of_all_running_stages_are_there(self) -> None:
        recorder = Recorder(9, 9, devices=2)
        schedule({str(index): stage(cores=1, devices=1) for index in range(5)} | {"light": stage()}, recorder)
        assert max(len(names - {"light"}) for names in recorder.together) == 2

    def test_without_workers_nothing_starts_until_there_are_some(self) -> None:
        recorder = Recorder(0, 0)
        looks = iter(range(3))

        def wait() -> dict[str, int]:
            if next(looks) == 2:
                recorder._room = Room(1, 1)
                recorder.wait = partial(Recorder.wait, recorder)  # type: ignore[method-assign]
            assert not recorder.started
            return {}

        recorder.wait = wait  # type: ignore[method-assign]
        assert schedule(DIAMOND, recorder).failed == {}
        assert recorder.started == ["a", "b", "c", "d"]

    def test_a_failure_skips_what_needs_it_and_nothing_else(self) -> None:
        recorder = Recorder(2, 2, codes={"b": 3})
        stages = DIAMOND | {"e": stage("c"), "f": stage("d")}
        outcome = schedule(stages, recorder)
        assert outcome.failed == {"b": 3}
        assert outcome.skipped == ["d", "f"]
        assert recorder.started == ["a", "b", "c", "e"]


WORKER = """
import os, sys, time
from pathlib import Path

out, *inputs = sys.argv[1:]
meeting = os.environ.get("MEETING")  # a folder in which as many workers must be at once as its name says
if meeting and not inputs:
    folder = Path(meeting)
    (folder / out).touch()
    while len(list(folder.iterdir())) < int(folder.name):
        time.sleep(0.05)
Path(out).write_text(out + "".join(Path(path).read_text() for path in inputs))
"""


def make_pipeline(folder: Path) -> Path:
    """Four stages that need nothing, and one that joins what they made."""
    folder.mkdir()
    (folder / "worker.py").write_text(WORKER)
    names = [f"out{index}.txt" for index in range(4)]
    stages = {
        f"work{index}": {"cmd": f"python worker.py {name}", "deps": ["worker.py"], "outs": [name]}
        for index, name in enumerate(names)
    }
    stages["join"] = {"cmd": f"python worker.py all.txt {' '.join(names)}", "deps": names, "outs": ["all.txt"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (folder / "params.yaml").write_text("{}\n")
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=folder, check=True)
    return folder


def start_jobs(folder: Path, *arguments: str, workers_to_meet: int) -> subprocess.Popen[str]:
    meeting = folder.parent / "meetings" / str(workers_to_meet)
    meeting.mkdir(parents=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tools.jobs", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MEETING": str(meeting)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=listen_to_interrupts,
    )


class TestOverDvc:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return make_pipeline(tmp_path / "pipeline")

    def test_all_at_once_with_the_lock_of_a_serial_run(self, folder: Path, tmp_path: Path) -> None:
        serial = make_pipeline(tmp_path / "serial")
        subprocess.run(["dvc", "repro", "-q"], cwd=serial, check=True)
        process = start_jobs(folder, "--jobs=4", "--cores=1", workers_to_meet=4)  # fewer at once would wait for ever
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, printed
        assert "[join] " in printed
        assert yaml.safe_load((folder / "dvc.lock").read_text()) == yaml.safe_load((serial / "dvc.lock").read_text())

    def test_nothing_to_do_starts_nothing_and_a_change_only_what_needs_it(self, folder: Path) -> None:
        start_jobs(folder, "--jobs=4", "--cores=4", workers_to_meet=4).communicate(timeout=300)
        again, _ = start_jobs(folder, "--jobs=4", "--cores=4", workers_to_meet=9).communicate(timeout=60)
        said, verdict = again.splitlines()
        assert said == "Data and pipelines are up to date."
        assert verdict.startswith(
            "make repro: whether these are the committed results cannot be judged: git says 'fatal"
        )
        (folder / "out2.txt").write_text("by hand")
        changed, _ = start_jobs(folder, "--jobs=4", "--cores=4", workers_to_meet=1).communicate(timeout=60)
        assert "[work2] restored or up to date" in changed
        assert "[work1]" not in changed
        assert (folder / "out2.txt").read_text() == "out2.txt"

    def test_only_what_the_targets_need(self, folder: Path) -> None:
        printed, _ = start_jobs(folder, "--jobs=2", "work1", "work3", workers_to_meet=2).communicate(timeout=60)
        assert (folder / "out1.txt").exists()
        assert (folder / "out3.txt").exists()
        assert not (folder / "out0.txt").exists(), printed
        process = start_jobs(folder, "--jobs=2", "work9", workers_to_meet=7)
        assert process.communicate(timeout=60)[0].startswith("error: there is no stage 'work9'; there are: work0")
        assert process.returncode == 1

    def test_times_are_remembered(self, folder: Path) -> None:
        start_jobs(folder, "--jobs=4", "--cores=4", workers_to_meet=4).communicate(timeout=300)
        seconds = json.loads((folder / MEASURED).read_text())
        assert set(seconds) == {"work0", "work1", "work2", "work3", "join"}
        assert all(value > 0 for value in seconds.values())

    @pytest.mark.parametrize("content", ["", "{", "[1]", '{"work0": "long"}', '{"work0": null}'])
    def test_damaged_times_are_replaced(self, folder: Path, content: str) -> None:
        (folder / MEASURED).parent.mkdir(exist_ok=True)
        (folder / MEASURED).write_text(content)
        printed, _ = start_jobs(folder, "--jobs=2", "work0", "work1", workers_to_meet=2).communicate(timeout=60)
        assert set(json.loads((folder / MEASURED).read_text())) == {"work0", "work1"}, printed

    @pytest.mark.parametrize("compute", ["3", "[1]", "null", "{threads: many}"])
    def test_wrong_compute_block_is_left_to_the_stages(self, folder: Path, compute: str) -> None:
        (folder / "params.yaml").write_text(f"compute: {compute}\n")
        process = start_jobs(folder, "--jobs=2", "--cores=2", workers_to_meet=2)
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0, printed

    def test_broken_pipeline_file_is_one_sentence(self, folder: Path) -> None:
        (folder / "dvc.yaml").write_text("stages: [")
        process = start_jobs(folder, "--jobs=2", workers_to_meet=1)
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert printed.startswith("error: ")
        assert "dvc.yaml" in printed
        assert len(printed.splitlines()) == 1

    def test_interrupted_run_leaves_no_child_behind(self, folder: Path) -> None:
        process = start_jobs(folder, "--jobs=2", workers_to_meet=9)  # which never happens
        meeting = folder.parent / "meetings" / "9"
        deadline = time.monotonic() + 120
        while len(list(meeting.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == INTERRUPTED, printed
        assert "interrupted: run the same command again" in printed
        assert not workers_in(folder)


def workers_in(folder: Path) -> list[str]:
    """Processes that still run in `folder`."""
    alive = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").resolve() == folder.resolve():
                alive.append((process / "cmdline").read_text())
    return alive


@pytest.mark.parametrize("jobs", ["0", "-1", "two", ""])
def test_bad_number_is_refused(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main([f"--jobs={jobs}"])
    assert refused.value.code == 2
    assert "is not a number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "folder"),
    [
        ("train@vae", ".checkpoints/vae"),
        ("train_extractor@classifier", ".checkpoints/extractor_classifier"),
        ("zoo/dvc.yaml:train@gan", "zoo/.checkpoints/gan"),
    ],
)
def test_training_that_outlived_its_run_is_named_before_its_outputs_are_cleared(
    stage: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refuse_second_writer(stage)  # nothing was ever trained here
    with Checkpoints(Path(folder), "fingerprint").locked():
        with pytest.raises(PipelineError, match=rf"outlived its run, number {os.getpid()} on "):
            refuse_second_writer(stage)
        refuse_second_writer("generate@vae")
    refuse_second_writer(stage)
