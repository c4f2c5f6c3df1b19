"""Ways to remove: replaced by a baseline, hidden by the attention mask, or left out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from clearhead.errors import UsageError
from clearhead.lookups import Blanks, Noting, Placing
from clearhead.question import Baseline, Pass, Question, batched
from clearhead.removal.forward import repeated
from clearhead.removal.regions import Region

EVERY_POSITION = "sentence-similarity"  # the task whose answer is read off every position
SPANS = ("start_logits", "end_logits")  # outputs [n, T], a number for each position
INSTEAD = "Choose one of mask, pad, zero, mean (of an image: zero, mean, blur)."


class Removing(Protocol):
    """From units that are gone to what the model reads, and from what it answers to answers in the old places."""

    def key(self, gone: Tensor) -> object:
        """What variants must have in common to be read together."""

    def tensors(self, gone: Tensor) -> list[dict[str, Any]]:
        """What the model reads in each pass, for units that are gone [n, units]."""

    def blanks(self, number: int) -> Blanks:
        """How vectors are looked up in a pass."""

    def placed(self, number: int, output: Any, gone: Tensor) -> Any:
        """The output of a pass with every position where it was."""


class Replaced:
    """What is gone has the baseline's ids, vectors or pixels."""

    def __init__(self, question: Question, baseline: Baseline, regions: Sequence[Region]) -> None:
        self._passes, self._baseline, self._regions = question.passes, baseline, regions

    def key(self, gone: Tensor) -> object:
        """All can be read together."""
        return None

    def tensors(self, gone: Tensor) -> list[dict[str, Any]]:
        """The input, and the baseline where units are gone."""
        found = [repeated(part.tensors, len(gone)) for part in self._passes]
        for region in self._regions:
            x = found[region.number][region.name]
            where = region.within(region.entries(gone), x)
            found[region.number][region.name] = torch.where(
                where, self._baseline.tensors[region.number][region.name], x
            )
        return found

    def blanks(self, number: int) -> Blanks:
        """What is no token has the baseline's vector."""
        return Blanks(self._baseline.vector)

    def placed(self, number: int, output: Any, gone: Tensor) -> Any:
        """Nothing was moved."""
        return output


class Hidden:
    """What is gone has 0 in the attention mask; every position stays what it was."""

    def __init__(self, question: Question, noted: Sequence[Noting], regions: Sequence[Region]) -> None:
        _check_texts("attention-mask", question, regions)
        self._passes, self._regions = question.passes, regions
        self._ids = [dict(enumerate(each.ids for each in noting.lookups)) for noting in noted]
        for region in regions:
            self._check(question, region)

    def _check(self, question: Question, region: Region) -> None:
        name, tensors = mask_of(region.name), question.passes[region.number].tensors
        if name not in tensors and name not in inspect.signature(question.model.forward).parameters:
            raise UsageError(
                f"The removal operator 'attention-mask' needs a model that takes `{name}`; "
                f"{type(question.model).__name__} does not. {INSTEAD}"
            )
        mask = tensors.get(name)
        if isinstance(mask, Tensor) and tuple(mask.shape) != (1, len(region.units)):
            raise UsageError(
                f"The removal operator 'attention-mask' needs a mask with a number for each position, (1, "
                f"{len(region.units)}); `{name}` is {tuple(mask.shape)}. {INSTEAD}"
            )

    def key(self, gone: Tensor) -> object:
        """All can be read together."""
        return None

    def tensors(self, gone: Tensor) -> list[dict[str, Any]]:
        """The input, with another mask."""
        found = [repeated(part.tensors, len(gone)) for part in self._passes]
        for region in self._regions:
            name, tensors = mask_of(region.name), found[region.number]
            mask = tensors.get(name)
            if mask is None:
                mask = torch.ones(len(gone), len(region.units), dtype=torch.long, device=gone.device)
            shown = mask.masked_fill(region.entries(gone), 0)
            _check_left(shown != 0, "attention-mask")
            tensors[name] = shown
        return found

    def blanks(self, number: int) -> Blanks:
        """Positions that are looked up stay what they were, also where a model counts them by its mask."""
        return Placing(ids=self._ids[number])

    def placed(self, number: int, output: Any, gone: Tensor) -> Any:
        """Nothing was moved."""
        return output


