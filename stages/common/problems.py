"""What a user can do about an error: the library names the culprit, this adds the way out."""

import errno
import sys
from collections.abc import Callable
from typing import NoReturn

from generative.errors import FileDamagedError, FileMissingError, PipelineError, SettingError

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
_TORCH_SAYS = ("can't allocate memory", "not enough memory", "out of memory")
_NO_MEMORY = "there is not enough memory for this: use smaller networks, or smaller numbers in 'generate'."
_IN_GIT = ("code/", "metrics/", "plots/comparison/", "plots/data/", "plots/figures/")


def explain(error: PipelineError) -> str:
    """One sentence, or a few, for the user of the pipeline."""
    if isinstance(error, SettingError):
        return f"params: {error}"
    if isinstance(error, FileMissingError):
        other = "`git restore`" if str(error).startswith(_IN_GIT) else "`dvc pull`"
        return f"{error}: `dvc repro` makes it, {other} fetches it."
    if isinstance(error, FileDamagedError):
        return f"{error}: delete it, then `dvc pull` or `dvc repro`."
    return str(error)


def explain_file(error: OSError) -> str | None:
    """One sentence about a file or a disk that a user can mend; None for an error of another kind."""
    if error.filename is None and error.errno not in _OF_DISKS:
        return None
    return f"{error.filename or 'a file'} cannot be read or written ({error.strerror}): nothing half-written is left."


def run(work: Callable[[], None]) -> NoReturn:
    """Do `work` and exit: 0, 1 on an error that is worth one sentence, 130 when interrupted."""
    try:
        work()
    except PipelineError as error:
        fail(explain(error), 1)
    except OSError as error:
        if (sentence := explain_file(error)) is None:
            raise
        fail(sentence, 1)
    except MemoryError:
        fail(_NO_MEMORY, 1)
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in _TORCH_SAYS):
            raise
        fail(_NO_MEMORY, 1)
    except KeyboardInterrupt:
        fail("interrupted: run the same command again to go on from the last finished epoch.", 130)
    sys.exit(0)


def fail(message: str, code: int) -> NoReturn:
    """Exit with one sentence about what is wrong."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)
