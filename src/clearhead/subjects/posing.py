"""From one input to a question, task by task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clearhead.errors import UsageError
from clearhead.question import Aim, Item, Layout, Pass
from clearhead.subjects import continuing, targets, tokens
from clearhead.subjects.encoded import Encoded
from clearhead.subjects.setting import Posed, Setting, pair, picture, simple, single
from clearhead.subjects.wanted import Wanted
from clearhead.units import Unit


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How the questions of a task are posed, and which fields of `Wanted` it takes."""

    function: Callable[[Setting, Any, Wanted], Posed]
    takes: tuple[str, ...] = ()


# ---- classes -------------------------------------------------------------------------------------------------------


def _text_class(setting: Setting, given: Any, wanted: Wanted) -> Posed:
    if isinstance(given, tuple):
        first, second = pair(given, "text", "other text", "text-classification")
        read = setting.text({"text": first, "text_pair": second})
    else:
        read = setting.text({"input": single(given, "text-classification")})
    return simple(read, Aim(ask=targets.classes(_label(wanted), wanted.contrast, setting.labels)))


def _label(wanted: Wanted) -> str | int | None:
    return None if callable(wanted.target) else wanted.target


def _image_class(setting: Setting, given: Any, wanted: Wanted) -> Posed:
    read = setting.image(picture(given, "image-classification"))
    return simple(read, Aim(ask=targets.classes(_label(wanted), wanted.contrast, setting.labels)))


def _token_class(setting: Setting, given: Any, wanted: Wanted) -> Posed:
    read = setting.text({"input": single(given, "token-classification")})
    place = None if wanted.position is None else tokens.place(read.units, wanted.position)
    ask = targets.token_classes(_label(wanted), wanted.contrast, setting.labels, read.units, place)
    return simple(read, Aim(ask=ask))


def _answer(setting: Setting, given: Any, wanted: Wanted) -> Posed:
    question, context = pair(given, "question", "context", "question-answering")
    read = setting.text({"question": question, "context": context})
    target = _label(wanted)
    return simple(read, Aim(ask=targets.answer(None if target is None else str(target), read.units, read.texts)))


# ---- similarity ----------------------------------------------------------------------------------------------------


def _sentences(setting: Setting, given: Any, wanted: Wanted) -> Posed:
    first, second = pair(given, "text", "other text", "sentence-similarity")
    left = setting.text({"text": first})
    right = setting.text({"text_pair": second}, first=len(left.units))
    layouts = (left.layout, right.layout)
    ask = targets.similarity(targets.pooled(setting.pooling, layouts))
    item = Item(
        layouts=layouts,
        aims=(Aim(ask=ask),),
        texts={**left.texts, **right.texts},
        warnings=(*left.notes, *right.notes),
    )
    return (left.part, right.part), item


def _image_and_text(setting: Setting, given: Any, wanted: Wanted) -> Posed:
    image, text = pair(given, "image", "text", "image-text-similarity")
    seen = setting.image(image)
    count = len(seen.units)
    read = setting.text({"text": text}, first=count)
    spans = tuple(replace(span, first=span.first + count, last=span.last + count) for span in read.layout.spans)
    layout = Layout(units=(*seen.units, *read.units), spans=spans, grid=seen.layout.grid)
    part = Pass(tensors={**read.part.tensors, **seen.part.tensors}, explained=seen.part.explained)
    both = Encoded(part=part, layout=layout, texts=read.texts, pictures=seen.pictures, notes=(*seen.notes, *read.notes))
    return simple(both, Aim(ask=targets.similarity(targets.embedded)))


def _masked(setting: Setting, given: Any, wanted: Wanted) -> Posed:
    read = setting.text({"input": single(given, "masked-lm")})
    at = _guessed(setting, read.part, read.units, wanted)
    name = tokens.namer(setting.tokenizer)
    ask = tokens.token(at, setting.token_id(wanted, "target"), setting.against(wanted), name, place=at)
    return simple(read, Aim(ask=ask))


def masked(setting: Setting, part: Pass, units: Sequence[Unit], wanted: Wanted) -> frozenset[int]:
    """The place of the mask that a text has guessed; none if it is another token that is guessed where it stands."""
    at = _guessed(setting, part, units, wanted)
    return frozenset({at}) if at in _masks(setting, part) else frozenset()


def _masks(setting: Setting, part: Pass) -> list[int]:
    ids = part.tensors["input_ids"][0].tolist()
    return [i for i, number in enumerate(ids) if number == setting.tokenizer.mask_token_id]


def _guessed(setting: Setting, part: Pass, units: Sequence[Unit], wanted: Wanted) -> int:
    """The place of the token that a masked text has guessed. Raises UsageError if that cannot be told."""
    if wanted.position is not None:
        return tokens.place(units, wanted.position)
    masks = _masks(setting, part)
    if len(masks) == 1:
        return masks[0]
    if not masks:
        mask = setting.tokenizer.mask_token
        raise UsageError(f"A masked text has a token to guess; write {mask} where it is, or give position=...")
    raise UsageError(
        f"One masked token is explained at a time; found {len(masks)}. Choose one with position="
        f"{' or '.join(map(str, masks))} (--position)."
    )


POSES = {
    "text-classification": Pose(function=_text_class, takes=("target", "contrast")),
    "token-classification": Pose(function=_token_class, takes=("target", "contrast", "position")),
    "question-answering": Pose(function=_answer, takes=("target",)),
    "masked-lm": Pose(function=_masked, takes=("target", "contrast", "position", "first_piece")),
    "causal-lm": Pose(
        function=continuing.causal, takes=("target", "contrast", "position", "generate", "continuation", "first_piece")
    ),
    "encoder-decoder": Pose(
        function=continuing.translation,
        takes=("target", "contrast", "position", "generate", "continuation", "first_piece"),
    ),
    "image-classification": Pose(function=_image_class, takes=("target", "contrast")),
    "image-text-similarity": Pose(function=_image_and_text),
    "sentence-similarity": Pose(function=_sentences),
}
