"""Do two explanations of the same prediction agree, and would two random ones?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from clearhead.maps import RelevanceMap

Verdict = Literal["agrees", "weakly related", "no better than chance", "too few units to say"]

TOP = 5  # units whose overlap is counted
FEWEST = 5  # units below which ranks mean nothing
AGREES = 0.5  # rank correlation from which on two explanations are said to agree
CHANCE = 1.96  # standard deviations that chance stays within, 19 times of 20


def agreement(found: RelevanceMap, other: RelevanceMap, sentence: str = "") -> Mapping[str, Any]:
    r"""How far two maps rank the same units alike: Spearman's $\rho$, and the share of common units among the top 5.

    Special tokens are left out. A map without sign is compared with the size of the other's relevance. Under chance
    $\rho$ lies within $\pm 1.96/\sqrt{n-1}$, and of the top k of n a share of k/n is common. Figures are None where
    there are fewer than 5 units, or a map is the same for all.
    """
    mine, theirs = _common(found, other)
    if not (mine < 0).any():
        theirs = np.abs(theirs)
    count = len(mine)
    rho = _spearman(mine, theirs) if count >= FEWEST else None
    bound = CHANCE / math.sqrt(count - 1) if count >= FEWEST else None
    top = min(TOP, count)
    return {
        "against": other.method,
        "spearman": rho,
        "spearman_chance": bound,
        "top_k": top,
        "top_k_overlap": _overlap(mine, theirs, top) if rho is not None else None,
        "chance": top / count if count else None,
        "units": count,
        "verdict": _verdict(rho, bound, count),
        "sentence": sentence,
    }


def _common(found: RelevanceMap, other: RelevanceMap) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The relevances of the units that both maps have, special ones left out."""
    theirs = {(u.index, u.stream): float(r) for u, r in zip(other.units, other.relevance, strict=True) if not u.special}
    pairs = [
        (float(r), theirs[u.index, u.stream])
        for u, r in zip(found.units, found.relevance, strict=True)
        if not u.special and (u.index, u.stream) in theirs
    ]
    both = np.array(pairs).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _spearman(mine: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> float | None:
    from scipy.stats import rankdata

    a, b = (rankdata(each) - (len(each) + 1) / 2 for each in (mine, theirs))
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size else None


def _overlap(mine: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], top: int) -> float:
    first, second = (set(np.argsort(-np.abs(each), kind="stable")[:top].tolist()) for each in (mine, theirs))
    return len(first & second) / top


def _verdict(rho: float | None, bound: float | None, count: int) -> Verdict:
    if count < FEWEST:
        return "too few units to say"
    if rho is None or bound is None or rho <= bound:
        return "no better than chance"
    return "agrees" if rho >= AGREES else "weakly related"
