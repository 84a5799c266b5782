"""`make deps`: write into dvc.yaml the code that each stage imports; `--check` only compares.

Code deps are the entries under `generative/` and `stages/` that end in .py, and `generative/families` or
`generative/extractors` as a whole for a stage that may load any file of it. A stage that loads the file of its own
item depends on that file, and on every module that some file of the folder imports: DVC cannot look up a list
by item, so the modules that they share are shared by all.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from tools.imports import import_closure


class Kinds(NamedTuple):
    """Files of which one is loaded by name."""

    folder: str
    loader: str  # the module that does it
    block: str  # of params.yaml, that a stage with an item of its own runs over
    key: str  # of the item, that names the file


KINDS = (
    Kinds("generative/families", "stages/models.py", "models", "family"),
    Kinds("generative/extractors", "stages/extractors.py", "extractors", "kind"),
)
COMMAND = "python -m stages "
ENTRY = "stages.__main__"  # what every command runs first


def main(arguments: list[str]) -> int:
    """Mend dvc.yaml, or with --check say what is wrong; returns the exit code."""
    root = Path.cwd()
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    path = root / "dvc.yaml"
    pipeline = yaml.load(path)
    problems = []
    for name, stage in pipeline["stages"].items():
        body = stage.get("do", stage)
        declared = [dep for dep in body["deps"] if is_code(dep)]
        needed = code_deps(root, body["cmd"], stage.get("foreach"))
        problems += [f"{name}: missing dep {dep}" for dep in needed if dep not in declared]
        problems += [f"{name}: superfluous dep {dep}" for dep in declared if dep not in needed]
        body["deps"] = CommentedSeq([*needed, *(dep for dep in body["deps"] if not is_code(dep))])
    if "--check" in arguments:
        print("\n".join(problems) or "dvc.yaml: every stage declares the code that it imports")
        return bool(problems)
    if problems:
        with path.open("w") as file:
            yaml.dump(pipeline, file)
    print("\n".join([*problems, "dvc.yaml is mended"]) if problems else "dvc.yaml: nothing to mend")
    return 0


def is_code(dep: str) -> bool:
    """Whether a dep is one that this tool keeps."""
    folders = {kinds.folder for kinds in KINDS}
    return dep in folders or (dep.startswith(("generative/", "stages/")) and dep.endswith(".py"))


def code_deps(root: Path, command: Any, foreach: Any = None) -> list[str]:
    """The code deps, sorted, of a stage with this command; `foreach` is what it runs over, if it has items."""
    stage = str(command).removeprefix(COMMAND).split()[0]
    closure = import_closure(root, ENTRY) | import_closure(root, f"stages.{stage}")
    for kinds in KINDS:
        if kinds.loader in closure:
            own = str(foreach) == f"${{{kinds.block}}}"
            closure |= shared_by(root, kinds)
            closure.add(f"{kinds.folder}/${{item.{kinds.key}}}.py" if own else kinds.folder)
    return sorted(closure)


def shared_by(root: Path, kinds: Kinds) -> set[str]:
    """What the files of a folder import, each other included."""
    names = [path.stem for path in sorted((root / kinds.folder).glob("*.py")) if path.stem != "__init__"]
    package = kinds.folder.replace("/", ".")
    closures = (import_closure(root, f"{package}.{name}") - {f"{kinds.folder}/{name}.py"} for name in names)
    return set().union(*closures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
