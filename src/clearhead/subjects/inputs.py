"""Inputs to units: texts become tokens with offsets, tensors become positions."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import ModelError, UsageError
from clearhead.question import Pass, Span
from clearhead.units import Unit

FAR = 1_000_000  # tokenizers without a limit say 1e30


def longest(tokenizer: Any, config: Any) -> int | None:
    """How many tokens the model takes, as far as its tokenizer and config say."""
    limits = [getattr(tokenizer, "model_max_length", None), getattr(config, "max_position_embeddings", None)]
    known = [int(limit) for limit in limits if isinstance(limit, (int, float)) and 0 < limit < FAR]
    return min(known, default=None)


def text_pass(
    tokenizer: Any, texts: Mapping[str, str], *, limit: int | None, truncate: bool, device: torch.device, first: int = 0
) -> tuple[Pass, list[str]]:
    """One pass over one text, or over two that the tokenizer joins; `texts` is keyed by stream.

    Raises UsageError for an empty text, and for one that is too long unless `truncate`.
    """
    for stream, text in texts.items():
        if not isinstance(text, str):
            raise UsageError(f"A text must be a string; found {type(text).__name__} as {stream}.")
        if not text.strip():
            raise UsageError(f"A text needs at least one visible character; found none in {stream!r}.")
    encoded = tokenizer(*texts.values(), **_options(tokenizer, truncation=False))
    notes = []
    count = len(encoded["input_ids"])
    if limit is not None and count > limit:
        if not truncate:
            raise UsageError(
                f"The model takes at most {limit} tokens; this text has {count}. Shorten it, or cut it with "
                "truncate=True (--truncate)."
            )
        encoded = tokenizer(*texts.values(), **_options(tokenizer, truncation=True, max_length=limit))
        notes.append(_cut(encoded, texts, count, limit))
    units = _units(tokenizer, encoded, texts, first)
    if all(unit.special for unit in units):
        raise UsageError("A text needs at least one character that the tokenizer keeps; found none.")
    tensors = {
        name: torch.tensor([values], device=device)
        for name, values in encoded.items()
        if name in ("input_ids", "attention_mask", "token_type_ids")
    }
    return Pass(tensors=tensors, units=units, spans=(Span(first=0, last=len(units), ids="input_ids"),)), notes


def _options(tokenizer: Any, **options: Any) -> dict[str, Any]:
    fast = bool(getattr(tokenizer, "is_fast", False))
    return {**options, "return_special_tokens_mask": True, "return_offsets_mapping": fast, "verbose": False}


def _units(tokenizer: Any, encoded: Any, texts: Mapping[str, str], first: int) -> tuple[Unit, ...]:
    """A unit per token: its text is what it covers, its stream the text it comes from."""
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    names = tokenizer.convert_ids_to_tokens(ids)
    spans = encoded.get("offset_mapping") or [None] * len(ids)
    fast = bool(getattr(tokenizer, "is_fast", False))
    words = encoded.word_ids(0) if fast else [None] * len(ids)
    sequence = encoded.sequence_ids(0) if fast else [0] * len(ids)
    streams, side, units = list(texts), 0, []
    for i, name in enumerate(names):
        side = sequence[i] if sequence[i] is not None else side
        start, end = _span(texts[streams[side]], spans[i], special=bool(special[i]))
        covered = "" if start is None else texts[streams[side]][start:end]
        units.append(
            Unit(
                index=first + i,
                text=covered if covered.strip() else str(name),
                stream=streams[side],
                special=bool(special[i]),
                start=start,
                end=end,
                word=None if special[i] else words[i],
            )
        )
    return tuple(units)


def _span(text: str, span: tuple[int, int] | None, *, special: bool) -> tuple[int | None, int | None]:
    """What a token covers, with the combining marks behind it that a tokenizer stripped off."""
    if span is None:
        return None, None
    start, end = span
    while not special and start < end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return start, end


def _cut(encoded: Any, texts: Mapping[str, str], count: int, limit: int) -> str:
    """What was cut, for each text that lost something."""
    spans = encoded.get("offset_mapping") or []
    sides = encoded.sequence_ids(0) if spans else []
    lost = []
    for n, (stream, text) in enumerate(texts.items()):
        kept = max((end for (_, end), side in zip(spans, sides, strict=True) if side == n), default=0)
        if spans and text[kept:].strip():
            lost.append(f"{stream} from character {kept} on, {text[kept : kept + 40].strip()!r}...")
    return f"The text was cut from {count} to {limit} tokens: {'; '.join(lost)}".removesuffix(": ")


def tensor_pass(tensors: Mapping[str, Any], device: torch.device) -> Pass:
    """One pass over tensors as the model takes them; units are named by position.

    Ids are explained through their embeddings, float tensors [1, units, ...] directly. Raises UsageError for
    anything that is not a batch of one, ModelError if there is nothing to explain.
    """
    moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in tensors.items()}
    batched = {name: t for name, t in moved.items() if isinstance(t, Tensor) and t.dim() > 1 and "mask" not in name}
    for name, tensor in batched.items():
        if tensor.shape[0] != 1:
            shape = tuple(tensor.shape)
            raise UsageError(
                f"The first axis of each tensor must be a batch of 1; `{name}` has shape {shape}. Explain one at a "
                "time, or wrap a model that takes the sequence first in one that transposes."
            )
    floats = tuple(name for name, t in batched.items() if t.is_floating_point())
    ids = [t for t in batched.values() if not t.is_floating_point() and t.dim() == 2]
    sequences = [name for name in batched if name in floats or name.endswith("input_ids")]
    if len(sequences) > 1:
        raise UsageError(
            f"One sequence is explained at a time; found {', '.join(sequences)}. Wrap the model in one that takes the "
            "sequence to explain and holds the others fixed."
        )
    leading = [moved[name] for name in floats] or ids
    if not leading or not leading[0].shape[1]:
        raise ModelError(
            f"There must be ids [1, T] or a float tensor [1, T, ...] to explain; found "
            f"{ {name: tuple(t.shape) if isinstance(t, Tensor) else type(t).__name__ for name, t in moved.items()} }."
        )
    units = tuple(Unit(index=i, text=str(i)) for i in range(leading[0].shape[1]))
    return Pass(tensors=moved, units=units, explained=floats)
