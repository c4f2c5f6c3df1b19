"""The method `lrp`: a question in, a map with its books out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clearhead.config import Settings
from clearhead.maps import RelevanceMap
from clearhead.question import Pass, Question
from clearhead.relevance.audit import Audit
from clearhead.relevance.engine import Recording
from clearhead.relevance.run import Run
from clearhead.relevance.table import ROWS
from clearhead.relevance.watched import Doubt, Watched, forward


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

    def _begin(self) -> Recording:
        return Recording(Run(self._settings, self._question.model, ROWS, batch=len(self._question.items)))

    def _explained(self, number: int, part: Pass) -> dict[str, Any]:
        return _sources(self._recording, part)

    def _doubted(self, question: Question, n: int) -> Doubt:
        audit = Audit(self._settings, question.model)
        recording = Recording(audit)
        outputs, _ = forward(recording, question, lambda _, part: _sources(recording, part))
        _, value = recording.watched(question.items[0].aims[n].ask, outputs, 0)
        recording.explain(value)
        worst = next(iter(audit.imbalances()), None)
        lost = f"`{worst.operation}` of module {worst.module!r}" if worst else None
        return Doubt(value=audit.first_value, relevance=audit.first_relevance, lost=lost)


def _sources(recording: Recording, part: Pass) -> dict[str, Any]:
    """The tensors of a pass, those to explain as sources."""
    return {name: recording.source(x) if name in part.explained else x for name, x in part.tensors.items()}
