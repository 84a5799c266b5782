"""What surrounds a run is the user's and stays so: other repositories, the locale, the names of folders."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dvc.repo import Repo

from generative.errors import PipelineError
from tests.small import ROOT
from tools import OF_ANOTHER_REPOSITORY
from tools.cells import copy_of_all
from tools.demo import copy_repository
from tools.edit_params import edited
from tools.install import pip_environment, uv_environment, uv_settings

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def decoy(tmp_path: Path) -> dict[str, str]:
    """The variables with which git starts a hook of another repository."""
    folder = tmp_path / "decoy"
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    git = folder / ".git"
    return {"GIT_DIR": str(git), "GIT_INDEX_FILE": str(git / "index"), "GIT_WORK_TREE": str(folder)}


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_list_is_that_of_git() -> None:
    listed = subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True)
    assert set(listed.stdout.split()) <= {*OF_ANOTHER_REPOSITORY, "GIT_INTERNAL_SUPER_PREFIX"}


def test_tests_in_a_git_hook_leave_its_repository_alone(decoy: dict[str, str]) -> None:
    before = content_of(Path(decoy["GIT_DIR"]))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_verify.py"]
    result = subprocess.run(command, cwd=ROOT, env=os.environ | decoy, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert content_of(Path(decoy["GIT_DIR"])) == before


def test_copy_in_a_git_hook_is_of_the_right_repository(decoy: dict[str, str], tmp_path: Path) -> None:
    code = "from pathlib import Path; import sys; from tools.demo import copy_repository; "
    code += "copy_repository(Path.cwd(), Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "copy")]
    subprocess.run(command, cwd=ROOT, env=os.environ | decoy, check=True)
    assert (tmp_path / "copy" / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()


def test_params_are_edited_in_utf8_whatever_the_locale(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("# Fréchet – distance\nmodels:\n  vae: 1\n", encoding="utf-8")
    code = "from pathlib import Path; import sys; from tools.edit_params import edited\n"
    code += "with edited(Path(sys.argv[1])) as params:\n    params['models']['vae'] = 2\n"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, env=os.environ | ASCII, check=True)
    assert path.read_text(encoding="utf-8") == "# Fréchet – distance\nmodels:\n  vae: 2\n"


@pytest.mark.parametrize("content", [b"models: [", "# Fréchet\n".encode("latin-1")])
def test_what_cannot_be_edited_stays_as_it_is(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=r"params\.yaml is not valid YAML in UTF-8"), edited(path):
        pass
    assert path.read_bytes() == content


def test_interrupted_edit_leaves_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("models: 1\n")

    def fail() -> None:
        with edited(path) as params:
            params["models"] = 2
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "models: 1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_readme_is_written_in_utf8_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    for name in ("README.md", "params.yaml", "seeds.tsv"):
        for folder in ("", "zoo"):
            shutil.copyfile(ROOT / folder / name, tmp_path / folder / name)
    for folder in ("metrics", "zoo/metrics", "code"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(text.replace("| vae16 |", "| old |", 1), encoding="utf-8")
    environment = os.environ | ASCII | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "tools.readme"], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", ["run #2", "a [b] = c;", "ünder 'quotes'"])
def test_copies_for_other_seeds_share_the_cache_whatever_the_folder_is_called(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / file, root / file)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    copy_of_all(root, root / ".cells" / "1", lambda _: None)
    with Repo(str(root / ".cells" / "1")) as copy, Repo(str(root)) as original:
        assert copy.cache.local_cache_dir == original.cache.local_cache_dir


def test_copies_for_other_seeds_use_the_cache_that_is_set(tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / file, root / file)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for setting in (("cache.dir", str(tmp_path / "shared")), ("cache.type", "symlink,copy")):
        subprocess.run(["dvc", "config", "--local", *setting], cwd=root, check=True)
    copy_of_all(root, root / ".cells" / "1", lambda _: None)
    with Repo(str(root / ".cells" / "1")) as copy:
        assert copy.cache.local_cache_dir == str(tmp_path / "shared")
        assert copy.config["cache"]["type"] == ["symlink", "copy"]


def test_clone_is_the_same_bytes_whatever_git_does_to_line_endings(tmp_path: Path) -> None:
    here, clone = tmp_path / "here", tmp_path / "clone"
    git = ["git", "-c", "core.autocrlf=true", "-c", "user.name=Somebody", "-c", "user.email=somebody@localhost"]
    copy_repository(ROOT, here)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "All"], ["clone", "-q", ".", str(clone)]):
        subprocess.run([*git, *command], cwd=here, check=True)
    shutil.rmtree(here / ".git")
    shutil.rmtree(clone / ".git")
    original, copied = content_of(here), content_of(clone)
    assert [name for name in original | copied if original.get(name) != copied.get(name)] == []
    assert [name for name, content in copied.items() if b"\0" not in content and b"\r\n" in content] == []


def test_tasks_run_in_the_order_in_which_they_are_asked_for() -> None:
    command = ["make", "-j4", "-pn", "help"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "\n.NOTPARALLEL:" in printed


class TestSetup:
    """What `make setup` notices; nothing is installed, since the Python that is asked for is none."""

    def setup(self, folder: Path) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHON": "/nowhere/python"}
        command = ["sh", str(ROOT / "tools" / "setup.sh")]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        """A folder that looks as if it were set up."""
        folder = tmp_path / "checkout"
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
        (folder / ".dvc" / "tmp").mkdir(parents=True)
        (folder / "requirements.lock").write_text("x==1\n")
        shutil.copyfile(folder / "requirements.lock", folder / ".venv" / "installed.lock")
        (folder / ".venv" / "installed.in").write_text(f"{folder.resolve()}\n")
        return folder

    def test_finished_one_is_left_alone(self, checkout: Path) -> None:
        assert self.setup(checkout).returncode == 0

    @pytest.mark.parametrize("change", ["lock", "moved", "python"])
    def test_what_does_not_fit_any_more_is_made_anew(self, checkout: Path, change: str) -> None:
        if change == "lock":
            (checkout / "requirements.lock").write_text("x==2\n")
        elif change == "moved":
            checkout = checkout.rename(checkout.with_name("elsewhere"))
        else:
            (checkout / ".venv" / "bin" / "python").unlink()
        result = self.setup(checkout)
        assert result.returncode == 1
        assert "error: '/nowhere/python' does not start: " in result.stderr
        assert "install Python 3.11 or newer" in result.stderr

    def test_folder_that_no_path_can_hold_is_refused(self, checkout: Path) -> None:
        result = self.setup(checkout.rename(checkout.with_name("a:b")))
        assert result.returncode == 1
        assert "has a ':' in its name" in result.stderr

    @pytest.mark.parametrize("content", [b"", bytes(512), b'{"a'])
    def test_damaged_lock_file_of_dvc_is_removed(self, checkout: Path, content: bytes) -> None:
        (checkout / ".dvc" / "tmp" / "rwlock").write_bytes(content)
        (checkout / ".dvc" / "tmp" / "rwlock.lock").write_text("held")
        assert self.setup(checkout).returncode == 0
        assert [path.name for path in (checkout / ".dvc" / "tmp").iterdir()] == ["rwlock.lock"]

    def test_dvc_is_told_where_there_is_no_git(self, checkout: Path) -> None:
        for _ in range(2):
            assert self.setup(checkout).returncode == 0
        assert (checkout / ".dvc" / "config.local").read_text() == "[core]\n    no_scm = true\n"
        subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
        (checkout / ".dvc" / "config.local").unlink()
        assert self.setup(checkout).returncode == 0
        assert not (checkout / ".dvc" / "config.local").exists()

    def test_repository_of_somebody_else_is_not_taken_for_none(self, checkout: Path) -> None:
        (checkout / ".git").write_text("gitdir: /nowhere\n")
        result = self.setup(checkout)
        assert result.returncode == 1
        assert "error: git: " in result.stderr
        assert not (checkout / ".dvc" / "config.local").exists()


class TestInstall:
    """Of the settings of pip and uv only those that say where packages come from are passed on."""

    def test_pip(self) -> None:
        listing = r""":env:.find-links='/wheels'
