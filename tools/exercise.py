"""`make exercise`: adds the exercise's models (exercise.yaml) to params.yaml and runs the pipeline.

Afterwards they stand beside the others in metrics/, figures and report. To take them out again:
`git restore params.yaml dvc.lock metrics plots report.pdf` and `dvc checkout`.
"""

import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from stages.params import PARAMS

MODELS = Path("exercise.yaml")


def main() -> int:
    """Add what is missing and run `dvc repro`; returns its exit code."""
    add_models(MODELS, PARAMS)
    return subprocess.run(["dvc", "repro"], check=False).returncode


def add_models(source: Path, params: Path) -> None:
    """Add the blocks of `source` to `models` in `params`, keeping its comments; those already there stay."""
    yaml = YAML()
    yaml.width = 1000
    values = yaml.load(params)
    for name, block in yaml.load(source).items():
        values["models"].setdefault(name, block)
    yaml.dump(values, params)


if __name__ == "__main__":
    sys.exit(main())
