"""Stage `download`: the four official IDX files, decompressed and verified, into data/raw/.

A source given in the environment variable FASHION_MNIST_SOURCE (a folder, an address, apt:PACKAGE) comes
before those in params.yaml. It cannot change the result: the bytes are verified.
"""

import os
from typing import Annotated

from pydantic import Field

from generative.config import Config, PositiveFloat
from generative.sources import fetch_all
from stages.params import read_block
from stages.paths import RAW

SOURCE_VARIABLE = "FASHION_MNIST_SOURCE"


class DownloadConfig(Config):
    """Where the data come from (params: `download`)."""

    sources: list[str]
    timeout: PositiveFloat
    retries: Annotated[int, Field(ge=0, le=100)]


def main() -> None:
    """Fetch the files."""
    config = read_block("download", DownloadConfig)
    first = os.environ.get(SOURCE_VARIABLE)
    sources = [first, *config.sources] if first else config.sources
    origin = fetch_all(sources, RAW, timeout=config.timeout, retries=config.retries)
    for file, source in origin.items():
        print(f"{RAW / file}: from {source}, checksum right")
