"""`pip install .` installs the library: what the wheel holds, and what it asks for."""

import ast
import os
import shutil
import subprocess
import sys
from email.message import Message
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from stages.common.paths import ROOT as PIPELINE
from tests.small import ROOT
from tools.demo import copy_repository

MODULES = {str(path.relative_to(ROOT)) for path in (ROOT / "generative").rglob("*.py")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """The wheel of a copy in which an earlier build has left a module that is gone."""
    folder = tmp_path_factory.mktemp("wheel") / "copy"
    copy_repository(ROOT, folder)
    (folder / "build" / "lib" / "generative").mkdir(parents=True)
    (folder / "build" / "lib" / "generative" / "gone.py").touch()
    code = "from setuptools.build_meta import build_wheel; build_wheel('dist')"  # torch asks for setuptools
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    [path] = (folder / "dist").iterdir()
    return ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def test_holds_the_library_with_its_hints_and_licences(wheel: ZipFile) -> None:
    plain = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert plain == {*MODULES, "generative/py.typed"}
    licences = {name.split("/licenses/")[1] for name in wheel.namelist() if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE", "LICENSES/Apache-2.0.txt"}


def test_is_under_the_licence_of_the_project(metadata: Message) -> None:
    assert metadata["Name"] == "fashion-mnist-generative-models"
    assert metadata["License-Expression"] == "MIT"


def test_asks_for_what_the_library_imports_and_for_nothing_else(metadata: Message) -> None:
    imported = set()
    for name in MODULES:
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    owners = packages_distributions()
    needed = {owners[name][0].lower() for name in imported - sys.stdlib_module_names - {"generative"}}
    asked = map(Requirement, metadata.get_all("Requires-Dist", []))
    assert {each.name for each in asked if not each.marker} == {name.replace("_", "-") for name in needed}


def test_installed_library_loads_a_model_in_another_folder(wheel: ZipFile, scratch: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    wheel.extractall(site)
    shutil.copyfile(scratch / PIPELINE.released("vae"), tmp_path / "vae.safetensors")
    code = "from generative import loading; model = loading.load_model('vae.safetensors'); print(loading.__file__)"
    code += "; print(model.encode(model.sample(3, seed=0)).shape)"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(site)}
    said = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    where, shape = said.splitlines()
    assert Path(where).is_relative_to(site)
    assert shape == "torch.Size([3, 2])"
