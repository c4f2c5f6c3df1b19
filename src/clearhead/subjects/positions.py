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

    Ids are explained through their embeddings, float tensors [batch, units, ...] directly; of several sequences each
    is a stream of its name. Units lie where `attention_mask` (`decoder_attention_mask` for `decoder_input_ids`) is 1,
    if there is one [batch, units]. Raises UsageError for tensors that do not have one batch, ModelError if there is
    nothing to explain.
    """
    moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in tensors.items()}
    batched = {name: t for name, t in moved.items() if isinstance(t, Tensor) and t.dim() > 1 and "mask" not in name}
    floats = tuple(name for name, t in batched.items() if t.is_floating_point())
    sequences = [name for name in batched if name in floats or name.endswith("input_ids")]
    leading = sequences or [name for name, t in batched.items() if t.dim() == 2][:1]
    if not leading or not all(batched[name].shape[1] for name in leading):
        raise ModelError(
            f"There must be ids [batch, T] or a float tensor [batch, T, ...] to explain; found "
            f"{ {name: tuple(t.shape) if isinstance(t, Tensor) else type(t).__name__ for name, t in moved.items()} }."
        )
    batch = batched[leading[0]].shape[0]
    for name, tensor in batched.items():
        if tensor.shape[0] not in (1, batch):
            raise UsageError(
                f"The first axis of each tensor must be the same batch; `{leading[0]}` has {batch} and `{name}` "
                f"{tensor.shape[0]}. Wrap a model that takes the sequence first in one that transposes."
            )
    return Pass(tensors=moved, explained=floats), [_layout(leading, moved, row) for row in range(batch)]


def last(layout: Layout) -> int:
    """The last position of the sequence that the model goes on with: the decoder's, if there is one."""
    span = next((each for each in layout.spans if each.ids.startswith("decoder")), layout.spans[0])
    return span.offset + span.last - span.first - 1


def _layout(names: list[str], tensors: Mapping[str, Any], row: int) -> Layout:
    """The units of one item: all positions of each sequence, or the first to the last that its mask shows."""
    units: list[Unit] = []
    spans = []
    for name in names:
        first, stop = _seen(name, tensors, row)
        stream = "input" if len(names) == 1 else name
        spans.append(Span(first=len(units), last=len(units) + stop - first, ids=name, offset=first))
        units += [Unit(index=len(units) + i - first, text=str(i), stream=stream) for i in range(first, stop)]
    return Layout(units=tuple(units), spans=tuple(spans))


def _seen(name: str, tensors: Mapping[str, Any], row: int) -> tuple[int, int]:
    """From where to where the mask of a sequence shows it. Raises UsageError if it shows nothing."""
    length = tensors[name].shape[1]
    mask = tensors.get(name.replace("input_ids", "attention_mask") if name.endswith("input_ids") else "attention_mask")
    if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.shape[1] != length:
        return 0, length
    seen = mask[row].nonzero().flatten().tolist()
    if not seen:
        raise UsageError(f"Each item needs at least one position that its mask shows; found none in item {row}.")
    return seen[0], seen[-1] + 1
