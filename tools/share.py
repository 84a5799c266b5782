"""`make share`: push the results of the current run, and believe nothing that was not read back.

DVC skips an object that the remote lists under its name, whatever its content: one that a killed push left truncated
stays so, and every later push says that all is up to date. Here every object of `dvc.lock` is hashed, in the local
cache before the push and in the remote after it; what is wrong in the remote is removed and pushed again.
"""

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

_CHUNK = 1 << 20
_THREADS = 8  # objects read back at a time: a remote answers slowly, not a processor


def main(arguments: list[str]) -> int:
    """Push and read back; returns 0, or 1 with one sentence about what is wrong."""
    options = _parse(arguments)
    try:
        return share(options.remote)
    except (DvcException, OSError) as error:
        print(f"error: the remote cannot be used: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def share(name: str | None) -> int:
    """Push to the remote `name`, or to the default one."""
    with Repo() as repo:
        remote = repo.cloud.get_remote(name)
        _verify_pulls(remote)
        objects = {info.value: info.obj_name for found in repo.used_objs().values() for info in found}
        if damaged := wrong_objects(repo.cache.local, objects):
            for digest in damaged:
                print(
                    f"error: the cache object of {objects[digest]} is missing or damaged: delete "
                    f"{repo.cache.local.oid_to_path(digest)}, then `dvc repro` or `dvc pull`",
                    file=sys.stderr,
                )
            return 1
        if not _push(remote.name):
            return 1
        if damaged := wrong_objects(remote.odb, objects):
            print(f"{len(damaged)} objects in the remote '{remote.name}' are not what was pushed: pushing them again")
            for digest in damaged:
                path = remote.odb.oid_to_path(digest)
                if remote.odb.fs.exists(path):
                    remote.odb.fs.remove(path)
    if damaged:
        if not _push(remote.name):
            return 1
        with Repo() as repo:
            damaged = wrong_objects(repo.cloud.get_remote(name).odb, objects)
    if damaged:
        names = ", ".join(sorted(objects[digest] for digest in damaged))
        print(f"error: the remote '{remote.name}' does not keep what is pushed: {names}", file=sys.stderr)
        return 1
    print(f"the remote '{remote.name}' holds all {len(objects)} objects of this run, each read back and right")
    return 0


def wrong_objects(store: Any, digests: Iterable[str]) -> list[str]:
    """Those of `digests` whose object in `store` is missing or has another content."""

    def wrong(digest: str) -> bool:
        found = hashlib.md5(usedforsecurity=False)
        try:
            with store.fs.open(store.oid_to_path(digest), "rb") as file:
                while chunk := file.read(_CHUNK):
                    found.update(chunk)
        except FileNotFoundError:
            return True
        return found.hexdigest() != digest.removesuffix(".dir")

    digests = list(digests)
    with ThreadPoolExecutor(_THREADS) as pool:
        return [digest for digest, is_wrong in zip(digests, pool.map(wrong, digests), strict=True) if is_wrong]


def _verify_pulls(remote: Any) -> None:
    """Without this, DVC believes what it pulls."""
    if not remote.odb.verify:
        subprocess.run(["dvc", "remote", "modify", remote.name, "verify", "true"], check=True)
        print(f"set verify = true for the remote '{remote.name}': commit .dvc/config")


def _push(name: str) -> bool:
    return subprocess.run(["dvc", "push", "--run-cache", "--remote", name], check=False).returncode == 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make share")
    parser.add_argument("--remote", help="its name in .dvc/config; the default remote if not given")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
