"""The method `lrp`: a question in, a map with its books out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearhead.config import Settings
from clearhead.errors import ClearheadError, ModelError, NonFiniteError
from clearhead.maps import LedgerEntry, RelevanceMap, Target
from clearhead.question import Question
from clearhead.relevance.audit import Audit
from clearhead.relevance.collecting import collected
from clearhead.relevance.engine import Propagation, Recording
from clearhead.relevance.run import Run
from clearhead.relevance.table import ROWS

RESIDUAL_LIMIT = 1e-5


def lrp(question: Question, settings: Settings) -> RelevanceMap:
    r"""Layer-wise relevance propagation as a modified gradient: $R_i = \sum_d x_{id} G_{id}$ over the sources of i.

    Raises NonFiniteError naming the first module where NaN or infinity appeared, ModelError if the model fails or
    no gradient reaches the input. Bach et al. 2015, "On Pixel-Wise Explanations"; Achtibat et al. 2024, "AttnLRP".
    """
    with question.evaluated() as notes:
        recording = Recording(Run(settings, question.model, ROWS))
        target, value, counts = _forward(recording, question)
        _require_finite(value, question, settings)
        propagation = recording.explain(value)
        relevance, strays = _by_unit(propagation, question, counts)
        if not np.isfinite(relevance).all():
            raise _not_finite("relevance", _audited(question, settings).first_relevance)
        found = RelevanceMap(
            method="lrp",
            model=question.name,
            task=question.task,
            target=target,
            value=propagation.value,
            units=question.units,
            relevance=relevance,
            ledger=(*propagation.ledger, *strays),
            texts=question.texts,
            warnings=(*question.warnings, *notes),
            recipe=question.recipe,
        )
        return _with_residual_named(found, question, settings)


def _forward(recording: Recording, question: Question) -> tuple[Target, Tensor, list[int]]:
    """Make every pass under the tape; `counts` are the numbers of sources seen after each."""
    outputs, counts = [], []
    for part in question.passes:
        tensors = dict(part.tensors)
        for name in part.explained:
            tensors[name] = recording.source(tensors[name])
        outputs.append(_called(recording, question, tensors))
        counts.append(len(recording.lookups))
    target, value = recording.watched(question.ask, outputs)
    return target, value, counts


def _called(recording: Recording, question: Question, tensors: dict[str, Any]) -> Any:
    try:
        return recording.watched(question.model, **tensors)
    except ClearheadError:
        raise
    except Exception as error:
        shapes = {name: tuple(t.shape) if isinstance(t, Tensor) else t for name, t in tensors.items()}
        raise ModelError(f"The model failed on this input {shapes}: {type(error).__name__}: {error}") from error


def _by_unit(
    propagation: Propagation, question: Question, counts: list[int]
) -> tuple[NDArray[np.float64], tuple[LedgerEntry, ...]]:
    """The relevance of each unit, and entries for sources that belong to no unit."""
    parts, strays, start = [], [], 0
    for part, end in zip(question.passes, counts, strict=True):
        summed, more = collected(propagation.sources[start:end], part)
        parts.append(summed.numpy())
        strays += more
        start = end
    return np.concatenate(parts), tuple(strays)


# ---- when something is wrong: look again, slowly -------------------------------------------------------------------


def _audited(question: Question, settings: Settings) -> Audit:
    audit = Audit(settings, question.model)
    recording = Recording(audit)
    _, value, _ = _forward(recording, question)
    recording.explain(value)
    return audit


def _require_finite(value: Tensor, question: Question, settings: Settings) -> None:
    if not bool(torch.isfinite(value.detach()).all()):
        raise _not_finite("value", _audited(question, settings).first_value)


def _not_finite(what: str, where: str | None) -> NonFiniteError:
    place = f"it appeared first in {where}" if where else "no single operation could be named"
    return NonFiniteError(
        f"The explained {what} must be finite; found NaN or infinity, and {place}. Check the weights, or load the "
        "model in a wider float type (dtype='float32')."
    )


def _with_residual_named(found: RelevanceMap, question: Question, settings: Settings) -> RelevanceMap:
    """A bug in a rule shows as a residual: say so, and which operation it is."""
    open_ = abs(found.value - found.base_value - found.relevance.sum() - found.sinks)
    if open_ <= max(RESIDUAL_LIMIT * abs(found.value), found.rounding_floor):
        return found
    worst = next(iter(_audited(question, settings).imbalances()), None)
    named = f"; most of it is lost in `{worst.operation}` of module {worst.module!r}" if worst else ""
    note = (
        f"The books do not balance: {open_:.2e} of {found.value:.4g} is unaccounted for{named}. Code that torch cannot "
        "intercept (TorchScript, a custom autograd.Function, `.data`) does this; if there is none, please report it."
    )
    return replace(found, warnings=(*found.warnings, note))
