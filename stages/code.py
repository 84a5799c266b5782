"""Stage `code`: what the result of each stage depends on in the code, as small files in git, code/.

A file holds a hash of each module and the locked version of each package that decides results, so that a difference
says what changed. Comments, docstrings, formatting and type hints do not count (stages/common/source.py); which files
there are says stages/common/code_files.py.
"""

from pathlib import Path

from stages.common.code_files import code_texts
from stages.common.params import read_params
from stages.common.paths import Pipeline
from stages.common.source import write_hashes


def main(here: Pipeline) -> None:
    """Write the files."""
    write_hashes(Path(), here.code, code_texts(Path(), read_params(here)))
