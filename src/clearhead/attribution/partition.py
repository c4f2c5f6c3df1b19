"""Partition SHAP: Owen values of units in groups within groups, by the package shap."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearhead.attribution.coalitions import Played
from clearhead.attribution.found import answered
from clearhead.attribution.game import Game, played
from clearhead.attribution.gradients import Maps
from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.question import Question
from clearhead.units import Unit

MOST = 500  # evaluations, as shap has it
Tree = int | tuple["Tree", "Tree"]  # a unit, or two groups


def partition_shap(question: Question, settings: Settings) -> Maps:
    """Owen values: a group shares with its sibling as two players do, down a tree of streams, words and neighbours.

    Patches are halved along the longer side. At most `settings.samples` evaluations (500); what they do not reach is
    shared within its group, so that it always adds up. Raises UsageError where shap is not installed. Lundberg's
    partition explainer; Owen 1977, "Values of Games with a Priori Unions".
    """
    shap = _package()

    def play(game: Game, settings: Settings) -> Played:
        count, most = len(game.players), settings.samples or MOST
        if count == 1:
            return np.array([game.value - game.base]), None, "One unit has it all."
        masker = shap.maskers.Partition(np.zeros((1, count)), clustering=linkage(tree(game.units), count))
        explainer = shap.PartitionExplainer(lambda rows: game(rows).numpy(), masker)
        with game.counted("dividing", min(most, count**2)):
            found = explainer(np.ones((1, count)), max_evals=most, silent=True)
        return np.asarray(found.values[0], dtype=np.float64), None, f"At most {most} evaluations."

    return answered(question, settings, played(play), additive=True)


def _package() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports
            import shap
    except ImportError as error:
        raise UsageError(
            "The method partition-shap needs the package shap, which is not installed. Run: pip install "
            "'clearhead[shap]', or choose method='kernel-shap'."
        ) from error
    return shap


# ---- the tree ------------------------------------------------------------------------------------------------------


def tree(units: Sequence[Unit]) -> Tree:
    """Streams, within them words, within them tokens, neighbours together; parts of an image by halves."""
    streams = _runs(range(len(units)), [unit.stream for unit in units])
    return _paired([_of_stream(units, members) for members in streams])


def _of_stream(units: Sequence[Unit], members: Sequence[int]) -> Tree:
    if all(units[i].box for i in members):
        return _halved(units, members)
    words = _runs(members, [("alone", i) if units[i].word is None else units[i].word for i in members])
    return _paired([_paired(word) for word in words])


def _runs(members: Sequence[int], keys: Sequence[Hashable]) -> list[list[int]]:
    """Neighbours with the same key together."""
    pairs = zip(members, keys, strict=True)
    return [[i for i, _ in run] for _, run in groupby(pairs, key=lambda pair: pair[1])]


def _paired(parts: Sequence[Tree]) -> Tree:
    """A balanced tree over parts in their order."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return _paired(parts[:half]), _paired(parts[half:])


def _halved(units: Sequence[Unit], members: Sequence[int]) -> Tree:
    """Parts of an image, cut in two across the longer side, and again."""
    if len(members) == 1:
        return members[0]
    corners = np.array([(units[i].box or (0, 0, 0, 0))[:2] for i in members])
    sides = [np.unique(corners[:, axis]) for axis in (0, 1)]
    axis = 0 if np.ptp(sides[0]) >= np.ptp(sides[1]) else 1
    middle = sides[axis][len(sides[axis]) // 2]
    first = [i for i, corner in zip(members, corners, strict=True) if corner[axis] < middle]
    second = [i for i, corner in zip(members, corners, strict=True) if corner[axis] >= middle]
    return _halved(units, first), _halved(units, second)


def linkage(whole: Tree, count: int) -> NDArray[np.float64]:
    """A tree as scipy writes it: a row [first, second, height, size] for each pair, whose number is `count` + row."""
    rows: list[tuple[float, float, float, float]] = []

    def written(part: Tree) -> tuple[int, int]:
        if isinstance(part, int):
            return part, 1
        (one, few), (other, more) = written(part[0]), written(part[1])
        rows.append((one, other, len(rows) + 1.0, few + more))
        return count + len(rows) - 1, few + more

    written(whole)
    return np.array(rows, dtype=np.float64)
