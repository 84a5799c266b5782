"""`python -m tools.quietly COMMAND...`: runs a command in the environment that a computing process needs.

For what is no stage: those see to it by themselves (stages/__main__.py).
"""

import os
import sys

from generative.compute.environment import process_environment


def main(command: list[str]) -> None:
    """Become `command`."""
    os.execvpe(command[0], command, process_environment(os.environ, portable=False))  # noqa: S606


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("usage: python -m tools.quietly COMMAND...")
    main(sys.argv[1:])
