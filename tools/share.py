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
from dvc_objects.errors import ObjectFormatError

from tools.entry import run_tool

_CHUNK = 1 << 20
_THREADS = 8  # objects read back at a time: a remote answers slowly, not a processor


def main(arguments: list[str]) -> int:
    """Push and read back; returns 0, or 1 with one sentence about what is wrong."""
    options = _parse(arguments)
    try:
        return share(options.remote)
    except (DvcException, ObjectFormatError, OSError) as error:
        print(f"error: the results cannot be shared: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def share(name: str | None) -> int:
    """Push to the remote `name`, or to the default one."""
    name = _verified(name)
    with Repo() as repo:
        cache = repo.cache.local
        folders = {out.hash_info.value: str(out) for out in repo.index.outs if out.use_cache and out.hash_info.isdir}
        if damaged := wrong_objects(cache, folders):  # before DVC reads in them what they hold
            return _report(cache, folders, damaged)
        objects = {info.value: info.obj_name for found in repo.used_objs(force=True).values() for info in found}
        if damaged := wrong_objects(cache, objects):
            return _report(cache, objects, damaged)
        if subprocess.run(["dvc", "push", "--run-cache", "--remote", name], check=False).returncode:
            return 1
        remote = repo.cloud.get_remote(name).odb
        if damaged := wrong_objects(remote, objects):
            print(f"{len(damaged)} objects in the remote '{name}' are not what was pushed: replacing them")
            for digest in damaged:  # by themselves: DVC asks for no file of a folder that the remote lists
                path = remote.oid_to_path(digest)
                if remote.fs.exists(path):
                    remote.fs.remove(path)
                remote.add(cache.oid_to_path(digest), cache.fs, digest, check_exists=False)
            damaged = wrong_objects(remote, damaged)
    if damaged:
        names = ", ".join(sorted(objects[digest] for digest in damaged))
        print(f"error: the remote '{name}' does not keep what is pushed: {names}", file=sys.stderr)
        return 1
    print(f"the remote '{name}' holds all {len(objects)} objects of this run, each read back and right")
    return 0


def _report(cache: Any, objects: dict[str, str], damaged: list[str]) -> int:
    for digest in damaged:
        print(
            f"error: the cache object of {objects[digest]} is missing or damaged: delete {cache.oid_to_path(digest)}, "
            "then `dvc repro` or `dvc pull`",
            file=sys.stderr,
        )
    return 1


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


def _verified(name: str | None) -> str:
    """The name of the remote, after making sure that pulls from it are verified: else DVC believes what comes."""
    for scope in ([], ["--local"]):  # the second wins, and is where a remote of one's own may be
        with Repo() as repo:
            remote = repo.cloud.get_remote(name)
            if remote.odb.verify:
                return str(remote.name)
        modify = ["dvc", "remote", "modify", *scope, remote.name, "verify", "true"]
        if subprocess.run(modify, check=False, capture_output=True).returncode == 0:
            print(f"set verify = true for the remote '{remote.name}'" + ("" if scope else ": commit .dvc/config"))
    return str(remote.name)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make share")
    parser.add_argument("--remote", help="its name in .dvc/config; the default remote if not given")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
