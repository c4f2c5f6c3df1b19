"""What is known of a model's heads over a data set: which there are, how much they matter, what goes without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch import Tensor, nn

from clearhead.config import Settings
from clearhead.errors import UsageError, choice
from clearhead.headreports import Group, Head, HeadReport, Pruning
from clearhead.heads import appearance, pruning
from clearhead.heads import importance as measures
from clearhead.heads.gates import Catalogue, Give, discover, gated, shut
from clearhead.heads.importance import CLASSES, Absolute, Case, Of
from clearhead.question import Question
from clearhead.subjects import TENSORS, Subject, Wanted

FEWEST = 2
TEXT = "one two three four"


@dataclass(frozen=True, kw_only=True)
class Removed:
    """The heads that are gone within a block, and what there is to say about it."""

    heads: tuple[Head, ...]
    notes: tuple[str, ...] = ()


class Heads:
    """The heads of one model; which there are is found out once, from the first input or from an example."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._example: Question | None = None
        self._catalogue: Catalogue | None = None

    # ---- which there are ---------------------------------------------------------------------------------------

    def learn(self, question: Question) -> Catalogue:
        """All heads, from a question if they are not known yet."""
        if self._catalogue is None or self._example is None:
            self._example = question.alone(0) if len(question.items) > 1 else question
            self._catalogue = discover(self._example)
        return self._catalogue

    def known(self, settings: Settings) -> tuple[Question, Catalogue] | None:
        """All heads, with the question they were found with; None if only tensors can tell and none were given."""
        if self._example is None and self._subject.task != TENSORS:
            self.learn(_example(self._subject, settings))
        return None if self._example is None or self._catalogue is None else (self._example, self._catalogue)

    # ---- without some ------------------------------------------------------------------------------------------

    @contextmanager
    def without(self, heads: Any, settings: Settings) -> Iterator[Removed]:
        """Within the block, and in this thread, the gates of some heads are shut. Raises UsageError."""
        known = self.known(settings)
        if known is not None:
            chosen = known[1].chosen(heads)
            masks = known[1].masks(chosen)
            with gated(self._subject.model, lambda _: shut(masks), [module for module, _ in masks]):
                yield Removed(heads=chosen, notes=known[1].emptied(chosen))
            return
        wanted = [heads] if isinstance(heads, (str, Head)) else heads
        with gated(self._subject.model, lambda tensors: self._later(wanted, tensors, settings)):
            yield Removed(heads=tuple(each for each in wanted if isinstance(each, Head)))

    def _later(self, heads: Any, tensors: Mapping[str, Any], settings: Settings) -> Give:
        """Gates of a model that only tensors can be given to, once some are there."""
        given = {name: each for name, each in tensors.items() if isinstance(each, Tensor) and each.dim()}
        catalogue = self.learn(self._of_tensors({name: each[:1] for name, each in given.items()}, settings))
        return shut(catalogue.masks(catalogue.chosen(heads)))

    def _of_tensors(self, tensors: Mapping[str, Any], settings: Settings) -> Question:
        return self._subject.question(tensors, Wanted(), settings)

    def pruned(self, heads: Any, settings: Settings, example: Any = None) -> nn.Module:
        """A copy of the model without some heads. Raises UsageError, ModelError."""
        if example is not None:
            self.learn(self._subject.question(example, Wanted(), settings))
        known = self.known(settings)
        if known is None:
            raise UsageError("Heads of a model without a processor are found with an example; give example=...")
        question, catalogue = known
        return pruning.pruned(question, catalogue, catalogue.chosen(heads))

    # ---- over a data set ---------------------------------------------------------------------------------------

    def report(
        self,
        data: Any,
        labels: Any,
        settings: Settings,
        *,
        of: Of = "target",
        absolute: Absolute = "example",
        normalise: bool = False,
        weighted: bool = True,
        relevance: bool = True,
        clusters: int | None = None,
        batch_size: int | None = None,
    ) -> HeadReport:
        """Importance with its error, relevance, patterns and groups of every head. Raises UsageError."""
        _check(of=(of, get_args(Of)), absolute=(absolute, get_args(Absolute)))
        inputs, labels = read(data, labels)
        cases = measures.cases(self._subject, inputs, labels, of, settings)
        catalogue = self.learn(cases[0].question)
        found, grouped = measures.importance(self._subject, catalogue, cases, absolute=absolute, batch_size=batch_size)
        mean, error = _averaged([(head.stream, head.layer) for head in catalogue.heads], found, normalise)
        looks = appearance.seen([case.question for case in cases], catalogue.heads, clusters)
        return HeadReport(
            model=cases[0].question.name,
            task=cases[0].question.task,
            heads=catalogue.heads,
            documents=len(cases),
            of=of,
            absolute=absolute,
            importance=mean,
            error=error,
            normalised=normalise,
            groups=_groups(catalogue, grouped, normalise),
            weighted=_weighted(catalogue, cases) if weighted else None,
            relevance=_relevance(catalogue, cases, settings) if relevance else None,
            patterns=looks.patterns,
            clusters=looks.clusters,
            warnings=_warnings(cases),
            notes=(*_notes(of, absolute, normalise), *looks.notes),
            recipe=cases[0].question.recipe,
        )

    def curve(
        self,
        data: Any,
        labels: Any,
        settings: Settings,
        *,
        of: Of | None = None,
        absolute: Absolute = "example",
        batch_size: int | None = None,
        resume: str | Path | None = None,
        **options: Any,
    ) -> Pruning:
        """A metric as heads go: accuracy where classes have labels, else the loss or the target. Raises UsageError."""
        inputs, labels = read(data, labels)
        classes = labels is not None and self._subject.task in CLASSES
        of = of or ("loss" if labels is not None else "target")
        _check(of=(of, get_args(Of)), absolute=(absolute, get_args(Absolute)))
        cases = measures.cases(self._subject, inputs, labels, of, settings)
        catalogue = self.learn(cases[0].question)
        cases = cases if of == "loss" else [measures.held(self._subject, case, settings) for case in cases]
        metric = "accuracy" if classes else of
        scores = pruning.Scores(
            subject=self._subject,
            catalogue=catalogue,
            cases=cases,
            metric=metric,
            batch_size=batch_size,
            folder=None if resume is None else Path(resume),
            recipe=pruning.recipe(self._subject, cases, of, metric),
        )
        return pruning.curve(scores, absolute=absolute, **options)


