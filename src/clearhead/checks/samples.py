"""What a sample says about all inputs: bootstrap intervals, paired tests, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clearhead.errors import NonFiniteError, choice
from clearhead.validations import Figure
from clearhead.validations.evaluation import Test

Values = NDArray[np.float64]
SURE = 1.959963984540054  # standard deviations that 95 % of a normal curve lie within
ROUNDS = 2000
AT_ONCE = 4_000_000  # numbers that are resampled together


def finite(values: object, what: str) -> Values:
    """The values as float64; raises NonFiniteError if one is NaN or infinite, saying of `what`."""
    found = np.asarray(values, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        raise NonFiniteError(
            f"{what} must be finite numbers; found {found.flat[bad[0]]} at {bad[0]} ({len(bad)} of {found.size} are "
            "not finite). Find out where the model or the method leaves the range of its float type."
        )
    return found


def resampled(values: Values, *, rounds: int = ROUNDS, seed: int = 0) -> Values:
    """The means of `rounds` samples drawn from the values with replacement, as many as there are (Efron 1979)."""
    draw, size = np.random.default_rng(seed), len(values)
    step = max(1, AT_ONCE // size)
    parts = [values[draw.integers(0, size, (min(step, rounds - n), size))].mean(1) for n in range(0, rounds, step)]
    return np.concatenate(parts)


def averaged(figures: Sequence[Figure], *, rounds: int = ROUNDS, seed: int = 0) -> Figure:
    r"""The mean of a figure over inputs, with its 95 % percentile bootstrap interval; those without value are left out.

    The mean under chance is the mean of the chances, with spread $\sqrt{\sum_i s_i^2}/n$, since inputs are independent.
    The interval is None for fewer than two inputs.

    >>> averaged([Figure(value=1.0), Figure(value=3.0), Figure(value=None)]).value
    2.0
    """
    known = [each for each in figures if each.value is not None]
    if not known:
        return Figure(value=None, inputs=0)
    values = finite([each.value for each in known], "The figures of all inputs")
    low, high = (
        np.quantile(resampled(values, rounds=rounds, seed=seed), (0.025, 0.975)) if len(values) > 1 else (None,) * 2
    )
    return Figure(
        value=float(values.mean()),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        inputs=len(known),
        **chances(known),
    )


def chances(figures: Sequence[Figure]) -> dict[str, float]:
    """What chance gives for the mean of several figures; empty where one of them does not know."""
    known = [(each.chance, each.spread) for each in figures if each.chance is not None and each.spread is not None]
    if not known or len(known) < len(figures):
        return {}
    chance = math.fsum(mean for mean, _ in known) / len(known)
    spread = math.sqrt(math.fsum(spread**2 for _, spread in known)) / len(known)
    return {
        "chance": chance,
        "spread": spread,
        "chance_low": chance - SURE * spread,
        "chance_high": chance + SURE * spread,
    }


# ---- two methods on the same inputs --------------------------------------------------------------------------------


def paired(differences: Values, test: Test = "wilcoxon", *, rounds: int = ROUNDS, seed: int = 0) -> float:
    """The two-sided p of no difference between two methods on the same inputs.

    `wilcoxon`: Wilcoxon's signed ranks (1945; no difference counted as Pratt 1959 does), of the median. `bootstrap`:
    of the mean, by resampling the differences less their mean (Efron & Tibshirani 1993, section 16.4). 1 where all
    differences are 0, or there are fewer than two. Raises UsageError for another test, NonFiniteError for NaN.

    >>> paired(np.array([1.0, 2, 3, 4, 5, 6]))
    0.03125
    """
    values = finite(differences, "Differences between methods")
    if test not in ("wilcoxon", "bootstrap"):
        raise choice("test", test, ("wilcoxon", "bootstrap"))
    if len(values) < 2 or not values.any():
        return 1.0
    if test == "wilcoxon":
        from scipy.stats import wilcoxon

        exact = len(values) <= 50 and values.all() and len(np.unique(np.abs(values))) == len(values)
        return float(wilcoxon(values, zero_method="pratt", method="exact" if exact else "approx").pvalue)
    mean = float(values.mean())
    found = resampled(values - mean, rounds=rounds, seed=seed)
    return float((1 + (np.abs(found) >= abs(mean) - 1e-12 * np.abs(values).max()).sum()) / (1 + rounds))


def holm(chance: Sequence[float]) -> list[float]:
    r"""Each p corrected for all of them: $\max_{j \le i} \min(1, (m - j + 1) p_{(j)})$ (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    found, worst = [1.0] * len(chance), 0.0
    for n, place in enumerate(sorted(range(len(chance)), key=lambda i: chance[i])):
        worst = max(worst, min(1.0, (len(chance) - n) * chance[place]))
        found[place] = worst
    return found
