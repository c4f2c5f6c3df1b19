"""Questions to models that write: the next token, a continuation, a translation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from clearhead.errors import UsageError
from clearhead.question import Aim, Layout, Pass, Span
from clearhead.subjects import producing, tokens
from clearhead.subjects.encoded import Encoded
from clearhead.subjects.setting import Posed, Setting, simple, single
from clearhead.subjects.wanted import Wanted


def causal(setting: Setting, given: Any, wanted: Wanted) -> Posed:
    """The next token, or each token of a continuation that is given or generated."""
    prompt = single(given, "causal-lm")
    name = tokens.namer(setting.tokenizer)
    if wanted.generate is None and wanted.continuation is None:
        if wanted.target == "sequence" or wanted.position is not None:
            raise UsageError(
                "There is no sequence yet: give the continuation with continuation=..., or let the model write it with "
                "generate=32."
            )
        read = _prompt(setting.text({"input": prompt}))
        last = len(read.units) - 1
        ask = tokens.token(last, setting.token_id(wanted, "target"), setting.against(wanted), name, place=last)
        return simple(read, Aim(ask=ask))
    if wanted.continuation is not None:
        read, produced = followed(setting, prompt, wanted.continuation)
        stream = "continuation"
    else:
        read = _prompt(setting.text({"input": prompt}))
        count = len(read.units)
        producing.check_room(setting.limit, count, wanted.generate or 0)
        whole = producing.generated(setting.model, read.part.tensors, wanted.generate or 0, setting.tokenizer)
        produced, stream = producing.spelled(setting.tokenizer, whole[count:]), "generated"
    if not produced.ids:
        raise UsageError("The continuation needs at least one token; found none.")
    count = len(read.units)
    units = (*read.units, *produced.units(stream, count, len(produced.ids) - 1))
    ids = torch.tensor([[*read.part.tensors["input_ids"][0].tolist(), *produced.ids[:-1]]], device=setting.device)
    part = Pass(tensors={"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    layout = Layout(units=units, spans=(Span(first=0, last=len(units), ids="input_ids"),))
    read = Encoded(part=part, layout=layout, texts={**read.texts, stream: produced.text}, notes=read.notes)
    return _produced(read, wanted, _per_token(setting, wanted, produced, before=count - 1, seen=count))


def _prompt(read: Encoded) -> Encoded:
    """A text to be continued: without the tokens that its tokenizer writes behind a text to end it."""
    count = max(i + 1 for i, unit in enumerate(read.units) if not unit.special)
    return read if count == len(read.units) else _first(read, count)


def _first(read: Encoded, count: int) -> Encoded:
    """The first units of a text."""
    tensors = {name: tensor[:, :count] for name, tensor in read.part.tensors.items()}
    layout = Layout(units=read.units[:count], spans=(Span(first=0, last=count, ids="input_ids"),))
    return replace(read, part=Pass(tensors=tensors), layout=layout)


def followed(setting: Setting, prompt: str, continuation: str) -> tuple[Encoded, producing.Produced]:
    """The prompt alone and what is to follow, tokenized as one text so that no token is cut where they meet."""
    both = setting.text({"input": prompt + continuation})
    ids = both.part.tensors["input_ids"][0].tolist()
    ends = [unit.end if unit.end is not None else 0 for unit in both.units]
    first = next((i for i, unit in enumerate(both.units) if not unit.special and ends[i] > len(prompt)), len(ids))
    new = [number for number, unit in zip(ids[first:], both.units[first:], strict=True) if not unit.special]
    notes = list(both.notes)
    if first < len(ids) and (both.units[first].start or 0) < len(prompt):
        notes.append(f"The token {both.units[first].text!r} begins in the prompt; it counts as continuation.")
    read = replace(_first(both, first), texts={"input": prompt}, notes=tuple(notes))
    return read, producing.spelled(setting.tokenizer, new)


def _produced(read: Encoded, wanted: Wanted, aims: Sequence[Aim]) -> Posed:
    """A question about all produced tokens, unless one of them or their sum was asked for."""
    passes, item = simple(read, *aims)
    return passes, replace(item, generation=wanted.position is None and wanted.target is None)


def _per_token(
    setting: Setting, wanted: Wanted, produced: producing.Produced, *, before: int, seen: int
) -> Sequence[Aim]:
    """An aim per produced token, or one for the token at `position`, or one for the whole sequence.

    Token t is read off the output at `before + t`, and depends on the first `seen + t` units.
    """
    ids = produced.ids
    if wanted.target == "sequence":
        if wanted.contrast is not None or wanted.position is not None:
            raise UsageError("A sequence is explained as a whole; leave out `contrast` and `position`.")
        return [Aim(ask=tokens.sequence([before + t for t in range(len(ids))], ids, produced.text))]
    if wanted.target is not None:
        raise UsageError(
            "Each produced token is a target of its own; leave out `target`, or give target='sequence' for the sum of "
            f"their log-probabilities; found {wanted.target!r}."
        )
    against = setting.against(wanted)
    chosen = range(len(ids)) if wanted.position is None else [produced_place(wanted.position, produced)]
    spelled = tokens.namer(setting.tokenizer)

    def aim(t: int) -> Aim:
        def name(number: int) -> str:
            return produced.pieces[t] if number == ids[t] else spelled(number)

        return Aim(ask=tokens.token(before + t, ids[t], against, name, place=t), horizon=seen + t)

    return [aim(t) for t in chosen]


def produced_place(position: int | str, produced: producing.Produced) -> int:
    """The number of a produced token by its text or index. Raises UsageError."""
    if isinstance(position, str):
        found = [t for t, piece in enumerate(produced.pieces) if position in (piece, piece.strip())]
        if len(found) != 1:
            raise UsageError(
                f"`position` must be one of the produced tokens {list(produced.pieces)}; {position!r} is {len(found)}."
            )
        return found[0]
    if isinstance(position, bool) or not -len(produced.ids) <= position < len(produced.ids):
        raise UsageError(f"`position` must be a produced token, from 0 to {len(produced.ids) - 1}; found {position}.")
    return position % len(produced.ids)


def translation(setting: Setting, given: Any, wanted: Wanted) -> Posed:
    """Each token that a decoder produced from a source: what the source gave to it, and what came before it."""
    source = setting.text({"encoder": single(given, "encoder-decoder")})
    count = len(source.units)
    if wanted.continuation is not None:
        start, new = labelled(setting, wanted.continuation)
    else:
        most = wanted.generate or producing.usual_length(setting.model, setting.limit)
        producing.check_room(setting.limit, 0, most)
        start, *new = producing.generated(setting.model, source.part.tensors, most, setting.tokenizer)
    producing.check_room(setting.limit, 0, len(new))
    if not new:
        raise UsageError("The continuation needs at least one token; found none.")
    produced = producing.spelled(setting.tokenizer, new)
    first = producing.spelled(setting.tokenizer, [start])
    begin = replace(first.units("decoder", count, 1)[0], special=True, word=None, start=0, end=0)
    units = (*source.units, begin, *produced.units("decoder", count + 1, len(new) - 1))
    spans = (
        Span(first=0, last=count, ids="input_ids"),
        Span(first=count, last=len(units), ids="decoder_input_ids"),
    )
    decoder = torch.tensor([[start, *new[:-1]]], device=setting.device)
    tensors = {
        **{k: v for k, v in source.part.tensors.items() if k != "token_type_ids"},
        "decoder_input_ids": decoder,
    }
    read = Encoded(
        part=Pass(tensors=tensors),
        layout=Layout(units=units, spans=spans),
        texts={**source.texts, "decoder": produced.text},
        notes=source.notes,
    )
    return _produced(read, wanted, _per_token(setting, wanted, produced, before=0, seen=count + 1))


def labelled(setting: Setting, text: str) -> tuple[int, list[int]]:
    """The start of the decoder, and the ids of a given text as the model is trained to produce them."""
    if not text.strip():
        raise UsageError("A continuation needs at least one visible character; found none.")
    ids = [int(i) for i in setting.tokenizer(text_target=text, verbose=False)["input_ids"]]
    shift = getattr(setting.model, "prepare_decoder_input_ids_from_labels", None)
    start = getattr(setting.config, "decoder_start_token_id", None)
    if shift is not None:
        start = int(shift(labels=torch.tensor([ids], device=setting.device))[0, 0])
    if start is None:
        raise UsageError("The model does not say how its decoder starts: set config.decoder_start_token_id.")
    return int(start), ids
