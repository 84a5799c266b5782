"""`make readme`: write the table of results in README.md from metrics/scores; `--check` only compares."""

import sys
from pathlib import Path

from generative.io.files import write_text
from stages import report
from stages.common.params import read_params
from tools.entry import run_tool

README = Path("README.md")
BEGIN, END = "<!-- results -->\n", "<!-- /results -->\n"


def main(arguments: list[str]) -> int:
    """Mend the table, or with --check say whether it is right; returns the exit code."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = before + BEGIN + table() + END + after
    if wanted == text:
        print("README.md: the results are those of metrics/scores")
        return 0
    if "--check" in arguments:
        print("README.md: the results are not those of metrics/scores: run `make readme`")
        return 1
    write_text(README, wanted)
    print("README.md: the results are mended")
    return 0


def table() -> str:
    """Markdown, one row for real images and for each model."""
    params = read_params()
    rows, errors = report.read_results(params)
    shown = report.columns(params, rows)
    lines = [["", *(column.heading for column in shown)], ["---", *["---:"] * len(shown)]]
    for name, cells in report.table(rows, errors, shown).items():
        lines.append([name, *(f"**{cell.text}**" if cell.bold else cell.text for cell in cells)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
