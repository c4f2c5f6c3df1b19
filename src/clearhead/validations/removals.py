"""What removing units says about maps: curves and figures, a row per method and per reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clearhead.errors import choice
from clearhead.validations.figures import By, Figure
from clearhead.validations.plain import columns

Order = Literal["most", "least"]
RANDOM, LEAVE_ONE_OUT = "random order", "leave-one-out"
REFERENCES = (RANDOM, LEAVE_ONE_OUT)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a figure is, which way is better, and how it is written in a table."""

    better: Literal["higher", "lower"]
    meaning: str


METRICS: dict[str, Metric] = {
    "dA": Metric(better="higher", meaning="area under the LeRF curve less that under the MoRF curve"),
    "morf": Metric(better="lower", meaning="area under the curve as the most relevant units go first"),
    "lerf": Metric(better="higher", meaning="area under the curve as the least relevant units go first"),
    "comprehensiveness": Metric(better="higher", meaning="mean fall as the most relevant shares of units go"),
    "sufficiency": Metric(better="lower", meaning="mean fall as only the most relevant shares of units stay"),
    "deletion": Metric(better="lower", meaning="area as units go one by one, the most relevant first"),
    "insertion": Metric(better="higher", meaning="area as units come one by one, the most relevant first"),
    "infidelity": Metric(better="lower", meaning="mean squared error of relevance, at its best scale, for a fall"),
    "max-sensitivity": Metric(better="lower", meaning="largest relative change of relevance for near inputs"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Removal:
    """The explained value as units go: `removed` is the share that is gone, `value` what is left; `order` who first.

    Of random orders `value` is their mean, and `spread` the standard deviation of one of them, or of their mean over
    inputs.
    """

    order: Order
    removed: NDArray[np.float64]
    value: NDArray[np.float64]
    spread: NDArray[np.float64] | None = None

    @property
    def area(self) -> float:
        """The area under the curve by trapezoids, in the unit of the value: its mean over all shares removed."""
        return float(((self.value[1:] + self.value[:-1]) / 2 * np.diff(self.removed)).sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """The figures of one method, or of a reference, each with what random orders give; its curves.

    Over several inputs `values` holds what each figure is the mean of, one per input, NaN where an input has none.
    """

    method: str
    figures: Mapping[str, Figure]
    curves: tuple[Removal, ...] = ()
    reference: bool = False
    values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Faithfulness:
    """What one way of removing units says about several methods, on one input or on the mean over `inputs`.

    `removal` names what units are replaced by, `scale` what the value is (a logit, a probability, ...), `by` whether
    the most positive (`signed`) or the largest (`size`) relevance goes first. `full` and `empty` are the values with
    all units and with none.
    """

    removal: str
    scale: str
    by: By
    rows: tuple[Row, ...]
    full: float
    empty: float
    units: float
    inputs: int = 1
    notes: tuple[str, ...] = field(default=())

    def row(self, method: str) -> Row:
        """The row of a method or a reference; raises UsageError if there is none."""
        for each in self.rows:
            if each.method == method:
                return each
        raise choice("method", method, [each.method for each in self.rows])

    def best(self, metric: str = "dA") -> Row | None:
        """The row, random order left out, that is best by a metric; None if none has it, UsageError for no metric."""
        if metric not in METRICS:
            raise choice("metric", metric, METRICS)
        known = [(r.figures[metric].value, r) for r in self.rows if metric in r.figures and r.method != RANDOM]
        ranked = [(value, row) for value, row in known if value is not None]
        sign = 1 if METRICS[metric].better == "higher" else -1
        return max(ranked, key=lambda each: sign * each[0])[1] if ranked else None

    def table(self) -> str:
        """All rows in columns of text, of a mean with its interval; arrows say which way is better."""
        shown = [name for name in METRICS if any(name in row.figures for row in self.rows)]
        arrows = {"higher": "↑", "lower": "↓"}
        heads = [f"removed: {self.removal}", *(f"{name} {arrows[METRICS[name].better]}" for name in shown)]
        none = Figure(value=None)
        cells = [[row.method, *(str(row.figures.get(name, none)) for name in shown)] for row in self.rows]
        return columns([heads, *cells])
