r"""From an input to its baseline by way of mixtures of both: half of the units first, then the others.

Between an input and its baseline lies a straight line of vectors that no text has, and what a model says to the input
with some units replaced is on another way. A way through a mixture is as exact as the straight one, part by part:
$f(x) - f(b) = \big(f(x) - f(x_G)\big) + \big(f(x_G) - f(b)\big)$, where $x_G$ has the baseline's units G.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearhead.maps import LedgerEntry, RelevanceMap
from clearhead.memory import fitting, shrinking
from clearhead.question import Ask, Question, batched
from clearhead.removal import Region, regions, repeated
from clearhead.removal.operators import Replaced

MOST = 32  # parts together: beyond, a processor does not get faster

Explain = Callable[[Question], Iterator[tuple[int, RelevanceMap]]]
Tensors = Mapping[str, Any]


def through_halves(
    straight: RelevanceMap, question: Question, ask: Ask, halvings: int, explain: Explain
) -> RelevanceMap:
    r"""The mean over ways through mixtures, whose halves the straight map chooses.

    The first halving replaces the half of the units that matters most first and then the others, and the other way
    round; the k-th parts units by the k-th binary digit of their rank, so that any two are parted by some halving, if
    there are enough: $R_i = \frac{1}{2K} \sum_{k, G \in \{G_k, \bar G_k\}} R_i^{x \to x_G} + R_i^{x_G \to b}$.
    `question` is about one item and has one baseline; `ask` is decided; `explain` gives the maps of a question. In the
    unit of the value. The same map where there are fewer than two units to part.
    """
    found = regions(question)
    units = _differing(question, found, len(question.items[0].units))
    units = units[units < len(straight.relevance)]
    gone = halves(straight.relevance[units], halvings)
    if not len(gone):
        return straight
    whole = np.zeros((len(gone), len(question.items[0].units)), dtype=bool)
    whole[:, units] = gone
    parts, note = _explained(question, found, torch.from_numpy(whole), ask, explain)
    return _joined(straight, parts, len(gone), note)


def halves(relevance: NDArray[np.float64], halvings: int) -> NDArray[np.bool_]:
    """Which units are replaced first [2 x halvings, units]: by the binary digits of their rank, and all others.

    No more halvings than there are digits: units that are alone in their part cannot be parted further.

    >>> halves(np.array([3.0, 1.0, 2.0, 0.0]), 2).astype(int).tolist()
    [[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]]
    """
    count = len(relevance)
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(-relevance, kind="stable")] = np.arange(count)
    digits = range(1, min(halvings, max(count - 1, 0).bit_length()) + 1)
    first = [rank * 2**digit // count % 2 == 0 for digit in digits]
    rows = [each for some in first for each in (some, ~some)]
    return np.array(rows, dtype=bool).reshape(len(rows), count)


# ---- mixtures ------------------------------------------------------------------------------------------------------


def _differing(question: Question, found: Sequence[Region], count: int) -> NDArray[np.int64]:
    """The units for which the baseline has something else."""
    (baseline,), total = question.baselines, torch.zeros(count, dtype=torch.float64)
    for region in found:
        x, b = (each[region.number][region.name] for each in ([p.tensors for p in question.passes], baseline.tensors))
        total += region.summed((x != b).double(), count).cpu()
    return total.numpy().nonzero()[0]


def _explained(
    question: Question, found: Sequence[Region], gone: Tensor, ask: Ask, explain: Explain
) -> tuple[list[RelevanceMap], str]:
    """The maps of the straight parts: from the input to each mixture, then from each mixture to the baseline."""
    (baseline,), (item,) = question.baselines, question.items
    count, device = 2 * len(gone), _device(found, question)
    mixtures = Replaced(question, baseline, found).tensors(gone.to(device))
    starts = [_behind(part.tensors, mixed) for part, mixed in zip(question.passes, mixtures, strict=True)]
    ends = [_before(mixed, other) for mixed, other in zip(mixtures, baseline.tensors, strict=True)]
    aim = replace(item.aims[0], ask=ask)

    def some(first: int, stop: int) -> list[RelevanceMap]:
        passes = tuple(
            replace(part, tensors=_rows(tensors, first, stop, count))
            for part, tensors in zip(question.passes, starts, strict=True)
        )
        other = replace(baseline, tensors=tuple(_rows(tensors, first, stop, count) for tensors in ends))
        items = (replace(item, aims=(aim,)),) * (stop - first)
        asked = replace(question, passes=passes, items=items, baselines=(other,), apart=())
        return [each for _, each in sorted(explain(asked), key=lambda pair: pair[0])]

    def make(rows: int) -> list[RelevanceMap]:
        return [each for first in range(0, count, rows) for each in some(first, min(first + rows, count))]

    length = max(len(layout.units) for layout in item.layouts)
    return shrinking(make, 1 if aim.alone else fitting(question.model, length, min(count, MOST)), length)


def _device(found: Sequence[Region], question: Question) -> torch.device:
    return next((each.units.device for each in found), torch.device("cpu"))


def _behind(tensors: Tensors, mixed: Tensors) -> dict[str, Any]:
    """The input once for each mixture, and the mixtures behind."""
    count = next(len(value) for name, value in mixed.items() if batched(tensors[name], 1))
    whole = repeated(tensors, count)
    return {
        name: torch.cat([whole[name], mixed[name]]) if batched(tensors[name], 1) else tensors[name] for name in mixed
    }


def _before(mixed: Tensors, tensors: Tensors) -> dict[str, Any]:
    """The mixtures, and behind them the baseline once for each."""
    count = next(len(value) for name, value in mixed.items() if batched(tensors[name], 1))
    whole = repeated(tensors, count)
    return {
        name: torch.cat([mixed[name], whole[name]]) if batched(tensors[name], 1) else tensors[name] for name in mixed
    }


def _rows(tensors: Tensors, first: int, stop: int, count: int) -> dict[str, Any]:
    return {name: value[first:stop] if batched(value, count) else value for name, value in tensors.items()}


# ---- one map of many parts -----------------------------------------------------------------------------------------


def _joined(straight: RelevanceMap, parts: Sequence[RelevanceMap], ways: int, note: str) -> RelevanceMap:
    """The sum of the parts of each way, and the mean over ways."""
    rows = zip_longest(*(each.relevance.tolist() for each in parts), fillvalue=0.0)
    warnings = [
        *straight.warnings,
        *(warning for each in parts for warning in each.warnings),
        *([note] if note else []),
    ]
    halvings = ways // 2
    said = f"By way of {ways} mixtures, in which half of the units are those of the baseline ({halvings} halving"
    return replace(
        straight,
        relevance=np.array([sum(row) for row in rows]) / ways,
        ledger=_ledger(parts, ways),
        warnings=tuple(dict.fromkeys(warnings)),
        notes=(*straight.notes, f"{said}{'s' if halvings > 1 else ''})."),
    )


def _ledger(parts: Sequence[RelevanceMap], ways: int) -> tuple[LedgerEntry, ...]:
    """What leaked on all ways, the same cause in the same place once."""
    sums: dict[LedgerEntry, float] = defaultdict(float)
    for each in parts:
        for entry in each.ledger:
            sums[replace(entry, relevance=0.0)] += entry.relevance / ways
    return tuple(replace(entry, relevance=amount) for entry, amount in sums.items())
