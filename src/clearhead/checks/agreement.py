"""Do two explanations of the same prediction agree, and would two random ones?"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clearhead.checks.ranks import Statistic, kendall, overlap, permutations, spearman
from clearhead.checks.samples import ROUNDS, SURE, averaged, finite
from clearhead.errors import UsageError
from clearhead.maps import RelevanceMap
from clearhead.validations import MEASURES, Agreements, Figure, Pair
from clearhead.validations.figures import SIGNED, By

Verdict = Literal["agrees", "weakly related", "no better than chance", "too few units to say"]
Values = NDArray[np.float64]

TOP = 5  # units whose overlap is counted
FEWEST = 5  # units below which ranks mean nothing
AGREES = 0.5  # rank correlation from which on two explanations are said to agree
CHANCE = 1.96  # standard deviations that chance stays within, 19 times of 20
DRAWS = 1000  # permutations that stand for chance


# ---- the cross-check that comes with a map -------------------------------------------------------------------------


def agreement(found: RelevanceMap, other: RelevanceMap, sentence: str = "") -> Mapping[str, Any]:
    r"""How far two maps rank the same units alike: Spearman's $\rho$, and the share of common units among the top 5.

    Special tokens are left out. A map without sign is compared with the size of the other's relevance. Under chance
    $\rho$ lies within $\pm 1.96/\sqrt{n-1}$, and of the top k of n a share of k/n is common. Figures are None where
    there are fewer than 5 units, or a map is the same for all.
    """
    mine, theirs = common(found, other)
    if not (mine < 0).any():
        theirs = np.abs(theirs)
    count = len(mine)
    ranked = spearman(mine, theirs) if count >= FEWEST else None
    rho = ranked.value if ranked else None
    bound = CHANCE / math.sqrt(count - 1) if count >= FEWEST else None
    top = min(TOP, count)
    return {
        "against": other.method,
        "spearman": rho,
        "spearman_chance": bound,
        "top_k": top,
        "top_k_overlap": overlap(mine, theirs, top).value if rho is not None else None,
        "chance": top / count if count else None,
        "units": count,
        "verdict": _verdict(rho, bound, count),
        "sentence": sentence,
    }


def common(found: RelevanceMap, other: RelevanceMap) -> tuple[Values, Values]:
    """The relevances of the units that both maps have, special ones left out."""
    theirs = {(u.index, u.stream): float(r) for u, r in zip(other.units, other.relevance, strict=True) if not u.special}
    pairs = [
        (float(r), theirs[u.index, u.stream])
        for u, r in zip(found.units, found.relevance, strict=True)
        if not u.special and (u.index, u.stream) in theirs
    ]
    both = np.array(pairs).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _verdict(rho: float | None, bound: float | None, count: int) -> Verdict:
    if count < FEWEST:
        return "too few units to say"
    if rho is None or bound is None or rho <= bound:
        return "no better than chance"
    return "agrees" if rho >= AGREES else "weakly related"


# ---- two methods ---------------------------------------------------------------------------------------------------


def pair(
    first: Values,
    second: Values,
    *,
    names: tuple[str, str] = ("first", "second"),
    signed: bool = True,
    top: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Pair:
    r"""How far two relevances of the same units agree: every measure with its chance level.

    Spearman, Kendall's $\tau_b$, and feature, rank, sign and signed rank agreement of the `top` k units (5, or half of
    the units where that is less), after Krishna et al. 2022, "The Disagreement Problem in Explainable Machine
    Learning", section 3.2. With `signed=False`, for methods without sign, sizes are ranked and sign measures left
    out. Mean and spread under chance are exact; its central 95 % and `p` come from `draws` permutations (all, where
    there are no more), of Kendall's beyond 64 units from the normal curve. Figures are None where there are fewer than
    5 units or a relevance is the same for all, and `notes` say so. Raises NonFiniteError for NaN, UsageError for
    lists of different length or a `top` that is out of range.

    >>> found = pair(np.array([5.0, 4, 3, 2, 1, 0]), np.array([5.0, 3, 4, 2, 1, 0]))
    >>> round(found.figures["spearman"].value, 3), found.figures["feature"].chance, found.top
    (0.943, 0.5, 3)
    """
    a, b = (finite(each, f"Relevances of {name}") for name, each in zip(names, (first, second), strict=True))
    if a.ndim != 1 or a.shape != b.shape:
        raise UsageError(f"Two relevances of the same units are compared; found {a.shape} and {b.shape}.")
    depth = _depth(len(a), top)
    measures = [each for each in MEASURES if signed or each not in SIGNED]
    by: By = "signed" if signed else "size"
    figures = {each: Figure(value=None) for each in measures}
    notes: tuple[str, ...]
    if len(a) < FEWEST:
        notes = (f"Rank agreement means little below {FEWEST} units; there are {len(a)}.",)
    else:
        notes = _constant(names, (a, b), by)
        orders, whole = permutations(len(a), draws, seed)
        figures = {each: _figure(_measured(each, a, b, depth, by, orders), whole) for each in measures}
    return Pair(first=names[0], second=names[1], units=len(a), top=depth, by=by, figures=figures, notes=notes)


def _depth(count: int, top: int | None) -> int:
    if top is None:
        return min(TOP, max(1, count // 2))
    if isinstance(top, bool) or not isinstance(top, int) or top < 1 or top > max(1, count):
        raise UsageError(f"`top` must be from 1 to the number of units, {count}; found {top!r}. Ask for fewer.")
    return top


def _measured(name: str, a: Values, b: Values, top: int, by: By, orders: NDArray[np.int64]) -> Statistic | None:
    if name in ("spearman", "kendall"):
        mine, theirs = (np.abs(a), np.abs(b)) if by == "size" else (a, b)
        return spearman(mine, theirs, orders) if name == "spearman" else kendall(mine, theirs, orders)
    if not (np.ptp(np.abs(a)) and np.ptp(np.abs(b))):
        return None
    ranked, signed = name in ("rank", "signed-rank"), name in SIGNED
    return overlap(a, b, top, orders, ranked=ranked, signed=signed)


def _figure(found: Statistic | None, whole: bool) -> Figure:
    """A statistic with what chance gives; `whole`: its draws are all there are."""
    if found is None:
        return Figure(value=None)
    low, high, p = found.mean - SURE * found.spread, found.mean + SURE * found.spread, None
    if found.drawn is not None:
        low, high = np.quantile(found.drawn, (0.025, 0.975))
        reached = int((found.drawn >= found.value - 1e-9).sum())
        p = reached / len(found.drawn) if whole else (1 + reached) / (1 + len(found.drawn))
    elif found.spread:
        p = math.erfc((found.value - found.mean) / found.spread / math.sqrt(2)) / 2
    return Figure(
        value=found.value,
        chance=found.mean,
        spread=found.spread,
        chance_low=float(low),
        chance_high=float(high),
        p=p,
    )


def _constant(names: tuple[str, str], both: tuple[Values, Values], by: By) -> tuple[str, ...]:
    """What is said of relevances that rank nothing."""
    notes = []
    for name, values in zip(names, both, strict=True):
        if not np.ptp(values):
            notes.append(f"{name} gives every unit the same relevance, so it ranks nothing.")
        elif not np.ptp(np.abs(values)):
            rest = "" if by == "signed" else ", and nothing can be ranked"
            notes.append(f"{name} gives every unit relevance of the same size, so none is among its largest{rest}.")
    return tuple(notes)


# ---- several methods, several inputs -------------------------------------------------------------------------------


def has_sign(found: RelevanceMap) -> bool:
    """Whether a map tells for from against: it adds up to a value, or one of its units has relevance below 0."""
    return found.additive or bool((found.relevance < 0).any())


def agreements(
    maps: Mapping[str, RelevanceMap],
    *,
    signed: Collection[str] | None = None,
    top: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Agreements:
    """How far each two of several maps of one prediction agree, by the names of their methods.

    Compared are the units that both have, special ones left out. `signed` names the methods whose relevance has a
    sign; by default those whose map claims to add up or holds a negative number. Raises UsageError for an unknown
    name and what `pair` raises.
    """
    own = {name for name, each in maps.items() if has_sign(each)} if signed is None else set(signed)
    if not own <= set(maps):
        raise UsageError(f"`signed` names some of {', '.join(maps)}; found {', '.join(sorted(own - set(maps)))}.")
    pairs = []
    for names in combinations(maps, 2):
        mine, theirs = common(maps[names[0]], maps[names[1]])
        both = own.issuperset(names)
        depth = top if top is None else min(top, max(1, len(mine)))
        pairs.append(pair(mine, theirs, names=names, signed=both, top=depth, draws=draws, seed=seed))
    notes = tuple(dict.fromkeys(note for each in pairs for note in each.notes))
    return Agreements(methods=tuple(maps), pairs=tuple(pairs), notes=notes)


def mean_agreements(found: Sequence[Agreements], *, rounds: int = ROUNDS, seed: int = 0) -> Agreements:
    """The mean of every figure over several inputs, with its bootstrap interval and the chance level of the mean.

    A figure that an input does not have is left out and not counted among its `inputs`. A sign measure is left out
    where any input has none. Raises UsageError for no input.
    """
    if not found:
        raise UsageError("A mean is over at least one input; found none.")
    held: dict[tuple[str, str], list[Pair]] = {}
    for each in found:
        for one in each.pairs:
            held.setdefault((one.first, one.second), []).append(one)
    methods = tuple(dict.fromkeys(name for each in found for name in each.methods))
    pairs = tuple(_mean_pair(members, rounds, seed) for members in held.values())
    return Agreements(methods=methods, pairs=pairs, inputs=len(found))


def _mean_pair(members: list[Pair], rounds: int, seed: int) -> Pair:
    measures = [name for name in MEASURES if all(name in each.figures for each in members)]
    figures = {name: averaged([each.figures[name] for each in members], rounds=rounds, seed=seed) for name in measures}
    by: By = "signed" if all(each.by == "signed" for each in members) else "size"
    missing = sum(each.figures["spearman"].value is None for each in members)
    notes = (f"{missing} of {len(members)} inputs have no rank correlation.",) if missing else ()
    return Pair(
        first=members[0].first,
        second=members[0].second,
        units=float(np.mean([each.units for each in members])),
        top=float(np.mean([each.top for each in members])),
        by=by,
        figures=figures,
        notes=notes,
    )
