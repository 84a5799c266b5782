"""Which code a result depends on: what counts, what does not, and what is refused."""

import ast
import shutil
from pathlib import Path

import pytest

from generative.errors import PipelineError
from stages.common.code_files import code_texts
from stages.common.params import Params
from stages.common.paths import ZOO
from stages.common.source import OUTSIDE, PACKAGES, SourceError, code_hashes, import_closure, write_hashes
from tests.small import PARAMS, ROOT, ZOO_PARAMS

LOCK = "torch==2.1 \\\n    --hash=sha256:00\npillow==9.0 ; python_version < '3.12' \\\n    --hash=sha256:00\n"
STAGE = '''
"""A stage."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from generative.helper import Setting, used

if TYPE_CHECKING:
    from generative.other import Other


class Pair(NamedTuple):
    """Two numbers."""

    first: int
    second: float = 2.0


class Network(torch.nn.Module):
    """A network."""

    rate: float
    depth: int = 3

    def forward(self, x: "torch.Tensor", other: "Other") -> Any:
        """Its output."""
        y: Any = used(x)
        return y + self.depth


def main(name: str) -> None:
    # the work
    from generative.late import value

    print(name, value, Setting(rate=1.0))
'''
HELPER = """
from generative.config import Config

class Setting(Config):
    rate: float

def used(x):
    return 2 * x
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A stage, what it imports, and what it does not."""
    files = {
        "requirements.lock": LOCK,
        "stages/__init__.py": "",
        "stages/work.py": STAGE,
        "generative/__init__.py": "",
        "generative/helper.py": HELPER,
        "generative/config.py": "from pydantic import BaseModel\n\nclass Config(BaseModel):\n    pass\n",
        "generative/late.py": "value = 1\n",
        "generative/other.py": "class Other:\n    pass\n",
        "generative/active.py": "import torch\n\nNames = dict\ntorch.set_num_threads(1)\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def text_of(project: Path) -> str:
    return code_hashes(project, {"work": ["stages.work"]})["work"]


def edit(project: Path, name: str, before: str, after: str) -> None:
    text = (project / name).read_text()
    assert before in text
    (project / name).write_text(text.replace(before, after, 1))


def test_text_names_every_file_and_the_packages_that_decide(project: Path) -> None:
    lines = text_of(project).splitlines()
    names = [line.split("  ")[-1] for line in lines]
    assert names == [
        "generative/config.py",
        "generative/helper.py",
        "generative/late.py",
        "stages/work.py",
        "torch==2.1",
    ]
    assert import_closure(project, "stages.work") == {
        "generative.config",
        "generative.helper",
        "generative.late",
        "stages.work",
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# the work", "# the work, explained\n    # in two lines"),
        ('"""A stage."""', '"""Another sentence."""'),
        ('"""A stage."""', ""),
        ('"""Two numbers."""', '"""Still two."""'),
        ('"""Its output."""', '"""Its output."""\n'),
        (
            "print(name, value, Setting(rate=1.0))",
            "print(\n        name,\n        value,\n        Setting(rate=1.00),\n    )",
        ),
        ("def main(name: str) -> None:", "def main(name) -> None:"),
        ("def main(name: str) -> None:", 'def main(name: "str | int"):'),
        ("    rate: float\n    depth: int = 3", "    depth = 3"),
        ("y: Any = used(x)", "y = used(x)"),
        ("    from generative.other import Other", "    from generative.other import Other, Another"),
        ("import torch\n", "import torch\nfrom collections.abc import Sequence\n\nprint_of: Sequence\n"),
    ],
)
def test_what_computes_nothing_does_not_count(project: Path, before: str, after: str) -> None:
    first = text_of(project)
    edit(project, "stages/work.py", before, after)
    assert text_of(project) == first


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("stages/work.py", "depth: int = 3", "depth: int = 4"),
        ("stages/work.py", "second: float = 2.0", "second: float = 3.0"),
        ("stages/work.py", "    first: int\n", "    first: str\n"),  # a field of a named tuple
        ("stages/work.py", "rate=1.0", "rate=1.5"),
        ("stages/work.py", "y + self.depth", "self.depth + y"),
        ("generative/helper.py", "rate: float", "rate: int"),  # Pydantic reads it
        ("generative/helper.py", "2 * x", "3 * x"),
        ("generative/late.py", "value = 1", "value = 2"),
        ("generative/config.py", "pass", "frozen = True"),
        ("requirements.lock", "torch==2.1", "torch==2.2"),
    ],
)
def test_what_computes_counts(project: Path, name: str, before: str, after: str) -> None:
    first = text_of(project)
    edit(project, name, before, after)
    assert text_of(project) != first


