"""Which stages `dvc repro` would run, found without running any and without data."""

import hashlib
from pathlib import Path
from typing import Any

import networkx as nx
from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.tree import Tree

from generative.errors import PipelineError
from stages.common.code_files import code_texts
from stages.common.params import read_params
from stages.common.paths import Pipeline
from stages.common.problems import explain
from tools.pipelines import address, present_pipelines

GATES = ("code", "check_params")  # run in seconds whenever a file changes, and seldom write anything new


class UnansweredError(Exception):
    """A question could not be answered; the message says why."""


def stale_stages() -> list[str]:
    """Stages that `dvc repro` would run, and those that depend on them, in the order of the pipeline.

    An output that is in the cache, and merely not here, is that of the lock. Of GATES only what they write counts, and
    that is known without running them: a change of what computes nothing makes no stage stale, though `dvc repro`
    renews the entry of the stage `code`.

    Raises:
        UnansweredError: the pipeline, the params or the code cannot be read.
    """
    try:
        homes = present_pipelines()
        texts = code_texts(Path(), *map(read_params, homes))
        with Repo() as repo:
            stale = [stage.addressing for stage in _stale(repo, {path: _md5(text) for path, text in texts.items()})]
    except PipelineError as error:
        raise UnansweredError(explain(error)) from None
    except DvcException as error:
        raise UnansweredError(" ".join(str(error).split())) from None
    return [address(here, GATES[0]) for here in homes if _written(here) != _wanted(here, texts)] + stale


def _written(here: Pipeline) -> dict[str, str]:
    return {str(path): path.read_text(encoding="utf-8") for path in here.code.rglob("*") if path.is_file()}


def _wanted(here: Pipeline, texts: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if here.code in Path(name).parents}


def _stale(repo: Repo, code: dict[str, str]) -> list[Any]:
    graph = repo.index.graph
    outs = {str(out): out for stage in repo.index.stages if stage.name != GATES[0] for out in stage.outs}
    stale: set[Any] = set()
    order = list(nx.dfs_postorder_nodes(graph))  # what a stage needs comes first
    for stage in order:
        if stage.name not in GATES and (
            any(needed in stale for needed in graph.successors(stage))
            or stage.cmd_changed
            or any(_dep_changed(dep, outs, code) for dep in stage.deps)
            or any(_out_changed(out) for out in stage.outs)
        ):
            stale.add(stage)
    return [stage for stage in order if stage in stale]


def _out_changed(out: Any) -> bool:
    """Whether an output is not in the lock, is here and another, or is not here and in no cache."""
    if not out.exists:
        return not out.hash_info or not out.use_cache
    return not out.hash_info or bool(out.changed_checksum())


def _dep_changed(dep: Any, outs: dict[str, Any], code: dict[str, str]) -> bool:
    """Whether a dependency is another than in the lock: as it is here, or as the stage that makes it has it."""
    path = Path(str(dep))
    if isinstance(dep, ParamsDependency):
        return bool(dep.workspace_status())
    if not dep.hash_info:
        return True
    if made := {file: value for file, value in code.items() if path in (Path(file), *Path(file).parents)}:
        return str(dep.hash_info.value) != _hash(path, made)
    inside = {file: out for file, out in outs.items() if path in (Path(file), *Path(file).parents)}
    if dep.exists and all(out.exists for out in inside.values()):
        return bool(dep.changed_checksum())
    values = {file: (out.get_hash() if out.exists else out.hash_info).value for file, out in inside.items()}
    return str(dep.hash_info.value) != _hash(path, values)


def _hash(path: Path, values: dict[str, Any]) -> str:
    """DVC's hash of a file, or of a folder, from the hashes of what is in it."""
    if str(path) in values:
        return str(values[str(path)])
    parts = [{"md5": value, "relpath": str(Path(file).relative_to(path))} for file, value in values.items()]
    tree = Tree.from_list(parts, hash_name="md5")
    tree.digest()
    return str(tree.hash_info.value)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
