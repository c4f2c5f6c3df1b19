"""All metrics of faithfulness for several methods beside leave-one-out and random orders, and their means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from clearhead.checks.faithfulness import (
    BINS,
    NEAR,
    SETS,
    STEPS,
    Perturbed,
    deletion,
    eraser,
    infidelity,
    insertion,
    leave_one_out,
    max_sensitivity,
)
from clearhead.checks.removing import POINTS, Scored, Scores, curve
from clearhead.checks.samples import ROUNDS, SURE, averaged, finite, holm, paired
from clearhead.errors import UsageError, choice
from clearhead.validations import METRICS, Contest, Faithfulness, Figure, Removal, Row
from clearhead.validations.evaluation import Test
from clearhead.validations.figures import By
from clearhead.validations.removals import LEAVE_ONE_OUT, RANDOM, REFERENCES

Values = NDArray[np.float64]
ORDERS = 10  # random orders that stand for chance


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How faithfulness is measured; the same for all methods.

    `by` says whether the most positive (`signed`) or the largest (`size`) relevance goes first, `points` how many a
    curve has, `bins` which shares of units comprehensiveness and sufficiency are a mean over, `orders` how many random
    orders stand for chance, `steps` how many deletion and insertion take at most, `sets` how many sets of units
    infidelity is a mean over, `near` how many near inputs max-sensitivity is the largest over. `steps` or `sets` of 0
    leave out what they are for. For n units a method costs at most 2n sets, a random order two per point and bin.
    """

    by: By = "signed"
    points: int = POINTS
    bins: tuple[float, ...] = BINS
    orders: int = ORDERS
    steps: int = STEPS
    sets: int = SETS
    near: int = NEAR
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("points", 2), ("orders", 2), ("steps", 0), ("sets", 0), ("near", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"`{name}` must be a whole number from {least} on; found {value!r}.")


# ---- one input -----------------------------------------------------------------------------------------------------


def faithfulness(
    relevances: Mapping[str, Values],
    scores: Scores,
    *,
    removal: str,
    scale: str = "logit",
    choices: Choices | None = None,
    perturbed: Mapping[str, Perturbed] | None = None,
) -> Faithfulness:
    """Every metric for several methods, leave-one-out and random orders, by one way of removing units.

    `scores` gives the explained value, on whatever `scale`, for sets of units that stay; each set is asked for once.
    The chance level of a figure is its mean over random orders, its spread their standard deviation. `perturbed`
    gives, for methods that max-sensitivity is wanted of, what `max_sensitivity` takes. Raises UsageError for methods
    that explain different numbers of units or have the name of a reference, NonFiniteError for NaN.

    >>> weights = np.array([3.0, 1.0, -1.0, 2.0, 0.0])
    >>> found = faithfulness({"true": weights, "false": -weights}, lambda kept: kept @ weights, removal="zero")
    >>> [(row.method, round(row.figures["dA"].value, 1)) for row in found.rows if row.method != "random order"]
    [('true', 4.0), ('false', -4.0), ('leave-one-out', 4.0)]
    """
    asked = choices or Choices()
    values = {name: finite(each, f"Relevances of {name}") for name, each in relevances.items()}
    units = _units(values)
    known = Scored(scores, units)
    chance, middle = _chance(known, asked)
    near = perturbed or {}
    rows = [_row(name, each, known, asked, chance, near.get(name)) for name, each in values.items()]
    rows.append(_row(LEAVE_ONE_OUT, leave_one_out(known, units), known, asked, chance))
    rows.append(Row(method=RANDOM, figures=chance, curves=(middle,), reference=True))
    return Faithfulness(
        removal=removal,
        scale=scale,
        by=asked.by,
        rows=tuple(rows),
        full=known.full,
        empty=known.empty,
        units=units,
        notes=tuple(_notes(values)),
    )


