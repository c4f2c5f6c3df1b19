"""The model as a function of what is explained: vectors that were looked up, images, float tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import ModelError, NonFiniteError, UsageError
from clearhead.lookups import Lookup, Noting, Placing
from clearhead.maps import Target
from clearhead.question import NOTHING, Aim, Ask, Baseline, Question, decide
from clearhead.removal import Region, called, regions, repeated

Key = int | str  # the number of a lookup in its pass, or the name of a tensor


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A tensor that is explained: where it comes from, its units, its value [1, ...] and what each baseline has."""

    number: int
    key: Key
    region: Region
    value: Tensor
    bases: tuple[Tensor, ...]


class Inputs:
    """What is explained of a question about one item: each vector, pixel or number that a baseline changes.

    Without baselines, everything that is looked up by the ids of units. The model is called once for the input and
    once for each baseline; masks, and what else it makes of ids, stay those of the input. Raises UsageError where
    nothing is left to explain, ModelError where lookups for a baseline are others than for the input.
    """

    def __init__(self, question: Question, baselines: Sequence[Baseline] = ()) -> None:
        self.question = question
        self._regions = regions(question)
        others = [(each.tensors, each.vector) for each in baselines] or [(_marked(question, self._regions), "zero")]
        with torch.no_grad():
            notings, outputs = _read(question, [part.tensors for part in question.passes], "zero")
            read = [_read(question, tensors, vector)[0] for tensors, vector in others]
        self.outputs = outputs
        self.sources = [*self._direct(baselines), *self._looked_up(notings, read, explained=bool(baselines))]
        if not self.sources:
            raise UsageError(
                "Something must be there to explain: a unit whose vector or pixels a gradient can reach, and that is "
                "not the same in the baseline; found none. Choose another baseline, or method='occlusion'."
            )

    @property
    def values(self) -> tuple[Tensor, ...]:
        """What the input has for each source [1, ...]."""
        return tuple(source.value for source in self.sources)

    def base(self, n: int) -> tuple[Tensor, ...]:
        """What the n-th baseline has for each source [1, ...]."""
        return tuple(source.bases[n] for source in self.sources)

    def scalar(self, n: int) -> Scalar:
        """The n-th scalar as a function of the sources."""
        return Scalar(self, self.question.items[0].aims[n])

    def collected(self, relevance: Sequence[Tensor]) -> Any:
        """From a number for each entry of each source [1, ...] to its sum for each unit, in float64 (numpy)."""
        count = len(self.question.items[0].units)
        sums = [
            source.region.summed(_laid(source, each.detach()), count).cpu()
            for source, each in zip(self.sources, relevance, strict=True)
        ]
        return torch.stack(sums).sum(0).numpy()

    # ---- what there is to explain ------------------------------------------------------------------------------

    def _direct(self, baselines: Sequence[Baseline]) -> list[Source]:
        """Images and float tensors."""
        found = []
        for region in self._regions:
            part = self.question.passes[region.number]
            if region.name in part.explained:
                x = part.tensors[region.name].clone()
                bases = tuple(each.tensors[region.number][region.name].clone() for each in baselines)
                if not baselines or any(not torch.equal(x, b) for b in bases):
                    found.append(Source(region.number, region.name, region, x, bases))
        return found

    def _looked_up(
        self, notings: Sequence[Sequence[Lookup]], read: Sequence[Sequence[Sequence[Lookup]]], *, explained: bool
    ) -> list[Source]:
        """Lookups whose ids are not those of the input, in the order in which they are made."""
        found = []
        for number, own in enumerate(notings):
            beside = [each[number] for each in read]
            if any(len(other) != len(own) or not all(map(_alike, own, other)) for other in beside):
                raise ModelError(
                    "The model looks up as many vectors for a baseline as for the input; here it does not, so no path "
                    "leads from one to the other. Choose another baseline, or method='occlusion'."
                )
            for k, lookup in enumerate(own):
                others = [each[k] for each in beside]
                region = self._region(number, lookup)
                if region is not None and any(not torch.equal(lookup.ids, other.ids) for other in others):
                    bases = tuple(other.vectors[None].clone() for other in others) if explained else ()
                    found.append(Source(number, k, region, lookup.vectors[None].clone(), bases))
        return found

    def _region(self, number: int, lookup: Lookup) -> Region | None:
        """The units that ids were looked up for: those with the same ids, or else those that are as many."""
        part = self.question.passes[number]
        own = [each for each in self._regions if each.number == number and not each.image]
        long = [each for each in own if len(each.units) == lookup.ids.numel()]
        ids = lookup.ids.flatten()
        same = [each for each in long if torch.equal(own := part.tensors[each.name].flatten(), ids.to(own.device))]
        return next(iter((*same, *reversed(long))), None)


