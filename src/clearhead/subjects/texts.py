"""Texts become tokens, each of which covers exactly its piece of the text."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from clearhead.errors import UsageError
from clearhead.question import Layout, Pass, Span
from clearhead.subjects.encoded import Encoded
from clearhead.units import Unit, begins_word

FAR = 1_000_000  # tokenizers without a limit say 1e30


def longest(tokenizer: Any, config: Any) -> int | None:
    """How many tokens the model takes, as far as its tokenizer and config say."""
    inner = getattr(config, "text_config", None) or config
    limits = [getattr(tokenizer, "model_max_length", None), getattr(inner, "max_position_embeddings", None)]
    known = [int(limit) for limit in limits if isinstance(limit, (int, float)) and 0 < limit < FAR]
    return min(known, default=None)


def read(
    tokenizer: Any, texts: Mapping[str, str], *, limit: int | None, truncate: bool, device: torch.device, first: int = 0
) -> Encoded:
    """One text, or two that the tokenizer joins, as the model takes them; `texts` is keyed by stream.

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
    layout = Layout(units=units, spans=(Span(first=0, last=len(units), ids="input_ids"),))
    return Encoded(part=Pass(tensors=tensors), layout=layout, texts=dict(texts), notes=tuple(notes))


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
    return numbered(units, texts)


def numbered(units: Sequence[Unit], texts: Mapping[str, str]) -> tuple[Unit, ...]:
    """The units with their words counted: a word ends where the tokenizer says so, and at white space."""
    counts: dict[str, int] = {}
    before: dict[str, Unit] = {}
    found = []
    for unit in units:
        if unit.special:
            found.append(replace(unit, word=None))
            continue
        last = before.get(unit.stream)
        if last is None or _begins(last, unit, texts.get(unit.stream, "")):
            counts[unit.stream] = counts.get(unit.stream, -1) + 1
        before[unit.stream] = unit
        found.append(replace(unit, word=counts[unit.stream]))
    return tuple(found)


def _begins(last: Unit, unit: Unit, text: str) -> bool:
    if last.word != unit.word:
        return True
    if last.end is None or unit.start is None or unit.start == unit.end or unit.start < last.end:
        return False
    return begins_word(text, last.end, unit.start)


def _span(text: str, span: tuple[int, int] | None, *, special: bool) -> tuple[int | None, int | None]:
    """What a token covers: without the space before it, with combining marks behind it that were stripped off."""
    if span is None:
        return None, None
    start, end = span
    blank = len(text[start:end]) - len(text[start:end].lstrip())
    start += blank if blank < end - start else 0
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
