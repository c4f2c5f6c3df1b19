"""Two inputs and one scalar: what both are asked for, and both in the same slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import ClearheadError, UsageError
from clearhead.maps import Target
from clearhead.memory import out_of_memory, too_large
from clearhead.question import NOTHING, Aim, Ask, Layout, Question, failed, uncached
from clearhead.subjects import continuing, producing, targets, tokens
from clearhead.subjects.aligning import Aligned, Options, aligned, with_items
from clearhead.subjects.producing import Produced
from clearhead.subjects.setting import Setting
from clearhead.subjects.tasks import SIMILARITY, TENSORS
from clearhead.subjects.wanted import Wanted

Places = tuple[int, ...]
Pose = Callable[[Any, Wanted], Question]
SIDES = ("first", "second")
ALIKE = 3  # pairs of texts that are named


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """Two inputs in the same slots: the question about a with b as its baseline, and the scalar of both as they are."""

    question: Question
    aligned: Aligned
    target: Target
    values: tuple[float, float]
    others: Question
    notes: tuple[str, ...] = ()

    @property
    def alike(self) -> bool:
        """Whether the model reads the same on both sides: the inputs are, or a mask was written where one is read."""
        (baseline,) = self.question.baselines
        sides = zip(self.question.passes, baseline.tensors, strict=True)
        pairs = [(part.tensors[name], other[name]) for part, other in sides for name in part.tensors]
        return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)

    def in_slots(self) -> float:
        """The scalar of a as it is read in its slots, by a plain forward pass."""
        return _value(self.question)


def compared(
    pose: Pose, setting: Setting, given: tuple[Any, Any], wanted: Wanted, *, task: str, by_position: bool = False
) -> Compared:
    """The question of what changed between two inputs.

    The scalar is one for both: that of `wanted`, or of those that are explained for each by itself, that of larger
    value. Raises UsageError for inputs that cannot be put beside each other, and what posing a question raises.
    """
    wanted, notes = _with_text(pose, given, wanted, task)
    stub = replace(wanted, position=0) if wanted.position is not None and task in _BY_TOKEN else wanted
    posed = [_posed(pose, one, stub, side) for one, side in zip(given, SIDES, strict=True)]
    produced = _produced(setting, given, wanted, task)
    found = _Sides(setting, posed, wanted, task, produced, by_position=by_position).compared()
    return replace(found, notes=(*notes, *found.notes))


def _posed(pose: Pose, one: Any, wanted: Wanted, side: str) -> Question:
    try:
        return pose(one, wanted)
    except ClearheadError as error:
        raise type(error)(f"The {side} input: {error}") from error


# ---- what a model writes -------------------------------------------------------------------------------------------


def _with_text(pose: Pose, given: tuple[Any, Any], wanted: Wanted, task: str) -> tuple[Wanted, tuple[str, ...]]:
    """What is wanted, with one text that is written behind both inputs, and all of it meant unless a token is.

    Where none is given, that of the two which the model writes which it finds more probable behind its own input.
    """
    writes = task == "encoder-decoder" or (task == "causal-lm" and wanted.continuation is not None)
    if not writes:
        return wanted, ()
    whole = wanted if wanted.position is not None else replace(wanted, target=wanted.target or "sequence")
    if wanted.continuation is not None:
        return whole, ()
    written = [_text_of(_posed(pose, one, Wanted(), side)) for one, side in zip(given, SIDES, strict=True)]
    if len(set(written)) == 1:
        return replace(whole, continuation=written[0]), ()
    asked = [Wanted(target="sequence", continuation=text) for text in written]
    values = [_value(pose(one, each)) for one, each in zip(given, asked, strict=True)]
    _, text = max(zip(values, written, strict=True))
    note = f"The model writes {written[0]!r} for A and {written[1]!r} for B; {text!r}, the more probable, is compared."
    return replace(whole, continuation=text), (note,)


def _text_of(question: Question) -> str:
    return question.items[0].texts["decoder"]


def _value(question: Question) -> float:
    """The scalar of a question by a plain forward pass."""
    with torch.no_grad():
        return float(question.items[0].aims[0].ask(_outputs(question), 0)[1])


def _produced(setting: Setting, given: tuple[Any, Any], wanted: Wanted, task: str) -> Produced | None:
    """The tokens of the text that is written behind both inputs. Raises UsageError if they are not the same."""
    if wanted.continuation is None:
        return None
    if task == "encoder-decoder":
        return producing.spelled(setting.tokenizer, continuing.labelled(setting, wanted.continuation)[1])
    mine, theirs = (continuing.followed(setting, one, wanted.continuation)[1] for one in given)
    if mine.ids != theirs.ids:
        raise UsageError(
            f"What follows is the same behind both inputs; the tokenizer cuts the continuation into "
            f"{list(mine.pieces)} behind the first and {list(theirs.pieces)} behind the second. Let it begin where a "
            "word does."
        )
    return mine


# ---- both sides ----------------------------------------------------------------------------------------------------


class _Sides:
    """Both inputs as they were read, aligned, and with what the model makes of each."""

    def __init__(
        self,
        setting: Setting,
        posed: Sequence[Question],
        wanted: Wanted,
        task: str,
        produced: Produced | None,
        *,
        by_position: bool,
    ) -> None:
        self.setting, self.posed, self.wanted, self.task, self.produced = setting, posed, wanted, task, produced
        self.meeting = self._meeting()
        mask = getattr(setting.tokenizer, "mask_token_id", None)
        options = Options(
            gap=NOTHING if mask is None else int(mask),
            places=task == TENSORS,
            meeting=(self.meeting,) if self.meeting else (),
            by_position=by_position,
        )
        self.aligned = aligned(posed[0], posed[1], options)
        self._check_room()
        self.outputs = [_outputs(question) for question in posed]
        self.label = ""
        self.notes: list[str] = []

    def compared(self) -> Compared:
        """The question in slots, with one scalar for both sides and its values."""
        asks = self._asks()
        with torch.no_grad():
            (target, mine), (_, theirs) = (ask(out, 0) for ask, out in zip(asks[:2], self.outputs, strict=True))
        question = with_items(self.posed[0], self.aligned)
        aim = Aim(ask=asks[2], alone=callable(self.wanted.target))
        return Compared(
            question=replace(question, items=(replace(question.items[0], aims=(aim,), generation=False),)),
            aligned=self.aligned,
            target=target,
            values=(float(mine), float(theirs)),
            others=self.posed[1],
            notes=(*self.notes, *self._filled(), *self._alike()),
        )

    # ---- the scalar --------------------------------------------------------------------------------------------

    def _asks(self) -> list[Ask]:
        """The same scalar of a, of b, and of a in its slots."""
        if callable(self.wanted.target):
            return [targets.by_callable(self.wanted.target)] * 3
        places = self._places()
        if places is None:
            wanted, places = self._by_itself()
        else:
            target = self._larger([self._ask(self.wanted, side, places[side]) for side in (0, 1)])[1]
            wanted = self.wanted if target.index is None else replace(self.wanted, target=target.index)
        return [self._ask(wanted, side, places[side]) for side in range(3)]

    def _ask(self, wanted: Wanted, side: int, places: Places) -> Ask:
        layouts = self.aligned.layouts if side == 2 else self.posed[side].items[0].layouts
        return _ASKS[self.task](self, wanted, layouts, places)

    def _places(self) -> tuple[Places, Places, Places] | None:
        """Where the scalar is read from in a, in b and in the slots; None if that depends on what the model says."""
        if self.wanted.position is not None and self.task in _BY_TOKEN:
            return self._mapped(*self._named(self.wanted.position))
        if self.task in ("token-classification", "question-answering"):
            return None
        if self.meeting is not None:
            return self._mapped(0, (self.meeting[0],))
        last = len(self.posed[0].items[0].units) - 1 + self._offset()
        return ((last,), (last,), (last,)) if self.task == TENSORS else ((0,), (0,), (0,))

    def _offset(self) -> int:
        spans = self.posed[0].items[0].layouts[0].spans
        return spans[0].offset if spans else 0

    def _by_itself(self) -> tuple[Wanted, tuple[Places, Places, Places]]:
        """The place that is explained for the side of larger value, and its counterpart."""
        side, target = self._larger([question.items[0].aims[0].ask for question in self.posed])
        units = self.posed[side].items[0].units
        if self.task == "question-answering":
            self.label = target.label
            places = targets.best_answer(self.outputs[side], 0, units)
            return replace(self.wanted, target=target.kind), self._mapped(side, places)
        return replace(self.wanted, target=target.index), self._mapped(side, (target.position or 0,))

    def _larger(self, asks: Sequence[Ask]) -> tuple[int, Target]:
        """The side whose scalar is larger, and what it is; where two are meant, a note says so."""
        with torch.no_grad():
            found = [ask(out, 0) for ask, out in zip(asks, self.outputs, strict=True)]
        order = [(float(value), -(target.index or 0)) for target, value in found]
        side = 0 if order[0] >= order[1] else 1
        names = [str(target) for target, _ in found]
        if names[0] != names[1]:
            self.notes.append(
                f"The model answers {names[0]!r} for A and {names[1]!r} for B; {names[side]!r} has the larger value "
                "and is compared."
            )
        return side, found[side][0]

    # ---- places ------------------------------------------------------------------------------------------------

    def _meeting(self) -> tuple[int, int] | None:
        """The places that the scalar is read from, if they are known before anything is aligned: they share a slot."""
        if self.task == "masked-lm" and self.wanted.position is None:
            mask = self.setting.tokenizer.mask_token_id
            found = [question.passes[0].tensors["input_ids"][0].tolist().index(mask) for question in self.posed]
        elif self.task == "causal-lm":
            own = [[unit.stream == "input" for unit in question.items[0].units] for question in self.posed]
            found = [sum(each) - 1 for each in own]
        else:
            return None
        return found[0], found[1]

    def _named(self, position: int | str) -> tuple[int, Places]:
        """The side and place of a position: of a, or of b if only that has a token that reads so."""
        mine, theirs = (question.items[0].units for question in self.posed)
        try:
            return 0, (tokens.place(mine, position),)
        except UsageError:
            if isinstance(position, str) and any(position in (unit.text, unit.text.strip()) for unit in theirs):
                return 1, (tokens.place(theirs, position),)
            raise

    def _mapped(self, side: int, places: Sequence[int]) -> tuple[Places, Places, Places]:
        """Places of one side as those of a, of b and of the slots. Raises UsageError if the other has none there."""
        known = {pair[side]: (pair[1 - side], n) for n, pair in enumerate(self.aligned.pairs)}
        others = []
        for place in places:
            beside = known[place][0]
            if beside is None:
                unit = self.posed[side].items[0].units[place]
                raise UsageError(
                    f"Both inputs are asked for the same; what is read from {unit.text!r} of the {SIDES[side]} has no "
                    f"counterpart in the {SIDES[1 - side]}. {_ELSEWHERE.get(self.task, _ANY)}"
                )
            others.append(beside)
        own, beside_it, at = tuple(places), tuple(others), tuple(known[place][1] for place in places)
        return (own, beside_it, at) if side == 0 else (beside_it, own, at)

    # ---- what is said and refused ------------------------------------------------------------------------------

    def _check_room(self) -> None:
        """Raise UsageError if the slots are more than the model takes."""
        limit = self.setting.limit if self.setting.processor is not None else None
        count = max(
            (span.last - span.first for layout in self.aligned.layouts for span in layout.spans if span.ids), default=0
        )
        if self.aligned.gaps and limit is not None and count > limit:
            raise UsageError(
                f"The model takes at most {limit} tokens; aligned, these texts need {count}. Shorten them, or pair "
                "them by place with by_position=True (--by-position)."
            )

    def _filled(self) -> list[str]:
        if not self.aligned.gaps:
            return []
        mask = getattr(self.setting.tokenizer, "mask_token", None)
        instead = f"{mask}" if mask is not None else "the mean embedding (the tokenizer has no mask token)"
        return [f"Where one text has nothing, {instead} is read in its place."]

    def _alike(self) -> list[str]:
        """Texts that differ although the model reads the same."""
        pairs = [(slot.a.text, slot.b.text) for slot in self.aligned.slots if slot.kind == "same" and slot.a and slot.b]
        found = list(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1]))
        return [f"The model reads {a!r} and {b!r} as the same token." for a, b in found[:ALIKE]]


_BY_TOKEN = ("token-classification", "masked-lm")
_ANY = "Give a target function, target=lambda output: ..."
_ELSEWHERE = {
    "token-classification": "Choose a token that both have with position=... (--position).",
    "masked-lm": "Choose a token that both have with position=... (--position).",
}

# ---- the scalar of each task ---------------------------------------------------------------------------------------


def _class(sides: _Sides, wanted: Wanted, layouts: Sequence[Layout], places: Places) -> Ask:
    last = places[0] if sides.task == TENSORS else -1
    return targets.classes(_label(wanted), wanted.contrast, sides.setting.labels, last)


def _token_class(sides: _Sides, wanted: Wanted, layouts: Sequence[Layout], places: Places) -> Ask:
    units = layouts[0].units
    return targets.token_classes(_label(wanted), wanted.contrast, sides.setting.labels, units, places[0])


def _answer(sides: _Sides, wanted: Wanted, layouts: Sequence[Layout], places: Places) -> Ask:
    return targets.answer_at(str(wanted.target), places[0], places[1], sides.label)


def _token(sides: _Sides, wanted: Wanted, layouts: Sequence[Layout], places: Places) -> Ask:
    """A token at one place, or what is written from there on."""
    setting, at = sides.setting, places[0]
    name = tokens.namer(setting.tokenizer)
    if sides.produced is not None:
        return _written(sides, sides.produced, wanted, at)
    return tokens.token(at, setting.token_id(wanted, "target"), setting.against(wanted), name, place=at)


def _written(sides: _Sides, produced: Produced, wanted: Wanted, before: int) -> Ask:
    ids = produced.ids
    if wanted.position is None:
        return tokens.sequence([before + t for t in range(len(ids))], ids, produced.text)
    t = continuing.produced_place(wanted.position, produced)
    spelled = tokens.namer(sides.setting.tokenizer)

    def name(number: int) -> str:
        return produced.pieces[t] if number == ids[t] else spelled(number)

    return tokens.token(before + t, ids[t], sides.setting.against(wanted), name, place=t)


def _sentences(sides: _Sides, wanted: Wanted, layouts: Sequence[Layout], places: Places) -> Ask:
    return targets.similarity(targets.pooled(sides.setting.pooling, layouts))


def _image_and_text(sides: _Sides, wanted: Wanted, layouts: Sequence[Layout], places: Places) -> Ask:
    return targets.similarity(targets.embedded)


def _label(wanted: Wanted) -> str | int | None:
    return None if callable(wanted.target) else wanted.target


_ASKS: dict[str, Callable[[_Sides, Wanted, Sequence[Layout], Places], Ask]] = {
    "text-classification": _class,
    "image-classification": _class,
    TENSORS: _class,
    "token-classification": _token_class,
    "question-answering": _answer,
    "masked-lm": _token,
    "causal-lm": _token,
    "encoder-decoder": _token,
    "image-text-similarity": _image_and_text,
    SIMILARITY: _sentences,
}


def _outputs(question: Question) -> list[Any]:
    """What the model makes of each pass. Raises ModelError."""
    try:
        with question.evaluated(), torch.no_grad():
            return [question.model(**uncached(question.model, part.tensors)) for part in question.passes]
    except Exception as error:
        if out_of_memory(error):
            raise too_large(len(question.items[0].units)) from error
        tensors = {name: tensor for part in question.passes for name, tensor in part.tensors.items()}
        raise failed(question.model, tensors, error) from error
