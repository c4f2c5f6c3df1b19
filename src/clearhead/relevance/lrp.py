"""The method `lrp`: a question in, a map with its books out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from clearhead.config import Settings
from clearhead.maps import RelevanceMap
from clearhead.question import Pass, Question
from clearhead.relevance import checkpointing
from clearhead.relevance.audit import Audit
from clearhead.relevance.engine import Recording
from clearhead.relevance.neutral import starts
from clearhead.relevance.run import Key, Run, Start
from clearhead.relevance.table import ROWS
from clearhead.relevance.watched import Doubt, Watched, forward
from clearhead.rulebook import INPUT

# What a model may raise that cannot read a text without tokens.
_FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def lrp(question: Question, settings: Settings) -> Iterator[tuple[int, RelevanceMap]]:
    r"""Layer-wise relevance propagation as a modified gradient: $R_i = \sum_d x_{id} G_{id}$ over the sources of i.

    Gives the number of an item and a map, for each aim of each item: one forward pass, and one backward pass for the
    n-th aims of all items together. Raises NonFiniteError naming the first module where NaN or infinity appeared,
    ModelError if the model fails or no gradient reaches the input. Bach et al. 2015, "On Pixel-Wise Explanations";
    Achtibat et al. 2024, "AttnLRP".
    """
    with question.evaluated() as warnings:
        yield from _Relevance(question, settings, warnings).rounds()


class _Relevance(Watched):
    """A forward pass under the rules of lrp."""

    method = "lrp"

    def __init__(self, question: Question, settings: Settings, warnings: tuple[str, ...]) -> None:
        super().__init__(question, settings, warnings)
        if INPUT in settings.rules and not self._run.reads_input:
            note = f"No layer reads the input before anything else is computed, so the rule of {INPUT!r} was not used."
            self.notes = (*self.notes, note)
        self.notes = (*self.notes, *checkpointing.notes(self._run))

    def _begin(self) -> Recording:
        self._starts, self.notes = _starts(self._question, self._settings)
        self._run = Run(self._settings, self._question.model, ROWS, batch=len(self._question.items))
        return Recording(self._run)

    def _explained(self, number: int, part: Pass) -> dict[str, Any]:
        self._run.begin(self._starts[number])
        return _sources(self._recording, part)

    def _doubted(self, question: Question, n: int) -> Doubt:
        audit = Audit(self._settings, question.model)
        recording = Recording(audit)

        def explained(number: int, part: Pass) -> dict[str, Any]:
            audit.begin(self._starts[number])
            return _sources(recording, part)

        outputs, _ = forward(recording, question, explained)
        _, value = recording.watched(question.items[0].aims[n].ask, outputs, 0)
        recording.explain(value)
        worst = next(iter(audit.imbalances()), None)
        lost = f"`{worst.operation}` of module {worst.module!r}" if worst else None
        return Doubt(value=audit.first_value, relevance=audit.first_relevance, lost=lost)


def _starts(question: Question, settings: Settings) -> tuple[Sequence[Mapping[Key, Start]], tuple[str, ...]]:
    """The points from which slopes are drawn in each pass, and a note where a model cannot be asked for them."""
    nowhere: list[Mapping[Key, Start]] = [{} for _ in question.passes]
    if settings.reference == "zero":
        return nowhere, ()
    try:
        return starts(question, settings, ROWS), ()
    except _FAILURES as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return nowhere, (
            f"Slopes are drawn from zero: the model fails on no tokens ({type(error).__name__}: {error}).",
        )


def _sources(recording: Recording, part: Pass) -> dict[str, Any]:
    """The tensors of a pass, those to explain as sources."""
    found = dict(part.tensors)
    for name in (name for name in part.tensors if name in part.explained):
        found[name] = recording.source(part.tensors[name])
        recording.lookups[-1].range = part.ranges.get(name)
    return found
