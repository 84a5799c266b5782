"""How long a run with nothing to do takes: `dvc repro` and `make repro`, in turns, in the working directory.

    python -m benchmarks.nothing_to_do

Most of it is Python: imports of DVC, and parsing of params.yaml once per stage.
"""

import statistics
import subprocess
import sys
import time

ROUNDS = 5
COMMANDS = {
    "dvc repro": ["dvc", "repro"],
    "make repro": ["make", "--silent", "repro"],
}


def main() -> int:
    """Print the median of each command; returns the exit code."""
    if subprocess.run(["dvc", "status", "--quiet"], check=False).returncode:
        print("error: something is not up to date here: run `make repro` first", file=sys.stderr)
        return 1
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            output(command)
            seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        print(f"{name:<12}{statistics.median(values):>6.2f} s with nothing to do")
    return 0


def output(command: list[str]) -> str:
    """What a command prints; it must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
