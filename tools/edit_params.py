"""Changing params.yaml from a tool, with its comments kept."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from generative.errors import PipelineError
from generative.io.files import write_text


@contextmanager
def edited(path: Path) -> Iterator[Any]:
    """What the YAML file at `path` holds, to be changed in place; written back at the end, whole or not at all.

    Raises:
        PipelineError: the file is no YAML in UTF-8; it is left as it is.
    """
    yaml = YAML()
    yaml.width = 1000
    try:
        values = yaml.load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not valid YAML in UTF-8: {' '.join(str(error).split())}.") from None
    yield values
    text = io.StringIO()
    yaml.dump(values, text)
    write_text(path, text.getvalue())