def _units(relevances: Mapping[str, Values]) -> int:
    sizes = {name: each.shape for name, each in relevances.items()}
    if not sizes or len(set(sizes.values())) > 1 or any(len(shape) != 1 for shape in sizes.values()):
        raise UsageError(f"Methods are judged on the same units, one relevance each; found {sizes or 'no method'}.")
    taken = [name for name in sizes if name in REFERENCES]
    if taken:
        raise UsageError(f"The rows {', '.join(REFERENCES)} are always there; found a method {taken[0]!r}. Rename it.")
    return int(next(iter(sizes.values()))[0])


def _ordered(relevance: Values, scores: Scores, asked: Choices) -> tuple[dict[str, float], tuple[Removal, Removal]]:
    """The figures that only depend on the order of units, without those unit by unit, and the curves."""
    by, seed = asked.by, asked.seed
    most = curve(relevance, scores, "most", by=by, points=asked.points, seed=seed)
    least = curve(relevance, scores, "least", by=by, points=asked.points, seed=seed)
    whole, enough = eraser(relevance, scores, bins=asked.bins, by=by, seed=seed)
    areas = {"dA": least.area - most.area, "morf": most.area, "lerf": least.area}
    return {**areas, "comprehensiveness": whole, "sufficiency": enough}, (most, least)


def _chance(scores: Scored, asked: Choices) -> tuple[dict[str, Figure], Removal]:
    """What random orders give: the mean of each figure, of dA 0 by symmetry, and how far single orders are from it.

    Beside that, the mean of their curves. The same orders the other way round are as random, so they count as well.

    Deletion and insertion are given those of the curves, which they are but for the number of points.
    """
    draw = np.random.default_rng(asked.seed)
    orders = [draw.permutation(scores.units).astype(np.float64) for _ in range(asked.orders)]
    drawn, curves = zip(*(_ordered(each, scores, asked) for each in orders), strict=True)
    found = {}
    for name in drawn[0]:
        values = np.array([each[name] for each in drawn])
        mean = 0.0 if name == "dA" else float(values.mean())
        deviation = float(np.sqrt(((values - mean) ** 2).sum() / (len(values) - (name != "dA"))))
        found[name] = _beside(float(values.mean()), mean, deviation)
    found |= {"deletion": found["morf"], "insertion": found["lerf"]} if asked.steps else {}
    values = np.array([each.value for both in curves for each in both])
    removed = curves[0][0].removed
    return found, Removal(order="most", removed=removed, value=values.mean(0), spread=values.std(0, ddof=1))


def _beside(value: float, mean: float, deviation: float) -> Figure:
    low, high = mean - SURE * deviation, mean + SURE * deviation
    return Figure(value=value, chance=mean, spread=deviation, chance_low=low, chance_high=high)


def _row(
    name: str,
    relevance: Values,
    scores: Scores,
    asked: Choices,
    chance: Mapping[str, Figure],
    perturbed: Perturbed | None = None,
) -> Row:
    found, curves = _ordered(relevance, scores, asked)
    if asked.steps:
        for each, function in (("deletion", deletion), ("insertion", insertion)):
            found[each] = function(relevance, scores, steps=asked.steps, by=asked.by, seed=asked.seed)
    figures = {
        each: _beside(value, chance[each].chance or 0.0, chance[each].spread or 0.0) for each, value in found.items()
    }
    if asked.sets:
        figures["infidelity"] = Figure(value=infidelity(relevance, scores, sets=asked.sets, seed=asked.seed))
    if perturbed is not None:
        figures["max-sensitivity"] = Figure(value=max_sensitivity(relevance, perturbed, near=asked.near))
    return Row(method=name, figures=figures, curves=curves, reference=name in REFERENCES)


def _notes(relevances: Mapping[str, Values]) -> Iterator[str]:
    for name, each in relevances.items():
        if not np.ptp(each):
            yield f"{name} gives every unit the same relevance, so it orders nothing and its dA is 0."


# ---- several inputs ------------------------------------------------------------------------------------------------


