"""Where stages run: on cores of this machine, in jobs of a batch system, or on a Dask cluster that runs already."""

import logging
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import dask
import dask_jobqueue
from distributed import Client, LocalCluster
from distributed.core import Status
from distributed.security import Security
from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from generative.config import Config
from generative.errors import PipelineError
from tools.place import Place

CORES = "cores"  # resources of a worker: CPU cores, and devices of the accelerator
DEVICES = "devices"
SYSTEMS: dict[str, Any] = {
    "htcondor": dask_jobqueue.HTCondorCluster,
    "lsf": dask_jobqueue.LSFCluster,
    "pbs": dask_jobqueue.PBSCluster,
    "sge": dask_jobqueue.SGECluster,
    "slurm": dask_jobqueue.SLURMCluster,
}
JOB_LOGS = Path(".dvc/tmp/jobs")
_THIS_MACHINE = "127.0.0.1"  # from elsewhere the dashboard is reached through `ssh -L`
_ANSWER = 20.0  # seconds that a scheduler has to answer
_AGAIN = 2.0  # seconds between two looks at how many jobs are left
_QUEUE = 10.0  # seconds between two questions to a batch system
_STILLBORN = 3


@dataclass(frozen=True)
class Capacity:
    """What the workers that are there can do at once."""

    workers: int
    stages: int
    cores: int
    devices: int


