"""The gate for CI in a small repository with a remote; whether lock and code agree: test_invalidation.py."""

import subprocess
from pathlib import Path

import pytest

from tools import verify
from tools.verify import NOT_PUSHED, STALE, UNKNOWN, main, not_in_remote

PIPELINE = """
stages:
  double:
    cmd: python -c "open('out.txt', 'w').write(str(2 * int(open('params.yaml').read().split()[1])))"
    params: [number]
    outs: [out.txt]
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed run of PIPELINE; nothing is pushed yet."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("number: 3\n")
    for command in (
        "git init -q",
        "git config user.name tester",
        "git config user.email tester@example.org",
        "dvc init -q",
        "dvc config core.analytics false",
        "dvc remote add -d local ../remote",
        "dvc repro -q",
        "git add .",
        "git commit -qm run",
    ):
        subprocess.run(command.split(), check=True)
    return folder


def test_says_what_the_remote_lacks(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "stale_stages", list)
    assert not_in_remote() == ["out.txt"]
    assert main([]) == NOT_PUSHED
    assert "the remote lacks 1 outputs" in capsys.readouterr().out
    assert main(["--no-remote"]) == 0
    assert capsys.readouterr().out == "lock, params, code and metrics agree\n"

    subprocess.run(["dvc", "push", "-q"], check=True)
    assert main([]) == 0
    assert "the remote has it all" in capsys.readouterr().out

    (repository / "out.txt").unlink()  # as in a fresh clone: no data
    subprocess.run(["rm", "-rf", ".dvc/cache"], check=True)
    assert main([]) == 0

    monkeypatch.setattr(verify, "stale_stages", lambda: ["train@vae"])
    assert main([]) == STALE
    assert "run `make repro` and commit (train@vae)" in capsys.readouterr().out


def test_what_cannot_be_answered_is_an_error(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([]) == UNKNOWN  # this toy has neither models nor code
    assert "error: params: the block 'models' is missing" in capsys.readouterr().err
    monkeypatch.setattr(verify, "stale_stages", list)
    (repository / "dvc.yaml").write_text("stages: [")
    assert main([]) == UNKNOWN
    assert "error: `dvc data status --not-in-remote --json` failed" in capsys.readouterr().err
