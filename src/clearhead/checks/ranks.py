r"""How alike two lists of numbers rank the same things, and what chance would give. Axes: units N, ranks K, draws D.

Five of the six measures are sums $\sum_i c_{i\pi(i)}$ over units, where $\pi$ says which of the second list's numbers
a unit is given. Under chance all $n!$ ways are equally likely, and then (Hoeffding 1951, "A Combinatorial Central
Limit Theorem", theorem 2) mean $\frac1n\sum_{ij}c_{ij}$ and variance $\frac1{n-1}\sum_{ij}d_{ij}^2$ are exact, with
$d$ the matrix $c$ less its row and column means. Ties are broken at random: a figure is the mean over all ways to
break them, so that none depends on the order in which units stand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
PAIRWISE = 64  # units up to which Kendall's tau is counted anew for every permutation


@dataclass(frozen=True, kw_only=True, eq=False)
class Statistic:
    """A measure of two lists: its value, its exact mean and standard deviation under chance, and draws from chance."""

    value: float
    mean: float
    spread: float
    drawn: Values | None = None  # None where drawing would take long and the normal curve is as good


# ---- permutations --------------------------------------------------------------------------------------------------


def permutations(count: int, draws: int, seed: int) -> tuple[NDArray[np.int64], bool]:
    """Ways to reorder [D, N], and whether they are all there are: so where there are no more than `draws`.

    >>> permutations(2, 10, seed=0)[0].tolist()
    [[0, 1], [1, 0]]
    """
    if count < 10 and math.factorial(count) <= draws:
        from itertools import permutations as every

        return np.array(list(every(range(count))), dtype=np.int64).reshape(-1, count), True
    start = np.tile(np.arange(count, dtype=np.int64), (draws, 1))
    return np.random.default_rng(seed).permuted(start, axis=1), False


# ---- correlations of all ranks -------------------------------------------------------------------------------------


def spearman(first: Values, second: Values, orders: NDArray[np.int64] | None = None) -> Statistic | None:
    r"""Spearman's $\rho$: the correlation of ranks, equal values at the mean of theirs. None if a list is constant.

    Under chance its mean is 0 and its variance $1/(n-1)$, exactly and with any ties (Pitman 1937).

    >>> round(spearman(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])).value, 6)
    0.5
    """
    from scipy.stats import rankdata

    a, b = (rankdata(each) - (len(each) + 1) / 2 for each in (first, second))
    size = math.sqrt(float(a @ a) * float(b @ b))
    if not size:
        return None
    drawn = None if orders is None else b[orders] @ a / size
    return Statistic(value=float(a @ b) / size, mean=0.0, spread=1 / math.sqrt(len(a) - 1), drawn=drawn)


def kendall(first: Values, second: Values, orders: NDArray[np.int64] | None = None) -> Statistic | None:
    r"""Kendall's $\tau_b$: pairs of units in the same order less those in the opposite one, corrected for ties.

    $(P - Q)/\sqrt{(n_0 - n_1)(n_0 - n_2)}$ with $n_0 = n(n-1)/2$ pairs, $n_1$ and $n_2$ of them tied in each list.
    Under chance its mean is 0; its variance with ties is that of Kendall 1970, "Rank Correlation Methods", section 5.
    None if a list is constant.

    >>> round(kendall(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])).value, 6)
    0.333333
    """
    from scipy.stats import kendalltau

    n = len(first)
    ties = [np.unique(each, return_counts=True)[1].astype(np.float64) for each in (first, second)]
    untied = [(n * (n - 1) - float((t * (t - 1)).sum())) / 2 for t in ties]
    if not all(untied):
        return None
    scale = math.sqrt(untied[0] * untied[1])
    drawn = None
    if orders is not None and n <= PAIRWISE:
        a, b = (np.sign(each[:, None] - each[None, :]) for each in (first, second))
        row, column = np.triu_indices(n, 1)
        drawn = b[orders[:, row], orders[:, column]] @ a[row, column] / scale
    value = float(kendalltau(first, second).statistic)
    return Statistic(value=value, mean=0.0, spread=math.sqrt(_concordance(n, *ties)) / scale, drawn=drawn)


def _concordance(n: int, t: Values, u: Values) -> float:
    """The variance of P - Q under chance; `t` and `u` are the sizes of the groups of equal values in either list."""
    free = n * (n - 1) * (2 * n + 5) - sum(float((g * (g - 1) * (2 * g + 5)).sum()) for g in (t, u))
    pairs = float((t * (t - 1)).sum()) * float((u * (u - 1)).sum()) / (2 * n * (n - 1))
    threes = float((t * (t - 1) * (t - 2)).sum()) * float((u * (u - 1) * (u - 2)).sum())
    return free / 18 + pairs + (threes / (9 * n * (n - 1) * (n - 2)) if n > 2 else 0.0)


# ---- the largest few -----------------------------------------------------------------------------------------------


def places(values: Values, top: int) -> Values:
    """The probability [N, K] that a unit stands at a rank among the `top` of largest size, ties broken at random.

    >>> places(np.array([1.0, -3.0, 1.0]), 2).tolist()
    [[0.0, 0.5], [1.0, 0.0], [0.0, 0.5]]
    """
    sizes = np.abs(values)
    above = (sizes[None, :] > sizes[:, None]).sum(1)[:, None]
    equal = (sizes[None, :] == sizes[:, None]).sum(1)[:, None]
    ranks = np.arange(top)[None, :]
    return np.where((ranks >= above) & (ranks < above + equal), 1 / equal, 0.0)


def overlap(
    first: Values,
    second: Values,
    top: int,
    orders: NDArray[np.int64] | None = None,
    *,
    ranked: bool = False,
    signed: bool = False,
) -> Statistic:
    r"""The share of the `top` largest units of two lists that is the same; at the same rank, with the same sign.

    Krishna et al. 2022, section 3.2: feature agreement, `ranked` rank agreement, `signed` sign agreement, both signed
    rank agreement. Without ties chance gives $k/n$ for the first, $1/n$ for `ranked`. The sign of 0 is its own.

    >>> a, b = np.array([5.0, 4, 3, 2]), np.array([5.0, -4, 1, 3])
    >>> [overlap(a, b, 3, ranked=r, signed=s).value for r, s in ((0, 0), (1, 0), (0, 1), (1, 1))]
    [0.6666666666666666, 0.6666666666666666, 0.3333333333333333, 0.3333333333333333]
    """
    (mine, rows), (theirs, columns) = (_candidates(each, top) for each in (first, second))
    pairs = mine @ theirs.T if ranked else np.outer(mine.sum(1), theirs.sum(1))
    if signed:
        pairs = pairs * (np.sign(first[rows])[:, None] == np.sign(second[columns])[None, :])
    pairs = pairs / top
    whole = np.zeros((len(rows), len(first)))
    whole[:, columns] = pairs
    mean, spread = _moments(pairs, len(first))
    drawn = None if orders is None else _drawn(whole, orders[:, rows])
    return Statistic(value=float(whole[np.arange(len(rows)), rows].sum()), mean=mean, spread=spread, drawn=drawn)


def _candidates(values: Values, top: int) -> tuple[Values, NDArray[np.int64]]:
    """The places of those units that may stand among the top, and which these are."""
    sizes = np.abs(values)
    least = np.partition(sizes, len(sizes) - top)[len(sizes) - top]
    rows = np.flatnonzero(sizes >= least)
    return places(values[rows], top), rows


def _moments(pairs: Values, n: int) -> tuple[float, float]:
    """Hoeffding's mean and standard deviation; `pairs` holds the part of the matrix that is not 0."""
    total = float(pairs.sum())
    squares = float((pairs**2).sum()) - float((pairs.sum(1) ** 2).sum() + (pairs.sum(0) ** 2).sum()) / n
    return total / n, math.sqrt(max(0.0, squares + (total / n) ** 2) / (n - 1))


def _drawn(whole: Values, orders: NDArray[np.int64]) -> Values:
    found: Values = whole[np.arange(len(whole)), orders].sum(1)
    return found
