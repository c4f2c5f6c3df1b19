"""Tensors as a model takes them; units are named by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import ModelError, UsageError
from clearhead.question import Layout, Pass, Span
from clearhead.units import Unit


def read(tensors: Mapping[str, Any], device: torch.device) -> tuple[Pass, list[Layout]]:
    """One pass over tensors, and a layout for each item of their batch, the first axis of each.

    Ids are explained through their embeddings, float tensors [batch, units, ...] directly. Units lie where
    `attention_mask` is 1, if there is one [batch, units]. Raises UsageError for tensors that do not have one batch,
    ModelError if there is nothing to explain.
    """
    moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in tensors.items()}
    batched = {name: t for name, t in moved.items() if isinstance(t, Tensor) and t.dim() > 1 and "mask" not in name}
    floats = tuple(name for name, t in batched.items() if t.is_floating_point())
    sequences = [name for name in batched if name in floats or name.endswith("input_ids")]
    if len(sequences) > 1:
        raise UsageError(
            f"One sequence is explained at a time; found {', '.join(sequences)}. Wrap the model in one that takes the "
            "sequence to explain and holds the others fixed."
        )
    leading = tuple(sequences) or tuple(name for name, t in batched.items() if t.dim() == 2)
    if not leading or not batched[leading[0]].shape[1]:
        raise ModelError(
            f"There must be ids [batch, T] or a float tensor [batch, T, ...] to explain; found "
            f"{ {name: tuple(t.shape) if isinstance(t, Tensor) else type(t).__name__ for name, t in moved.items()} }."
        )
    batch, length = batched[leading[0]].shape[:2]
    for name, tensor in batched.items():
        if tensor.shape[0] not in (1, batch):
            raise UsageError(
                f"The first axis of each tensor must be the same batch; `{leading[0]}` has {batch} and `{name}` "
                f"{tensor.shape[0]}. Wrap a model that takes the sequence first in one that transposes."
            )
    mask = moved.get("attention_mask")
    layouts = [_layout(leading[0], length, mask, row) for row in range(batch)]
    return Pass(tensors=moved, explained=floats), layouts


def _layout(name: str, length: int, mask: object, row: int) -> Layout:
    """The units of one item: all positions, or those from the first to the last that the mask shows."""
    first, last = 0, length
    if isinstance(mask, Tensor) and mask.dim() == 2 and mask.shape[1] == length:
        seen = mask[row].nonzero().flatten().tolist()
        if not seen:
            raise UsageError(f"Each item needs at least one position that its mask shows; found none in item {row}.")
        first, last = seen[0], seen[-1] + 1
    units = tuple(Unit(index=i, text=str(first + i)) for i in range(last - first))
    return Layout(units=units, spans=(Span(first=0, last=len(units), ids=name, offset=first),))
