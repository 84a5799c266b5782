"""What a wheel of the library needs beside pyproject.toml: `py.typed`, by which type checkers know that it has hints.

The file stands in no folder here: whatever lies in generative/ is code that results depend on, or an error.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildMarked(build_py):
    """Copies the modules of today, and those alone, and marks them."""

    def run(self) -> None:
        """Copy and mark."""
        copy = Path(self.build_lib, "generative")
        shutil.rmtree(copy, ignore_errors=True)  # what an earlier build left would go into the wheel
        super().run()
        if not self.editable_mode:
            (copy / "py.typed").touch()


setup(cmdclass={"build_py": BuildMarked})
