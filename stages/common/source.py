"""What a result depends on in the code: hashes of syntax trees, without what computes nothing.

A module counts by its syntax tree without comments, formatting, docstrings, type hints, `if TYPE_CHECKING` blocks and
imports that serve hints alone. A hint that is read at run time counts: that of a field of a dataclass, of a named
tuple, of a Pydantic model, and of any class whose bases are unknown here. A result depends on a module and on all that
it imports inside the project, also within functions; on the file beside it that has its name and another ending; and
on the locked versions of the packages that it imports, where they decide results. What cannot be followed is an error,
not a gap.
"""

import ast
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from generative.errors import FileMissingError, PipelineError
from generative.io.files import write_text

PACKAGES = ("generative", "stages")
LOADERS = ("generative.plugins", "stages.__main__")  # import what a setting or the command line names
LOCK = Path("requirements.lock")

# Distributions whose version decides what is computed, by the name of the import ...
DECIDING = {
    "PIL": ("pillow",),
    "lightning_fabric": ("lightning-fabric",),
    "matplotlib": ("matplotlib",),
    "numpy": ("numpy",),
    "scipy": ("scipy", "numpy"),
    "sklearn": ("scikit-learn", "scipy", "numpy"),
    "torch": ("torch",),
    "torch_fidelity": ("torch-fidelity",),
    "torchvision": ("torchvision",),
    "typst": ("typst",),
}
# ... and imports that only carry, check or show it.
HARMLESS = {"filelock", "pandas", "pooch", "pydantic", "requests", "ruamel", "safetensors", "threadpoolctl", "tqdm"}

_NO_MEANING = {"ctx", "kind", "type_comment"}  # fields of a syntax tree
_NO_COMPANIONS = {".py", ".pyc", ".part"}
_HIDING_MODULES = {"importlib", "imp", "pkgutil", "runpy"}
_HIDING_NAMES = {"__import__", "compile", "eval", "exec"}
_READING_WORDS = {"__annotations__", "__doc__", "get_annotations", "get_type_hints", "singledispatch", "validate_call"}
_PLAIN_BASES = {  # of classes whose hints nothing reads
    "ABC",
    "Exception",
    "NoReturn",
    "Protocol",
    "TorchDispatchMode",
    "nn.Linear",
    "nn.Module",
    "nn.Sequential",
    "object",
    "torch.autograd.Function",
    "torch.nn.Module",
    "yaml.SafeLoader",
}


class SourceError(PipelineError):
    """Code whose influence on a result cannot be followed."""


def code_hashes(root: Path, wanted: dict[str, list[str]]) -> dict[str, str]:
    """For each key of `wanted` what the result of its modules depends on, one line per file and package.

    Args:
        root: the repository.
        wanted: dotted names of modules by the name of what they compute together.

    Returns:
        Texts that differ where something differs that can change a result: sorted lines of a hash and a name each.

    Raises:
        SourceError: something cannot be followed.
        FileMissingError: there is no lock file.
    """
    project = _Project(root)
    project.check_other_files()
    return {name: project.describe(modules) for name, modules in wanted.items()}


def modules_of(root: Path, package: str) -> list[str]:
    """Names of the modules of `package` (dotted), sorted, without the package itself."""
    return sorted(path.stem for path in (root / Path(*package.split("."))).glob("*.py") if path.stem != "__init__")


def import_closure(root: Path, module: str) -> set[str]:
    """Dotted names of `module` and of the project's modules that its results depend on."""
    return _Project(root).closure([module])


def write_hashes(folder: Path, texts: dict[str, str]) -> None:
    """Make `folder` hold `texts`, by the relative path of their files, and nothing else."""
    for name, text in texts.items():
        write_text(folder / name, text)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and str(path.relative_to(folder)) not in texts:
            path.unlink()


