"""Changing params.yaml from a tool, with its comments kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


@contextmanager
def edited(path: Path) -> Iterator[Any]:
    """What the YAML file at `path` holds, to be changed in place; written back at the end."""
    yaml = YAML()
    yaml.width = 1000
    values = yaml.load(path)
    yield values
    yaml.dump(values, path)
