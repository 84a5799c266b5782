"""Files that a tool needs, pulled where they are not here."""

import subprocess
from pathlib import Path

from generative.errors import PipelineError
from stages.common.paths import TEST, TRAIN


def fetch_missing(paths: list[Path], made_by: str = "make repro") -> None:
    """Pull those of `paths` that are not here; `made_by` is the command that makes them.

    Raises:
        PipelineError: one can be had nowhere.
    """
    missing = [path for path in paths if not path.exists()]
    if not missing:
        return
    print(f"pulling {', '.join(map(str, missing))}")
    pulled = subprocess.run(["dvc", "pull", "--quiet", *map(str, missing)], capture_output=True, text=True, check=False)
    still = [path for path in missing if not path.exists()]
    if still and all(path in (TRAIN, TEST) for path in still):  # these can be made by anybody, and are verified
        print("they are not in the remote: fetching the data from their sources")
        if subprocess.run(["dvc", "repro", "prepare"], check=False).returncode == 0:
            return
    if still:
        said = (pulled.stderr.strip().splitlines() or ["the remote has none"])[0].removeprefix("ERROR: ")
        raise PipelineError(
            f"{', '.join(map(str, still))} cannot be pulled ({said}): name a remote that has results "
            f"(docs/remotes.md), or make them with `{made_by}`."
        )
