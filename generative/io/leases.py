"""Leases: files that keep a second process away from a folder, on this machine and on others that share it.

flock() is that of one machine on some shared file systems and missing on others, and a hard link stays when its process
is killed. A lease is a file that is made only where there is none, names its process, and is touched while that lives.
"""

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from generative.errors import PipelineError

DURATION = 30.0  # seconds without a sign of life after which a holder on another machine counts as dead
_LOOK = 0.5  # seconds between two looks at one


class HeldError(PipelineError):
    """Another process holds a lease; the message says which, in words that fit into a sentence."""


@contextmanager
def held(path: Path) -> Iterator[filelock.SoftFileLease]:
    """Hold the lease `path`; its `compromise` tells later if this process was taken for dead.

    What a dead process of this machine left is taken over at once. One of another machine cannot be looked at: as soon
    as it is seen to live it is named, and after DURATION seconds of this process's own clock without a sign of life its
    lease is taken over.

    Raises:
        HeldError: another process holds it.
    """
    lease = filelock.SoftFileLease(path, lease_duration=DURATION)
    seen, since = None, time.monotonic()
    while True:
        try:
            lease.acquire(timeout=0)
            break
        except filelock.Timeout:
            mark, owner = _mark(path), lease.owner
            if mark is None or owner is None:  # ended, or is just being written
                time.sleep(_LOOK)
                if time.monotonic() - since > DURATION:
                    raise HeldError("which does not say who it is") from None
                continue
            here = owner.hostname == socket.gethostname()
            if (here and _is_alive(owner.pid)) or (seen is not None and mark != seen):
                raise HeldError(f"number {owner.pid} on {owner.hostname}") from None
            if here or time.monotonic() - since > DURATION:
                _remove(path, mark)  # where the file system cannot exchange names, as NFS, filelock leaves it there
            else:
                seen = mark
                time.sleep(_LOOK)
    try:
        yield lease
    finally:
        lease.release()


def _mark(path: Path) -> tuple[int, int, bytes] | None:
    """What changes with every sign of life."""
    with suppress(OSError):
        known = path.stat()
        return known.st_ino, known.st_mtime_ns, path.read_bytes()
    return None


def _remove(path: Path, mark: tuple[int, int, bytes]) -> None:
    """Remove the lease that was judged, and no other."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with suppress(OSError):
        path.rename(aside)
        if _mark(aside) != mark:
            os.link(aside, path)  # of somebody who was quicker; fails where there is a new one
        aside.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
