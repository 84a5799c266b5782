"""Which project files a module imports, directly or through others: read from the source, nothing is run."""

import ast
from pathlib import Path

PACKAGES = ("generative", "stages")


def import_closure(root: Path, module: str) -> set[str]:
    """Paths, relative to `root`, of `module` (dotted name) and of every project module that it needs.

    `__init__.py` files count only if they hold code: the empty ones cannot change a result.
    """
    seen: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        path = _path(root, name)
        if path is None or str(path) in seen:
            continue
        seen.add(str(path))
        pending += sorted(_imports(root, root / path))
    return seen


def _imports(root: Path, path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:  # relative imports are forbidden by ruff
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    names |= {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}  # packages
    return {name for name in names if name.split(".")[0] in PACKAGES and _path(root, name)}


def _path(root: Path, module: str) -> Path | None:
    """The file of a dotted name; None for a package with an empty `__init__.py` and for what is no module."""
    base = Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if (root / path).is_file() and (root / path).stat().st_size:
            return path
    return None
