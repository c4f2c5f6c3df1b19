"""What removing units says as a drawing needs it: a table of figures, and small curves of one method each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clearhead.render.books import Axis
from clearhead.render.judged_pairs import within_chance
from clearhead.render.prunings import Points, drawn_points, rounded_axis
from clearhead.render.texts import visible
from clearhead.validations import METRICS, Figure
from clearhead.validations.plain import number
from clearhead.validations.removals import RANDOM

if TYPE_CHECKING:
    from clearhead.validations import Faithfulness, Removal, Row

LEFT_OUT = ("morf", "lerf")  # are drawn as curves, and dA is their difference
SURE = 1.96  # standard deviations that chance stays within, 19 times in 20
DIGITS, MOST = 3, 6  # that count of the largest number of a column, decimals at most
TICKS = 4
MARGIN = 0.04  # of the values, above and below curves
ARROWS = {"higher": "↑", "lower": "↓"}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric, which way is better, and what it is."""

    name: str
    arrow: str
    meaning: str

    @property
    def said(self) -> str:
        """What pointing at it shows."""
        return f"{self.meaning}; {'higher' if self.arrow == ARROWS['higher'] else 'lower'} is better"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure: `span` is its interval, `best` marks the best of its column, `chance` what random orders reach too."""

    shown: str
    span: str = ""
    best: bool = False
    chance: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """A method or a reference, with a cell for each column; `value`, `low` and `high` are its dA for a bar."""

    method: str
    reference: bool
    cells: tuple[Cell, ...]
    milliseconds: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The curves of one method: the most relevant units first, and the least; `area` lies between the two."""

    method: str
    spread: str
    most: Points
    least: Points


@dataclass(frozen=True, kw_only=True)
class Panels:
    """Curves of all methods on one pair of axes, with what random orders give."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    panels: tuple[Panel, ...]
    middle: Points
    upper: Points
    lower: Points

    def down(self, value: float) -> float:
        """Where a value lies, from 0 at the top to 1 at the bottom."""
        return (self.high - value) / (self.high - self.low)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way of removing units. `axis` holds the bars of dA, `chance` the stretch that random orders reach."""

    removal: str
    scale: str
    said: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    timed: bool
    axis: Axis
    chance: tuple[float, float] | None
    curves: Panels | None
    notes: tuple[str, ...]


def trial(found: Faithfulness, seconds: dict[str, float]) -> Trial:
    """The scene of one way of removing, the methods of largest dA first and the references last."""
    names = [
        name for name in METRICS if name not in LEFT_OUT and any(_value(row, name) is not None for row in found.rows)
    ]
    rows = sorted(found.rows, key=lambda row: (row.reference, row.method == RANDOM, -(_value(row, "dA") or 0.0)))
    cells = {name: _cells(found, rows, name) for name in names}
    spreads = [row.figures["dA"] for row in rows if "dA" in row.figures]
    ends = [end for each in spreads for end in (each.value, each.low, each.high) if end is not None]
    return Trial(
        removal=visible(found.removal),
        scale=visible(found.scale),
        said=_said(found),
        columns=tuple(
            Column(name=name, arrow=ARROWS[METRICS[name].better], meaning=METRICS[name].meaning) for name in names
        ),
        lines=tuple(
            _line(row, tuple(cells[name][n] for name in names), seconds.get(row.method)) for n, row in enumerate(rows)
        ),
        timed=bool(seconds),
        axis=Axis.over([*ends, *(_chance(found) or ())]),
        chance=_chance(found),
        curves=_panels(rows),
        notes=tuple(map(visible, found.notes)),
    )


def _value(row: Row, name: str) -> float | None:
    return row.figures[name].value if name in row.figures else None


def _said(found: Faithfulness) -> str:
    order = "the most positive" if found.by == "signed" else "the largest"
    inputs = f"mean over {found.inputs:,} inputs" if found.inputs > 1 else f"{found.units:g} units"
    scale, mean = visible(found.scale), "on average " if found.inputs > 1 else ""
    return (
        f"The {scale} is {mean}{number(found.full)} with all units and {number(found.empty)} with none ({inputs}); "
        f"{order} relevance goes first. All figures are in units of the {scale}, infidelity in squares of it."
    )


