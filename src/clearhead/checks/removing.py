"""Removing units in an order: sets of units that stay, each scored once, and the curves they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from clearhead.checks.samples import finite
from clearhead.errors import UsageError, choice
from clearhead.validations import Removal
from clearhead.validations.figures import By
from clearhead.validations.removals import Order

Values = NDArray[np.float64]
Kept = NDArray[np.bool_]
# From which units are kept [n, units] (True: kept) to the explained value of each [n].
Scores = Callable[[Kept], Values]

POINTS = 11  # of a curve: 0, 10, ..., 100 % removed


class Scored:
    """Scores that remember: a set of units is scored once, however many methods and metrics ask for it.

    Raises UsageError for scores of another shape, NonFiniteError for NaN or infinity.

    >>> asked = []
    >>> scores = Scored(lambda kept: (asked.append(len(kept)), kept @ np.array([1.0, 2.0]))[1], 2)
    >>> scores(np.array([[True, True], [True, True]])).tolist(), scores.full, asked
    ([3.0, 3.0], 3.0, [1])
    """

    def __init__(self, scores: Scores, units: int) -> None:
        if units < 1:
            raise UsageError("Removing units needs at least one; found none. Are all of them special?")
        self._scores, self.units = scores, units
        self._known: dict[bytes, float] = {}

    def __call__(self, kept: Kept) -> Values:
        """The value of each set of units that stay [n, units]."""
        rows = np.ascontiguousarray(kept, dtype=bool)
        keys = [row.tobytes() for row in rows]
        new = {key: n for n, key in enumerate(keys) if key not in self._known}
        if new:
            asked = rows[list(new.values())]
            found = np.asarray(self._scores(asked), dtype=np.float64)
            if found.shape != (len(asked),):
                raise UsageError(f"Scores are one number per row of units kept; found {found.shape} for {len(asked)}.")
            self._known.update(zip(new, finite(found, "Scores of units kept").tolist(), strict=True))
        return np.array([self._known[key] for key in keys])

    @property
    def full(self) -> float:
        """The value with all units."""
        return float(self(np.ones((1, self.units), dtype=bool))[0])

    @property
    def empty(self) -> float:
        """The value with none of the units."""
        return float(self(np.zeros((1, self.units), dtype=bool))[0])


def among(scores: Scores, judged: Kept) -> Scores:
    """Scores of some of the units: those that are not `judged` stay.

    >>> few = among(lambda kept: kept.sum(1).astype(float), np.array([False, True]))
    >>> few(np.array([[True], [False]])).tolist()
    [2.0, 1.0]
    """

    def run(kept: Kept) -> Values:
        whole = np.ones((len(kept), len(judged)), dtype=bool)
        whole[:, judged] = kept
        return scores(whole)

    return run


def ordered(relevance: Values, order: Order = "most", *, by: By = "signed", seed: int = 0) -> NDArray[np.int64]:
    """The units, the most relevant first or the least.

    `by="signed"`: most relevant is what speaks most for the explained value; `by="size"`: what has the largest
    relevance of either sign. Equal units stand in a random order that is the same both ways, so that a relevance
    that is the same for all gives the same two curves. Raises UsageError for an unknown word, NonFiniteError for NaN.

    >>> relevance = np.array([0.5, -2.0, 1.0])
    >>> ordered(relevance).tolist(), ordered(relevance, by="size").tolist(), ordered(relevance, "least").tolist()
    ([2, 0, 1], [1, 2, 0], [1, 0, 2])
    """
    if order not in ("most", "least"):
        raise choice("order", order, ("most", "least"))
    if by not in ("signed", "size"):
        raise choice("by", by, ("signed", "size"))
    values = finite(relevance, "Relevances")
    if values.ndim != 1:
        raise UsageError(f"There is one relevance per unit; found an array of shape {values.shape}.")
    values = np.abs(values) if by == "size" else values
    ties = np.random.default_rng(seed).permutation(len(values))
    return np.lexsort((ties, -values if order == "most" else values))


def kept_after(order: NDArray[np.int64], counts: Sequence[int]) -> Kept:
    """Which units stay [counts, units] after so many of the first in an order are gone.

    >>> kept_after(np.array([1, 0]), [0, 1]).tolist()
    [[True, True], [True, False]]
    """
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return np.asarray(place[None, :] >= np.asarray(counts, dtype=np.int64)[:, None])


def counted(units: int, points: int) -> list[int]:
    """How many units are gone at each of so many evenly spaced points, each count once.

    >>> counted(20, 11), counted(3, 11)
    ([0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20], [0, 1, 2, 3])
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise UsageError(f"A curve has at least 2 points; found {points!r}. The default is {POINTS}.")
    return sorted({round(units * n / (points - 1)) for n in range(points)})


def curve(
    relevance: Values,
    scores: Scores,
    order: Order = "most",
    *,
    by: By = "signed",
    points: int = POINTS,
    seed: int = 0,
) -> Removal:
    r"""The explained value as units go, the most relevant first (MoRF) or the least (LeRF).

    At each of `points` evenly spaced shares the nearest whole number of units is gone, and the share is what really is
    gone; with fewer units than points that is each of them. In the unit of the scores. Samek et al. 2017, "Evaluating
    the Visualization of What a Deep Neural Network Has Learned", section III. Raises what `ordered` raises.

    >>> weights = np.array([3.0, 1.0])
    >>> found = curve(weights, lambda kept: kept @ weights)
    >>> found.removed.tolist(), found.value.tolist(), found.area
    ([0.0, 0.5, 1.0], [4.0, 1.0, 0.0], 1.5)
    """
    counts = counted(len(relevance), points)
    values = scores(kept_after(ordered(relevance, order, by=by, seed=seed), counts))
    return Removal(order=order, removed=np.array(counts) / len(relevance), value=values)
