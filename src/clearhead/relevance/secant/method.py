"""The method `secant`: a question and what it is compared with in, a map of the difference out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.lookups import Blanks
from clearhead.maps import LedgerEntry, RelevanceMap
from clearhead.question import Baseline, Pass, Question, decide, uncached
from clearhead.relevance import checkpointing
from clearhead.relevance.engine import Recording
from clearhead.relevance.secant.audit import Audit
from clearhead.relevance.secant.engine import parting
from clearhead.relevance.secant.halves import through_halves
from clearhead.relevance.secant.pairs import Pairs
from clearhead.relevance.secant.table import ROWS
from clearhead.relevance.watched import Asked, Doubt, Watched, forward

CANCELS = 1e3  # times the larger value, that relevances of both signs may add up to

P = TypeVar("P", bound=Pairs)
Triple = tuple[Tensor, Tensor, Tensor]  # of the input; of the baseline that followed it; of the baseline alone


def secant(question: Question, settings: Settings) -> Iterator[tuple[int, RelevanceMap]]:
    r"""What a difference is made of: $f(x) - f(b) = \sum_i R_i$ with $R_i = \sum_d (x_{id} - b_{id})\, m_{id}$.

    Gives the number of an item and a map, for each aim of each item: one forward pass of both, and one backward pass
    for the n-th aims of all items together. With `settings.halvings`, for each map four more passes of both for each
    halving, in a batch of their own. Several baselines are averaged. Raises NonFiniteError, ModelError, and UsageError
    where there is no baseline. Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation
    Differences", carried through every operation of a transformer.
    """
    if not question.baselines:
        raise UsageError("A difference needs a baseline; this question has none. Give baseline=...")
    with question.evaluated() as warnings:
        each = [
            _Difference(_from(question, number), settings, warnings).rounds()
            for number in range(len(question.baselines))
        ]
        for found in zip(*each, strict=True):
            yield found[0][0], _averaged([_doubted(one) for _, one in found])


def _from(question: Question, number: int) -> Question:
    """The same question with one of its baselines."""
    apart = tuple(replace(each, baselines=(each.baselines[number],)) for each in question.apart)
    return replace(question, baselines=(question.baselines[number],), apart=apart)


class _Difference(Watched):
    """A forward pass of an input and its baseline."""

    method = "secant"

    def __init__(self, question: Question, settings: Settings, warnings: tuple[str, ...]) -> None:
        (self._baseline,) = question.baselines
        self.notes = (f"Compared with {self._baseline.label}.",)
        super().__init__(question, settings, warnings)
        self.notes = (*self.notes, *checkpointing.notes(self._pairs))
        self._alone_too = _outputs_apart(self._pairs, question, self._baseline, self._outputs)

    def round(self, n: int, *, last: bool) -> Iterator[tuple[int, RelevanceMap]]:
        """The maps of the n-th aims of all items, by way of mixtures if that was asked for."""
        for i, straight in super().round(n, last=last):
            yield i, self._halved(straight, i, n) if self._settings.halvings else straight

    def _halved(self, straight: RelevanceMap, i: int, n: int) -> RelevanceMap:
        alone, settings = self._question.alone(i), replace(self._settings, halvings=0)
        (item,) = alone.items
        question = replace(alone, items=(replace(item, aims=(item.aims[n],)),))
        ask = decide(item.aims[n].ask, self._outputs, i)

        def explain(parts: Question) -> Iterator[tuple[int, RelevanceMap]]:
            return _Difference(parts, settings, self._warnings).rounds()

        return through_halves(straight, question, ask, self._settings.halvings, explain)

    def _begin(self) -> Recording:
        self._pairs = _pairs(Pairs, self._question, self._settings)
        return Recording(self._pairs)

    def _explained(self, number: int, part: Pass) -> dict[str, Any]:
        return _begun(self._pairs, self._recording, self._question, number)

    def _asked(self, i: int, n: int) -> Asked:
        """The scalar, and what the baseline has for it: by itself, and where it had to follow the input."""
        for output, follower, _ in self._alone_too:
            self._pairs.pair(output, follower)
        asked = super()._asked(i, n)
        base = followed = self._at_baseline(asked.value)
        if self._alone_too:
            for output, _, alone in self._alone_too:
                self._pairs.pair(output, alone)
            base = self._at_baseline(super()._asked(i, n).value)
        return replace(asked, base=base, leaked=self._leaked(followed - base))

    def _at_baseline(self, value: Tensor) -> float:
        other = self._pairs.other(value)
        return float(value.detach()) if other is None else float(other)

    def _leaked(self, amount: float) -> tuple[LedgerEntry, ...]:
        return parting(self._pairs, amount) if self._pairs.parted else ()

    def _doubted(self, question: Question, n: int) -> Doubt:
        audit = _pairs(Audit, question, self._settings)
        recording = Recording(audit)
        outputs, _ = forward(recording, question, lambda number, _: _begun(audit, recording, question, number))
        _, value = recording.watched(question.items[0].aims[n].ask, outputs, 0)
        recording.explain(value)
        return Doubt(value=audit.first_value, lost=audit.worst())


def _pairs(kind: type[P], question: Question, settings: Settings) -> P:
    (baseline,) = question.baselines
    return kind(settings, question.model, ROWS, batch=len(question.items), vector=baseline.vector)


def _begun(pairs: Pairs, recording: Recording, question: Question, number: int) -> dict[str, Any]:
    """The tensors of a pass: those to explain as sources, and beside ids those of the baseline."""
    part, (baseline,) = question.passes[number], question.baselines
    looked_up = {span.ids for item in question.items for span in item.layouts[number].spans}
    tensors = dict(part.tensors)
    for name, x in part.tensors.items():
        other = baseline.tensors[number][name]
        if name in part.explained:
            tensors[name] = recording.source(x, other)
        elif isinstance(x, Tensor) and (name in looked_up or not torch.equal(x, other)):
            tensors[name] = pairs.pair(x.clone(), other)
    return tensors


# ---- where the two would have gone apart ---------------------------------------------------------------------------


def _outputs_apart(pairs: Pairs, question: Question, baseline: Baseline, outputs: Sequence[Any]) -> list[Triple]:
    """Outputs with those of the baseline alone, if it had to follow the input anywhere."""
    if not pairs.parted:
        return []
    found: list[Triple] = []
    blanks = Blanks(baseline.vector)
    for tensors, output in zip(baseline.tensors, outputs, strict=True):
        with torch.no_grad():
            alone = blanks.tape.under(question.model, **uncached(question.model, tensors))
        found += list(_beside(pairs, output, alone))
    return found


def _beside(pairs: Pairs, output: Any, alone: Any) -> Iterator[Triple]:
    """The float tensors of an output beside those of another, in order."""
    if isinstance(output, Tensor):
        other = pairs.other(output)
        if other is not None and isinstance(alone, Tensor) and alone.shape == output.shape:
            yield output, other, alone
    elif isinstance(output, Mapping):
        for name in output:
            yield from _beside(pairs, output[name], alone.get(name))
    elif isinstance(output, (list, tuple)) and isinstance(alone, (list, tuple)):
        for mine, theirs in zip(output, alone, strict=False):
            yield from _beside(pairs, mine, theirs)


# ---- baselines that say little -------------------------------------------------------------------------------------


def _doubted(found: RelevanceMap) -> RelevanceMap:
    """The map, with a warning where what units take and give cancels almost entirely: between them a function jumps."""
    size = float(np.abs(found.relevance).sum())
    if size <= CANCELS * max(abs(found.value), abs(found.base_value)):
        return found
    warning = (
        f"What units give and take adds up to {size:.2g}, for a difference of {found.value - found.base_value:.3g}: "
        "the model all but jumps next to this baseline, as norms do at the zero vector. Choose another one."
    )
    return replace(found, warnings=(*found.warnings, warning))


# ---- several baselines ---------------------------------------------------------------------------------------------


def _averaged(maps: Sequence[RelevanceMap]) -> RelevanceMap:
    """The mean of the maps of one scalar against several baselines."""
    first, count = maps[0], len(maps)
    if count == 1:
        return first
    ledger = tuple(replace(entry, relevance=entry.relevance / count) for each in maps for entry in each.ledger)
    firsts = (each.notes[0] for each in maps)
    compared = "; ".join(note.removeprefix("Compared with ").removesuffix(".") for note in firsts)
    others = dict.fromkeys(note for each in maps for note in each.notes[1:])
    return replace(
        first,
        base_value=float(np.mean([each.base_value for each in maps])),
        relevance=np.mean([each.relevance for each in maps], 0),
        ledger=ledger,
        warnings=tuple(dict.fromkeys(warning for each in maps for warning in each.warnings)),
        notes=(f"The mean of {count} comparisons: with {compared}.", *others),
    )