def _check(**words: tuple[str, Sequence[str]]) -> None:
    for name, (word, options) in words.items():
        if word not in options:
            raise choice(name, word, options)


def _example(subject: Subject, settings: Settings) -> Question:
    """A question to a model of which nothing is known but its task."""
    rows = np.arange(64, dtype=np.uint8)
    image = np.stack([np.add.outer(rows, rows), np.subtract.outer(rows, rows), np.add.outer(rows, 2 * rows)], -1)
    wanted = Wanted(continuation=TEXT) if subject.task == "encoder-decoder" else Wanted()
    given: dict[str, Any] = {
        "question-answering": ("one two", TEXT),
        "sentence-similarity": (TEXT, TEXT),
        "image-text-similarity": (image, TEXT),
        "image-classification": image,
    }
    processor = subject._loaded.processor
    mask = getattr(getattr(processor, "tokenizer", processor), "mask_token", None)
    text = f"{TEXT} {mask}" if subject.task == "masked-lm" else TEXT
    return subject.question(given.get(subject.task, text), wanted, settings)


def _warnings(cases: Sequence[Case]) -> tuple[str, ...]:
    """What any document warns of, each once."""
    return tuple(dict.fromkeys(warning for case in cases for warning in case.question.items[0].warnings))


def _averaged(layers: Sequence[object], amounts: Any, normalise: bool) -> tuple[Any, Any]:
    """The mean over documents and its standard error, divided by the L2 norm of each layer if asked to."""
    mean, error = measures.averaged(amounts)
    if normalise:
        mean, error = measures.normalised(layers, mean, error)
    return mean, error


def _groups(catalogue: Catalogue, amounts: Any, normalise: bool) -> tuple[Group, ...]:
    """The heads that share keys and values, with their importance."""
    names = list(dict.fromkeys((h.stream, h.layer, h.group) for h in catalogue.heads if h.group is not None))
    mean, error = _averaged([name[:2] for name in names], amounts, normalise)
    return tuple(
        Group(stream=stream, layer=layer, group=int(group or 0), importance=float(m), error=float(e))
        for (stream, layer, group), m, e in zip(names, mean, error, strict=True)
    )


def _weighted(catalogue: Catalogue, cases: Sequence[Case]) -> Any:
    return measures.each_alone(cases, lambda question: measures.weighted(catalogue, question), "weights").mean(0)


def _relevance(catalogue: Catalogue, cases: Sequence[Case], settings: Settings) -> Any:
    found = measures.each_alone(cases, lambda each: measures.relevance(catalogue, each, settings), "relevance")
    return np.abs(found).mean(0)


def _notes(of: Of, absolute: Absolute, normalise: bool) -> tuple[str, ...]:
    what = {"target": "what is explained", "loss": "the loss"}[of]
    when = {"example": "of each document's gradient", "token": "of each token's part of it, added up"}[absolute]
    divided = ", divided by the L2 norm of its layer" if normalise else ""
    return (
        f"Importance: the mean over documents of the absolute value {when}, of {what} by the head's gate{divided}.",
        "A head of little importance may still be hard to spare, and one of much easy: see the pruning curve.",
    )


# ---- data ----------------------------------------------------------------------------------------------------------


def read(data: Any, labels: Any) -> tuple[list[Any], list[Any] | None]:
    """Inputs and labels: lists, or a file of texts, one per line, in a .tsv with its label. Raises UsageError."""
    if isinstance(data, (str, Path)):
        data, labels = _file(Path(data), labels)
    if isinstance(data, Mapping) or not isinstance(data, Sequence):
        raise UsageError(f"Data is a list of inputs, or a file of texts; found {type(data).__name__}. Pass a list.")
    if len(data) < FEWEST:
        raise UsageError(f"Heads are judged over {FEWEST} documents at least; found {len(data)}. Give more.")
    if labels is not None and len(labels) != len(data):
        raise UsageError(f"Each document has one label; found {len(labels)} for {len(data)}. Give as many.")
    return list(data), None if labels is None else list(labels)


def _file(path: Path, labels: Any) -> tuple[list[str], Any]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Data must be a file of texts that can be read; found {str(path)!r}: {error}.") from error
    if path.suffix != ".tsv":
        return lines, labels
    rows = [line.split("\t") for line in lines]
    wrong = next((n for n, row in enumerate(rows) if len(row) != 2), None)
    if wrong is not None:
        raise UsageError(
            f"A .tsv has a text and its label in each line; line {wrong + 1} has {len(rows[wrong])} parts."
        )
    return [text for text, _ in rows], labels if labels is not None else [label for _, label in rows]
