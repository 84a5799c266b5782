"""Where the stages of a run go, and that no other run is at work in the same folder."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from joblib import cpu_count

from generative.errors import PipelineError
from generative.io.leases import HeldError, held

RUN_LOCK = Path(".dvc/tmp/run.lock")


@dataclass(frozen=True)
class Place:
    """What a user asks for: a cluster of jobs, the address of a running one, or cores of this machine."""

    jobs: int  # stages at once, on this machine
    cores: int  # of this machine
    cluster: str = ""  # a file, or the name of a block `jobqueue.NAME` of Dask's configuration
    scheduler: str = ""  # an address

    @property
    def is_here(self) -> bool:
        """Whether all stages run on this machine, as processes of this one."""
        return not self.cluster and not self.scheduler


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Where stages run, for every tool that runs some."""
    cores = cpu_count()  # that this process may use, also in a container with a quota
    parser.add_argument("--jobs", type=_positive, default=cores, help="stages at once; 1 for an ordinary `dvc repro`")
    parser.add_argument("--cores", type=_positive, default=cores, help="CPU cores to use")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--cluster", default="", help="a file, or a block of Dask's configuration: jobs to run in")
    where.add_argument("--scheduler", default="", help="address of a Dask scheduler that runs already")


def place_of(options: argparse.Namespace) -> Place:
    """What the arguments of `add_place_arguments` ask for."""
    return Place(options.jobs, options.cores, options.cluster, options.scheduler)


def arguments_of(place: Place) -> list[str]:
    """The arguments that ask for a place again, in another folder."""
    cluster = str(Path(place.cluster).resolve()) if Path(place.cluster).is_file() else place.cluster
    where = [f"--cluster={cluster}"] if cluster else [f"--scheduler={place.scheduler}"] if place.scheduler else []
    return [f"--jobs={place.jobs}", f"--cores={place.cores}", *where]


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


@contextmanager
def only_run(folder: Path, what: str) -> Iterator[None]:
    """Keep others from running the stages of a folder, on this machine and on those that share it.

    Raises:
        PipelineError: another run is on.
    """
    path = folder / RUN_LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with held(path):
            yield
    except HeldError as holder:
        raise PipelineError(
            f"another run, {holder}, is at work in {folder.resolve()}: {what} when it has ended."
        ) from None