class Engine:
    """A Dask cluster that runs the stages."""

    def __init__(self, client: Client, place: Place, needs: Mapping[str, int] | None = None) -> None:
        self.client = client
        self.place = place
        self._needs = needs or {}  # resources of the widest stage

    @property
    def dashboard(self) -> str:
        """Where the work can be watched in a browser."""
        if self.place.scheduler:
            return str(self.client.dashboard_link)
        return f"http://{_THIS_MACHINE}:{self.client.scheduler_info()['services']['dashboard']}/status"

    def capacity(self) -> Capacity:
        """Of the workers that are there now."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        cores = [int(worker["resources"].get(CORES, 0)) for worker in workers]
        devices = [int(worker["resources"].get(DEVICES, 0)) for worker in workers]
        return Capacity(len(workers), sum(worker["nthreads"] for worker in workers), sum(cores), sum(devices))

    def look_after_workers(self, needed: int) -> str:
        """Replace what was lost, as far as `needed`; what there is to say of workers that are missing, or nothing.

        Raises:
            PipelineError: there will never be one for some stage.
        """
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        if workers and not any(
            all(worker["resources"].get(key, 0) >= count for key, count in self._needs.items()) for worker in workers
        ):
            needs = " ".join(f"{key}={count}" for key, count in self._needs.items() if count)
            raise PipelineError(
                f"no worker of {self.place.scheduler} offers what a stage needs: start some with "
                f'`--resources "{needs}"` or more.'
            )
        return "" if workers else f"{self.place.scheduler} has no worker: it waits for one"


class _JobEngine(Engine):
    """Workers in the jobs of a batch system."""

    def __init__(
        self, client: Client, place: Place, cluster: dask_jobqueue.JobQueueCluster, jobs: int, refused: list[str]
    ) -> None:
        super().__init__(client, place)
        self._cluster = cluster
        self._jobs = jobs  # at most
        self._refused = refused  # what the batch system said when it took no job; grows
        self._looked = 0.0
        self._asked_queue = time.monotonic()
        self._connected: set[str] = set()  # names of workers that have ever been there
        self._stillborn = 0  # jobs in a row that ended before their worker was there
        self._note = ""

    def look_after_workers(self, needed: int) -> str:
        """Ask for new jobs in the place of those that have ended.

        Raises:
            PipelineError: the batch system takes none, or they end before they begin.
        """
        if time.monotonic() - self._looked < _AGAIN:
            return self._note
        self._looked = time.monotonic()
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        now = {str(worker["name"]) for worker in workers}
        if now - self._connected:
            self._stillborn = 0
        self._connected |= now
        missing = {name: job for name, job in self._cluster.workers.items() if str(name) not in now}
        unknown = self._not_in_queue([job.job_id for job in missing.values()])
        for name, job in missing.items():
            if job.job_id is None or job.end_mark.exists() or job.job_id in unknown:
                self._cluster.workers.pop(name, None)
                job.status = Status.closed
                self._stillborn += str(name) not in self._connected
        said = " ".join(self._refused[-1].split()) if self._refused else ""
        if said and not self._connected:
            raise PipelineError(f"CLUSTER={self.place.cluster}: no job is taken: {said}")
        if self._stillborn >= _STILLBORN:
            raise PipelineError(
                f"CLUSTER={self.place.cluster}: {self._stillborn} jobs have ended before they could take a stage: "
                f"{JOB_LOGS} has what they said."
            )
        wanted = min(self._jobs, max(needed, len(self._cluster.worker_spec)))
        self._cluster.scale(jobs=wanted)
        self._note = f"{len(now)} of {wanted} jobs run, the others wait in the queue" if len(now) < wanted else ""
        return self._note

    def _not_in_queue(self, jobs: list[str | None]) -> set[str | None]:
        """Those of the jobs that are not in the queue, as when they were cancelled while they waited: Slurm tells."""
        if not jobs or time.monotonic() - self._asked_queue < _QUEUE or shutil.which("squeue") is None:
            return set()
        if self._cluster.job_cls.submit_command != "sbatch":  # type: ignore[union-attr]
            return set()
        self._asked_queue = time.monotonic()
        command = ["squeue", "--me", "--noheader", "--format=%A"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        return set() if asked.returncode else set(jobs) - set(asked.stdout.split())


@contextmanager
def open_engine(place: Place, *, widest: int, devices: int) -> Iterator[Engine]:
    """A cluster for stages that keep up to `widest` cores and `devices` devices busy; ended with the context.

    Raises:
        PipelineError: it cannot be had, or no stage would fit into it.
    """
    dask.config.set(
        {
            "distributed.scheduler.allowed-failures": 10,  # workers may die under one stage: of walltime, of preemption
            "distributed.comm.timeouts.connect": f"{_ANSWER:.0f}s",
            "distributed.worker.memory.target": False,  # stages are processes of their own
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,
            "distributed.worker.memory.terminate": False,
            "distributed.deploy.lost-worker-timeout": "2s",
        }
    )
    for name in list(logging.root.manager.loggerDict):  # what is of use to a user, the run says itself
        if name.split(".")[0] in ("distributed", "tornado", "bokeh", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    if place.scheduler:
        with _join(place, {CORES: widest, DEVICES: devices}) as engine:
            yield engine
    elif place.cluster:
        with _submit(place, widest=widest, devices=devices) as engine:
            yield engine
    else:
        with _start_here(place, widest=widest, devices=devices) as engine:
            yield engine


@contextmanager
def _start_here(place: Place, *, widest: int, devices: int) -> Iterator[Engine]:
    """One worker in this process: its stages are processes anyway. A stage that is wider than all cores runs alone."""
    with (
        LocalCluster(
            n_workers=1,
            processes=False,
            threads_per_worker=place.jobs,
            resources={CORES: max(place.cores, widest), DEVICES: max(devices, 1)},
            dashboard_address=f"{_THIS_MACHINE}:0",
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Engine(client, place)


@contextmanager
def _join(place: Place, needs: Mapping[str, int]) -> Iterator[Engine]:
    address = place.scheduler
    if urlparse(address).scheme not in ("tcp", "tls", "ucx", "ws", "wss") or not urlparse(address).netloc:
        raise PipelineError(f"SCHEDULER is '{address}', but must be an address such as tcp://127.0.0.1:8786.")
    try:
        client = Client(address, timeout=_ANSWER, set_as_default=True)
    except (OSError, TimeoutError, ValueError, RuntimeError, TypeError) as error:
        raise PipelineError(f"there is no Dask scheduler at {address}: {_first_line(error)}") from None
    with client:
        yield Engine(client, place, needs)


class _Block(Config):
    """What is ours in the settings of a cluster; all else goes to dask-jobqueue."""

    jobs: int = Field(ge=1, le=100_000)
    gpus: int = Field(default=0, ge=0, le=64)


def read_block(name: str) -> tuple[str, dict[str, Any]]:
    """The batch system and the settings that a file, or the block `jobqueue.NAME` of Dask's configuration, has.

    Raises:
        PipelineError: there is no such file or block, or it is no cluster.
    """
    known = ", ".join(SYSTEMS)
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        try:
            content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise PipelineError(f"CLUSTER={name} cannot be read: {error.strerror}.") from None
        except (YAMLError, UnicodeDecodeError) as error:
            raise PipelineError(f"CLUSTER={name} is no YAML: {_first_line(error)}.") from None
        blocks = content.get("jobqueue", content) if isinstance(content, dict) else None
        if not isinstance(blocks, dict) or len(blocks) != 1 or not isinstance(next(iter(blocks.values())), dict):
            raise PipelineError(f"{name} must have one block, named after its batch system: {known}.")
        ((system, block),) = blocks.items()
    else:
        block = dask.config.get(f"jobqueue.{name}", None)
        if not isinstance(block, dict):
            raise PipelineError(
                f"CLUSTER={name}: there is neither such a file nor a block 'jobqueue.{name}' in Dask's configuration."
            )
        system = block.get("system", name)
    if system not in SYSTEMS:
        raise PipelineError(f"CLUSTER={name}: '{system}' is no batch system of {known}.")
    return str(system), {str(key).replace("-", "_"): value for key, value in block.items() if key != "system"}


@contextmanager
def _submit(place: Place, *, widest: int, devices: int) -> Iterator[Engine]:
    system, block = read_block(place.cluster)
    own = {key: block.pop(key) for key in list(block) if key in _Block.model_fields}
    try:
        ours = _Block(**({"jobs": 1} | own))
    except ValidationError as error:
        first = error.errors()[0]
        raise PipelineError(f"CLUSTER={place.cluster}: '{first['loc'][0]}' is wrong: {first['msg']}.") from None
    settings = _settings(system, block, ours, place)
    cores = int(settings["cores"])
    if cores < widest:
        raise PipelineError(
            f"CLUSTER={place.cluster}: a worker has {cores} cores, but a stage needs {widest}: raise 'cores', or lower "
            "'compute.threads' in params.yaml."
        )
    if devices and ours.gpus != devices:  # two stages of a job would both take its first GPU
        raise PipelineError(
            f"CLUSTER={place.cluster}: a job has {ours.gpus} GPUs, but a stage takes {devices}: let 'gpus' be "
            "'compute.devices' of params.yaml."
        )
    kind = SYSTEMS[system]
    command = str(kind.job_cls.submit_command)
    if shutil.which(command.split()[0]) is None:
        raise PipelineError(
            f"CLUSTER={place.cluster}: there is no command `{command}` here: run this where jobs are submitted."
        )
    refused: list[str] = []
    try:
        cluster = kind(**settings, job_cls=_telling(kind.job_cls, refused))
    except (ValueError, TypeError, OSError, RuntimeError, KeyError, ImportError) as error:
        raise PipelineError(f"CLUSTER={place.cluster}: {_first_line(error)}") from None
    with cluster, Client(cluster) as client:
        try:
            yield _JobEngine(client, place, cluster, ours.jobs, refused)
        finally:
            for job in list(cluster.workers.values()):
                if job.job_id is None:  # never taken: there is nothing to close
                    job.status = Status.closed


def _telling(job_class: Any, refused: list[str]) -> Any:
    """A class of jobs that note what the batch system says when it takes none, and leave a file when they end."""

    class TellingJob(job_class):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            self.end_mark = Path.cwd() / JOB_LOGS / f"{uuid.uuid4().hex}.ended"  # a new one for each submission

        def job_script(self) -> str:
            lines = super().job_script().splitlines()
            if lines[0].startswith("#!"):  # not HTCondor's, which are no scripts
                after = 1 + max(at for at, line in enumerate(lines) if line.startswith("#"))
                lines.insert(after, f"trap 'touch \"{self.end_mark}\"' EXIT")
            return "\n".join(lines) + "\n"

        async def _submit_job(self, script_filename: str) -> str:
            try:
                return str(await super()._submit_job(script_filename))
            except (RuntimeError, OSError) as error:
                refused.append(str(error).partition("stderr:")[2].strip() or str(error))
                raise

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed  # dask-jobqueue leaves it open, which fails where the cluster is closed

    return TellingJob


def _settings(system: str, block: Mapping[str, Any], ours: _Block, place: Place) -> dict[str, Any]:
    """What dask-jobqueue gets: the user's settings, with what every run needs."""
    for key in ("cores", "memory"):
        if not block.get(key):
            raise PipelineError(f"CLUSTER={place.cluster}: '{key}' is missing, of each job.")
    settings = {"death_timeout": 60} | {key: value for key, value in block.items() if value is not None}
    settings |= {"processes": 1, "nanny": False}  # a stage is a process of its own, and a job ends with its worker
    try:
        threads = int(settings["cores"])
    except (TypeError, ValueError):
        raise PipelineError(f"CLUSTER={place.cluster}: 'cores' must be a number.") from None
    resources = f"{CORES}={threads} {DEVICES}={ours.gpus}"
    settings["worker_extra_args"] = [*(settings.get("worker_extra_args") or []), "--resources", f"'{resources}'"]
    if ours.gpus and system == "slurm":
        settings["job_extra_directives"] = [*(settings.get("job_extra_directives") or []), f"--gres=gpu:{ours.gpus}"]
    folder = Path.cwd() / JOB_LOGS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings.setdefault("log_directory", str(folder))
    settings["scheduler_options"] = {"dashboard_address": f"{_THIS_MACHINE}:0"} | dict(
        settings.get("scheduler_options") or {}
    )
    if "security" not in settings:  # else anyone in the network may have this user's processes run anything
        settings |= {
            "security": Security.temporary(),
            "shared_temp_directory": settings.get("shared_temp_directory", str(folder)),
        }
    return settings


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") + "." if lines else type(error).__name__ + "."
