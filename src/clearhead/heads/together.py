"""Questions that are asked together, as many at a time as memory allows, and each only once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clearhead.heads.cases import Case
from clearhead.heads.store import Store
from clearhead.memory import halved
from clearhead.question import Question
from clearhead.subjects import Subject, length, shape

BATCH, POSITIONS = 32, 4096  # items and positions together

Ask = Callable[[Question, Sequence[Case]], NDArray[np.float64]]  # a question about some cases, to a row for each


def answers(
    subject: Subject,
    found: Sequence[Case],
    ask: Ask,
    *,
    what: str,
    size: int = 0,
    store: Store | None = None,
) -> NDArray[np.float64]:
    """A row for every case, in the order of the cases; those that the store has are not asked for again.

    Cases of like length are asked together, `size` at a time or, with 0, as many as a processor likes, and half as
    many where memory runs out. Raises ModelError where it does not suffice for one.
    """
    kept = Store() if store is None else store
    names = [f"{what} of document {n}" for n in range(1, len(found) + 1)]
    waiting = [n for n, name in enumerate(names) if name not in kept]

    def count(left: Sequence[int]) -> int:
        return size or _count(found, left)

    def make(batch: Sequence[int]) -> NDArray[np.float64]:
        own = [found[n] for n in batch]
        return ask(subject.joined([case.question for case in own]), own)

    done = len(found) - len(waiting)
    with tqdm(total=len(found), initial=done, desc=what, unit="input", leave=False, disable=None) as bar:
        for group in _alike(found, waiting):
            for batch, rows, _ in halved(group, count, make, lambda n: length(found[n].question)):
                kept.keep({names[n]: row for n, row in zip(batch, rows, strict=True)})
                bar.update(len(batch))
    return np.stack([kept[name] for name in names])


def _alike(found: Sequence[Case], numbers: Iterable[int]) -> list[list[int]]:
    """The numbers of cases that can be asked together, shortest first, and each other one alone.

    An earlier run began with the shortest of each group, so the batches of those that are left are what it would have
    made.
    """
    groups: dict[object, list[int]] = {}
    for n in numbers:
        common = shape(found[n].question)
        groups.setdefault(("alone", n) if common is None else common, []).append(n)
    return [sorted(members, key=lambda n: length(found[n].question)) for members in groups.values()]


def _count(found: Sequence[Case], left: Sequence[int]) -> int:
    """How many of the shortest cases are asked together."""
    longest = length(found[left[min(len(left), BATCH) - 1]].question)
    return max(1, min(BATCH, POSITIONS // max(1, longest)))
