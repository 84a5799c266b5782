"""Tables as tab-separated values, the format of training curves."""

from pathlib import Path

import pandas as pd

from generative.errors import FileDamagedError, FileMissingError
from generative.io.files import write_text


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write `table` with a header, numbers to seven significant digits, no index; atomically."""
    write_text(path, table.to_csv(sep="\t", index=False, float_format="%.7g", lineterminator="\n"))


def read_table(path: Path) -> pd.DataFrame:
    """Read what `write_table` wrote.

    Raises:
        FileMissingError: there is no such file.
        FileDamagedError: the file is no table.
    """
    try:
        return pd.read_csv(path, sep="\t")
    except FileNotFoundError:
        raise FileMissingError(path) from None
    except ValueError as error:
        raise FileDamagedError(f"{path} is no table ({' '.join(str(error).split())})") from None
