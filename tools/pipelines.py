"""`make format`: writes zoo/dvc.yaml from the root's; `--check` only compares.

DVC cannot include one pipeline in another. The stages of zoo/ are those of the root that belong to models: the same
commands with `--pipeline zoo`, the same files in zoo/, run from the root. What the root alone has (data, extractors,
real images) they read there, and where the root compares its models, they compare those of both. Stages that zoo/ alone
has stay as they stand there.
"""

import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from generative.errors import PipelineError
from generative.io.files import write_text
from stages.common.code_files import stage_command
from stages.common.params import OWN_BLOCKS, read_params
from stages.common.paths import PIPELINES, ROOT, ZOO, Pipeline
from tools.entry import run_tool

TOGETHER = ("compare", "report")  # stages that look at all models
_OWN = ("theory",)  # stages that zoo/ alone has
_OF_MODELS = ("code", "check_params", "lend", "train", "generate", "evaluate", "publish", *TOGETHER)
_OWN_CODE = ("used/families.txt", "names/models.txt")  # in code/, of each pipeline
_HEADER = "# Written by `make format` from ../dvc.yaml: change that one. What it does not have, `theory`, is kept.\n\n"


def main(arguments: list[str]) -> int:
    """Write the file, or with --check say whether it is right; returns the exit code."""
    path = ZOO.definition
    present = path.read_text(encoding="utf-8") if path.exists() else ""
    wanted = pipeline_text(ROOT.definition.read_text(encoding="utf-8"), ZOO, present)
    if present == wanted:
        print(f"{path}: it is that of {ROOT.definition}")
        return 0
    if "--check" in arguments:
        print(f"{path}: it is not that of {ROOT.definition}: run `make format`")
        return 1
    write_text(path, wanted)
    print(f"{path}: written from {ROOT.definition}")
    return 0


def present_pipelines(root: Path = Path()) -> list[Pipeline]:
    """The pipelines that the repository at `root` has."""
    return [here for here in PIPELINES.values() if (root / here.params).exists()]


def homes_of_models() -> dict[str, Pipeline]:
    """The pipeline of each model, by its name."""
    return {name: here for here in present_pipelines() for name in read_params(here).models}


def together(here: Pipeline) -> tuple[str, ...]:
    """The stages of a pipeline that look at all models."""
    return TOGETHER if here == ROOT else (*TOGETHER, *_OWN)


def address(here: Pipeline, stage: str) -> str:
    """What DVC calls a stage of a pipeline."""
    return stage if here == ROOT else f"{here.definition}:{stage}"


def pipeline_text(root: str, here: Pipeline, present: str) -> str:
    """The dvc.yaml of the pipeline `here`, given the text of the root's, and the one that it has at present."""
    yaml = YAML()
    yaml.width = 1000
    yaml.indent(mapping=2, sequence=4, offset=2)
    given = yaml.load(root)
    shared = set(_outputs(given["stages"][name] for name in given["stages"] if name not in _OF_MODELS))
    stages = {name: _stage(name, given["stages"][name], here, shared) for name in _OF_MODELS}
    old = (yaml.load(present) or {}).get("stages", {})
    if lost := [name for name in _OWN if name not in old]:
        raise PipelineError(f"{here.definition} has lost its stage '{lost[0]}', which only git has: restore the file.")
    stages |= {name: old[name] for name in _OWN}
    pipeline = {"stages": stages, "metrics": given["metrics"], "plots": given["plots"]}
    pipeline["artifacts"] = {"models": given["artifacts"]["models"]}
    text = io.StringIO()
    yaml.dump(pipeline, text)
    return _HEADER + text.getvalue().replace("\n\n\n", "\n\n")


def _outputs(stages: Iterable[Any]) -> Iterable[str]:
    for stage in stages:
        for out in stage.get("do", stage)["outs"]:
            path = out if isinstance(out, str) else next(iter(out))
            yield path.split("/${")[0]


def _stage(name: str, given: Any, here: Pipeline, shared: set[str]) -> Any:
    body = given.get("do", given)
    text = {key: value for key, value in body.items() if key not in ("cmd", "deps", "params", "outs")}
    new = {
        **text,
        "wdir": "/".join([".."] * len(here.folder.parts)),
        "cmd": body["cmd"].replace(stage_command(ROOT, name), stage_command(here, name)),
        "deps": sorted(dict.fromkeys(dep for path in body["deps"] for dep in _deps(path, name, here, shared))),
    }
    if "params" in body:
        new["params"] = _params(body["params"], name, here)
    new["outs"] = [_out(out, here) for out in body["outs"]]
    return {"foreach": given["foreach"], "do": new} if "foreach" in given else new


def _deps(path: str, name: str, here: Pipeline, shared: set[str]) -> list[str]:
    """Where the pipeline `here` has what the root has at `path`; both, if a stage looks at all models."""
    folders = {path, *map(str, Path(path).parents)}
    if path == "params.yaml":
        return [path, str(here.params)]
    is_code = "code" in folders and path.removeprefix("code/") not in _OWN_CODE
    if is_code or folders & (shared | {"generative", "stages", "requirements.lock"}):
        return [path]
    return [path, str(here.folder / path)] if name in TOGETHER else [str(here.folder / path)]


def _params(given: list[str], name: str, here: Pipeline) -> list[Any]:
    own = [key for key in given if key.split(".")[0] in OWN_BLOCKS]
    both = [key for key in own if key == "models"] if name in TOGETHER else []
    root = sorted([*(key for key in given if key not in own), *both])
    return [*root, {str(here.params): own}] if own else root


def _out(out: Any, here: Pipeline) -> Any:
    if isinstance(out, str):
        return str(here.folder / out)
    ((path, settings),) = out.items()
    return {str(here.folder / path): settings}


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
