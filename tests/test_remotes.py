"""Sharing over real protocols on loopback, and what happens when something breaks on the way.

The pipeline is a small one: DVC moves files the same way, however they were made.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from tests.servers import Server, serving, tapped
from tests.small import ROOT

MAKE = """
import os, random
from pathlib import Path
import yaml

params = yaml.safe_load(Path("params.yaml").read_text())
draw = random.Random(params["seed"])
Path("data.bin").write_bytes(draw.randbytes(params["length"]))
Path("parts").mkdir(exist_ok=True)
for index in range(3):
    Path(f"parts/{index}.bin").write_bytes(draw.randbytes(1000))
with open(os.environ["RUNS"], "a") as log:
    log.write("ran\\n")
"""
OUTPUTS = ("data.bin", "parts/0.bin", "parts/1.bin", "parts/2.bin")
WRITABLE = ("s3", "ssh", "webdav")


class Project:
    """A clone of the small project, with a count of the stages that ran in any clone."""

    def __init__(self, folder: Path, runs: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"RUNS": str(runs), "PYTHONPATH": str(ROOT)}
        self.runs = runs

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["dvc", *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def must(self, *arguments: str) -> str:
        result = self.dvc(*arguments)
        assert result.returncode == 0, f"dvc {' '.join(arguments)}: {result.stdout}{result.stderr}"
        return result.stdout

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def share(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tools.share"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def set(self, **params: int) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params() | params))

    def params(self) -> dict[str, int]:
        values: dict[str, int] = yaml.safe_load((self.folder / "params.yaml").read_text())
        return values

    def use(self, server: Server, **settings: str) -> None:
        """Make the server the default remote."""
        self.must("remote", "add", "-d", "-f", "store", server.url)
        for key, value in (server.settings | {"verify": "true"} | settings).items():
            self.must("remote", "modify", "--local", "store", key, value)

    def clone(self, name: str) -> "Project":
        """What git would hand on, and the settings of the remote; no data."""
        folder = self.folder.parent / name
        ignored = shutil.ignore_patterns("cache", "tmp", "data.bin", "parts")
        shutil.copytree(self.folder, folder, ignore=ignored)
        return Project(folder, self.runs)

    def outputs(self) -> dict[str, bytes]:
        return {name: (self.folder / name).read_bytes() for name in OUTPUTS if (self.folder / name).exists()}

    def count(self) -> int:
        return self.runs.read_text().count("ran")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after one run, with no remote yet."""
    base = tmp_path_factory.mktemp("project")
    folder = base / "made"
    folder.mkdir()
    (folder / "make.py").write_text(MAKE)
    (folder / "params.yaml").write_text("seed: 1\nlength: 2000000\n")
    stage = {"cmd": "python make.py", "deps": ["make.py"], "params": ["seed", "length"], "outs": ["data.bin", "parts"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": stage}}, sort_keys=False))
    project = Project(folder, base / "runs.txt")
    project.must("init", "-q", "--no-scm")
    project.must("config", "core.analytics", "false")
    project.must("repro", "-q")
    return project


@pytest.fixture
def owner(made: Project, tmp_path: Path) -> Project:
    """A copy of the project with its cache."""
    folder = tmp_path / "owner"
    shutil.copytree(made.folder, folder, symlinks=True)
    runs = tmp_path / "runs.txt"
    runs.write_text("ran\n")
    return Project(folder, runs)


@pytest.fixture
def store(owner: Project, tmp_path: Path) -> Path:
    """A folder as remote, with the owner's results in it."""
    folder = tmp_path / "remote"
    owner.use(Server(str(folder), folder, 0, []))
    assert owner.share().returncode == 0
    return folder


@pytest.mark.parametrize("protocol", WRITABLE)
def test_push_pull_and_earlier_runs(protocol: str, owner: Project, tmp_path: Path) -> None:
    with serving(protocol, tmp_path / "served") as server:
        owner.use(server)
        first = owner.outputs()
        shared = owner.share()
        assert shared.returncode == 0, shared.stderr
        assert "holds all 5 objects of this run, each read back and right" in shared.stdout
        owner.set(seed=2)
        owner.must("repro", "-q")
        assert owner.share().returncode == 0
        assert owner.count() == 2

        reader = owner.clone("reader")
        reader.must("pull", "-q", "--run-cache")
        assert reader.outputs() == owner.outputs() != first
        assert "Running stage" not in reader.must("repro")
        reader.set(seed=1)
        reader.must("repro", "--pull")
        assert reader.outputs() == first
        assert owner.count() == 2

        stranger = owner.clone("stranger")
        for key, value in server.wrong.items():
            stranger.must("remote", "modify", "--local", "store", key, value)
        refused = stranger.dvc("pull", "-q")
        assert refused.returncode != 0
        assert stranger.outputs() == {}
        stranger.must("repro", "-q")  # makes it anew, but may not share it
        denied = stranger.share()
        assert denied.returncode == 1
        assert "Traceback" not in denied.stderr
        assert denied.stderr.strip()


def test_public_http_is_read_only_and_knows_no_earlier_runs(owner: Project, tmp_path: Path) -> None:
    with serving("http", tmp_path / "served") as server:
        owner.use(Server(str(server.folder), server.folder, 0, []))
        assert owner.share().returncode == 0
        reader = owner.clone("reader")
        reader.use(server)
        reader.must("pull", "-q")
        assert reader.outputs() == owner.outputs()
        assert "Running stage" not in reader.must("repro")
        reader.dvc("fetch", "--run-cache")
        assert not (reader.folder / ".dvc" / "cache" / "runs").exists()
        reader.set(seed=3)
        reader.must("repro", "-q")
        refused = reader.share()
        assert refused.returncode == 1
        assert "Traceback" not in refused.stderr


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    rewrite(path, bytes(content))


def truncate(path: Path) -> None:
    rewrite(path, path.read_bytes()[:100])


def delete(path: Path) -> None:
    path.unlink()


def rewrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def object_of(store: Path, content: bytes) -> Path:
    """The file in a remote or cache that holds `content`."""
    return next(path for path in store.rglob("*") if path.is_file() and path.read_bytes() == content)


@pytest.mark.parametrize("damage", [flip, truncate, delete])
class TestDamagedObject:
    @pytest.mark.parametrize("name", ["data.bin", "parts/1.bin"])
    def test_in_the_remote_is_not_believed_and_mended_by_its_owner(
        self, damage: Callable[[Path], None], name: str, owner: Project, store: Path
    ) -> None:
        right = owner.outputs()
        damage(object_of(store, right[name]))
        reader = owner.clone("reader")
        assert reader.dvc("pull", "-q").returncode != 0
        assert name not in reader.outputs()
        shared = owner.share()
        assert shared.returncode == 0, shared.stderr
        reader.must("pull", "-q")
        assert reader.outputs() == right

    def test_folder_in_the_cache_is_named(self, damage: Callable[[Path], None], owner: Project, store: Path) -> None:
        damage(next((owner.folder / ".dvc" / "cache").rglob("*.dir")))
        shared = owner.share()
        assert shared.returncode == 1
        assert "cache object of parts is missing or damaged: delete" in shared.stderr
        assert "Traceback" not in shared.stderr

    def test_in_the_cache_is_named_and_not_shared(
        self, damage: Callable[[Path], None], owner: Project, store: Path
    ) -> None:
        path = object_of(owner.folder / ".dvc" / "cache", owner.outputs()["data.bin"])
        damage(path)
        shared = owner.share()
        assert shared.returncode == 1
        assert f"cache object of data.bin is missing or damaged: delete {path}" in shared.stderr
        path.unlink(missing_ok=True)  # as it says
        (owner.folder / "data.bin").unlink()
        owner.must("pull", "-q")
        assert owner.share().returncode == 0
        assert owner.count() == 1


BIG = 20_000_000  # bytes: more than fits into what a socket holds back


@pytest.mark.parametrize("protocol", ["ssh", "webdav"])
def test_client_killed_in_the_middle_of_a_push(protocol: str, owner: Project, tmp_path: Path) -> None:
    owner.set(length=BIG)
    owner.must("repro", "-q")
    pushes: list[subprocess.Popen[str]] = []
    with serving(protocol, tmp_path / "served") as server:
        with tapped(server, BIG // 2, lambda: os.killpg(pushes[0].pid, signal.SIGKILL)) as wire:
            owner.use(wire)
            pushes.append(owner.start("dvc", "push", "--run-cache"))
            printed, _ = pushes[0].communicate(timeout=300)
            assert pushes[0].returncode == -signal.SIGKILL, printed
        owner.use(server)
        shared = owner.share()
        assert shared.returncode == 0, shared.stderr
        reader = owner.clone("reader")
        reader.must("pull", "-q")
        assert reader.outputs() == owner.outputs()


@pytest.mark.parametrize("protocol", ["ssh", "webdav"])
def test_server_killed_in_the_middle_of_a_pull(protocol: str, owner: Project, tmp_path: Path) -> None:
    owner.set(length=BIG)
    owner.must("repro", "-q")
    with serving(protocol, tmp_path / "served") as server:
        owner.use(server)
        assert owner.share().returncode == 0
        reader = owner.clone("reader")
        with tapped(server, BIG // 2, server.kill) as wire:
            reader.use(wire)
            pull = reader.dvc("pull")
            assert pull.returncode != 0, pull.stdout
            assert "data.bin" not in reader.outputs()
        server.start()
        reader.use(server)
        reader.must("pull", "-q")
        assert reader.outputs() == owner.outputs()


def test_two_clones_push_at_once(owner: Project, store: Path) -> None:
    other = owner.clone("other")
    other.set(seed=5)
    other.must("repro", "-q")
    owner.set(seed=6)
    owner.must("repro", "-q")
    results: dict[Project, int] = {}
    threads = [
        threading.Thread(target=lambda project=project: results.update({project: project.share().returncode}))
        for project in (owner, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(results.values()) == [0, 0]
    for project in (owner, other):
        reader = project.clone(f"reader-of-{project.folder.name}")
        reader.must("pull", "-q")
        assert reader.outputs() == project.outputs()


def test_full_disk_leaves_nothing_half_written(owner: Project, store: Path, small_disk: Path) -> None:
    """2 MB of data need twice that: in the cache and in the workspace."""
    (small_disk / "filler").write_bytes(bytes(3_000_000))
    reader = Project(small_disk / "reader", owner.runs)
    shutil.copytree(owner.clone("reader").folder, reader.folder)
    failed = reader.dvc("pull")
    assert failed.returncode != 0
    assert "No space left on device" in failed.stdout + failed.stderr
    assert "data.bin" not in reader.outputs()
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    reader.must("pull", "-q")
    assert reader.outputs() == owner.outputs()


def test_verification_is_switched_on(owner: Project, store: Path) -> None:
    owner.must("remote", "modify", "--local", "store", "verify", "false")
    owner.must("remote", "modify", "store", "verify", "false")
    shared = owner.share()
    assert shared.returncode == 0, shared.stderr
    assert "set verify = true for the remote 'store'" in shared.stdout
    with Repo(str(owner.folder)) as repo:
        assert repo.cloud.get_remote().odb.verify


def test_unreachable_remote_is_one_sentence(owner: Project) -> None:
    owner.use(Server("http://127.0.0.1:9/store", Path(), 0, []))
    shared = owner.share()
    assert shared.returncode == 1
    assert "Traceback" not in shared.stderr


def test_no_remote_is_one_sentence(owner: Project) -> None:
    shared = owner.share()
    assert shared.returncode == 1
    assert "no remote specified" in shared.stderr
    assert "Traceback" not in shared.stderr