class Deleted:
    """What is gone is left out: its ids, and whatever else has an entry for its position."""

    def __init__(self, question: Question, baseline: Baseline, regions: Sequence[Region]) -> None:
        _check_texts("delete", question, regions)
        self._passes, self._regions = question.passes, regions

    def key(self, gone: Tensor) -> object:
        """Those of which as much is left in every tensor."""
        return tuple(int((~region.entries(gone[None])).sum()) for region in self._regions)

    def tensors(self, gone: Tensor) -> list[dict[str, Any]]:
        """The tensors without the positions that are gone."""
        found = [repeated(part.tensors, len(gone)) for part in self._passes]
        for region in self._regions:
            left = ~region.entries(gone)
            _check_left(left, "delete")
            tensors = found[region.number]
            for name, value in tensors.items():
                if belongs(name, value, region, self._passes[region.number]):
                    tensors[name] = value[left].reshape(len(gone), -1, *value.shape[2:])
        return found

    def blanks(self, number: int) -> Blanks:
        """Nothing is looked up instead."""
        return Blanks("zero")

    def placed(self, number: int, output: Any, gone: Tensor) -> Any:
        """Each position has the answer at the last one before it, or itself, that is left."""
        own = [region for region in self._regions if region.number == number]
        if not own:
            return output
        region = next((each for each in own if decodes(each.name)), own[0])
        left = ~region.entries(gone)
        places = (left.cumsum(1) - 1).clamp_min(0)

        def spread(value: Any, name: str = "") -> Any:
            if not isinstance(value, Tensor) or value.dim() < (2 if name in SPANS else 3):
                return value
            if tuple(value.shape[:2]) != (len(gone), int(left[0].sum())):
                return value
            index = places.reshape(*places.shape, *[1] * (value.dim() - 2))
            return value.gather(1, index.expand(*places.shape, *value.shape[2:]))

        if isinstance(output, Mapping):
            return type(output)(**{name: spread(value, name) for name, value in output.items()})
        return tuple(map(spread, output)) if isinstance(output, tuple) else spread(output)


# ---- names ---------------------------------------------------------------------------------------------------------


def mask_of(name: str) -> str:
    """The name of the attention mask beside ids or vectors of a name."""
    return "decoder_attention_mask" if decodes(name) else "attention_mask"


def decodes(name: str) -> bool:
    """Is this a tensor of what a decoder wrote?"""
    return name.startswith("decoder_")


def belongs(name: str, value: Any, region: Region, part: Pass) -> bool:
    """Has a tensor an entry for each position of a region?"""
    if not batched(value, len(value) if isinstance(value, Tensor) and value.dim() else 0) or value.dim() < 2:
        return False
    two = any(decodes(each) for each in part.tensors)
    return bool(value.shape[1] == len(region.units)) and (not two or decodes(name) == decodes(region.name))


def _check_texts(word: str, question: Question, regions: Sequence[Region]) -> None:
    """Raise UsageError unless all that can be removed are positions of a sequence."""
    if any(region.image for region in regions):
        raise UsageError(f"The removal operator {word!r} is for texts; parts of an image have a colour. {INSTEAD}")
    if question.task == EVERY_POSITION:
        raise UsageError(
            f"The removal operator {word!r} needs an answer that is read off some places; {EVERY_POSITION} reads the "
            f"vectors of all. {INSTEAD}"
        )


def _check_left(left: Tensor, word: str) -> None:
    if not bool(left.any(1).all()):
        raise UsageError(
            f"The removal operator {word!r} must leave one token at least; this text has no special tokens that "
            f"stay. {INSTEAD}"
        )