class Scalar:
    """One scalar as a function of the sources, each [n, ...], to [n]; the target is that of the whole input."""

    def __init__(self, inputs: Inputs, aim: Aim) -> None:
        self._inputs, self._alone = inputs, aim.alone
        self._ask: Ask = decide(aim.ask, inputs.outputs, 0)
        self.target: Target = self._ask(inputs.outputs, 0)[0]
        self.seen: Callable[[int], object] = lambda count: None

    def __call__(self, *tensors: Tensor) -> Tensor:
        """The scalar for each row. Raises ModelError if it does not depend on the sources, though it is to."""
        count = len(tensors[0])
        if self._alone and count > 1:
            return torch.cat([self(*(each[n : n + 1] for each in tensors)) for n in range(count)])
        self.seen(count)
        question = self._inputs.question
        outputs = [self._called(number, tensors, count) for number in range(len(question.passes))]
        found = torch.stack([self._ask(outputs, row)[1].reshape(()) for row in range(count)])
        if not torch.is_grad_enabled():
            return found
        if not found.requires_grad:
            raise ModelError(
                "The explained value must depend on the input by differentiable operations; no gradient reaches any "
                "input or embedding. Choose a method that needs none: occlusion, kernel-shap, shapley-sampling, lime."
            )
        return found + sum((each.flatten(1).sum(1) * 0).to(found) for each in tensors)  # so that each has a gradient

    def at(self, tensors: Sequence[Tensor]) -> float:
        """The scalar at one point. Raises NonFiniteError."""
        with torch.no_grad():
            value = float(self(*tensors))
        if not math.isfinite(value):
            raise NonFiniteError(
                "The explained value must be finite; found NaN or infinity. method='lrp' names the module where it "
                "appears; check the weights, or load the model in a wider float type (dtype='float32')."
            )
        return value

    def _called(self, number: int, tensors: Sequence[Tensor], count: int) -> Any:
        own = [
            (source, each)
            for source, each in zip(self._inputs.sources, tensors, strict=True)
            if source.number == number
        ]
        given = repeated(self._inputs.question.passes[number].tensors, count)
        given.update({source.key: each for source, each in own if isinstance(source.key, str)})
        vectors = {source.key: each for source, each in own if isinstance(source.key, int)}
        return called(self._inputs.question, given, Placing(vectors=vectors))


def _read(
    question: Question, tensors: Sequence[Mapping[str, Any]], vector: str
) -> tuple[list[list[Lookup]], list[Any]]:
    """The lookups of each pass, and what the model says."""
    notings = [Noting(vector) for _ in question.passes]
    outputs = [called(question, repeated(each, 1), noting) for each, noting in zip(tensors, notings, strict=True)]
    return [noting.lookups for noting in notings], outputs


def _marked(question: Question, found: Sequence[Region]) -> tuple[dict[str, Any], ...]:
    """The passes with no token in the place of units that are not special, which shows what is looked up for units."""
    tensors = [dict(part.tensors) for part in question.passes]
    plain = torch.tensor([[not unit.special for unit in question.items[0].units]])
    for region in found:
        ids = tensors[region.number][region.name]
        if not ids.is_floating_point():
            marks = region.entries(plain.to(ids.device))
            tensors[region.number][region.name] = ids.masked_fill(marks, NOTHING)
    return tuple(tensors)


def _alike(one: Lookup, other: Lookup) -> bool:
    return one.vectors.shape == other.vectors.shape


def _laid(source: Source, relevance: Tensor) -> Tensor:
    """Relevance [1, ...] in the layout of its region: of a lookup [1, T, width]."""
    return relevance.reshape(1, len(source.region.units), -1) if isinstance(source.key, int) else relevance
