"""`make seeds`: trains every model with other seeds and says how far the scores spread.

Each seed has a scratch copy in .seeds/ (ignored by git and DVC) that shares the DVC cache: data and extractor are
taken from there, and a seed that was run before is not run again. The workspace is left as it is.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

from dvc.repo import Repo

from generative.io.files import read_json
from stages.common.params import PARAMS, read_params
from stages.common.published_paths import SCORE_METRICS
from tools.demo import configure, copy_repository
from tools.edit_params import edited
from tools.entry import run_tool

SCRATCH = Path(".seeds")
SEEDS = (1, 2, 3)


def main() -> int:
    """Run the seeds and print one line per model and score; returns the exit code."""
    for seed in SEEDS:
        folder = SCRATCH / str(seed)
        make_copy(Path.cwd(), folder, seed)
        code = subprocess.run([sys.executable, "-m", "tools.jobs", "compare"], cwd=folder, check=False).returncode
        if code:
            print(f"error: seed {seed} failed; its copy is in {folder}/", file=sys.stderr)
            return code
    print(table([Path.cwd(), *(SCRATCH / str(seed) for seed in SEEDS)], read_params().models))
    return 0


def make_copy(root: Path, scratch: Path, seed: int) -> None:
    """A copy of the repository at `root` in `scratch`, with its DVC cache and with `seed` for every model."""
    copy_repository(root, scratch)
    with Repo(str(root)) as repo:
        cache, links = repo.cache.local_cache_dir, repo.config["cache"].get("type")
    configure(scratch, "core.no_scm", "true")
    configure(scratch, "cache.dir", os.path.relpath(cache, scratch))  # what is around both may have any name
    if links:
        configure(scratch, "cache.type", ",".join(links))
    with edited(scratch / PARAMS) as params:
        for block in params["models"].values():
            block["training"]["seed"] = seed


def table(folders: list[Path], names: list[str]) -> str:
    """Scores of the models in each folder as Markdown: the first folder's, then mean and range over the others."""
    lines = ["| model | score | committed | mean | least | greatest |", "|---|---|---:|---:|---:|---:|"]
    for name in names:
        rows = [read_json(folder / SCORE_METRICS / f"{name}.json") for folder in folders]
        for score in rows[0]:
            first, *others = (row[score] for row in rows)
            numbers = (first, statistics.mean(others), min(others), max(others))
            lines.append(f"| {name} | {score} | " + " | ".join(f"{number:.4g}" for number in numbers) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_tool(main)
