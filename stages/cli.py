"""How every stage starts and fails: errors that a user can mend are one sentence, not a traceback."""

import errno
import sys
from collections.abc import Callable
from typing import NoReturn

from generative.errors import PipelineError


def run(main: Callable[..., None]) -> NoReturn:
    """Call `main` with the command-line arguments and exit: 0, 1 on an error, 130 when interrupted."""
    try:
        main(*sys.argv[1:])
    except PipelineError as error:
        _fail(str(error), 1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        _fail(
            f"{error.filename or 'a file'} cannot be read or written ({error.strerror}): nothing half-written is left.",
            1,
        )
    except KeyboardInterrupt:
        _fail("interrupted: run `dvc repro` again to go on from the last finished epoch.", 130)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)
