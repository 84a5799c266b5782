"""Stage `code`: what the result of each stage depends on in the code, as small files in git, code/.

- `stages/STAGE.txt`: a stage, with the launcher that starts it;
- `families/FAMILY.txt`, `extractors/KIND.txt`: a file that an entry of params.yaml can name, and a stage then loads;
- `used/families.txt`, `used/extractors.txt`: all those that params.yaml names, for a stage that may load any of them;
- `names/models.txt`, `names/extractors.txt`: the entries of params.yaml in their order, which DVC does not compare.

The other files hold a hash of each module and the locked version of each package that decides results, so that a
difference says what changed. Comments, docstrings, formatting and type hints do not count (stages/common/source.py).
"""

from pathlib import Path

from stages.common.params import Params, read_params
from stages.common.paths import CODE
from stages.common.source import code_hashes, modules_of, write_hashes

LAUNCHER = "stages.__main__"
LOADED = {  # by a name in params.yaml: block, key, package
    "families": ("models", "family", "generative.families"),
    "extractors": ("extractors", "kind", "generative.extractors"),
}


def main() -> None:
    """Write the hashes."""
    write_hashes(CODE, hashes(Path(), read_params()))


def hashes(root: Path, params: Params) -> dict[str, str]:
    """The text of each file of `CODE`, by its path there, for the code of the repository at `root`.

    Raises:
        SourceError: code whose influence cannot be followed.
    """
    wanted = {f"stages/{name}.txt": [LAUNCHER, f"stages.{name}"] for name in stages(root)}
    names = {}
    for folder, (block, key, package) in LOADED.items():
        available = modules_of(root, package)
        named = {name: str(item.get(key)) for name, item in params.items(block).items()}
        wanted |= {f"{folder}/{name}.txt": [f"{package}.{name}"] for name in available}
        wanted[f"used/{folder}.txt"] = [f"{package}.{name}" for name in sorted({*named.values()} & {*available})]
        names[f"names/{block}.txt"] = "".join(f"{name}\n" for name in named)
    return code_hashes(root, wanted) | names


def stages(root: Path) -> list[str]:
    """Names of the stages, this one left out: it runs whenever the code changes."""
    return [name for name in modules_of(root, "stages") if name not in ("__main__", "code")]
