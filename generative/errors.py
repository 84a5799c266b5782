"""The exceptions that a user is meant to read.

Each message is one sentence that names the culprit. The library knows neither where a value stands nor what makes a
file: whoever calls it adds the way out, by the class of the exception.
"""

from pathlib import Path


class PipelineError(Exception):
    """Something outside the code is wrong."""


class SettingError(PipelineError):
    """A setting has a wrong name, type or value; the message names it by its dotted name."""


class FileMissingError(PipelineError):
    """A file that should be there is not."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is missing")


class FileDamagedError(PipelineError):
    """A file does not hold what it should; the message has no full stop."""
