"""`make demo`: the whole pipeline on the real data with seconds of training, in a scratch copy.

The copy is .demo/ in the repository (ignored by git and DVC); the workspace is left as it is.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from generative.data.sources import FILES
from generative.errors import PipelineError
from stages.common.paths import ROOT, Pipeline
from stages.download import SOURCE_VARIABLE
from tools.edit_params import edited
from tools.entry import run_tool
from tools.pipelines import present_pipelines

SCRATCH = Path(".demo")
TRAIN_SIZE = 10_000
TEST_SIZE = (
    2_400  # three images for each of the classifier's features in every class: distances within classes need them
)
NUM_SAMPLES = 2_000


def main() -> int:
    """Make the copy, run it, and name the figures; returns the exit code."""
    started = time.monotonic()
    make_scratch(Path.cwd(), SCRATCH, train_size=TRAIN_SIZE, test_size=TEST_SIZE, num_samples=NUM_SAMPLES)
    code = repro(SCRATCH, raw=Path.cwd() / "data" / "raw")
    if code:
        print(f"error: the demo failed; its copy is in {SCRATCH}/", file=sys.stderr)
        return code
    print(f"\nDone in {time.monotonic() - started:.0f} s. The models have seen little; `make repro` trains them. Open:")
    for path in sorted([*(SCRATCH / ROOT.comparison).iterdir(), *(SCRATCH / ROOT.figures("*").parent).glob("*/*")]):
        print(f"  {path}")
    print(f"  {SCRATCH / 'report.pdf'}")
    return 0


def make_scratch(root: Path, scratch: Path, *, train_size: int, test_size: int, num_samples: int) -> None:
    """Copy the tracked and new files of `root` to `scratch` and shrink the params of all pipelines there.

    Args:
        root: the repository.
        scratch: replaced if it is there.
        train_size: images to train on.
        test_size: images to score on, and as many to validate with.
        num_samples: samples per model.
    """
    copy_repository(root, scratch)
    configure(scratch, "core.no_scm", "true")
    for here in present_pipelines(scratch):
        (scratch / here.folder / "dvc.lock").unlink(missing_ok=True)
        with edited(scratch / here.params) as params:
            shrink(here, params, train_size=train_size, test_size=test_size, num_samples=num_samples)


def copy_repository(root: Path, scratch: Path) -> None:
    """Copy the tracked and new files of the repository at `root` to `scratch`, which is replaced if it is there."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    files = [name for name in listing.stdout.split("\0") if name and (root / name).is_file()]
    shutil.rmtree(scratch, ignore_errors=True)
    for name in files:
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, scratch / name)


def configure(scratch: Path, name: str, value: str) -> None:
    """Set a setting of DVC for the copy in `scratch` alone.

    Raises:
        PipelineError: DVC cannot write it.
    """
    command = ["dvc", "config", "--quiet", "--local", name, value]
    if subprocess.run(command, cwd=scratch, check=False).returncode:
        raise PipelineError(f"DVC cannot set {name} to '{value}' in {scratch}.")


def shrink(here: Pipeline, params: Any, *, train_size: int, test_size: int, num_samples: int) -> None:
    """Change `params` (as loaded from the file of the pipeline `here`) to one epoch per network on few images."""
    trainings = [model["training"] for model in params["models"].values()]
    if here == ROOT:
        params["prepare"] |= {"train_size": train_size, "validation_size": test_size, "test_size": test_size}
        params["generate"]["num_samples"] = num_samples
        params["generate"] |= {"bound_images": 100, "bound_samples": 20}
        for extractor in params["extractors"].values():
            if "image_size" in extractor:
                extractor["image_size"] = 32
        trainings += params["extractors"].values()
    if "contradictions" in params["report"]:
        params["report"]["contradictions"] = "show"  # one epoch proves nothing
    for training in trainings:
        if "epochs" in training:
            training["epochs"] = 1
        if "sampled_epochs" in training:
            training["sampled_epochs"] = [1]


def repro(scratch: Path, *arguments: str, raw: Path | None = None) -> int:
    """Run the pipeline in `scratch` as `make repro` does, and return the exit code.

    Args:
        scratch: a copy of the repository.
        arguments: for `tools.jobs`.
        raw: a folder that is asked for the data first, if it has them.
    """
    source = os.environ.get(SOURCE_VARIABLE)
    if source and Path(source).expanduser().exists():  # `scratch` is another working directory
        source = str(Path(source).expanduser().resolve())
    if raw and all((raw / file).exists() for file in FILES):
        source = str(raw.resolve())
    environment = os.environ | ({SOURCE_VARIABLE: source} if source else {})
    return subprocess.run(
        [sys.executable, "-m", "tools.jobs", "--no-check", *arguments], cwd=scratch, env=environment, check=False
    ).returncode


if __name__ == "__main__":
    run_tool(main)
