"""What is explained, held fixed while model and input change; and where a model looks its tokens up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import UsageError
from clearhead.lookups import Blanks, Noting
from clearhead.question import Item, Question, decide
from clearhead.removal import called, regions
from clearhead.tape import Function


def settled(question: Question) -> Question:
    """The question about one input whose target is what the model says now, whatever becomes of model and input.

    Raises UsageError for several inputs, ModelError if the model fails.
    """
    item = single(question)
    outputs = answered(question)
    aims = tuple(replace(aim, ask=decide(aim.ask, outputs, 0)) for aim in item.aims)
    return replace(question, items=(replace(item, aims=aims),), apart=())


def single(question: Question) -> Item:
    """The one item of a question. Raises UsageError for several."""
    if len(question.items) != 1:
        raise UsageError(f"One input is changed at a time; this question has {len(question.items)}. Use alone(n).")
    return question.items[0]


def answered(question: Question) -> list[Any]:
    """What the model makes of each pass, without gradients. Raises ModelError if it fails."""
    with question.evaluated(), torch.no_grad():
        return [called(question, part.tensors, Noting()) for part in question.passes]


# ---- tables of tokens ----------------------------------------------------------------------------------------------


class _Looking(Blanks):
    """Notes which tables some ids are looked up in."""

    def __init__(self, ids: Sequence[Tensor]) -> None:
        super().__init__("zero")
        self._ids = ids
        self.found: list[tuple[Tensor, Tensor]] = []

    def looked_up(self, function: Function, ids: Tensor, weight: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
        """The vectors of ids."""
        flat = ids.flatten()
        if any(ids.numel() == each.numel() and torch.equal(flat, each.flatten().to(flat.device)) for each in self._ids):
            self.found.append((weight, ids))
        return super().looked_up(function, ids, weight, *rest, **kwargs)


def looked_up(question: Question) -> list[list[tuple[Tensor, Tensor]]]:
    """The tables that the units' ids are looked up in, with these ids, for each pass that has any."""
    found = []
    for number, part in enumerate(question.passes):
        ids = [part.tensors[each.name] for each in regions(question) if each.number == number]
        ids = [each for each in ids if not each.is_floating_point()]
        if ids:
            looking = _Looking(ids)
            with question.evaluated(), torch.no_grad():
                called(question, part.tensors, looking)
            found.append(looking.found)
    return found