def mean_faithfulness(
    found: Sequence[Faithfulness], *, points: int = POINTS, rounds: int = ROUNDS, seed: int = 0
) -> Faithfulness:
    """The mean of every figure over several inputs, with its bootstrap interval and the chance level of the mean.

    A curve is the mean of curves read at `points` shares, by straight lines between theirs. A figure that an input
    does not have is left out and not counted among its `inputs`. Raises UsageError for no input, and for inputs
    measured in different ways.
    """
    ways = {(each.removal, each.scale, each.by) for each in found}
    if len(ways) != 1:
        raise UsageError(f"A mean is over inputs measured in one way; found {sorted(ways) or 'no input'}.")
    rows: dict[str, list[Row | None]] = {}
    for n, each in enumerate(found):
        for row in each.rows:
            rows.setdefault(row.method, [None] * len(found))[n] = row
    rows = {name: rows[name] for name in sorted(rows, key=lambda name: name in REFERENCES)}
    ((removal, scale, by),) = ways
    return Faithfulness(
        removal=removal,
        scale=scale,
        by=by,
        rows=tuple(_mean_row(name, held, points, rounds, seed) for name, held in rows.items()),
        full=float(np.mean([each.full for each in found])),
        empty=float(np.mean([each.empty for each in found])),
        units=float(np.mean([each.units for each in found])),
        inputs=len(found),
    )


def _mean_row(name: str, held: Sequence[Row | None], points: int, rounds: int, seed: int) -> Row:
    """The mean of a row over the inputs that have it; `held` has one place per input."""
    members = [each for each in held if each is not None]
    metrics = [metric for metric in METRICS if any(metric in each.figures for each in members)]
    none = Figure(value=None)
    known = {metric: [each.figures.get(metric, none) if each else none for each in held] for metric in metrics}
    return Row(
        method=name,
        figures={metric: averaged(figures, rounds=rounds, seed=seed) for metric, figures in known.items()},
        curves=tuple(_mean_curve([each.curves[n] for each in members], points) for n in range(len(members[0].curves))),
        reference=members[0].reference,
        values={metric: np.array([each.value for each in figures], dtype=float) for metric, figures in known.items()},
    )


def _mean_curve(curves: Sequence[Removal], points: int) -> Removal:
    shares = np.linspace(0, 1, points)
    read = [np.interp(shares, each.removed, each.value) for each in curves]
    apart = [np.interp(shares, each.removed, each.spread) for each in curves if each.spread is not None]
    spread = np.sqrt(np.sum(np.square(apart), axis=0)) / len(apart) if apart else None
    return Removal(order=curves[0].order, removed=shares, value=np.mean(read, axis=0), spread=spread)


def contests(
    found: Sequence[Faithfulness],
    metric: str = "dA",
    *,
    test: Test = "wilcoxon",
    rounds: int = ROUNDS,
    seed: int = 0,
) -> list[Contest]:
    """A paired test between each two rows, references included, on the inputs that both have; p after Holm as well.

    The correction is over all pairs of this call: one metric, one way of removing. Raises UsageError for an unknown
    metric or test, and for no input.
    """
    if metric not in METRICS:
        raise choice("metric", metric, METRICS)
    if not found:
        raise UsageError("A test is over at least one input; found none.")
    values: dict[str, dict[int, float]] = {}
    for n, each in enumerate(found):
        for row in each.rows:
            value = row.figures[metric].value if metric in row.figures else None
            if value is not None:
                values.setdefault(row.method, {})[n] = value
    tested = []
    for first, second in combinations(values, 2):
        both = sorted(values[first].keys() & values[second].keys())
        if both:
            differences = np.array([values[first][n] - values[second][n] for n in both])
            tested.append((first, second, differences, paired(differences, test, rounds=rounds, seed=seed)))
    adjusted = holm([p for *_, p in tested])
    return [
        Contest(
            first=first,
            second=second,
            metric=metric,
            removal=found[0].removal,
            difference=averaged([Figure(value=float(d)) for d in differences], rounds=rounds, seed=seed),
            p=p,
            adjusted=after,
            test=test,
        )
        for (first, second, differences, p), after in zip(tested, adjusted, strict=True)
    ]
