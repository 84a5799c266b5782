"""`make deps`: write into dvc.yaml the code that each stage imports; `--check` only compares.

Code deps are the entries under `generative/` and `stages/` that end in .py, and `generative/families` as a
whole for a stage that may load any family. A stage that loads the family of its own item depends on that
family's file, and on every module that some family imports: DVC cannot look up a list
by item, so the modules that families share are shared by all.
"""

import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from tools.imports import import_closure

FAMILIES = Path("generative/families")
LOADS_FAMILIES = "stages/models.py"  # the module that imports a family by name
MODULE_PREFIX = "python -m "


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
        needed = code_deps(root, body["cmd"], per_item="do" in stage)
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
    return dep == str(FAMILIES) or (dep.startswith(("generative/", "stages/")) and dep.endswith(".py"))


def code_deps(root: Path, command: Any, *, per_item: bool) -> list[str]:
    """The code deps, sorted, of a stage with this command; `per_item`: it runs once per model."""
    module = str(command).removeprefix(MODULE_PREFIX).split()[0]
    closure = import_closure(root, module)
    if LOADS_FAMILIES in closure:
        closure |= shared_by_families(root)
        closure.add(str(FAMILIES / "${item.family}.py") if per_item else str(FAMILIES))
    return sorted(closure)


def shared_by_families(root: Path) -> set[str]:
    """What the family files import, other families included."""
    names = [path.stem for path in sorted((root / FAMILIES).glob("*.py")) if path.stem != "__init__"]
    closures = (import_closure(root, f"generative.families.{name}") - {f"{FAMILIES}/{name}.py"} for name in names)
    return set().union(*closures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
