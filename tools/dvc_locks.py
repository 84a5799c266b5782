"""DVC's locks where several machines share a folder: what a killed stage leaves behind, and whether flock() is enough.

DVC guards its files by flock(), or with `core.hardlink_lock` by hard links. flock() ends with its process, and reaches
other machines on most shared file systems, but not on all. A hard link stays when its process is killed. What a stage
reads and writes DVC notes in `rwlock` with a process number, which on another machine may be that of anything.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dvc.lock import LockError, make_lock
from dvc.repo import Repo

FOLDER = Path(".dvc/tmp")
ABANDONED = 120.0  # seconds for which a lock of a hard link may stay the same after a worker was lost
_PROBE = "flock_probe"


def uses_hard_links(folder: Path) -> bool:
    """Whether DVC is set to lock by hard links here."""
    with Repo(str(folder)) as repo:
        return bool(repo.config["core"].get("hardlink_lock"))


def mend_rwlock(folder: Path, command: str) -> None:
    """Make `rwlock` one that DVC can read, without what an earlier process of the same `command` noted.

    DVC writes the file in place: a process that is killed at that moment leaves half of it.
    """
    path = folder / FOLDER / "rwlock"
    with suppress(FileNotFoundError, LockError):  # held: by a process that lives, or will be missed elsewhere
        text = path.read_text(encoding="utf-8")
        if _is_json(text) and command not in text:
            return
        guard = str(path.with_name("rwlock.lock"))
        with make_lock(guard, tmp_dir=str(path.parent), hardlink_lock=uses_hard_links(folder)):
            text = path.read_text(encoding="utf-8")
            noted = json.loads(text) if _is_json(text) else {}
            path.write_text(json.dumps(_without(noted, command)), encoding="utf-8")


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _without(noted: dict[str, Any], command: str) -> dict[str, Any]:
    def is_other(entry: dict[str, Any]) -> bool:
        return not str(entry["cmd"]).endswith(command)

    writers = {path: entry for path, entry in noted.get("write", {}).items() if is_other(entry)}
    readers = {path: list(filter(is_other, entries)) for path, entries in noted.get("read", {}).items()}
    return {"write": writers, "read": {path: entries for path, entries in readers.items() if entries}}


@contextmanager
def flock_held(folder: Path) -> Iterator[str]:
    """Hold flock() of a file that others are asked about; gives its path."""
    path = folder.resolve() / FOLDER / _PROBE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield str(path)
    path.unlink(missing_ok=True)


def misses_flock(path: str) -> str:
    """What is wrong if this machine does not see that another one holds flock() of a file; empty if it does."""
    with Path(path).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
        except OSError:
            pass
    return (
        f"{socket.gethostname()} does not see locks that another machine holds on the shared folder: run "
        "`dvc config --local core.hardlink_lock true` once, so that DVC locks by hard links"
    )


class AbandonedLocks:
    """Removes DVC's hard links that nobody can hold any more, since workers were lost while they stayed the same."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._paths = [folder / FOLDER / name for name in ("lock", "rwlock.lock")]
        self._say = say
        self._seen: dict[Path, tuple[int, float]] = {}

    def worker_lost(self) -> None:
        """Note which locks are held now."""
        for path in self._paths:
            with suppress(OSError):
                self._seen[path] = (path.stat().st_ino, time.monotonic())

    def look(self) -> None:
        """Remove those that are still the same after ABANDONED seconds."""
        for path, (inode, since) in list(self._seen.items()):
            with suppress(OSError):
                if path.stat().st_ino != inode:
                    del self._seen[path]
                elif time.monotonic() - since > ABANDONED:
                    del self._seen[path]
                    os.unlink(path)  # noqa: PTH108
                    self._say(f"removed {path}, which a worker that was lost had held")
                continue
            self._seen.pop(path, None)
