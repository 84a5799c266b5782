"""The files of code/: what each stage depends on in the code, and whether that is still the code that runs."""

from collections.abc import Iterable
from pathlib import Path

import yaml

from generative.errors import FileMissingError, PipelineError
from stages.common.params import Params, read_params
from stages.common.paths import CODE, ROOT, Pipeline
from stages.common.source import PACKAGES, code_hashes, modules_of

LAUNCHER = "stages.__main__"
LOADED = {  # by a name in the settings: block, key, package
    "families": ("models", "family", "generative.families"),
    "extractors": ("extractors", "kind", "generative.extractors"),
}


def code_texts(root: Path, *settings: Params) -> dict[str, str]:
    """The text of each file of code/ that the pipelines of `settings` write, for the code of the repository at `root`.

    Of the root, by their paths in the repository:
    - `code/stages/STAGE.txt`: a stage, with the launcher that starts it;
    - `code/families/FAMILY.txt`, `code/extractors/KIND.txt`: a file that the settings can name, for a stage to load;
    - `code/used/extractors.txt`: all those that the settings name, for a stage that may load any of them;
    - `code/names/extractors.txt`: the entries of the settings in their order, which DVC does not compare.
    And of each pipeline, in code/ of its folder:
    - `used/families.txt`, `names/models.txt`: the same of its models.

    Raises:
        SourceError: code whose influence cannot be followed.
    """
    wanted: dict[str, list[str]] = {}
    names = {}
    for params in settings:
        for folder, (block, key, package) in LOADED.items():
            home = params.here.code if block == "models" else CODE
            if params.here != ROOT and home == CODE:
                continue
            available = modules_of(root, package)
            named = {name: str(item.get(key)) for name, item in params.items(block).items()}
            used = sorted({*named.values()} & {*available})
            wanted[f"{home}/used/{folder}.txt"] = [f"{package}.{name}" for name in used]
            names[f"{home}/names/{block}.txt"] = "".join(f"{name}\n" for name in named)
            if params.here == ROOT:
                wanted |= {f"{CODE}/{folder}/{name}.txt": [f"{package}.{name}"] for name in available}
        if params.here == ROOT:
            stages = [name for name in modules_of(root, "stages") if name not in ("__main__", "code")]
            wanted |= {f"{CODE}/stages/{name}.txt": [LAUNCHER, f"stages.{name}"] for name in stages}
    return code_hashes(root, wanted) | names


def check_code(here: Pipeline, stage: str, *arguments: str) -> None:
    """Make sure that the code of a stage is what the files of code/ say that it depends on.

    DVC records those files beside the results. Code that was edited after they were written would be recorded under the
    hash of other code, and a training would go on from a checkpoint of other code.

    Raises:
        PipelineError: it is not.
    """
    if not here.definition.exists() or not all(Path(package).is_dir() for package in PACKAGES):
        return  # nothing is recorded here
    params = read_params(here)
    texts = code_texts(Path(), *([params] if here == ROOT else [read_params(), params]))
    for name in _declared(stage, params, texts, *arguments):
        path = Path(name)
        if not path.exists():
            raise FileMissingError(path)
        if path.read_text(encoding="utf-8") != texts[name]:
            raise PipelineError(
                f"code or params were edited after {path} was written: run `dvc repro` or `make repro` again."
            )


def _declared(stage: str, params: Params, names: Iterable[str], *arguments: str) -> list[str]:
    """Those of `names`, files of code/, that the pipeline's dvc.yaml has among the deps of a stage."""
    stages = yaml.safe_load(params.here.definition.read_text(encoding="utf-8"))["stages"].values()
    bodies = [body.get("do", body) for body in stages]
    command = stage_command(params.here, stage).split()
    deps = " ".join(
        str(dep) for body in bodies if body["cmd"].split()[: len(command)] == command for dep in body["deps"]
    )
    for block, key, _ in LOADED.values():
        if f"${{item.{key}}}" in deps:
            deps = deps.replace(f"${{item.{key}}}", str(params.item(block, arguments[0]).get(key)))
    declared = {Path(dep) for dep in deps.split()}
    return [name for name in names if declared & {Path(name), *Path(name).parents}]


def stage_command(here: Pipeline, stage: str) -> str:
    """How dvc.yaml starts a stage of a pipeline, without the name of what it is for."""
    option = "" if here == ROOT else f"--pipeline {here.folder} "
    return f"python -m stages {option}{stage}"