global.extra-index-url='file:///a\nfile:///b'
global.find-links='/others'
global.target='/home/user/site'
install.user='yes'
install.no-deps='true'
global.cert='/certificates.pem'
"""
        given = {
            "PIP_TARGET": "/x",
            "PIP_FIND_LINKS": "/wheels",
            "HOME": "/home/user",
            "PIP_PYTHON": "/usr/bin/python3",
        }
        assert pip_environment(given, listing) == {
            "HOME": "/home/user",
            "PIP_CERT": "/certificates.pem",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_EXTRA_INDEX_URL": "file:///a file:///b",
            "PIP_FIND_LINKS": "/wheels",
        }

    def test_uv(self, tmp_path: Path) -> None:
        system, user = tmp_path / "system.toml", tmp_path / "user.toml"
        system.write_text('native-tls = true\npython-preference = "system"\n')
        user.write_text('offline = true\n[pip]\ntarget = "/x"\nindex-url = "file:///a"\n[[index]]\nurl = "file:///b"\n')
        found = uv_settings([system, user, tmp_path / "missing.toml"])
        assert tomllib.loads(found) == {
            "native-tls": True,
            "offline": True,
            "index-url": "file:///a",
            "index": [{"url": "file:///b"}],
        }
        given = {"UV_TARGET": "/x", "UV_PYTHON": "3.9", "UV_INDEX_URL": "file:///a", "UV_CACHE_DIR": "/c", "HOME": "/h"}
        assert set(uv_environment(given)) == {"UV_INDEX_URL", "UV_CACHE_DIR", "HOME"}


@pytest.mark.parametrize("level", ["1", "2"])
def test_hashes_of_code_are_the_same_under_optimisation(level: str) -> None:
    code = "from pathlib import Path; from stages.common.code_files import code_texts; "
    code += "from stages.common.params import read_params; import hashlib; "
    code += "print(hashlib.sha256(repr(sorted(code_texts(Path(), read_params()).items())).encode()).hexdigest())"
    plain, optimised = (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=os.environ | extra, capture_output=True, text=True, check=True
        ).stdout
        for extra in ({}, {"PYTHONOPTIMIZE": level})
    )
    assert plain == optimised


def test_backend_of_a_notebook_breaks_no_figure() -> None:
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    command = [sys.executable, "-c", "import generative.figures.style"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the files of this one, and nothing computed."""
    folder = tmp_path_factory.mktemp("surroundings") / "checkout"
    copy_repository(ROOT, folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("name", ["dvc.lock", "params.yaml"])
@pytest.mark.parametrize("tool", ["jobs", "verify", "seeds --seeds=9", "jobs --pipeline=zoo"])
def test_conflict_markers_are_one_sentence(tool: str, name: str, checkout: Path) -> None:
    text = (checkout / name).read_text(encoding="utf-8")
    (checkout / name).write_text(f"<<<<<<< HEAD\n{text}=======\n>>>>>>> other\n", encoding="utf-8")
    before = (checkout / "params.yaml").read_bytes()
    name_of_tool, *options = tool.split()
    command = [sys.executable, "-m", f"tools.{name_of_tool}", *options]
    result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    changed = (checkout / "params.yaml").read_bytes() != before
    subprocess.run(["git", "checkout", "-q", "--", "."], cwd=checkout, check=True)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert f"{name}" in result.stderr
    assert not changed


def test_folder_without_git_is_one_sentence(tmp_path: Path, checkout: Path) -> None:
    folder = tmp_path / "unpacked"
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".git"))
    command = [sys.executable, "-m", "tools.demo"]
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "error: `git ls-files" in result.stderr
    assert "not a git repository" in result.stderr
    assert "Traceback" not in result.stderr