def _chance(found: Faithfulness) -> tuple[float, float] | None:
    for row in found.rows:
        figure = row.figures.get("dA")
        if row.method == RANDOM and figure and figure.chance_low is not None and figure.chance_high is not None:
            return figure.chance_low, figure.chance_high
    return None


# ---- the table -----------------------------------------------------------------------------------------------------


def _cells(found: Faithfulness, rows: Sequence[Row], name: str) -> list[Cell]:
    """A column: all with as many decimals, the best method marked."""
    figures = [row.figures.get(name, Figure(value=None)) for row in rows]
    digits = decimals([each.value for each in figures if each.value is not None])
    own = [each.value for each, row in zip(figures, rows, strict=True) if not row.reference and each.value is not None]
    best = number((max if METRICS[name].better == "higher" else min)(own), digits) if own else ""
    return [_cell(figure, row, digits, best) for figure, row in zip(figures, rows, strict=True)]


def decimals(values: Sequence[float]) -> int:
    """Decimals that give the largest of some numbers three digits that count, of at most six."""
    largest = max((abs(each) for each in values if isfinite(each)), default=0.0)
    return max(0, min(MOST, DIGITS - 1 - floor(log10(largest)))) if largest else 2


def _cell(figure: Figure, row: Row, digits: int, best: str) -> Cell:
    shown, span = number(figure.value, digits), ""
    if row.method == RANDOM and figure.spread is not None:
        shown, span = number(figure.chance, digits), f"± {number(SURE * figure.spread, digits)}"
    elif figure.low is not None and figure.high is not None:
        span = f"{number(figure.low, digits)} to {number(figure.high, digits)}"
    return Cell(
        shown=shown,
        span=span,
        best=not row.reference and shown == best,
        chance=not row.reference and within_chance(figure),
    )


def _line(row: Row, cells: tuple[Cell, ...], seconds: float | None) -> Line:
    spread = row.figures.get("dA", Figure(value=None))
    return Line(
        method=visible(row.method),
        reference=row.reference,
        cells=cells,
        milliseconds=number(None if seconds is None else 1000 * seconds, 0),
        value=spread.chance if row.method == RANDOM else spread.value,
        low=None if row.method == RANDOM else spread.low,
        high=None if row.method == RANDOM else spread.high,
    )


# ---- curves --------------------------------------------------------------------------------------------------------


def _panels(rows: Sequence[Row]) -> Panels | None:
    """A panel for each method, in the order of the table; None where no method has its two curves."""
    held = [row for row in rows if not row.reference and {each.order for each in row.curves} == {"most", "least"}]
    if not held:
        return None
    chance = next((each for row in rows if row.method == RANDOM for each in row.curves), None)
    low_high = _band(chance)
    values = [each.value for row in held for each in row.curves] + [each for each in low_high if each is not None]
    low, high, ticks = _axis(np.concatenate(values))

    def points(removed: NDArray[np.float64], value: NDArray[np.float64] | None) -> Points:
        return () if value is None else drawn_points(removed, value, low, high)

    spreads = [_value(row, "dA") for row in held]
    digits = decimals([each for each in spreads if each is not None])
    removed = chance.removed if chance else np.zeros(0)
    return Panels(
        low=low,
        high=high,
        ticks=ticks,
        panels=tuple(
            Panel(
                method=visible(row.method),
                spread=number(spread, digits),
                **{each.order: points(each.removed, each.value) for each in row.curves},
            )
            for row, spread in zip(held, spreads, strict=True)
        ),
        middle=points(removed, chance.value if chance else None),
        upper=points(removed, low_high[1]),
        lower=points(removed, low_high[0]),
    )


def _axis(values: NDArray[np.float64]) -> tuple[float, float, tuple[tuple[float, str], ...]]:
    """As far as the values reach and a little beyond, with the round numbers in between."""
    low, high, ticks = rounded_axis(values, TICKS)
    beyond = MARGIN * (float(values.max()) - float(values.min()))
    if beyond:
        low, high = float(values.min()) - beyond, float(values.max()) + beyond
    return low, high, tuple(each for each in ticks if low <= each[0] <= high)


def _band(chance: Removal | None) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """The central 95 % of random orders, from below and from above."""
    if chance is None or chance.spread is None:
        return None, None
    return chance.value - SURE * chance.spread, chance.value + SURE * chance.spread
