"""Stage `download`: the four IDX files of the data set, decompressed and verified, into data/raw/.

A source given in the environment variable FASHION_MNIST_SOURCE (a folder, an address, apt:PACKAGE) comes
before those in params.yaml. It cannot change the result: the bytes are verified.
"""

import os
from typing import Annotated

from pydantic import Field

from generative.config import Config
from generative.data.sources import NoSourceError, fetch_all
from generative.errors import PipelineError
from stages.common.dataset import read_dataset
from stages.common.params import read_params
from stages.common.paths import RAW, ROOT, Pipeline

SOURCE_VARIABLE = "FASHION_MNIST_SOURCE"
_WAY_OUT = f"""
Check the network and run again; or put the four files (gzipped or not) into a folder and run
  {SOURCE_VARIABLE}=/path/to/folder make repro
or add a mirror to download.sources in {ROOT.params}."""


class DownloadConfig(Config):
    """Where the data come from (params: `download`)."""

    sources: list[str]
    timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
    retries: Annotated[int, Field(ge=0, le=100)]


def main(here: Pipeline) -> None:
    """Fetch the files."""
    params = read_params(here)
    config = params.block("download", DownloadConfig)
    first = os.environ.get(SOURCE_VARIABLE)
    sources = [first, *config.sources] if first else config.sources
    try:
        origin = fetch_all(sources, read_dataset(params).files, RAW, timeout=config.timeout, retries=config.retries)
    except NoSourceError as error:
        raise PipelineError(f"{error}{_WAY_OUT}") from None
    for file, source in origin.items():
        print(f"{RAW / file}: from {source}, checksum right")
