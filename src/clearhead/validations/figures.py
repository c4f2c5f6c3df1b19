"""Figures with their chance level and interval, and how far methods agree: a matrix of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clearhead.errors import UsageError, choice
from clearhead.validations.plain import columns, number

By = Literal["signed", "size"]

# What is measured between two maps, and what it says. Krishna et al. 2022, section 3.2; Kendall 1945 for ties.
MEASURES: dict[str, str] = {
    "spearman": "correlation of the ranks of all units, from -1 to 1",
    "kendall": "pairs of units in the same order less pairs in the opposite one (tau-b), from -1 to 1",
    "feature": "share of the k largest units that are the same, from 0 to 1",
    "rank": "share of the k largest units that are the same at the same rank, from 0 to 1",
    "sign": "share of the k largest units that are the same with the same sign, from 0 to 1",
    "signed-rank": "share of the k largest units that are the same at the same rank with the same sign, from 0 to 1",
}
SIGNED = ("sign", "signed-rank")  # mean nothing for methods without sign


@dataclass(frozen=True, kw_only=True)
class Figure:
    r"""A number, what chance gives instead, and how sure both are; None where there is no such number.

    `chance` is the mean under chance, `spread` its standard deviation, `chance_low` to `chance_high` its central 95 %,
    `p` the share of chance that reaches `value`. `low` to `high` is the 95 % interval of a mean over `inputs`, None
    for a single one.

    >>> Figure(value=0.71, chance=0.0, spread=0.2, chance_low=-0.4, chance_high=0.4).beats_chance
    True
    """

    value: float | None
    chance: float | None = None
    spread: float | None = None
    chance_low: float | None = None
    chance_high: float | None = None
    p: float | None = None
    low: float | None = None
    high: float | None = None
    inputs: int = 1

    @property
    def beats_chance(self) -> bool | None:
        """Whether the value, of a mean the lower end of its interval, lies above the central 95 % of chance."""
        least = self.value if self.low is None else self.low
        return None if least is None or self.chance_high is None else least > self.chance_high

    def __str__(self) -> str:
        interval = f" ({number(self.low)} to {number(self.high)})" if self.low is not None else ""
        return f"{number(self.value)}{interval}"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """How far two methods agree: each of `MEASURES`, over the units that both have.

    `by` says what was ranked: relevance with its sign, or its size where one of the two has none; the k largest
    (`top`) are always those of largest size. `notes` say why a figure is missing.
    """

    first: str
    second: str
    units: float  # of several inputs the mean
    top: float
    by: By
    figures: Mapping[str, Figure]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Agreements:
    """How far each two of several methods agree, on one input or on the mean over `inputs`.

    >>> figures = {"spearman": Figure(value=0.5)}
    >>> pair = Pair(first="lrp", second="rollout", units=9, top=4, by="size", figures=figures)
    >>> found = Agreements(methods=("lrp", "rollout"), pairs=(pair,))
    >>> found.matrix("spearman").tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    >>> print(found.table())
    spearman   lrp  rollout
    lrp       1.00     0.50
    rollout   0.50     1.00
    """

    methods: tuple[str, ...]
    pairs: tuple[Pair, ...]
    inputs: int = 1
    notes: tuple[str, ...] = field(default=())

    def pair(self, first: str, second: str) -> Pair:
        """The two methods, in either order; raises UsageError if they were not compared."""
        for each in self.pairs:
            if {each.first, each.second} == {first, second}:
                return each
        for name in (first, second):
            if name not in self.methods:
                raise choice("method", name, self.methods)
        raise UsageError(f"Two different methods are compared; found {first!r} and {second!r}. Name another.")

    def matrix(self, measure: str = "spearman") -> NDArray[np.float64]:
        """A measure as a symmetric matrix [methods, methods], 1 on its diagonal, NaN where there is no figure.

        Raises UsageError for an unknown measure.
        """
        if measure not in MEASURES:
            raise choice("measure", measure, MEASURES)
        found = np.full((len(self.methods), len(self.methods)), np.nan)
        np.fill_diagonal(found, 1.0)
        place = {name: n for n, name in enumerate(self.methods)}
        for each in self.pairs:
            figure = each.figures.get(measure)
            if figure is not None and figure.value is not None:
                i, j = place[each.first], place[each.second]
                found[i, j] = found[j, i] = figure.value
        return found

    def table(self, measure: str = "spearman") -> str:
        """The matrix of a measure in columns of text; raises UsageError for an unknown measure."""
        rows = [[measure, *self.methods]]
        for name, line in zip(self.methods, self.matrix(measure), strict=True):
            rows.append([name, *(number(None if np.isnan(each) else float(each)) for each in line)])
        return columns(rows)