@pytest.mark.parametrize("name", ["generative/other.py", "generative/new.py"])
def test_what_is_not_imported_does_not_count(project: Path, name: str) -> None:
    first = text_of(project)
    (project / name).write_text("value = 9\n")
    edit(project, "requirements.lock", "pillow==9.0", "pillow==9.1")
    assert text_of(project) == first


def test_module_that_is_imported_runs_whatever_its_names_serve(project: Path) -> None:
    edit(project, "generative/config.py", "pass", "pass\n\nclass Shape:\n    pass")
    first = text_of(project)
    edit(project, "stages/work.py", "import torch\n", "import torch\nfrom generative.config import Shape\n")
    edit(project, "stages/work.py", "name: str", "name: Shape")
    assert text_of(project) == first  # that module ran before
    edit(project, "stages/work.py", "import torch\n", "import torch\nfrom generative.active import Names\n")
    edit(project, "stages/work.py", "name: Shape", "name: Names")
    assert "generative/active.py" in text_of(project)


def test_name_for_hints_counts_where_another_module_takes_it(project: Path) -> None:
    edit(project, "generative/helper.py", "def used(x):", "from generative.late import value\n\ndef used(x: value):")
    first = text_of(project)
    edit(project, "stages/work.py", "import Setting, used", "import Setting, used, value as passed_on")
    edit(
        project,
        "generative/helper.py",
        "from generative.late import value",
        "from generative.other import Other as value",
    )
    second = text_of(project)
    edit(project, "generative/other.py", "pass", "size = 2")
    assert len({first, second, text_of(project)}) == 3


def test_string_that_pydantic_reads_as_a_hint_counts(project: Path) -> None:
    edit(project, "generative/helper.py", "rate: float", 'rate: "value"')
    edit(project, "generative/helper.py", "def used(x):", "from generative.late import value\n\ndef used(x: value):")
    assert "import" not in text_of(project)
    first = text_of(project)
    edit(
        project,
        "generative/helper.py",
        "from generative.late import value",
        "from generative.other import Other as value",
    )
    assert text_of(project) != first


@pytest.mark.parametrize("package", ["generative", "stages"])
def test_code_of_the_package_around_a_module_counts(project: Path, package: str) -> None:
    first = text_of(project)
    (project / package / "__init__.py").write_text('"""Words."""\n')
    assert text_of(project) == first
    (project / package / "__init__.py").write_text("import torch\n\ntorch.set_default_dtype(torch.float64)\n")
    assert text_of(project) != first


@pytest.mark.parametrize("decorator", ["register", "torch.jit.script", "record(frozen=True)"])
def test_hints_below_an_unknown_decorator_count(project: Path, decorator: str) -> None:
    edit(project, "stages/work.py", "def main(", f"@{decorator}\ndef main(")
    first = text_of(project)
    edit(project, "stages/work.py", "name: str", "name: int")
    assert text_of(project) != first


@pytest.mark.parametrize("name", ["loop.py~", "helper.bak", ".helper.py.swp", "helper.py.orig", "helper.pyi"])
def test_what_an_editor_leaves_behind_does_not_count(project: Path, name: str) -> None:
    first = text_of(project)
    (project / "generative" / name).write_text("value = 3")
    assert text_of(project) == first


