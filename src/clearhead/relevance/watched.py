"""From a question whose forward pass was watched to the maps of its items: what lrp and secants have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearhead.config import Settings
from clearhead.errors import ClearheadError, NonFiniteError
from clearhead.maps import LedgerEntry, RelevanceMap, Target
from clearhead.question import Pass, Question, failed, uncached
from clearhead.relevance.collecting import collected
from clearhead.relevance.engine import Propagation, Recording
from clearhead.units import Unit

RESIDUAL_LIMIT = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """A scalar of one item, what the baseline has for it, and what leaked on the way from one to the other."""

    target: Target
    value: Tensor
    base: float = 0.0
    leaked: tuple[LedgerEntry, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """What a slow second look names: where values or relevance stopped being finite, and what lost most of it."""

    value: str | None = None
    relevance: str | None = None
    lost: str | None = None


class Watched(ABC):
    """A question whose forward pass was made under the tape."""

    method: str
    notes: tuple[str, ...] = ()

    def __init__(self, question: Question, settings: Settings, warnings: tuple[str, ...]) -> None:
        self._question, self._settings, self._warnings = question, settings, warnings
        self._recording = self._begin()
        self._outputs, self._counts = forward(self._recording, question, self._explained)
        self._apart: dict[int, Watched] = {}

    @abstractmethod
    def _begin(self) -> Recording:
        """A recording in which nothing happened yet."""

    @abstractmethod
    def _explained(self, number: int, part: Pass) -> dict[str, Any]:
        """The tensors of a pass, those to explain as sources of the recording."""

    @abstractmethod
    def _doubted(self, question: Question, n: int) -> Doubt:
        """A slow second look at the n-th aim of a question about one item."""

    def _asked(self, i: int, n: int) -> Asked:
        """The n-th scalar of an item."""
        target, value = self._recording.asked(self._question.items[i].aims[n].ask, self._outputs, i)
        return Asked(target=target, value=value)

    # ---- maps --------------------------------------------------------------------------------------------------

    def rounds(self) -> Iterator[tuple[int, RelevanceMap]]:
        """The number of an item and a map, for each aim of each item: the n-th aims of all items together."""
        count = max(len(item.aims) for item in self._question.items)
        for n in range(count):
            yield from self.round(n, last=n + 1 == count)

    def round(self, n: int, *, last: bool) -> Iterator[tuple[int, RelevanceMap]]:
        """The maps of the n-th aims of all items that have so many."""
        question = self._question
        numbers = [i for i, item in enumerate(question.items) if n < len(item.aims)]
        found = [self._asked(i, n) for i in numbers]
        for i, asked in zip(numbers, found, strict=True):
            if not bool(torch.isfinite(asked.value.detach()).all()) or not np.isfinite(asked.base):
                raise _not_finite("value", self._doubted(question.alone(i), n).value)
        propagation = self._recording.explain(*(asked.value for asked in found), keep=not last)
        for place, (i, asked) in enumerate(zip(numbers, found, strict=True)):
            yield i, self._map(propagation, i, n, asked, propagation.values[place])

    def _map(self, propagation: Propagation, i: int, n: int, asked: Asked, value: float) -> RelevanceMap:
        """The map of one item; where the batch cannot be told apart, the item is explained again, alone."""
        question = self._question
        item, aim = question.items[i], question.items[i].aims[n]
        units, relevance, strays = self._units(propagation, i, aim.horizon)
        found = RelevanceMap(
            method=self.method,
            model=question.name,
            task=question.task,
            target=asked.target,
            value=value,
            base_value=asked.base,
            units=units,
            relevance=relevance,
            ledger=(*propagation.ledgers[i], *asked.leaked, *strays),
            texts=item.texts,
            pictures=item.pictures,
            warnings=(*item.warnings, *self._warnings),
            notes=self.notes,
            recipe=question.recipe,
        )
        if len(question.items) > 1 and not _told_apart(found):
            return self._alone(i, n)
        if not np.isfinite(relevance).all():
            raise _not_finite("relevance", self._doubted(question.alone(i), n).relevance)
        return found if _closed(found) else _open_named(found, self._doubted(question.alone(i), n))

    def _alone(self, i: int, n: int) -> RelevanceMap:
        """The map of an item that the batch does not tell apart, watched by itself, once for all of its aims."""
        question, last = self._question, n + 1 == len(self._question.items[i].aims)
        watched = self._apart.pop(i, None) or type(self)(question.alone(i), self._settings, self._warnings)
        if not last:
            self._apart[i] = watched
        ((_, found),) = watched.round(n, last=last)
        return found

    def _units(
        self, propagation: Propagation, i: int, horizon: int | None
    ) -> tuple[tuple[Unit, ...], NDArray[np.float64], list[LedgerEntry]]:
        """The units of an item with learned vectors behind them, their relevance, and entries for what is no unit's."""
        question, start = self._question, 0
        parts, strays, learned = [], [], []
        for part, layout, end in zip(question.passes, question.items[i].layouts, self._counts, strict=True):
            found = collected(propagation.sources[start:end], part, layout, i, len(question.items))
            parts.append(found.units.numpy())
            strays += found.strays
            learned += [(layout.grid, name, amount) for name, amount in found.learned.items()]
            start = end
        units, relevance = question.items[i].units, np.concatenate(parts)
        if horizon is not None and not learned and not relevance[horizon:].any():  # what is learned stands last
            units, relevance = units[:horizon], relevance[:horizon]
        more = tuple(
            Unit(index=len(units) + k, text=name, stream=grid.stream if grid else "input", special=True)
            for k, (grid, name, _) in enumerate(learned)
        )
        return (*units, *more), np.append(relevance, [amount for _, _, amount in learned]), strays


