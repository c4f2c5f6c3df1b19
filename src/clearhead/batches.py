"""Many inputs: which are explained together, how many at a time, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from torch import nn

from clearhead.config import Settings
from clearhead.maps import RelevanceMap
from clearhead.memory import (
    RUNS_OUT,
    SHARE,
    bytes_per_position,
    free_memory,
    halved,
    out_of_memory,
    release,
    too_large,
)
from clearhead.question import Question
from clearhead.subjects import Subject, length, repeated, shape

Method = Callable[[Question, Settings], Iterator[tuple[int, RelevanceMap]]]
Numbered = tuple[int, RelevanceMap]

WINDOW = 256  # questions that are held at a time, to find those of a like length
MOST = 32  # items together: beyond, a processor does not get faster
ROWS = 8  # of one generation together: each more repeats the forward pass to save a backward pass
POSITIONS = 512  # of all these rows: beyond, a processor does not get faster
REPEATED = ("lrp",)  # methods that explain the n-th aims of all items of a batch in one backward pass


def explained(
    subject: Subject, questions: Iterator[Question], method: Method, settings: Settings
) -> Iterator[list[RelevanceMap]]:
    """The maps of each question, in the order of the questions; those that can be are explained together."""
    while window := list(islice(questions, WINDOW)):
        found: list[list[RelevanceMap]] = [[] for _ in window]
        for members in _alike(window):
            for n, each in _together(subject, [(n, window[n]) for n in members], method, settings):
                found[n].append(each)
        yield from found


def _alike(questions: Sequence[Question]) -> list[list[int]]:
    """The numbers of questions that can be joined, shortest first, and each other one alone."""
    groups: dict[object, list[int]] = {}
    for n, question in enumerate(questions):
        common = shape(question)
        groups.setdefault(("alone", n) if common is None else common, []).append(n)
    return [sorted(members, key=lambda n: length(questions[n])) for members in groups.values()]


def _together(
    subject: Subject, questions: Sequence[tuple[int, Question]], method: Method, settings: Settings
) -> Iterator[Numbered]:
    """Explain in batches; a batch for which memory does not suffice is halved, and those after it stay as small."""

    def count(waiting: Sequence[tuple[int, Question]]) -> int:
        return settings.batch_size or _fitting(subject.model, waiting, MOST)

    def make(batch: Sequence[tuple[int, Question]]) -> list[tuple[int, RelevanceMap]]:
        return list(method(subject.joined([question for _, question in batch]), settings))

    for batch, found, note in halved(questions, count, make, lambda each: length(each[1])):
        for place, each in found:
            yield batch[place][0] if len(batch) > 1 else batch[0][0], _noted(each, note)


def one(question: Question, method: Method, settings: Settings) -> Iterator[RelevanceMap]:
    """The maps of one question as they come; of a generation, some rows are explained together.

    Raises ModelError if memory does not suffice.
    """
    size, done, note = _rows_together(question, settings), 0, ""
    while True:
        try:
            for _, each in method(repeated(_from(question, done), size), settings):
                yield _noted(each, note)
                done += 1
            return
        except RUNS_OUT as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise too_large(length(question)) from error
        note = f"Memory ran out with {size} rows at a time; they were explained {size // 2} at a time."
        size //= 2
        release()


def _from(question: Question, done: int) -> Question:
    """The rest of a question about one item of which so many aims were explained."""
    if not done:
        return question
    (item,) = question.items
    return replace(question, items=(replace(item, aims=item.aims[done:]),))


def _rows_together(question: Question, settings: Settings) -> int:
    """How many rows of a generation are explained in one backward pass, each with a copy of the input."""
    most = min(len(question.items[0].aims), settings.batch_size or ROWS)
    if most == 1 or settings.method not in REPEATED or shape(question) is None:
        return 1
    if settings.batch_size:
        return most
    return _fitting(question.model, [(0, question)] * most, min(most, POSITIONS // length(question)))


def _noted(each: RelevanceMap, note: str) -> RelevanceMap:
    return replace(each, warnings=(*each.warnings, note)) if note else each


# ---- how many fit --------------------------------------------------------------------------------------------------


def _fitting(model: nn.Module, waiting: Sequence[tuple[int, Question]], most: int) -> int:
    """How many of the shortest questions fit into memory together, at least one."""
    free, each = SHARE * free_memory(model), bytes_per_position(model)
    size = 1
    while size < min(most, len(waiting)):
        longest = length(waiting[size][1])  # they are sorted
        if (size + 1) * longest * each > free:
            break
        size += 1
    return size
