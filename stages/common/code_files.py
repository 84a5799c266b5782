"""The files of code/: what each stage depends on in the code, and whether that is still the code that runs."""

from collections.abc import Iterable
from pathlib import Path

import yaml

from generative.errors import FileMissingError, PipelineError
from stages.common.params import Params, read_params
from stages.common.paths import CODE
from stages.common.source import PACKAGES, code_hashes, modules_of

PIPELINE = Path("dvc.yaml")
LAUNCHER = "stages.__main__"
LOADED = {  # by a name in params.yaml: block, key, package
    "families": ("models", "family", "generative.families"),
    "extractors": ("extractors", "kind", "generative.extractors"),
}


def code_texts(root: Path, params: Params) -> dict[str, str]:
    """The text of each file of code/, by its path there, for the code of the repository at `root`.

    - `stages/STAGE.txt`: a stage, with the launcher that starts it;
    - `families/FAMILY.txt`, `extractors/KIND.txt`: a file that an entry of params.yaml can name, for a stage to load;
    - `used/families.txt`, `used/extractors.txt`: all those that params.yaml names, for a stage that may load any of
      them;
    - `names/models.txt`, `names/extractors.txt`: the entries of params.yaml in their order, which DVC does not compare.

    Raises:
        SourceError: code whose influence cannot be followed.
    """
    stages = [name for name in modules_of(root, "stages") if name not in ("__main__", "code")]
    wanted = {f"stages/{name}.txt": [LAUNCHER, f"stages.{name}"] for name in stages}
    names = {}
    for folder, (block, key, package) in LOADED.items():
        available = modules_of(root, package)
        named = {name: str(item.get(key)) for name, item in params.items(block).items()}
        wanted |= {f"{folder}/{name}.txt": [f"{package}.{name}"] for name in available}
        wanted[f"used/{folder}.txt"] = [f"{package}.{name}" for name in sorted({*named.values()} & {*available})]
        names[f"names/{block}.txt"] = "".join(f"{name}\n" for name in named)
    return code_hashes(root, wanted) | names


def check_code(stage: str, *arguments: str) -> None:
    """Make sure that the code of a stage is what the files of code/ say that it depends on.

    DVC records those files beside the results. Code that was edited after they were written would be recorded under the
    hash of other code, and a training would go on from a checkpoint of other code.

    Raises:
        PipelineError: it is not.
    """
    if not PIPELINE.exists() or not all(Path(package).is_dir() for package in PACKAGES):
        return  # nothing is recorded here
    params = read_params()
    texts = code_texts(Path(), params)
    for name in _declared(stage, params, texts, *arguments):
        path = CODE / name
        if not path.exists():
            raise FileMissingError(path)
        if path.read_text(encoding="utf-8") != texts[name]:
            raise PipelineError(f"the code was edited after {path} was written: run `dvc repro` or `make repro` again.")


def _declared(stage: str, params: Params, names: Iterable[str], *arguments: str) -> list[str]:
    """Those of `names`, files of code/, that dvc.yaml has among the deps of a stage."""
    stages = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["stages"].values()
    bodies = [body.get("do", body) for body in stages]
    command = ["python", "-m", "stages", stage]
    deps = " ".join(str(dep) for body in bodies if body["cmd"].split()[:4] == command for dep in body["deps"])
    for block, key, _ in LOADED.values():
        if f"${{item.{key}}}" in deps:
            deps = deps.replace(f"${{item.{key}}}", str(params.item(block, arguments[0]).get(key)))
    declared = {Path(dep) for dep in deps.split()}
    return [name for name in names if declared & {CODE / name, *(CODE / name).parents}]
