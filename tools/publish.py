"""`make publish FOLDER=path`: write the results of this run into a folder that any web server can offer.

The folder is a remote of DVC that needs no program behind it: data, extractors, features, models and samples, each file
under its MD5. Whoever has a clone of the same commit and the folder's address can then pull them, and needs no account.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from dvc.repo import Repo

from stages.common.paths import ROOT
from tools.entry import run_tool
from tools.pipelines import present_pipelines
from tools.share import wrong_objects

REMOTE = "published"
_SHOWN = 4  # names


def main(arguments: list[str]) -> int:
    """Write the folder, read it back, and say how it is used; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make publish FOLDER=path")
    parser.add_argument("--folder", required=True, type=Path, help="where the files go; made if it is not there")
    folder: Path = parser.parse_args(arguments).folder.expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        print(f"error: {folder} is a file: name a folder", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    config = {"remote": {REMOTE: {"url": str(folder), "verify": True}}}
    objects: dict[str, str] = {}
    with Repo(config=config) as repo:
        for here in present_pipelines():
            if not here.definition.with_suffix(".lock").exists():
                print(f"{here.folder}/ is left out: it was not run here", file=sys.stderr)
                continue
            used = repo.used_objs([str(here.definition)], force=True).values()
            found = {info.value: info.obj_name for infos in used for info in infos}
            if missing := wrong_objects(repo.cache.local, found):
                way_out = f"`make {here.folder.name or 'repro'}` or `dvc pull` brings it here"
                print(f"{here.definition}: the cache has no {_some(found, missing)}: {way_out}", file=sys.stderr)
                if here == ROOT:
                    return 1
                print(f"{here.folder}/ is left out", file=sys.stderr)
                continue
            repo.push([str(here.definition)], remote=REMOTE)
            objects |= found
        if not objects:
            print("error: nothing was run here: run `make repro` first", file=sys.stderr)
            return 1
        remote = repo.cloud.get_remote(REMOTE).odb
        if damaged := wrong_objects(remote, objects):
            print(f"error: {folder} does not hold {_some(objects, damaged)}: delete it, run again", file=sys.stderr)
            return 1
        size = sum(remote.fs.size(remote.oid_to_path(digest)) for digest in objects)
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    commit = head.stdout.strip() or "this version"
    print(f"{folder} holds all {len(objects)} objects of {commit}, {size / 1e6:.0f} MB, each read back and right.")
    print("Let a web server offer it; in a clone, with its address:")
    print(f"  dvc remote add --default {REMOTE} https://ADDRESS && dvc remote modify {REMOTE} verify true && dvc pull")
    return 0


def _some(objects: dict[str, str], digests: list[str]) -> str:
    names = sorted(objects[digest] for digest in digests)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
