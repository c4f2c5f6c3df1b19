"""Questions about one input each become one question about many: padded on the right, whatever the tokenizer does.

What a model writes needs no mask of its own: each place of it sees those before it, and padding stands behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from clearhead.question import Question


def shape(question: Question) -> tuple[object, ...] | None:
    """What questions must have in common to be joined; None for one that stays alone.

    Ids and masks [1, T] may differ in length, as long as a mask tells what is padding. Baselines are joined with those
    of the same words.
    """
    if len(question.items) != 1 or any(aim.alone for aim in question.items[0].aims):
        return None
    found: list[object] = [question.task, *((each.label, each.vector) for each in question.baselines)]
    for part in question.passes:
        texts = {name for name, t in part.tensors.items() if _is_text(name, t)}
        loose = {"attention_mask", "input_ids"} <= texts
        for name, value in sorted(part.tensors.items()):
            if not isinstance(value, Tensor) or value.dim() == 0:
                return None
            found.append((name, tuple(value.shape[2:] if name in texts and loose else value.shape[1:])))
    return tuple(found)


def length(question: Question) -> int:
    """How many positions the longest pass of a question has."""
    sizes = [len(layout.units) for item in question.items for layout in item.layouts]
    return max(sizes, default=1)


def joined(questions: Sequence[Question], padding: int) -> Question:
    """One question about all items, whose `shape` must be the same; `padding` fills up ids, 0 everything else."""
    if len(questions) == 1:
        return questions[0]
    first = questions[0]
    passes = tuple(
        replace(part, tensors=_together([question.passes[n].tensors for question in questions], padding))
        for n, part in enumerate(first.passes)
    )
    baselines = tuple(
        replace(
            each,
            tensors=tuple(
                _together([question.baselines[n].tensors[number] for question in questions], padding)
                for number in range(len(passes))
            ),
        )
        for n, each in enumerate(first.baselines)
    )
    items = tuple(question.items[0] for question in questions)
    return replace(first, passes=passes, items=items, apart=tuple(questions), baselines=baselines)


def repeated(question: Question, count: int) -> Question:
    """A question about one item as one about `count` copies of it, of which the n-th has every count-th aim from n on.

    The n-th aims of all copies are explained in one backward pass, and come in the order of the aims.
    """
    if count == 1:
        return question
    (item,) = question.items
    copies = [replace(question, items=(replace(item, aims=item.aims[n::count]),)) for n in range(count)]
    return joined(copies, padding=0)


def _together(tensors: Sequence[Mapping[str, Any]], padding: int) -> dict[str, Tensor]:
    return {name: _stacked(name, [each[name] for each in tensors], padding) for name in tensors[0]}


def _is_text(name: str, value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 2 and name.endswith(("ids", "mask"))


def _stacked(name: str, tensors: Sequence[Tensor], padding: int) -> Tensor:
    if not _is_text(name, tensors[0]):
        return torch.cat(list(tensors))
    longest = max(tensor.shape[1] for tensor in tensors)
    filler = padding if name.endswith("input_ids") else 0
    return torch.cat([pad(tensor, (0, longest - tensor.shape[1]), value=filler) for tensor in tensors])
