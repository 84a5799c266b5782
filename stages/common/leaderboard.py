"""The leaderboard: all models of all pipelines, their scores with errors, and which differences exceed these.

The models stand in the order of one score, and each cell has a place: 1 + the number of models that are ahead by more
than the standard error of the lead. Models that share a place cannot be told apart; a large error earns a good place.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from stages.common.params import Params
from stages.common.paths import REAL
from stages.common.published import Entry, outside_extractors

Entries = dict[str, Entry]


class Column(NamedTuple):
    """A column of a table of results."""

    key: str  # in metrics/scores/
    heading: str
    decimals: int
    with_error: bool = False

    @property
    def lower_is_better(self) -> bool:
        """As the arrow in the heading says."""
        return self.heading.endswith("↓")

    @property
    def is_ranked(self) -> bool:
        """Whether there is an arrow."""
        return self.heading[-1] in "↓↑"


class Place(NamedTuple):
    """A cell: a score, and 1 + how many models are ahead of it by more than the standard error of the lead."""

    text: str
    place: int  # 0: not ranked


class Board(NamedTuple):
    """A part of the leaderboard: what its columns are, and a row for each model."""

    title: str
    headings: list[str]
    rows: dict[str, list[Place]]


_FOLLOWED = (
    Column("label_accuracy", "label accuracy ↑", 3, with_error=True),
    Column("cas", "CAS ↑", 3, with_error=True),
)
_KNOWN = (
    Column("bits_per_dim", "bits per dimension ↓", 3, with_error=True),
    Column("log_p_estimate_binary", "log p(binary x), nats ↑", 1, with_error=True),
    Column("mse_x1000", "reconstruction, MSE × 1000 ↓", 2, with_error=True),
)
_COST = (
    Column("nfe", "network evaluations ↓", 0),
    Column("multiply_adds_x1e6", "multiply-adds, millions ↓", 1),
    Column("stored_numbers", "numbers stored", 0),
    Column("images_seen", "training images seen", 0),
)
_EXACT = "log_p_exact"  # of a model with this score the bits per dimension are no bound


def boards(params: Params, entries: Entries) -> list[Board]:
    """The parts of the leaderboard, without scores that no model has.

    In the order of the kernel distance in the features of a network that was not trained here, where there is one.
    """
    outside = outside_extractors(params)
    leading = next((f"kernel_{name}_x1000" for name in params.extractors[1:] if name in outside), "kernel_x1000")
    ordered = in_order(entries, leading)
    return [board(title, columns, ordered) for title, columns in column_groups(params).items()]


def column_groups(params: Params) -> dict[str, list[Column]]:
    """The columns of each part: how near samples are to real images; and what models follow, know and cost."""
    first, *others = params.extractors
    outside = outside_extractors(params)
    near = [Column("frechet_distance", f"Fréchet, {first} ↓", 2, with_error=True)]
    near += [Column(f"frechet_{name}", f"Fréchet, {name} ↓", 1 if name in outside else 2, True) for name in others]
    near.append(Column("kernel_x1000", f"kernel × 1000, {first} ↓", 1, with_error=True))
    near += [Column(f"kernel_{name}_x1000", f"kernel × 1000, {name} ↓", 1, True) for name in others]
    near += [Column(key, f"{key}, {first} ↑", 3, with_error=True) for key in ("precision", "recall")]
    near += [Column(f"recall_{name}", f"recall, {name} ↑", 3, True) for name in outside]
    return {"How near samples are": near, "What models follow, know and cost": [*_FOLLOWED, *_KNOWN, *_COST]}


def in_order(entries: Entries, key: str) -> Entries:
    """Real images, then models by a score, the lowest first, then those without it."""
    names = sorted(entries, key=lambda name: (name != REAL, entries[name].scores.get(key, math.inf)))
    return {name: entries[name] for name in names}


def board(title: str, columns: Sequence[Column], entries: Entries) -> Board:
    """A table of those `columns` in which some model has a score; models without any have no row."""
    models = {name: entry for name, entry in entries.items() if name != REAL}
    shown = [column for column in columns if any(column.key in entry.scores for entry in models.values())]
    rows = {
        name: [Place(_bounded(entry, column), _place(name, column, entries)) for column in shown]
        for name, entry in entries.items()
        if any(column.key in entry.scores for column in shown)
    }
    return Board(title, [column.heading for column in shown], rows)


def _place(name: str, column: Column, entries: Entries) -> int:
    """The place; none for real images, which are the floor, for bounds, and for the only model with a score."""
    ranked = [other for other in entries if other != REAL and _is_known(entries[other], column)]
    if not column.is_ranked or name not in ranked or len(ranked) == 1:
        return 0
    return 1 + sum(is_ahead(entries[other], entries[name], column) for other in ranked)


def is_ahead(one: Entry, other: Entry, column: Column) -> bool:
    """Whether a score of `one` is better than that of the `other` by more than the standard error of the difference."""
    lead = one.scores[column.key] - other.scores[column.key]
    lead = -lead if column.lower_is_better else lead
    return lead > math.hypot(one.error(column.key), other.error(column.key))


def score_text(entry: Entry, column: Column) -> str:
    """A score with its standard error, if the column shows it; a dash where there is none."""
    if column.key not in entry.scores:
        return "–"
    value = entry.scores[column.key]
    text = f"{value:.{column.decimals}f}" if column.decimals else f"{value:,.0f}"
    if column.with_error:
        text += f"\u00a0±\u00a0{entry.error(column.key):.{column.decimals}f}"
    return text


def _is_known(entry: Entry, column: Column) -> bool:
    """Whether there is a score that is no bound."""
    return column.key in entry.scores and not _is_bound(entry, column)


def _is_bound(entry: Entry, column: Column) -> bool:
    return column.key == "bits_per_dim" and column.key in entry.scores and _EXACT not in entry.scores


def _bounded(entry: Entry, column: Column) -> str:
    """The text of a score; of bits that are a bound, with the sign for it."""
    return ("≤\u00a0" if _is_bound(entry, column) else "") + score_text(entry, column)
