"""What `test_notebook.py` starts in a process of its own: the code cells of a notebook, in order, in one namespace.

Prints, as JSON, which of them printed something or drew a figure.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt


def main(notebook: str) -> None:
    """Run the cells of the file `notebook`."""
    spoke: list[bool] = []
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for place, cell in enumerate(json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] != "code":
            continue
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile("".join(cell["source"]), f"cell {place}", "exec"), namespace)
        spoke.append(bool(said.getvalue() or plt.get_fignums()))
        plt.close("all")
    print(json.dumps(spoke))


if __name__ == "__main__":
    main(sys.argv[1])
