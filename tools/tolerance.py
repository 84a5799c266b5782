"""How far the score of another run may lie from the committed one, and which scores lie further."""

import math
import statistics
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pandas as pd
from scipy.stats import t as student

from stages.common.paths import REAL

FALSE_ALARMS = 0.02  # the probability that another seed of everything would be called different
_USUAL = 8  # degrees of freedom of what is usual for a score: see docs/decisions.md
_ROUNDED = 0.01  # of the error from the images: what rounding may change in any score

Table = Mapping[str, Mapping[str, float]]  # by model, or `real`, then by score


class Spread(NamedTuple):
    """Standard deviation of a score over seeds, and of how many values."""

    deviation: float
    values: int


Spreads = Mapping[str, Mapping[str, Spread]]  # by model, then by score


@dataclass(frozen=True)
class Difference:
    """A score that is further from the committed one than other seeds would take it."""

    model: str
    score: str
    value: float
    committed: float
    tolerance: float

    @property
    def distance(self) -> float:
        """From the committed value, in tolerances; infinite for what is no number."""
        distance = abs(self.value - self.committed) / self.tolerance
        return math.inf if math.isnan(distance) else distance

    def __str__(self) -> str:
        return f"{self.model} {self.score} {self.value:.4g}, committed {self.committed:.4g} ± {self.tolerance:.2g}"


def differing(found: Table, committed: Table, allowed: Table) -> tuple[int, list[Difference]]:
    """How many scores there are to compare, and those of `found` that lie outside, the furthest first."""
    compared = [(model, score) for model, row in allowed.items() for score in row]
    differences = [
        Difference(model, score, found[model].get(score, math.nan), committed[model][score], allowed[model][score])
        for model, score in compared
        if not abs(found[model].get(score, math.nan) - committed[model][score]) <= allowed[model][score]
    ]
    differences.sort(key=lambda one: -one.distance)
    return len(compared), differences


def tolerances(
    committed: Table, errors: Table, of_models: Spreads, of_extractors: Spreads, models: Collection[str]
) -> dict[str, dict[str, float]]:
    """How far a score of a run may lie from the committed one, for each of `models`, by score; empty if unknown.

    Both are draws from the distribution over seeds of the model and of the extractors, so that their difference has
    twice the sum of both variances. A few values tell little of a variance, and by chance can lie close together: it is
    averaged with what is usual for this score (`_usual`), which counts like _USUAL values more, in the manner of Smyth
    2004, "Linear Models and Empirical Bayes Methods for Assessing Differential Expression in Microarray Experiments",
    Statistical Applications in Genetics and Molecular Biology 3, equation 3. A model that was trained with no other
    seed has what is usual alone. The quantile of Student's distribution leaves a chance of about FALSE_ALARMS for all
    scores together (Bonferroni), so that it is some six deviations. What never varies may still be rounded otherwise.
    """
    unit = partial(_unit, committed=committed, errors=errors)
    causes = [(spreads, _usual(spreads, unit)) for spreads in (of_models, of_extractors)]
    trained = causes[0][1]
    if not trained:
        return {}
    pairs = [
        (model, score)
        for model in models
        for score in committed[model]
        if score in (of_extractors.get(REAL, {}) if model == REAL else trained)
    ]
    found: dict[str, dict[str, float]] = {}
    for model, score in pairs:
        variance, freedom = 0.0, math.inf
        for spreads, usual in causes:
            one = spreads.get(model, {}).get(score, Spread(0.0, 1))
            own, shared = one.values - 1, usual.get(REAL if model == REAL else score, 0.0) * unit(model, score) ** 2
            variance += (own * one.deviation**2 + _USUAL * shared) / (own + _USUAL)
            freedom = min(freedom, own + _USUAL)
        quantile = float(student.ppf(1 - FALSE_ALARMS / (2 * len(pairs)), freedom))
        least = _ROUNDED * unit(model, score)
        found.setdefault(model, {})[score] = max(quantile * math.sqrt(2 * variance), least)
    return found


def _usual(spreads: Spreads, unit: Callable[[str, str], float]) -> dict[str, float]:
    """The median variance of each score over the models, in squared units; of real images, over all scores."""
    ratios: dict[str, list[float]] = {}
    for model, row in spreads.items():
        for score, one in row.items():
            ratio = (one.deviation / unit(model, score)) ** 2
            ratios.setdefault(REAL if model == REAL else score, []).append(ratio)
    return {score: statistics.median(values) for score, values in ratios.items()}


def _unit(model: str, score: str, *, committed: Table, errors: Table) -> float:
    """The standard error from images; at least a thousandth of the score, which may have none."""
    return max(errors[model].get(score, 0.0), abs(committed[model][score]) / 1000, 1e-4)


def deviations(rows: pd.DataFrame, committed: Table) -> dict[str, dict[str, Spread]]:
    """The spread of each score over the `rows` of a table of seeds and the committed value, by model."""
    found: dict[str, dict[str, Spread]] = {}
    for key, part in rows.groupby(["model", "score"]):
        model, score = map(str, key)
        if score in committed.get(model, {}):
            values = pd.Series([committed[model][score], *part["value"]])
            found.setdefault(model, {})[score] = Spread(float(values.std()), len(values))
    return found
