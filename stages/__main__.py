"""`python -m stages STAGE [NAME]`: the one way in to every stage, whoever starts it.

The process is first given the environment that a computing process needs. A stage's errors that a user can mend are
one sentence, not a traceback.
"""

import errno
import os
import sys
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import NoReturn

from generative.compute.environment import process_environment, restart_with
from generative.errors import PipelineError
from stages.common.params import wants_portable_bytes
from stages.common.problems import explain

_FOLDER = Path(__file__).parent


def main(arguments: list[str]) -> NoReturn:
    """Run the stage that the first of `arguments` names, with the others."""
    restart_with(process_environment(os.environ, portable=wants_portable_bytes()))
    if not arguments or arguments[0] not in available_stages():
        asked = f"'{arguments[0]}' is no stage" if arguments else "which stage?"
        _fail(f"{asked}: usage: python -m stages STAGE [NAME], STAGE one of {', '.join(available_stages())}.", 2)
    stage, *rest = arguments
    function = import_module(f"stages.{stage}").main
    try:
        signature(function).bind(*rest)
    except TypeError as error:
        _fail(f"stage '{stage}': {error}.", 2)
    run(function, *rest)


def available_stages() -> list[str]:
    """Names of the modules beside this one; none of them is imported."""
    return sorted(path.stem for path in _FOLDER.glob("[a-z]*.py"))


def run(stage: Callable[..., None], *arguments: str) -> NoReturn:
    """Call `stage` with `arguments` and exit: 0, 1 on an error, 130 when interrupted."""
    try:
        stage(*arguments)
    except PipelineError as error:
        _fail(explain(error), 1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        _fail(
            f"{error.filename or 'a file'} cannot be read or written ({error.strerror}): nothing half-written is left.",
            1,
        )
    except KeyboardInterrupt:
        _fail("interrupted: run the same command again to go on from the last finished epoch.", 130)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
