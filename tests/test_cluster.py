"""Stages in the jobs of a real Slurm, and on a Dask cluster that runs already."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest
import yaml

from generative.errors import PipelineError
from stages.download import SOURCE_VARIABLE
from tests import slurm
from tests.slurm import Slurm, running_slurm
from tests.small import ROOT, listen_to_interrupts
from tests.test_jobs import make_pipeline, workers_in
from tests.test_pipeline import lock_of
from tools.cluster import read_block
from tools.dvc_locks import AbandonedLocks, mend_rwlock
from tools.entry import INTERRUPTED
from tools.place import RUN_LOCK, only_run

GOOD = {"jobs": 2, "cores": 1, "memory": "1GB", "walltime": "00:10:00", "scheduler_options": {"host": "127.0.0.1"}}


def write_cluster(folder: Path, **changes: object) -> Path:
    path = folder / "slurm.yaml"
    block = {key: value for key, value in (GOOD | changes).items() if value is not None}
    path.write_text(yaml.safe_dump({"slurm": block}))
    return path


def start(folder: Path, *arguments: str, meeting: int = 0, **environment: Any) -> subprocess.Popen[str]:
    """A run in `folder`, whose stages wait until as many have met as `meeting` says."""
    place = folder.parent / "meetings" / str(meeting)
    if meeting:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        environment["MEETING"] = str(place)
    return subprocess.Popen(
        [sys.executable, "-m", "tools.jobs", "--no-check", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=listen_to_interrupts,
    )


def finish(process: subprocess.Popen[str], seconds: float = 300) -> str:
    printed, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, printed
    return printed


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def met(folder: Path, meeting: int) -> int:
    return len(list((folder.parent / "meetings" / str(meeting)).iterdir()))


def meet(folder: Path, meeting: int) -> None:
    """Let the stages that wait for each other go on."""
    for number in range(meeting):
        (folder.parent / "meetings" / str(meeting) / f"guest{number}").touch()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_pipeline(tmp_path / "pipeline")


class TestSettings:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (None, "cannot be read: No such file"),
            ("slurm: [", "is no YAML"),
            ("[]", "must have one block, named after its batch system: htcondor, lsf, pbs, sge, slurm"),
            ("slurm: {}\npbs: {}\n", "must have one block"),
            ("slurm: 3", "must have one block"),
            ("cron: {cores: 1}", "'cron' is no batch system of htcondor"),
            ("slurm: {memory: 1GB}", "'cores' is missing"),
            ("slurm: {cores: 1}", "'memory' is missing"),
            ("slurm: {cores: 1, memory: 1GB, jobs: 0}", "'jobs' is wrong"),
            ("slurm: {cores: 1, memory: 1GB, gpus: many}", "'gpus' is wrong"),
            ("slurm: {cores: few, memory: 1GB}", "'cores' must be a number"),
            ("slurm: {cores: 0.5, memory: 1GB}", "a worker has 0 cores, but a stage needs 1"),
        ],
    )
    def test_wrong_file_is_one_sentence(self, text: str | None, words: str, folder: Path) -> None:
        if text is not None:
            (folder / "c.yaml").write_text(text)
        (folder / "params.yaml").write_text(
            "compute: {accelerator: cpu, devices: 1, precision: 32-true, threads: 1, portable: true}\n"
        )
        text = (folder / "dvc.yaml").read_text().replace("  work0:\n", "  work0:\n    params: [compute]\n")
        (folder / "dvc.yaml").write_text(text)
        process = start(folder, "--cluster=c.yaml")
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert words in printed
        assert len(printed.splitlines()) == 1

    def test_unknown_setting_is_one_sentence(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "sbatch").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "sbatch").chmod(0o755)
        write_cluster(folder, coers=3)
        process = start(folder, "--cluster=slurm.yaml", PATH=f"{tmp_path}:{os.environ['PATH']}")
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "unexpected keyword argument 'coers'" in printed
        assert len(printed.splitlines()) == 1

    def test_block_of_dasks_own_configuration(self, tmp_path: Path) -> None:
        (tmp_path / "jobqueue.yaml").write_text(
            "jobqueue: {ours: {system: pbs, cores: 3, memory: 2GB, job-script-prologue: [module load x]}}\n"
        )
        script = "from tools.cluster import read_block; print(read_block('ours'))"
        environment = os.environ | {"DASK_CONFIG": str(tmp_path), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(
            ("pbs", {"cores": 3, "memory": "2GB", "job_script_prologue": ["module load x"]})
        )
        with pytest.raises(PipelineError, match=r"neither such a file nor a block 'jobqueue\.others'"):
            read_block("others")

    def test_a_machine_without_the_batch_system_is_named(self, folder: Path) -> None:
        (folder / "c.yaml").write_text("lsf: {cores: 1, memory: 1GB}")
        printed, _ = start(folder, "--cluster=c.yaml").communicate(timeout=60)
        assert "there is no command `bsub` here: run this where jobs are submitted" in printed

    @pytest.mark.parametrize("address", ["here", "tcp://", "tcp://127.0.0.1:9"])
    def test_wrong_scheduler_is_one_sentence(
        self, address: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = "import sys, tools.cluster, tools.jobs, tools.entry; tools.cluster._ANSWER = 2.0; "
        script += "tools.entry.run_tool(tools.jobs.main, sys.argv[1:])"
        command = [sys.executable, "-c", script, f"--scheduler={address}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "address such as tcp://127.0.0.1:8786" in done.stderr or "there is no Dask scheduler at" in done.stderr
        assert len(done.stderr.splitlines()) == 1


class TestOneRun:
    def test_a_second_run_is_refused(self, folder: Path) -> None:
        first = start(folder, "--jobs=2", meeting=9)
        wait_until(lambda: met(folder, 9) == 2)
        second = start(folder, "--jobs=2")
        printed, _ = second.communicate(timeout=60)
        assert second.returncode == 1
        assert printed.startswith(f"error: another run, number {first.pid} on {socket.gethostname()}, is at work in ")
        assert len(printed.splitlines()) == 1
        meet(folder, 9)
        finish(first)
        finish(start(folder, "--jobs=2"))

    def test_a_run_that_was_killed_hinders_no_other(self, folder: Path) -> None:
        process = start(folder, "--jobs=2", meeting=9)
        wait_until(lambda: met(folder, 9) == 2)
        process.kill()
        process.wait()
        wait_until(lambda: not workers_in(folder))
        finish(start(folder, "--jobs=2"))

    def test_a_run_on_a_dead_machine_is_waited_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("generative.io.leases.DURATION", 1.0)
        lease = filelock.SoftFileLease(tmp_path / RUN_LOCK, lease_duration=1.0)
        (tmp_path / RUN_LOCK).parent.mkdir(parents=True)
        lease.acquire()
        text = (tmp_path / RUN_LOCK).read_text()
        lease.release()
        (tmp_path / RUN_LOCK).write_text(text.replace(f"host={socket.gethostname()}", "host=another"))
        with only_run(tmp_path, "run this again"):
            assert f"host={socket.gethostname()}" in (tmp_path / RUN_LOCK).read_text()


class TestLocksOfKilledProcesses:
    """What DVC's processes leave that are killed while they work."""

    def test_half_a_file_of_locks_is_mended(self, folder: Path) -> None:
        path = folder / ".dvc/tmp/rwlock"
        for text in ("", '{"read": {', "\0" * 40, "[]"):
            path.write_text(text)
            mend_rwlock(folder, "repro -s work0")
            assert json.loads(path.read_text()) == {"write": {}, "read": {}}
        path.unlink()
        mend_rwlock(folder, "repro -s work0")
        assert not path.exists()

    def test_an_earlier_attempt_is_forgotten_and_others_are_not(self, folder: Path) -> None:
        path = folder / ".dvc/tmp/rwlock"
        own, other = ({"pid": 1, "cmd": f"dvc --wait-for-lock repro -s work{number}"} for number in (0, 1))
        path.write_text(json.dumps({"write": {"a": own, "b": other}, "read": {"c": [own], "d": [own, other]}}))
        mend_rwlock(folder, "repro -s work0")
        assert json.loads(path.read_text()) == {"write": {"b": other}, "read": {"d": [other]}}

    def test_a_run_goes_on_when_the_file_breaks_below_it(self, folder: Path) -> None:
        process = start(folder, "--jobs=2", meeting=9)
        wait_until(lambda: met(folder, 9) == 2)
        (folder / ".dvc/tmp/rwlock").write_text('{"read":')
        meet(folder, 9)
        printed = finish(process)
        assert "JSON structure is corrupted" in printed
        assert (folder / "all.txt").exists()

    def test_an_abandoned_hard_link_is_removed(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tools.dvc_locks.ABANDONED", 0.2)
        subprocess.run(["dvc", "config", "core.hardlink_lock", "true"], cwd=folder, check=True)
        said: list[str] = []
        locks = AbandonedLocks(folder, said.append)
        kept, left = folder / ".dvc/tmp/lock", folder / ".dvc/tmp/rwlock.lock"
        for path in (kept, left):
            path.touch()
        locks.worker_lost()
        kept.unlink()
        (folder / ".dvc/tmp/other").touch()
        kept.touch()
        time.sleep(0.3)
        locks.look()
        assert kept.exists()
        assert not left.exists()
        assert said == [f"removed {left}, which a worker that was lost had held"]

    def test_hard_links_work(self, folder: Path) -> None:
        subprocess.run(["dvc", "config", "core.hardlink_lock", "true"], cwd=folder, check=True)
        finish(start(folder, "--jobs=2"))
        assert (folder / "all.txt").exists()
        assert not (folder / ".dvc/tmp/rwlock.lock").exists()


@contextmanager
def dask_program(*arguments: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


class TestJoinedScheduler:
    @pytest.fixture
    def scheduler(self, tmp_path: Path) -> Iterator[str]:
        path = tmp_path / "scheduler.json"
        options = ["--host=127.0.0.1", "--port=0", "--no-dashboard", f"--scheduler-file={path}"]
        with dask_program("scheduler", *options, folder=tmp_path):
            wait_until(path.exists)
            yield yaml.safe_load(path.read_text())["address"]

    def worker(self, address: str, folder: Path, *options: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        given = ["--no-nanny", "--no-dashboard", "--nthreads=1", *(options or ["--resources", "cores=1"])]
        return dask_program("worker", address, *given, folder=folder)

    def test_a_dead_workers_stage_runs_again_elsewhere(self, scheduler: str, folder: Path, tmp_path: Path) -> None:
        with self.worker(scheduler, tmp_path), self.worker(scheduler, tmp_path) as second:
            process = start(folder, f"--scheduler={scheduler}", MEETING=str(folder.parent / "meetings" / "9"))
            (folder.parent / "meetings" / "9").mkdir(parents=True)
            wait_until(lambda: (folder / ".dvc/tmp/logs").is_dir() and len(workers_in(folder)) >= 3)
            second.kill()
            time.sleep(1)
            with self.worker(scheduler, tmp_path):
                printed = finish(process)
        assert "is gone: its stages run again elsewhere" in printed
        assert " starts again on " in printed
        assert (folder / "all.txt").exists()
        assert not workers_in(folder)

    def test_workers_that_offer_too_little_are_named(self, scheduler: str, folder: Path, tmp_path: Path) -> None:
        (folder / "params.yaml").write_text(
            "compute: {accelerator: cpu, devices: 1, precision: 32-true, threads: 2, portable: true}\n"
        )
        text = (folder / "dvc.yaml").read_text().replace("  work0:\n", "  work0:\n    params: [compute]\n")
        (folder / "dvc.yaml").write_text(text)
        with self.worker(scheduler, tmp_path):
            process = start(folder, f"--scheduler={scheduler}")
            printed, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert 'offers what a stage needs: start some with `--resources "cores=2"` or more' in printed.splitlines()[-1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running_slurm(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.mark.slow
@pytest.mark.skipif(bool(slurm.why_not()), reason=slurm.why_not())
class TestSlurm:
    def test_the_lock_of_a_serial_run_also_when_jobs_are_cancelled_in_a_training(
        self, cluster: Slurm, scratch: Path, tmp_path: Path, raw_folder: Path
    ) -> None:
        params = yaml.safe_load((scratch / "params.yaml").read_text())
        params["models"]["autoencoder"]["training"]["epochs"] = 60
        (scratch / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        here = tmp_path / "slurm_run"
        shutil.copytree(scratch, here, symlinks=True)
        raw: dict[str, Any] = {SOURCE_VARIABLE: str(raw_folder)}
        finish(start(scratch, "--jobs=1", **raw), 600)
        (here / "dvc.lock").unlink()
        shutil.rmtree(here / ".dvc" / "cache" / "runs", ignore_errors=True)
        process = start(here, f"--cluster={write_cluster(tmp_path)}", SLURM_CONF=str(cluster.conf), **raw)
        checkpoints = here / ".checkpoints" / "autoencoder"
        wait_until(lambda: process.poll() is not None or any(checkpoints.glob("*.pt")), 600)
        cancelled = cluster.jobs("RUNNING")
        assert len(cancelled) == 2
        cluster.ask("scancel", *cancelled)
        printed = finish(process, 600)
        assert "[train@autoencoder] starts again on " in printed
        assert "goes on after epoch" in (here / ".dvc/tmp/logs/train@autoencoder.log").read_text()
        assert lock_of(here) == lock_of(scratch)
        cluster.wait(lambda: not cluster.jobs(), "an empty queue")

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
    def test_an_interrupted_run_leaves_no_job(self, how: signal.Signals, cluster: Slurm, folder: Path) -> None:
        process = start(folder, f"--cluster={write_cluster(folder, jobs=4)}", meeting=9, SLURM_CONF=str(cluster.conf))
        wait_until(lambda: met(folder, 9) == 2 and len(cluster.jobs("PENDING")) == 2)
        process.send_signal(how)
        printed, _ = process.communicate(timeout=60)
        if how != signal.SIGKILL:
            assert process.returncode == INTERRUPTED, printed
            assert "interrupted: run the same command again" in printed
        cluster.wait(lambda: not cluster.jobs("RUNNING"), "the end of the running jobs", 90)
        if how == signal.SIGKILL:  # those that wait find nobody when it is their turn
            cluster.wait(lambda: not cluster.jobs(), "an empty queue", 200)
        assert not cluster.jobs()
        wait_until(lambda: not workers_in(folder), 30)

    def test_a_lost_controller_is_waited_for(self, cluster: Slurm, folder: Path) -> None:
        process = start(folder, f"--cluster={write_cluster(folder)}", meeting=9, SLURM_CONF=str(cluster.conf))
        wait_until(lambda: met(folder, 9) == 2)
        running = cluster.jobs("RUNNING")
        cluster.kill("slurmctld")
        time.sleep(3)
        cluster.start("slurmctld")
        cluster.wait(lambda: cluster.jobs("RUNNING") == running, "the same jobs")
        cluster.ask("scancel", running[0])
        meet(folder, 9)
        finish(process)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"queue": "nowhere"}, "no job is taken: sbatch: error: invalid partition specified: nowhere"),
            ({"job_script_prologue": ["exit 3"]}, "jobs have ended before they could take a stage"),
        ],
    )
    def test_jobs_that_cannot_work_are_one_sentence(
        self, changes: dict[str, object], words: str, cluster: Slurm, folder: Path
    ) -> None:
        process = start(folder, f"--cluster={write_cluster(folder, **changes)}", SLURM_CONF=str(cluster.conf))
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 1
        assert words in printed.splitlines()[-1]
        assert not cluster.jobs()

    def test_a_failed_stage_is_named_with_its_log_and_others_go_on(self, cluster: Slurm, folder: Path) -> None:
        text = (folder / "dvc.yaml").read_text().replace("python worker.py out1.txt", "echo no luck; exit 3")
        (folder / "dvc.yaml").write_text(text)
        process = start(folder, f"--cluster={write_cluster(folder)}", SLURM_CONF=str(cluster.conf))
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "error: work1 failed with exit code 255: .dvc/tmp/logs/work1.log has what it said" in printed
        assert "not run, since they need what failed: join" in printed
        assert "no luck" in (folder / ".dvc/tmp/logs/work1.log").read_text()
        assert all((folder / f"out{number}.txt").exists() for number in (0, 2, 3))


@pytest.mark.slow
def test_a_training_in_a_job_of_slurm_is_that_of_a_laptop(scratch: Path, tmp_path: Path) -> None:
    """Also with `srun` at hand, as on a login node."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "train",
        "SLURM_LOCALID": "0",
        "SLURM_NNODES": "2",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "node[1-2]",
        "SLURM_NTASKS": "4",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_PROCID": "1",
    }
    path = {"PATH": f"{srun.parent}:{os.environ['PATH']}"}
    found = []
    for name, environment in (("laptop", {}), ("login node", path), ("job", path | job)):
        folder = tmp_path / name
        folder.mkdir()
        for part in ("stages", "generative", "code", "data", "params.yaml"):
            (folder / part).symlink_to((ROOT if part in ("stages", "generative", "code") else scratch) / part)
        command = [sys.executable, "-m", "stages", "train", "autoencoder"]
        done = subprocess.run(
            command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=True
        )
        weights = (folder / "models/autoencoder.safetensors").read_bytes()
        found.append((weights, done.stdout, "srun" in done.stderr or "Warn" in done.stderr))
    assert found[0] == found[1] == found[2]
    assert not found[0][2]
