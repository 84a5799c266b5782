"""`make readme`: write the table of results in README.md from metrics/scores; `--check` only compares."""

import sys
from pathlib import Path

from generative.files import read_json
from stages.params import model_names
from stages.report import COLUMNS, cells
from stages.result_paths import SCORE_METRICS

README = Path("README.md")
BEGIN, END = "<!-- results -->\n", "<!-- /results -->\n"


def main(arguments: list[str]) -> int:
    """Mend the table, or with --check say whether it is right; returns the exit code."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = before + BEGIN + table() + END + after
    if wanted == text:
        print("README.md: the results are those of metrics/scores")
        return 0
    if "--check" in arguments:
        print("README.md: the results are not those of metrics/scores: run `make readme`")
        return 1
    README.write_text(wanted)
    print("README.md: the results are mended")
    return 0


def table() -> str:
    """Markdown, one row for real images and for each model."""
    rows = {name: read_json(SCORE_METRICS / f"{name}.json") for name in ["real", *model_names()]}
    head = ["", *(heading for _, heading, _ in COLUMNS)]
    lines = [head, ["---", *["---:"] * len(COLUMNS)]]
    lines += [[name, *cells(row)] for name, row in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
