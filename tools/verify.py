"""`make verify`: whether the committed lock, params, code, metrics and the remote agree; no data are needed.

For the CI of whoever forks the project. Exit codes: 0 all agree, 1 `dvc repro` would run something, 2 the remote
lacks outputs, 3 both, 4 a question could not be answered (DVC's own words are shown). `--no-remote` asks the first
question alone.
"""

import json
import subprocess
import sys

STALE, NOT_PUSHED, UNKNOWN = 1, 2, 4


class UnansweredError(Exception):
    """DVC failed; the message is its own."""


def main(arguments: list[str]) -> int:
    """Ask, say what is wrong, and return the exit code."""
    try:
        stale = stale_stages()
        missing = [] if "--no-remote" in arguments else not_in_remote()
    except UnansweredError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNKNOWN
    if stale:
        print(f"dvc.lock is not that of the code and params here: run `make repro` and commit ({', '.join(stale)})")
    if missing:
        print(f"the remote lacks {len(missing)} outputs: run `make share` ({', '.join(missing)})")
    if not stale and not missing:
        print(
            "lock, params, code and metrics agree" + ("" if "--no-remote" in arguments else ", the remote has it all")
        )
    return STALE * bool(stale) + NOT_PUSHED * bool(missing)


def stale_stages() -> list[str]:
    """Stages that `dvc repro` would run, outputs that are merely not pulled left aside."""
    lines = ask("repro", "--dry", "--allow-missing").splitlines()
    return [line.split("'")[1] for line in lines if line.startswith("Running stage")]


def not_in_remote() -> list[str]:
    """Outputs of the current lock that the default remote does not hold."""
    status = json.loads(ask("data", "status", "--not-in-remote", "--json"))
    missing: list[str] = status.get("not_in_remote", [])
    return missing


def ask(*arguments: str) -> str:
    """What `dvc` prints.

    Raises:
        UnansweredError: it failed.
    """
    result = subprocess.run(["dvc", *arguments], check=False, capture_output=True, text=True)
    if result.returncode:
        raise UnansweredError(f"`dvc {' '.join(arguments)}` failed: {' '.join(result.stderr.split())}")
    return result.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
