"""`make verify`: whether the committed lock, params, code, metrics and the remote agree; no data are needed.

For the CI of whoever forks the project. Exit codes: 0 all agree, 1 `dvc repro` would compute something, 2 the remote
lacks outputs, 3 both, 4 a question could not be answered (the reason is shown). `--no-remote` asks the first
question alone.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import networkx as nx
from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.tree import Tree

from generative.errors import PipelineError
from stages.code import hashes
from stages.common.params import read_params
from stages.common.paths import CODE
from stages.common.problems import explain
from tools.jobs import GATES

STALE, NOT_PUSHED, UNKNOWN = 1, 2, 4


class UnansweredError(Exception):
    """A question could not be answered; the message says why."""


def main(arguments: list[str]) -> int:
    """Ask, say what is wrong, and return the exit code."""
    try:
        stale = stale_stages()
        missing = [] if "--no-remote" in arguments else not_in_remote()
    except UnansweredError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNKNOWN
    if stale:
        print(f"dvc.lock is not that of the code and params here: run `make repro` and commit ({', '.join(stale)})")
    if missing:
        print(f"the remote lacks {len(missing)} outputs: run `make share` ({', '.join(missing)})")
    if not stale and not missing:
        print(
            "lock, params, code and metrics agree" + ("" if "--no-remote" in arguments else ", the remote has it all")
        )
    return STALE * bool(stale) + NOT_PUSHED * bool(missing)


def stale_stages() -> list[str]:
    """Stages that `dvc repro` would run, and those that depend on them, in the order of the pipeline.

    An output that is in the cache, and merely not here, is that of the lock. A change of what computes nothing makes no
    stage stale, though `dvc repro` renews the entry of the stage `code`.

    Raises:
        UnansweredError: the pipeline, the params or the code cannot be read.
    """
    try:
        code = {str(CODE / path): text for path, text in hashes(Path(), read_params()).items()}
        with Repo() as repo:
            return [stage.addressing for stage in _stale(repo, code)]
    except PipelineError as error:
        raise UnansweredError(explain(error)) from None
    except DvcException as error:
        raise UnansweredError(" ".join(str(error).split())) from None


def _stale(repo: Repo, code: dict[str, str]) -> list[Any]:
    graph = repo.index.graph
    locked = {str(out): str(out.hash_info.value) for stage in repo.index.stages for out in stage.outs}
    locked |= {path: _md5(text) for path, text in code.items()}
    stale: set[Any] = set()
    order = list(nx.dfs_postorder_nodes(graph))  # what a stage needs comes first
    for stage in order:
        if stage.addressing not in GATES and (  # what those write is known without running them
            any(needed in stale for needed in graph.successors(stage))
            or stage.cmd_changed
            or any(_dep_changed(dep, locked) for dep in stage.deps)
            or any(_out_changed(out) for out in stage.outs)
        ):
            stale.add(stage)
    return [stage for stage in order if stage in stale]


def _out_changed(out: Any) -> bool:
    """Whether an output is not in the lock, or is here and another."""
    return not out.hash_info or (bool(out.exists) and bool(out.changed_checksum()))


def _dep_changed(dep: Any, locked: dict[str, str]) -> bool:
    """Whether a dependency is another than in the lock: as it is here, or as the stage that makes it has it."""
    path = Path(str(dep))
    if isinstance(dep, ParamsDependency):
        return bool(dep.workspace_status())
    if not dep.hash_info:
        return True
    if dep.exists and CODE not in path.parents:
        return bool(dep.changed_checksum())
    return str(dep.hash_info.value) != _hash(path, locked)


def _hash(path: Path, locked: dict[str, str]) -> str:
    """DVC's hash of a file, or of a folder, as far as `locked` says what is in it."""
    if str(path) in locked:
        return locked[str(path)]
    inside = {str(Path(file).relative_to(path)): value for file, value in locked.items() if path in Path(file).parents}
    tree = Tree.from_list([{"md5": value, "relpath": name} for name, value in inside.items()], hash_name="md5")
    tree.digest()
    return str(tree.hash_info.value)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def not_in_remote() -> list[str]:
    """Outputs of the current lock that the default remote does not hold.

    Raises:
        UnansweredError: DVC failed; the message has its own words.
    """
    command = ["dvc", "data", "status", "--not-in-remote", "--json"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        raise UnansweredError(f"`{' '.join(command)}` failed: {' '.join(result.stderr.split())}")
    missing: list[str] = json.loads(result.stdout).get("not_in_remote", [])
    return missing


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
