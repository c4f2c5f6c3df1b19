"""The method `lrp`: a question in, a map with its books out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearhead.config import Settings
from clearhead.errors import ClearheadError, ModelError, NonFiniteError
from clearhead.maps import LedgerEntry, RelevanceMap, Target
from clearhead.question import Question, uncached
from clearhead.relevance.audit import Audit
from clearhead.relevance.collecting import collected
from clearhead.relevance.engine import Propagation, Recording
from clearhead.relevance.run import Run
from clearhead.relevance.table import ROWS
from clearhead.units import Unit

RESIDUAL_LIMIT = 1e-5


def lrp(question: Question, settings: Settings) -> Iterator[tuple[int, RelevanceMap]]:
    r"""Layer-wise relevance propagation as a modified gradient: $R_i = \sum_d x_{id} G_{id}$ over the sources of i.

    Gives the number of an item and a map, for each aim of each item: one forward pass, and one backward pass for the
    n-th aims of all items together. Raises NonFiniteError naming the first module where NaN or infinity appeared,
    ModelError if the model fails or no gradient reaches the input. Bach et al. 2015, "On Pixel-Wise Explanations";
    Achtibat et al. 2024, "AttnLRP".
    """
    with question.evaluated() as notes:
        watched = _Watched(question, settings, notes)
        rounds = max(len(item.aims) for item in question.items)
        for n in range(rounds):
            yield from watched.round(n, last=n + 1 == rounds)


class _Watched:
    """A question whose forward pass was made under the tape."""

    def __init__(self, question: Question, settings: Settings, notes: tuple[str, ...]) -> None:
        self._question, self._settings, self._notes = question, settings, notes
        self._recording = Recording(Run(settings, question.model, ROWS, batch=len(question.items)))
        self._outputs, self._counts = _forward(self._recording, question)
        self._apart: dict[int, _Watched] = {}

    def round(self, n: int, *, last: bool) -> Iterator[tuple[int, RelevanceMap]]:
        """The maps of the n-th aims of all items that have so many."""
        question = self._question
        asked = [i for i, item in enumerate(question.items) if n < len(item.aims)]
        found = [self._recording.asked(question.items[i].aims[n].ask, self._outputs, i) for i in asked]
        for i, (_, value) in zip(asked, found, strict=True):
            if not bool(torch.isfinite(value.detach()).all()):
                raise _not_finite("value", _audited(question.alone(i), n, self._settings).first_value)
        propagation = self._recording.explain(*(value for _, value in found), keep=not last)
        for place, (i, (target, _)) in enumerate(zip(asked, found, strict=True)):
            yield i, self._map(propagation, i, n, target, propagation.values[place])

    def _map(self, propagation: Propagation, i: int, n: int, target: Target, value: float) -> RelevanceMap:
        """The map of one item; where the batch cannot be told apart, the item is explained again, alone."""
        question = self._question
        item, aim = question.items[i], question.items[i].aims[n]
        units, relevance, strays = self._units(propagation, i, aim.horizon)
        found = RelevanceMap(
            method="lrp",
            model=question.name,
            task=question.task,
            target=target,
            value=value,
            units=units,
            relevance=relevance,
            ledger=(*propagation.ledgers[i], *strays),
            texts=item.texts,
            pictures=item.pictures,
            warnings=(*item.warnings, *self._notes),
            recipe=question.recipe,
        )
        if len(question.items) > 1 and not _told_apart(found):
            return self._alone(i, n)
        if not np.isfinite(relevance).all():
            raise _not_finite("relevance", _audited(question.alone(i), n, self._settings).first_relevance)
        return found if _closed(found) else _with_residual_named(found, question.alone(i), n, self._settings)

    def _alone(self, i: int, n: int) -> RelevanceMap:
        """The map of an item that the batch does not tell apart, watched by itself, once for all of its aims."""
        question, last = self._question, n + 1 == len(self._question.items[i].aims)
        watched = self._apart.pop(i, None) or _Watched(question.alone(i), self._settings, self._notes)
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
        if horizon is not None and not relevance[horizon:].any():
            units, relevance = units[:horizon], relevance[:horizon]
        more = tuple(
            Unit(index=len(units) + k, text=name, stream=grid.stream if grid else "input", special=True)
            for k, (grid, name, _) in enumerate(learned)
        )
        return (*units, *more), np.append(relevance, [amount for _, _, amount in learned]), strays


def _closed(found: RelevanceMap) -> bool:
    """Do the books close: units and sinks add up to the value?"""
    return _open(found) <= max(RESIDUAL_LIMIT * abs(found.value), found.rounding_floor)


def _open(found: RelevanceMap) -> float:
    return abs(found.value - found.base_value - float(found.relevance.sum()) - found.sinks)


def _told_apart(found: RelevanceMap) -> bool:
    """Is every entry of the books of one item of a batch known, and do they close?"""
    return all(np.isfinite(entry.relevance) for entry in found.ledger) and _closed(found)


def _forward(recording: Recording, question: Question) -> tuple[list[Any], list[int]]:
    """Make every pass under the tape; the outputs, and the numbers of sources seen after each pass."""
    outputs, counts = [], []
    for part in question.passes:
        tensors = dict(part.tensors)
        for name in part.explained:
            tensors[name] = recording.source(tensors[name])
        outputs.append(_called(recording, question, tensors))
        counts.append(len(recording.lookups))
    return outputs, counts


def _called(recording: Recording, question: Question, tensors: dict[str, Any]) -> Any:
    try:
        return recording.watched(question.model, **uncached(question.model, tensors))
    except (ClearheadError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        shapes = {name: tuple(t.shape) if isinstance(t, Tensor) else t for name, t in tensors.items()}
        raise ModelError(f"The model failed on this input {shapes}: {type(error).__name__}: {error}") from error


# ---- when something is wrong: look again, slowly -------------------------------------------------------------------


def _audited(question: Question, n: int, settings: Settings) -> Audit:
    """The n-th aim of a question about one item, under the meter."""
    audit = Audit(settings, question.model)
    recording = Recording(audit)
    outputs, _ = _forward(recording, question)
    _, value = recording.watched(question.items[0].aims[n].ask, outputs, 0)
    recording.explain(value)
    return audit


def _not_finite(what: str, where: str | None) -> NonFiniteError:
    place = f"it appeared first in {where}" if where else "no single operation could be named"
    return NonFiniteError(
        f"The explained {what} must be finite; found NaN or infinity, and {place}. Check the weights, or load the "
        "model in a wider float type (dtype='float32')."
    )


def _with_residual_named(found: RelevanceMap, question: Question, n: int, settings: Settings) -> RelevanceMap:
    """A bug in a rule shows as a residual: say so, and which operation it is."""
    open_ = _open(found)
    worst = next(iter(_audited(question, n, settings).imbalances()), None)
    named = f"; most of it is lost in `{worst.operation}` of module {worst.module!r}" if worst else ""
    note = (
        f"The books do not balance: {open_:.2e} of {found.value:.4g} is unaccounted for{named}. Code that torch cannot "
        "intercept (TorchScript, a custom autograd.Function, `.data`) does this; if there is none, please report it."
    )
    return replace(found, warnings=(*found.warnings, note))