def forward(recording: Recording, question: Question, explained: Any) -> tuple[list[Any], list[int]]:
    """Make every pass under the tape; the outputs, and the numbers of sources seen after each pass."""
    outputs, counts = [], []
    for number, part in enumerate(question.passes):
        outputs.append(_called(recording, question, explained(number, part)))
        counts.append(len(recording.lookups))
    return outputs, counts


def _called(recording: Recording, question: Question, tensors: Mapping[str, Any]) -> Any:
    try:
        return recording.watched(question.model, **uncached(question.model, tensors))
    except (ClearheadError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise failed(question.model, tensors, error) from error


# ---- do the books close --------------------------------------------------------------------------------------------


def _closed(found: RelevanceMap) -> bool:
    """Do the books close: units and sinks add up to the value?"""
    return _open(found) <= max(RESIDUAL_LIMIT * abs(found.value), found.rounding_floor)


def _open(found: RelevanceMap) -> float:
    return abs(found.value - found.base_value - float(found.relevance.sum()) - found.sinks)


def _told_apart(found: RelevanceMap) -> bool:
    """Is every entry of the books of one item of a batch known, and do they close?"""
    return all(np.isfinite(entry.relevance) for entry in found.ledger) and _closed(found)


def _open_named(found: RelevanceMap, doubt: Doubt) -> RelevanceMap:
    """A bug in a rule shows as a residual: say so, and which operation it is."""
    named = f"; most of it is lost in {doubt.lost}" if doubt.lost else ""
    note = (
        f"The books do not balance: {_open(found):.2e} of {found.value:.4g} is unaccounted for{named}. Code that torch "
        "cannot intercept (TorchScript, a custom autograd.Function, `.data`) does this; if there is none, please "
        "report it."
    )
    return replace(found, warnings=(*found.warnings, note))


def _not_finite(what: str, where: str | None) -> NonFiniteError:
    place = f"it appeared first in {where}" if where else "no single operation could be named"
    return NonFiniteError(
        f"The explained {what} must be finite; found NaN or infinity, and {place}. Check the weights, or load the "
        "model in a wider float type (dtype='float32')."
    )
