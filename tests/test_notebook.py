"""The tour runs from the repository's root and from its own folder, and what it stores is whole, small and nobody's."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.small import ROOT

TOUR = Path("notebooks/tour.ipynb")
LARGEST = 700_000  # bytes
HOMES = r"/(?:home|root|tmp|Users|mnt|opt)/|[A-Z]:\\\\"  # how paths of somebody's machine begin


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    """The code cells as they are committed."""
    return [cell for cell in json.loads((ROOT / TOUR).read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("folder", [Path(), TOUR.parent])
def test_every_cell_runs_and_has_stored_what_it_shows(folder: Path, cells: list[dict[str, Any]], scratch: Path) -> None:
    environment = os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, "-W", "ignore:FigureCanvasAgg", ROOT / "tests/notebook_cells.py", scratch / TOUR],
        cwd=scratch / folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    spoke = json.loads(finished.stdout.splitlines()[-1])
    assert len(spoke) == len(cells)
    assert any(spoke)
    for cell, shows in zip(cells, spoke, strict=True):
        assert bool(cell["outputs"]) == shows, "".join(cell["source"])


def test_stored_outputs_are_of_one_run_without_an_error(cells: list[dict[str, Any]]) -> None:
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert {output["name"] for output in outputs if output["output_type"] == "stream"} == {"stdout"}  # no warnings
    assert "Traceback" not in json.dumps(outputs)


def test_file_is_small_and_says_nothing_of_a_machine() -> None:
    text = (ROOT / TOUR).read_text()
    assert len(text.encode()) < LARGEST
    notebook = json.loads(text)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook["metadata"] == {"kernelspec": kernel, "language_info": {"name": "python"}}
    assert not any(cell["metadata"] for cell in notebook["cells"])
    words = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(HOMES, words)
