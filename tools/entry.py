"""How every tool ends: with an exit code, and with one sentence about what a user can mend."""

import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

from dvc.exceptions import DvcException

from generative.errors import PipelineError
from stages.common.problems import explain

INTERRUPTED = 130


def run_tool(main: Callable[..., int], *arguments: list[str]) -> NoReturn:
    """Call `main` and exit with what it returns; 1 on an error that is worth one sentence, 130 when interrupted."""
    try:
        sys.exit(main(*arguments))
    except PipelineError as error:
        sys.exit(f"error: {explain(error)}")
    except DvcException as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip() or f"exit code {error.returncode}"
        sys.exit(f"error: `{' '.join(map(str, error.cmd))}` failed: {said}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
