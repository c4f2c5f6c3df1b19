"""Questions about one input each become one question about many: padded on the right, whatever the tokenizer does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from clearhead.question import Pass, Question


def shape(question: Question) -> tuple[object, ...] | None:
    """What questions must have in common to be joined; None for one that stays alone.

    Ids and masks [1, T] may differ in length, as long as a mask tells what is padding.
    """
    aims = [aim for item in question.items for aim in item.aims]
    if len(aims) != 1 or aims[0].alone:
        return None
    found: list[object] = [question.task]
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
        Pass(
            tensors={
                name: _stacked(name, [question.passes[n].tensors[name] for question in questions], padding)
                for name in part.tensors
            },
            explained=part.explained,
        )
        for n, part in enumerate(first.passes)
    )
    items = tuple(question.items[0] for question in questions)
    return replace(first, passes=passes, items=items, apart=tuple(questions))


def _is_text(name: str, value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 2 and name.endswith(("ids", "mask"))


def _stacked(name: str, tensors: Sequence[Tensor], padding: int) -> Tensor:
    if not _is_text(name, tensors[0]):
        return torch.cat(list(tensors))
    longest = max(tensor.shape[1] for tensor in tensors)
    filler = padding if name == "input_ids" else 0
    return torch.cat([pad(tensor, (0, longest - tensor.shape[1]), value=filler) for tensor in tensors])
