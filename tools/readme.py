"""`make readme`: write the tables of results in README.md and zoo/README.md from metrics/; `--check` only compares."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from generative.errors import PipelineError
from generative.io.files import write_text
from generative.io.tables import read_table
from stages import report
from stages.common.leaderboard import Entries, Place, boards
from stages.common.params import read_params
from stages.common.paths import ZOO
from stages.common.published import Entry, published_table, rank_correlations, read_entries
from tools.entry import run_tool


def main(arguments: list[str]) -> int:
    """Mend the tables, or with --check say whether they are right; returns the exit code."""
    codes = [mend(path, parts, only_check="--check" in arguments) for path, parts in READMES.items()]
    return max(codes)


def mend(path: Path, parts: dict[str, Callable[[], str]], *, only_check: bool) -> int:
    """Mend the parts of one file, or say whether they are right; returns the exit code."""
    text = wanted = path.read_text(encoding="utf-8")
    for name, write in parts.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
        if wanted.count(begin) != 1 or wanted.count(end) != 1:
            raise PipelineError(f"{path} has no part between {begin.strip()} and {end.strip()}: bring the lines back.")
        before, rest = wanted.split(begin)
        _, after = rest.split(end)
        wanted = before + begin + write() + end + after
    if wanted == text:
        print(f"{path}: the results are those of metrics/scores")
        return 0
    if only_check:
        print(f"{path}: the results are not those of metrics/scores: run `make readme`")
        return 1
    write_text(path, wanted)
    print(f"{path}: the results are mended")
    return 0


def results() -> str:
    """Markdown, one row for real images and for each model of the root."""
    params = read_params()
    entries = read_entries(params)
    shown = report.columns(params, entries)
    notes = report.footnotes(report.read_configs(params, entries), entries, shown)
    rows = [
        [name, *(f"**{cell.text}**" if cell.bold else cell.text for cell in cells)]
        for name, cells in report.table(entries, shown, notes).items()
    ]
    words = report.numbered_footnotes(notes, entries)
    head = ["", *(column.heading for column in shown)]
    return _markdown(head, rows) + (f"\n{words}\n" if words else "")


def leaderboard(folder: Path) -> str:
    """Markdown, the models of both pipelines, best first, with the places of their scores in brackets.

    The first table has a row of samples of each model; `folder` is where the page stands.
    """
    params = read_params(ZOO)
    entries = read_entries(params)
    tables: list[str] = []
    for part in boards(params, entries):
        strips = [ZOO.comparison / "strips" / f"{name}.png" for name in part.rows]
        head, rows = [part.title], [[name] for name in part.rows]
        if not tables:
            head.append("ten samples")
            rows = [[*row, _image(path.relative_to(folder))] for row, path in zip(rows, strips, strict=True)]
        cells = [list(map(_cell, row)) for row in part.rows.values()]
        whole = [[*row, *more] for row, more in zip(rows, cells, strict=True)]
        tables.append(_markdown([*head, *part.headings], whole))
    return "\n".join([*tables, report.notes_in_words(params, entries) + "\n"])


def further() -> str:
    """What the zoo has beside its leaderboard: likelihoods, critics, translations."""
    entries = read_entries(read_params(ZOO))
    return _likelihoods(entries) + _critics(entries) + _translations(entries)


def _image(path: Path) -> str:
    """A row of samples, wide enough to be seen in a table."""
    return f'<img src="{path}" width="220" alt="ten samples">'


def _cell(cell: Place) -> str:
    text = f"**{cell.text}**" if cell.place == 1 else cell.text
    return f"{text} ({cell.place})" if cell.place else text


def _translations(entries: Entries) -> str:
    """The table of translations; nothing where no model translates."""
    rows = report.translations(entries)
    return f"\n{_markdown(rows[0], rows[1:])}" if rows else ""


def _likelihoods(entries: Entries) -> str:
    """The table of likelihoods, and what has to be known of it; nothing where there is none."""
    rows = report.likelihoods(entries)
    if not rows:
        return ""
    head = ["", "how it is known", "of what", "log p(x), nats per image ↑", "bits per dimension ↓"]
    return f"\n{_markdown(head, rows, words=3)}\n{report.likelihood_words(entries)}\n"


def _critics(entries: Entries) -> str:
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


READMES: dict[Path, dict[str, Callable[[], str]]] = {  # by file, its parts that are written here
    Path("README.md"): {"results": results, "leaderboard": partial(leaderboard, Path())},
    Path("zoo/README.md"): {"leaderboard": partial(leaderboard, ZOO.folder), "further": further},
}


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
