"""A Slurm of one machine, for tests: munge, controller and node as processes of this one, in a folder.

Debian's `slurm-wlm` and `munge` need root, but neither systemd nor cgroups.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "sinfo", "squeue")
_KEY = Path("/etc/munge/munge.key")
_SOCKETS = Path("/run/munge")
CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=2
InactiveLimit=0
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why Slurm cannot be run here; empty if it can."""
    if missing := [name for name in PROGRAMS if _program(name) is None]:
        return f"there is no {', '.join(missing)}: install slurm-wlm and munge"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root"


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Slurm:
    """The daemons, and what one asks of them."""

    def __init__(self, folder: Path, cpus: int) -> None:
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "state").mkdir(parents=True)
        (folder / "spool").mkdir()
        host = socket.gethostname().split(".")[0]
        controller, node = _free_ports(2)
        self.conf = folder / "slurm.conf"
        self.conf.write_text(CONF.format(host=host, folder=folder, controller=controller, node=node, cpus=cpus))
        self.environment = os.environ | {"SLURM_CONF": str(self.conf)}
        self._commands = {
            "slurmctld": ["-D", "-f", str(self.conf)],
            "slurmd": ["-D", "-f", str(self.conf), "-N", host],
        }

    def start(self, name: str) -> None:
        """Start one of the daemons `slurmctld` and `slurmd`."""
        program = _program(name)
        assert program
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                [program, *self._commands[name]],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kill a daemon, as the loss of its machine would."""
        self._daemons[name].kill()
        self._daemons.pop(name).wait()

    def ask(self, *command: str) -> str:
        """The output of one of Slurm's commands."""
        done = subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def jobs(self, state: str = "RUNNING,PENDING") -> list[str]:
        """The numbers of the jobs in the queue, in the order of their submission."""
        return self.ask("squeue", "-h", "-o", "%i", "--states", state, "--sort", "i").split()

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(subprocess.CalledProcessError):
                if condition():
                    return
            time.sleep(0.2)
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("slurm*.log"))
        raise TimeoutError(f"{what} did not come about in {seconds} s:\n{logs}")

    def end(self) -> None:
        """Cancel all jobs and end the daemons."""
        with suppress(subprocess.SubprocessError):
            self.ask("scancel", "--user", "root", "--full")
            self.wait(lambda: not self.jobs(), "an empty queue", 20)
        for process in self._daemons.values():
            process.send_signal(signal.SIGTERM)
        for process in self._daemons.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def running_slurm(folder: Path, *, cpus: int = 2) -> Iterator[Slurm]:
    """A Slurm of one node with `cpus` cores, whatever the machine has."""
    with _running_munge(folder):
        slurm = Slurm(folder, cpus)
        try:
            slurm.start("slurmctld")
            slurm.start("slurmd")
            slurm.wait(lambda: slurm.ask("sinfo", "-h", "-o", "%T") == "idle", "an idle node")
            yield slurm
        finally:
            slurm.end()


@contextmanager
def _running_munge(folder: Path) -> Iterator[None]:
    """The daemon that signs messages, unless it runs already."""
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        yield
        return
    if not _KEY.exists():
        _KEY.parent.mkdir(exist_ok=True)
        _KEY.write_bytes(os.urandom(1024))
        shutil.chown(_KEY, "munge", "munge")
        _KEY.chmod(0o400)
    _SOCKETS.mkdir(exist_ok=True)
    shutil.chown(_SOCKETS, "munge", "munge")
    program = _program("munged")
    assert program
    process = subprocess.Popen(
        [program, "--foreground"],
        user="munge",
        group="munge",
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 20
        while subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline or process.poll() is not None:
                raise TimeoutError("munged does not answer")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