def test_file_beside_a_module_counts_with_it(project: Path) -> None:
    first = text_of(project)
    (project / "stages" / "work.typ").write_text("= Title")
    second = text_of(project)
    (project / "stages" / "work.typ").write_text("= Other title")
    assert len({first, second, text_of(project)}) == 3


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ("from importlib import import_module\n", ["stages/work.py, line", "'importlib.import_module' can load code"]),
        ("import runpy\n", ["'runpy'"]),
        ("exec('1')\n", ["'exec' can reach code"]),
        ("f = eval\n", ["'eval'"]),
        ("import builtins\n", ["'builtins'"]),
        ("import sys\nprint(sys.modules)\n", ["'modules' can reach code"]),
        ("import generative\n", ["'generative' is a package"]),
        ("from generative import package\n", ["'generative.package' is a package"]),
        ("print(load_family('vae'))\n", ["'load_family' loads a module by a name"]),
        ("print(open('generative/late.json'))\n", ["names late.json, which belongs to the module beside that file"]),
        ("from . import helper\n", ["full name instead of a relative import"]),
        ("from generative.helper import *\n", ["instead of '*'"]),
        ("from generative.loading import load_model\n", ["is for users of the library"]),
        ("import einops\n", ["imports 'einops'", "DECIDING", "HARMLESS"]),
        ("import numpy\n", ["requirements.lock has no version of 'numpy'"]),
        ("print(main.__doc__)\n", ["'__doc__' reads hints or docstrings"]),
        ("def f(:\n", ["stages/work.py, line"]),
    ],
)
def test_what_cannot_be_followed_is_an_error(project: Path, added: str, words: list[str]) -> None:
    (project / "generative" / "late.json").write_text("{}")
    (project / "generative" / "package").mkdir()
    (project / "generative" / "package" / "__init__.py").touch()
    (project / "stages" / "work.py").write_text(STAGE + added)
    with pytest.raises(SourceError) as caught:
        text_of(project)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["stages/notes.txt", "stages/work.bin", "generative/__init__.json"])
def test_file_of_nobody_is_an_error(project: Path, name: str) -> None:
    (project / name).write_text("x")
    with pytest.raises(SourceError, match=f"{name} belongs to no module"):
        text_of(project)


def test_module_beside_a_package_of_its_name_is_an_error(project: Path) -> None:
    (project / "generative" / "late").mkdir()
    with pytest.raises(SourceError, match=r"generative/late\.py stands beside a package of its name"):
        text_of(project)


def test_missing_lock_is_an_error(project: Path) -> None:
    (project / "requirements.lock").unlink()
    with pytest.raises(PipelineError, match=r"requirements\.lock is missing"):
        text_of(project)


def test_written_folder_holds_the_texts_alone(tmp_path: Path) -> None:
    write_hashes(tmp_path, Path("code"), {"code/a.txt": "1", "code/b.txt": "2"})
    write_hashes(tmp_path, Path("code"), {"code/b.txt": "3"})
    assert {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.txt")} == {
        "code/b.txt": "3"
    }


