"""`make verify`: whether the committed lock, params, code, metrics and the remote agree; no data are needed.

For the CI of whoever forks the project. `python -m tools.verify` exits with 0 if all agree, 1 if `dvc repro` would
compute something, 2 if the remote lacks outputs, 3 for both, 4 if a question could not be answered (the reason is
shown); behind make every failure is a 2. `--no-remote` asks the first question alone.
"""

import json
import subprocess
import sys

from tools.entry import run_tool
from tools.staleness import UnansweredError, stale_stages

STALE, NOT_PUSHED, UNKNOWN = 1, 2, 4


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


def not_in_remote() -> list[str]:
    """Outputs of the current lock that the default remote does not hold.

    Raises:
        UnansweredError: DVC failed; the message has its own words.
    """
    command = ["dvc", "data", "status", "--not-in-remote", "--json"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        raise UnansweredError(f"`{' '.join(command)}` failed: {' '.join(result.stderr.split())}")
    missing: list[str] = json.loads(result.stdout).get("not_in_remote", [])
    return missing


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
