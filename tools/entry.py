"""How every tool ends: with an exit code, and with one sentence about what a user can mend."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

from dvc.exceptions import DvcException

from generative.errors import PipelineError
from stages.common.problems import explain, explain_file

INTERRUPTED = 130


def run_tool(main: Callable[..., int], *arguments: list[str]) -> NoReturn:
    """Call `main` and exit with what it returns; 1 on an error that is worth one sentence, 130 when interrupted."""
    try:
        sys.exit(main(*arguments))
    except PipelineError as error:
        sys.exit(f"error: {explain(error)}")
    except DvcException as error:
        said = " ".join(str(error).split())
        way_out = "; `git restore` brings back the committed one" if "dvc.lock" in said and "validation" in said else ""
        sys.exit(f"error: {said}{way_out}")
    except sqlite3.DatabaseError as error:
        sys.exit(
            f"error: what DVC remembers of file hashes is damaged ({error}): remove the folder that `dvc config "
            "core.site_cache_dir` names, by default /var/tmp/dvc; nothing is lost, files are hashed anew."
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip() or f"exit code {error.returncode}"
        sys.exit(f"error: `{' '.join(map(str, error.cmd))}` failed: {said}")
    except OSError as error:
        if (sentence := explain_file(error)) is None:
            raise
        sys.exit(f"error: {sentence}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
