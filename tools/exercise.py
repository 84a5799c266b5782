"""`make exercise`: adds the exercise's models (exercise.yaml) to params.yaml and runs the pipeline.

Afterwards they stand beside the others in metrics/, figures and report. To take them out again:
`git restore params.yaml dvc.lock code metrics plots report.pdf`, `git clean -fd metrics plots` and `dvc checkout`.
"""

import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from stages.common.params import PARAMS
from tools.edit_params import edited
from tools.entry import run_tool

MODELS = Path("exercise.yaml")


def main() -> int:
    """Add what is missing and run the pipeline; returns its exit code."""
    add_models(MODELS, PARAMS)
    return subprocess.run([sys.executable, "-m", "tools.jobs"], check=False).returncode


def add_models(source: Path, params: Path) -> None:
    """Add the blocks of `source` to `models` in `params`, keeping its comments; those already there stay."""
    with edited(params) as values:
        for name, block in YAML().load(source).items():
            values["models"].setdefault(name, block)


if __name__ == "__main__":
    run_tool(main)