@dataclass(frozen=True)
class _Module:
    """One file: its syntax tree, of which first all is there and then what counts."""

    name: str
    path: Path  # relative to the repository
    tree: ast.Module
    hints: set[str] = field(default_factory=set)  # names that hints read

    @cached_property
    def imported(self) -> dict[str, str]:
        """Dotted names of what is imported, by the name that it has in this module."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return found


class _Project:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, _Module] = {}
        self._plain: dict[str, bool] = {}

    @cached_property
    def _versions(self) -> dict[str, list[str]]:
        """Lines `name==version ; marker` of the lock file by distribution."""
        try:
            text = (self.root / LOCK).read_text()
        except FileNotFoundError:
            raise FileMissingError(LOCK) from None
        versions: dict[str, list[str]] = {}
        for name, rest in re.findall(r"^([a-z0-9._-]+)(==[^\\\n]+)", text, re.MULTILINE):
            versions.setdefault(name, []).append(f"{name}{rest.strip()}")
        return versions

    def describe(self, names: list[str]) -> str:
        files: dict[Path, str] = {}
        versions: set[str] = set()
        for name in self.closure(names):
            module = self._module(name)
            files[module.path] = _digest(_canonical(module.tree))
            files |= {path: _digest((self.root / path).read_text()) for path in self._companions(module.path)}
            for package in self._packages(module):
                versions |= set(self._locked(package))
        lines = [*(f"{files[path]}  {path}" for path in sorted(files)), *sorted(versions)]
        return "".join(f"{line}\n" for line in lines)

    def closure(self, names: list[str]) -> set[str]:
        seen: set[str] = set()
        pending = [name for name in names if self._file(name)]
        if missing := set(names) - set(pending):
            raise SourceError(f"there is no module {sorted(missing)[0]}.")
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                pending += self._needed(self._module(name))
        return seen

    def check_other_files(self) -> None:
        """Every file that is no module belongs to the module beside it that has its name."""
        for package in PACKAGES:
            for path in sorted((self.root / package).rglob("*")):
                is_other = path.is_file() and path.suffix not in _NO_COMPANIONS and path.name[0] != "."
                if is_other and not path.with_suffix(".py").exists():
                    where = path.relative_to(self.root)
                    raise SourceError(
                        f"{where} belongs to no module: give it the name of the one that reads it, and another ending."
                    )

    def _companions(self, path: Path) -> list[Path]:
        if path.stem == "__init__":
            return []
        beside = sorted((self.root / path).parent.glob(f"{path.stem}.*"))
        return [other.relative_to(self.root) for other in beside if other.suffix not in _NO_COMPANIONS]

    def _file(self, name: str) -> Path | None:
        """The file of a dotted name; None for what is no module of the project, or an `__init__.py` without code."""
        if name.split(".")[0] not in PACKAGES:
            return None
        base = Path(*name.split("."))
        if (self.root / base.with_suffix(".py")).is_file():
            return base.with_suffix(".py")
        package = self.root / base / "__init__.py"
        if package.is_file() and any(not _is_text(node) for node in ast.parse(package.read_text()).body):
            return base / "__init__.py"
        return None

    def _module(self, name: str) -> _Module:
        if name not in self._modules:
            path = self._file(name)
            assert path is not None
            try:
                tree = ast.parse((self.root / path).read_text(encoding="utf-8"))
            except SyntaxError as error:
                raise SourceError(f"{path}, line {error.lineno}: {error.msg}.") from None
            self._modules[name] = module = _Module(name, path, tree)
            self._check(module)
            stripper = _Stripper(lambda node: self._hints_count(module, node))
            stripper.visit(tree)
            module.hints.update(stripper.hints)
            self._drop_imports_for_hints(module)
        return self._modules[name]

    def _check(self, module: _Module) -> None:
        """Refuse what hides a dependency."""
        for node in ast.walk(module.tree):
            where = f"{module.path}, line {getattr(node, 'lineno', 0)}"
            hidden = ""
            if isinstance(node, ast.ImportFrom) and node.level:
                raise SourceError(f"{where}: write the full name instead of a relative import.")
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                raise SourceError(f"{where}: name what is imported instead of '*'.")
            if isinstance(node, ast.Import):
                hidden = next((alias.name for alias in node.names if alias.name.split(".")[0] in _HIDING_MODULES), "")
            elif isinstance(node, ast.ImportFrom):
                hidden = str(node.module) if str(node.module).split(".")[0] in _HIDING_MODULES else ""
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _HIDING_NAMES:
                hidden = node.func.id
            if hidden and module.name not in LOADERS:
                raise SourceError(
                    f"{where}: '{hidden}' can load code that nobody can follow: load modules by name through "
                    f"{LOADERS[0]}."
                )
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            if name in _READING_WORDS:
                raise SourceError(f"{where}: '{name}' reads hints or docstrings, which do not count as code here.")

    def _hints_count(self, module: _Module, node: ast.ClassDef) -> bool:
        """Whether the hints in the body of a class may be read at run time."""
        if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
            return True
        return not all(self._is_plain(module, base) for base in node.bases)

    def _is_plain(self, module: _Module, base: ast.expr) -> bool:
        """Whether `base`, as written in `module`, and all that it inherits from have hints that nobody reads."""
        written = ast.unparse(base)
        if written in _PLAIN_BASES:
            return True
        if not isinstance(base, ast.Name):
            return False
        dotted = module.imported.get(base.id, f"{module.name}.{base.id}")
        if dotted not in self._plain:
            self._plain[dotted] = False  # what inherits from itself is not plain
            owner, _, name = dotted.rpartition(".")
            if self._file(owner):
                other = module if owner == module.name else self._module(owner)
                found = [item for item in other.tree.body if isinstance(item, ast.ClassDef) and item.name == name]
                self._plain[dotted] = bool(found) and not self._hints_count(other, found[0])
        return self._plain[dotted]

    def _drop_imports_for_hints(self, module: _Module) -> None:
        used = {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
        for node in ast.walk(module.tree):
            for name in ("body", "orelse", "finalbody"):
                statements = getattr(node, name, None)
                if isinstance(statements, list):
                    statements[:] = list(self._without_hints(module, statements, used))

    def _without_hints(self, module: _Module, statements: list[ast.stmt], used: set[str]) -> Iterator[ast.stmt]:
        for statement in statements:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                statement.names = [
                    alias for alias in statement.names if not self._serves_hints(module, statement, alias, used)
                ]
                if not statement.names:
                    continue
            yield statement

    def _serves_hints(
        self, module: _Module, statement: ast.Import | ast.ImportFrom, alias: ast.alias, used: set[str]
    ) -> bool:
        name = alias.asname or alias.name.split(".")[0]
        if name in used or name not in module.hints:
            return False
        source = alias.name if isinstance(statement, ast.Import) else str(statement.module)
        return not (self._file(source) and self._acts(source))

    def _acts(self, name: str) -> bool:
        """Whether importing a module does more than define names."""
        path = self._file(name)
        assert path is not None
        body = ast.parse((self.root / path).read_text(encoding="utf-8")).body
        return any(isinstance(node, ast.Expr) and not _is_text(node) for node in body)

    def _needed(self, module: _Module) -> list[str]:
        """The project's modules that `module` imports, with the packages that hold them."""
        names = set()
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        names |= {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}
        return sorted(name for name in names if self._file(name))

    def _packages(self, module: _Module) -> list[str]:
        """Distributions that decide what `module` computes."""
        found = set()
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            else:
                continue
            for top in {name.split(".")[0] for name in names} - set(PACKAGES) - HARMLESS - sys.stdlib_module_names:
                if top not in DECIDING:
                    raise SourceError(
                        f"{module.path} imports '{top}': say in stages/common/source.py whether its version decides "
                        "results (DECIDING) or not (HARMLESS)."
                    )
                found |= set(DECIDING[top])
        return sorted(found)

    def _locked(self, package: str) -> list[str]:
        if package not in self._versions:
            raise SourceError(f"{LOCK} has no version of '{package}', which decides results.")
        return self._versions[package]


