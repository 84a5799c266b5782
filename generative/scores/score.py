"""A score is a number with its standard error."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Score(NamedTuple):
    """A value, and the standard error that comes from the images it was computed on."""

    value: float
    error: float


def mean_score(values: Tensor) -> Score:
    """The mean of `values` (N,), N >= 2, one per image: numbers, or true and false for a share of the images."""
    values = values.double()
    return Score(float(values.mean()), float(values.std() / len(values) ** 0.5))


def ratio_score(above: Score, below: Score) -> Score:
    """The quotient of two independent scores, `below` not 0; its error to first order."""
    ratio = above.value / below.value
    return Score(ratio, math.hypot(above.error, ratio * below.error) / abs(below.value))


def average_score(scores: Sequence[Score]) -> Score:
    """The mean of independent scores, such as those of the classes."""
    errors = math.hypot(*(score.error for score in scores))
    return Score(sum(score.value for score in scores) / len(scores), errors / len(scores))