class TestThisProject:
    def test_no_comment_docstring_or_format_counts_in_any_file(self, tmp_path: Path) -> None:
        for package in ("generative", "stages"):
            shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(ROOT / "requirements.lock", tmp_path / "requirements.lock")
        before = code_texts(tmp_path, Params(PARAMS))
        for path in (*tmp_path.rglob("generative/**/*.py"), *tmp_path.rglob("stages/**/*.py")):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                    node.body[0] = ast.Expr(ast.Constant("Other words."))
            path.write_text(f"# rewritten\n{ast.unparse(tree)}\n")
        assert code_texts(tmp_path, Params(PARAMS)) == before

    def test_committed_hashes_are_those_of_the_code(self) -> None:
        for params in (Params(PARAMS), Params(PARAMS | ZOO_PARAMS, ZOO)):
            for name, text in code_texts(ROOT, params).items():
                assert (ROOT / name).read_text() == text, f"{name}: run `make repro` and `make zoo` and commit"

    def test_what_counts_nowhere_serves_the_launcher_alone(self) -> None:
        importers = {
            ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for package in PACKAGES
            for path in ROOT.glob(f"{package}/**/*.py")
            if any(f"{name}.".startswith(f"{module}.") for name in project_imports(path) for module in OUTSIDE)
        }
        assert importers <= {"stages.__main__", "stages.code", *OUTSIDE}

    def test_training_depends_on_no_score_and_no_figure(self) -> None:
        closure = import_closure(ROOT, "stages.train")
        assert "generative.training.loop" in closure
        assert not any(name.startswith(("generative.scores", "generative.figures")) for name in closure)
        assert not [name for name in closure if name.startswith("stages.common.published")]

    def test_order_of_models_and_extractors_counts(self) -> None:
        backwards = PARAMS | {key: dict(reversed(PARAMS[key].items())) for key in ("models", "extractors")}
        one, other = code_texts(ROOT, Params(PARAMS)), code_texts(ROOT, Params(backwards))
        assert {name for name in one if one[name] != other[name]} == {
            "code/names/extractors.txt",
            "code/names/models.txt",
        }


ROOMS = {  # what the modules of a room may import besides their own room
    "generative.errors": (),
    "generative.config": ("generative.errors",),
    "generative.plugins": ("generative.errors",),
    "generative.io": ("generative.errors",),
    "generative.compute": ("generative.config", "generative.errors"),
    "generative.data": ("generative.errors", "generative.io"),
}
FOUNDATION = ("generative.errors", "generative.config", "generative.plugins")
CONTRACTS = ("generative.family", "generative.objective", "generative.extractor", "generative.capabilities")
TOOLS = (*FOUNDATION, "generative.io", "generative.compute", "generative.data")
ROOMS |= dict.fromkeys(CONTRACTS, (*FOUNDATION, "generative.compute", "generative.data"))
ROOMS |= {
    "generative.networks": (*TOOLS, *CONTRACTS),
    "generative.training": (*TOOLS, *CONTRACTS, "generative.networks"),
    "generative.captions": (*FOUNDATION, "generative.data"),
    "generative.families": (*TOOLS, *CONTRACTS, "generative.networks", "generative.training", "generative.captions"),
    "generative.extractors": (*TOOLS, *CONTRACTS, "generative.networks", "generative.training"),
    "generative.scores": (*FOUNDATION, "generative.compute", "generative.data"),
    "generative.figures": (*FOUNDATION, "generative.data", "generative.io"),
    "generative.releasing": (*TOOLS, *CONTRACTS),
    "generative.loading": (*TOOLS, *CONTRACTS, "generative.releasing"),
    "stages.common": ("generative",),
    "stages": ("generative", "stages.common"),
}
APART = ("generative.families", "generative.extractors", "stages")  # whose modules import no other of their room, but
# for stages.check_params, which checks every stage's settings


def room_of(module: str) -> str:
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len)


def project_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("generative", "stages")}


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("generative/**/[a-z]*.py")) + sorted(ROOT.glob("stages/**/[a-z]*.py"))
)
def test_imports_keep_their_directions(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    room = room_of(module)
    allowed = (room, *ROOMS[room])
    for name in project_imports(path):
        if room in APART and room_of(name) == room:
            assert module == "stages.check_params", f"{module} imports {name}: what they share has a room of its own"
        else:
            assert any(f"{name}.".startswith(f"{other}.") for other in allowed), f"{module} must not import {name}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("generative/**/*.py")))
def test_library_knows_neither_params_nor_pipeline(path: Path) -> None:
    text = path.read_text().lower()
    assert not [word for word in ("params.yaml", "dvc ", "`dvc", "make repro") if word in text]


def test_every_room_is_there() -> None:
    for room in ROOMS:
        path = ROOT / Path(*room.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file()