class _Stripper(ast.NodeTransformer):
    """Takes docstrings and hints out of a tree, and notes the names that the hints read."""

    def __init__(self, hints_count: Callable[[ast.ClassDef], bool]) -> None:
        self.hints: set[str] = set()
        self._hints_count = hints_count
        self._keep = False  # the hints of what is visited

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._block(node, keep=False)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._block(node, keep=self._hints_count(node))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._note(node.returns)
        node.returns = None
        return self._block(node, keep=False)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        self._note(node.returns)
        node.returns = None
        return self._block(node, keep=False)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        self._note(node.annotation)
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if self._keep:
            return self.generic_visit(node)
        self._note(node.annotation)
        return self.generic_visit(ast.Assign([node.target], node.value)) if node.value else ast.Pass()

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if ast.unparse(node.test) not in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            return self.generic_visit(node)
        for statement in node.body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self.hints |= {alias.asname or alias.name.split(".")[0] for alias in statement.names}
        self.hints |= {"TYPE_CHECKING", "typing"}
        return [self.visit(statement) for statement in node.orelse]

    def _block(self, node: Any, *, keep: bool) -> ast.AST:
        if node.body and _is_text(node.body[0]):
            node.body = node.body[1:]
        before, self._keep = self._keep, keep
        result = self.generic_visit(node)
        self._keep = before
        return result

    def _note(self, hint: ast.expr | None) -> None:
        for node in ast.walk(hint) if hint else ():
            if isinstance(node, ast.Name):
                self.hints.add(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.hints |= set(re.findall(r"[A-Za-z_]\w*", node.value))


def _is_text(node: ast.stmt) -> bool:
    """Whether a statement is a string that stands by itself, as a docstring does."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _canonical(node: object) -> str:
    """A syntax tree as text, the same in every version of Python: without what is empty or follows from the rest."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name not in _NO_MEANING)
        parts = [f"{name}={_canonical(value)}" for name, value in sorted(fields) if value not in (None, [])]
        return f"{type(node).__name__}({', '.join(parts)})"
    if isinstance(node, list):
        return f"[{', '.join(_canonical(item) for item in node if not isinstance(item, ast.Pass))}]"
    return repr(node)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
