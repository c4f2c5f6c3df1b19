"""Does the explained value fall when what is said to matter goes? Metrics from the values of sets of units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from clearhead.checks.removing import POINTS, Scores, curve, kept_after, ordered
from clearhead.checks.samples import finite
from clearhead.errors import UsageError
from clearhead.validations.figures import By

Values = NDArray[np.float64]
# From the number of a draw to the relevance of the same units for an input that is nearly the same.
Perturbed = Callable[[int], Values]

BINS = (0.01, 0.05, 0.1, 0.2, 0.5)  # shares of units, as ERASER has them
STEPS = 100  # units that come or go one by one before several go at once
SETS = 128  # sets of units that infidelity is measured over
NEAR = 10  # inputs nearby that max-sensitivity is the largest over


# ---- by curves -------------------------------------------------------------------------------------------------------


def spread(relevance: Values, scores: Scores, *, by: By = "signed", points: int = POINTS, seed: int = 0) -> float:
    r"""$dA = A_{LeRF} - A_{MoRF}$: the area between the curves, in the unit of the scores; higher is better.

    0 in the mean over random orders. The symmetric relevance gain of Blücher et al. 2024, "Decoupling Pixel Flipping
    and Occlusion Strategy for Consistent XAI Benchmarks", section 4. Raises what `curve` raises.

    >>> weights = np.array([3.0, 1.0])
    >>> spread(weights, lambda kept: kept @ weights)
    1.0
    """
    least, most = (curve(relevance, scores, order, by=by, points=points, seed=seed) for order in ("least", "most"))
    return least.area - most.area


def eraser(
    relevance: Values, scores: Scores, *, bins: Sequence[float] = BINS, by: By = "signed", seed: int = 0
) -> tuple[float, float]:
    r"""Comprehensiveness and sufficiency: the mean over `bins` of $f(x) - f(x \setminus R_k)$ and $f(x) - f(R_k)$.

    $R_k$ are the most relevant units, $\lceil k n \rceil$ of them. In the unit of the scores; the first is better
    high, the second low. DeYoung et al. 2020, "ERASER", section 4.2; the mean is over the bins, as in the authors'
    code (the paper divides by one more). Raises UsageError for a share out of range, and what `ordered` raises.

    >>> weights = np.array([3.0, 1.0])
    >>> eraser(weights, lambda kept: kept @ weights, bins=[0.5])
    (3.0, 1.0)
    """
    if not bins or any(not 0 < share <= 1 for share in bins):
        raise UsageError(f"`bins` are shares above 0 and up to 1; found {tuple(bins)}. The default is {BINS}.")
    units = len(relevance)
    gone = kept_after(ordered(relevance, by=by, seed=seed), [math.ceil(share * units - 1e-9) for share in bins])
    values = scores(np.concatenate([np.ones((1, units), dtype=bool), gone, ~gone]))
    full, without, only = values[0], values[1 : 1 + len(bins)], values[1 + len(bins) :]
    return float((full - without).mean()), float((full - only).mean())


def deletion(relevance: Values, scores: Scores, *, steps: int = STEPS, by: By = "signed", seed: int = 0) -> float:
    r"""The area under the value as units go one by one, the most relevant first; lower is better.

    Beyond `steps` units several go at once. Petsiuk et al. 2018, "RISE", section 4.2. It is the area of the MoRF curve
    with a point for every unit, so the two are no evidence for each other. Raises what `curve` raises.

    >>> weights = np.array([3.0, 1.0])
    >>> deletion(weights, lambda kept: kept @ weights)
    1.5
    """
    return curve(relevance, scores, "most", by=by, points=_steps(relevance, steps), seed=seed).area


def insertion(relevance: Values, scores: Scores, *, steps: int = STEPS, by: By = "signed", seed: int = 0) -> float:
    r"""The area under the value as units come one by one, the most relevant first; higher is better.

    Beyond `steps` units several come at once. Petsiuk et al. 2018, "RISE", section 4.2. What has come are the units
    that stay when the least relevant go first, so this is the area of the LeRF curve with a point for every unit.
    Raises what `curve` raises.

    >>> weights = np.array([3.0, 1.0])
    >>> insertion(weights, lambda kept: kept @ weights)
    2.5
    """
    return curve(relevance, scores, "least", by=by, points=_steps(relevance, steps), seed=seed).area


def _steps(relevance: Values, steps: int) -> int:
    return min(len(relevance), steps) + 1


# ---- by relevance itself ---------------------------------------------------------------------------------------------


def infidelity(relevance: Values, scores: Scores, *, sets: int = SETS, seed: int = 0, scaled: bool = True) -> float:
    r"""$E_I[(\beta\, I^T R - (f(x) - f(x \setminus I)))^2]$ over sets $I$ of units; lower is better.

    Every unit is in $I$ or not with equal chance; all $2^n$ sets are taken where there are no more than `sets`. In
    the squared unit of the scores. Yeh et al. 2019, "On the (In)fidelity and Sensitivity of Explanations",
    definition 2.1, with binary perturbations. `scaled`: with the best factor from 0 on,
    $\beta = \max(0, E[I^T R\,\Delta f] / E[(I^T R)^2])$, so that methods whose numbers have no unit can be compared,
    and relevance that is turned round is no better than none; otherwise $\beta = 1$. Raises NonFiniteError for NaN.

    >>> weights = np.array([3.0, 1.0])
    >>> infidelity(weights, lambda kept: kept @ weights, scaled=False)
    0.0
    """
    values = finite(relevance, "Relevances")
    gone = _sets(len(values), sets, seed)
    found = scores(np.concatenate([np.ones((1, len(values)), dtype=bool), ~gone]))
    falls, said = found[0] - found[1:], gone @ values
    power = float((said**2).mean())
    factor = (max(0.0, float((said * falls).mean()) / power) if power else 0.0) if scaled else 1.0
    return float(((factor * said - falls) ** 2).mean())


def _sets(units: int, sets: int, seed: int) -> NDArray[np.bool_]:
    if units < 63 and 2**units <= sets:
        return np.array(list(product((False, True), repeat=units)), dtype=bool)
    return np.random.default_rng(seed).random((sets, units)) < 0.5


def max_sensitivity(relevance: Values, perturbed: Perturbed, *, near: int = NEAR) -> float | None:
    r"""$\max_\delta \|R(x + \delta) - R(x)\| / \|R(x)\|$ over `near` inputs nearby; lower is better, without unit.

    `perturbed` gives the relevance of the same units for the nearby input of that number. Yeh et al. 2019, definition
    2.2, divided by the norm of the relevance. None if all relevance is 0. Raises UsageError for another number of
    units, NonFiniteError for NaN.

    >>> max_sensitivity(np.array([3.0, 4.0]), lambda number: np.array([3.0, 4.0 + number]), near=3)
    0.4
    """
    values = finite(relevance, "Relevances")
    size = float(np.linalg.norm(values))
    worst = 0.0
    for number in range(near):
        other = finite(perturbed(number), "Relevances of an input nearby")
        if other.shape != values.shape:
            raise UsageError(f"An input nearby has the same units; found {other.shape} instead of {values.shape}.")
        worst = max(worst, float(np.linalg.norm(other - values)))
    return worst / size if size else None


def leave_one_out(scores: Scores, units: int) -> Values:
    r"""$R_i = f(x) - f(x \setminus i)$: what is lost when a unit goes alone, in the unit of the scores.

    >>> leave_one_out(lambda kept: kept @ np.array([3.0, 1.0]), 2).tolist()
    [3.0, 1.0]
    """
    kept = np.concatenate([np.ones((1, units), dtype=bool), ~np.eye(units, dtype=bool)])
    values = scores(kept)
    return np.asarray(values[0] - values[1:])
