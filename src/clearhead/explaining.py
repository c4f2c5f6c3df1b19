"""From an input, or many, to maps: the question, its rows as they come, and the units that relevance is summed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tqdm import tqdm

from clearhead import batches, methods
from clearhead.checks import judged
from clearhead.config import Settings
from clearhead.errors import ClearheadError, UsageError, choice
from clearhead.generations import GenerationMap
from clearhead.maps import RelevanceMap
from clearhead.question import Question
from clearhead.subjects import Score, Subject, Wanted

Units = Literal["token", "word", "sentence", "patch", "pixel"] | Sequence[tuple[int, int]]
UNITS: dict[str, Callable[[Any], Any]] = {
    "token": lambda found: found,
    "word": lambda found: found.words(),
    "sentence": lambda found: found.sentences(),
    "patch": lambda found: found,
    "pixel": lambda found: found,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Asking:
    """What is explained, how, over which units, and a `note` on how that came about, for every map."""

    wanted: Wanted
    settings: Settings
    units: Units | None = None
    note: str = ""

    def told(self, found: RelevanceMap) -> RelevanceMap:
        """A map with the note, and with a warning if its books do not balance."""
        own = judged(found, methods.threshold(self.settings))
        return replace(own, notes=(*own.notes, self.note)) if self.note else own


# ---- one input and many --------------------------------------------------------------------------------------------


def one(subject: Subject, given: Any, asking: Asking) -> Any:
    """The map of one input, or its generation; of a batch of tensors a list. Raises UsageError."""
    regroup = _regrouping(asking.units)
    question = _question(subject, given, asking)
    return regroup(_whole(question, list(_rows(question, asking))))


def rows(subject: Subject, given: Any, asking: Asking) -> Iterator[RelevanceMap]:
    """The maps of one input as they come; none waits for another. Raises UsageError."""
    regroup = _regrouping(asking.units)
    by_itself = replace(asking, settings=replace(asking.settings, batch_size=1))
    for each in _rows(_question(subject, given, asking), by_itself):
        yield regroup(each)


def several(subject: Subject, inputs: list[Any], targets: list[Score], asking: Asking) -> list[Any]:
    """The maps, or generations, of many inputs, explained together. Raises UsageError, saying of which input."""
    regroup, posed = _regrouping(asking.units), list[Question]()

    def questions() -> Iterator[Question]:
        for n, (each, target) in enumerate(zip(inputs, targets, strict=True), 1):
            try:
                question = _question(subject, each, replace(asking, wanted=replace(asking.wanted, target=target)))
            except ClearheadError as error:
                raise type(error)(f"Input {n} of {len(inputs)}: {error}") from error
            posed.append(replace(question, passes=(), baselines=()))
            yield question

    maps = batches.explained(subject, questions(), methods.method(asking.settings), asking.settings)
    bar = tqdm(maps, total=len(inputs), desc="explaining", unit="input", leave=False, disable=None)
    return [regroup(_whole(posed[n], [asking.told(each) for each in found])) for n, found in enumerate(bar)]


def _question(subject: Subject, given: Any, asking: Asking) -> Question:
    question = subject.question(given, asking.wanted, asking.settings, pixels=asking.units == "pixel")
    _check_units(question, asking.units)
    return question


def _rows(question: Question, asking: Asking) -> Iterator[RelevanceMap]:
    """The maps of one question, with a bar in a terminal where there are many."""
    count = sum(len(item.aims) for item in question.items)
    found = batches.one(question, methods.method(asking.settings), asking.settings)
    bar = tqdm(found, total=count, desc="explaining", unit="row", leave=False, disable=None if count > 1 else True)
    for each in bar:
        yield asking.told(each)


def _whole(question: Question, found: list[RelevanceMap]) -> Any:
    """The maps of one question as what was asked for: a generation, one map, or one per row of a batch of tensors."""
    if question.items[0].generation:
        return GenerationMap(rows=tuple(found))
    return found[0] if len(question.items) == 1 else found


# ---- units ---------------------------------------------------------------------------------------------------------


def _regrouping(units: Units | None) -> Callable[[Any], Any]:
    """From what was found to the same in other units. Raises UsageError for an unknown word."""
    if units is None:
        return UNITS["token"]
    if isinstance(units, str):
        if units not in UNITS:
            raise choice("units", units, UNITS)
        change = UNITS[units]
    else:

        def change(found: Any) -> Any:
            return found.spans(units)

    return lambda found: [change(each) for each in found] if isinstance(found, list) else change(found)


def _check_units(question: Question, units: Units | None) -> None:
    """Raise UsageError for units that the input does not have."""
    item = question.items[0]
    if units in ("patch", "pixel") and not item.pictures:
        raise UsageError(f"Only an image has units of the kind {units!r}; this input has none. Leave out `units`.")
    if units is not None and units not in ("token", "patch", "pixel") and not item.texts:
        raise UsageError("Only a text has words, sentences and spans; this input has none. Leave out `units`.")
