"""`make readme`: write the tables of results in README.md and zoo/README.md from metrics/; `--check` only compares."""

import sys
from pathlib import Path

from generative.io.files import write_text
from generative.io.tables import read_table
from stages import report
from stages.common.params import read_params
from stages.common.paths import ROOT, ZOO, Pipeline
from stages.common.published import Entry, published_table, rank_correlations, read_entries
from tools.entry import run_tool

READMES = {Path("README.md"): ROOT, Path("zoo/README.md"): ZOO}
BEGIN, END = "<!-- results -->\n", "<!-- /results -->\n"


def main(arguments: list[str]) -> int:
    """Mend the tables, or with --check say whether they are right; returns the exit code."""
    codes = [mend(path, here, only_check="--check" in arguments) for path, here in READMES.items()]
    return max(codes)


def mend(path: Path, here: Pipeline, *, only_check: bool) -> int:
    """Mend one file, or say whether it is right; returns the exit code."""
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = before + BEGIN + table(here) + END + after
    if wanted == text:
        print(f"{path}: the results are those of metrics/scores")
        return 0
    if only_check:
        print(f"{path}: the results are not those of metrics/scores: run `make readme`")
        return 1
    write_text(path, wanted)
    print(f"{path}: the results are mended")
    return 0


def table(here: Pipeline) -> str:
    """Markdown, one row for real images and for each model of a pipeline and of the root."""
    params = read_params(here)
    entries = read_entries(params)
    shown = report.columns(params, entries)
    notes = report.footnotes(report.read_configs(params, entries), entries, shown)
    rows = [
        [name, *(f"**{cell.text}**" if cell.bold else cell.text for cell in cells)]
        for name, cells in report.table(entries, shown, notes).items()
    ]
    words = report.numbered_footnotes(notes, entries)
    head = ["", *(column.heading for column in shown)]
    return _markdown(head, rows) + (f"\n{words}\n" if words else "") + _likelihoods(entries) + _critics(entries)


def _likelihoods(entries: report.Entries) -> str:
    """The table of likelihoods, and what has to be known of it; nothing where there is none."""
    rows = report.likelihoods(entries)
    if not rows:
        return ""
    head = ["", "how it is known", "of what", "log p(x), nats per image ↑", "bits per dimension ↓"]
    return f"\n{_markdown(head, rows, words=3)}\n{report.likelihood_words(entries)}\n"


def _critics(entries: report.Entries) -> str:
    """What critics estimate, and how steep they are; nothing where no model keeps one."""
    tables = {name: published_table(entry.folder, "gradient_shares") for name, entry in entries.items()}
    found = {name: shares for name, shares in tables.items() if shares is not None}
    if not found:
        return ""
    rows = []
    for name, shares in found.items():
        norms = zip(shares["mean"], shares["share above 1"], strict=True)
        cells = [cell for mean, above in norms for cell in (f"{mean:.3g}", f"{100 * above:.1f}%")]
        rows.append([name, _estimate_correlation(entries[name]), *cells])
    places = next(iter(found.values())).iloc[:, 0]
    head = ["", "rank correlation of the critic's estimate with the Fréchet distance over the epochs"]
    head += [heading for place in places for heading in (f"gradient's norm {place}", "above 1")]
    return f"\n{_markdown(head, rows)}"


def _estimate_correlation(entry: Entry) -> str:
    if not (entry.folder / "epochs.tsv").exists():
        return "–"
    related = rank_correlations(read_table(entry.folder / "epochs.tsv"), read_table(entry.folder / "curves.tsv"))
    return f"{related['train_critic_estimate']:.2f}"


def _markdown(head: list[str], rows: list[list[str]], *, words: int = 1) -> str:
    """A table whose first columns, `words` of them, are words, the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *rows))


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
