"""What is known of a model's heads over a data set: which there are, how much they matter, what goes without them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from clearhead.heads.cases import CLASSES, Case, Of, held, posed, recipe
from clearhead.heads.gates import Catalogue, Give, discover, gated, shut
from clearhead.heads.importance import Absolute
from clearhead.heads.store import Store
from clearhead.heads.together import answers
from clearhead.question import Question
from clearhead.subjects import TENSORS, Subject, Wanted, reads_images
from clearhead.subjects.documents import read

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
        self._gone: list[Sequence[Any]] = []  # in each of the blocks that are open

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
            with self._without(chosen, lambda _: shut(masks), [module for module, _ in masks]):
                yield Removed(heads=chosen, notes=known[1].emptied(chosen))
            return
        wanted = [heads] if isinstance(heads, (str, Head)) else heads
        with self._without(wanted, lambda tensors: self._later(wanted, tensors, settings)):
            yield Removed(heads=tuple(each for each in wanted if isinstance(each, Head)))

    @contextmanager
    def _without(
        self, heads: Sequence[Any], give: Callable[[Mapping[str, Tensor]], Give], modules: Sequence[str] = ()
    ) -> Iterator[None]:
        """Gates on the model, whose finished work is not that of the whole model."""
        self._gone.append(heads)
        try:
            with gated(self._subject.model, give, modules):
                yield
        finally:
            self._gone.remove(heads)

    def _later(self, heads: Any, tensors: Mapping[str, Any], settings: Settings) -> Give:
        """Gates of a model that only tensors can be given to, once some are there."""
        given = {name: each for name, each in tensors.items() if isinstance(each, Tensor) and each.dim()}
        catalogue = self.learn(self._of_tensors({name: each[:1] for name, each in given.items()}, settings))
        return shut(catalogue.masks(catalogue.chosen(heads)))

    def _of_tensors(self, tensors: Mapping[str, Any], settings: Settings) -> Question:
        return self._subject.question(tensors, Wanted(), settings)

    def pruned(self, heads: Any, settings: Settings, example: Any = None) -> nn.Module:
        """A copy of the model without some heads; warns of a layer that loses all. Raises UsageError, ModelError."""
        if example is not None:
            self.learn(self._subject.question(example, Wanted(), settings))
        known = self.known(settings)
        if known is None:
            raise UsageError("Heads of a model without a processor are found with an example; give example=...")
        question, catalogue = known
        chosen = catalogue.chosen(heads)
        for note in catalogue.emptied(chosen):
            warnings.warn(note, stacklevel=3)  # where the user asks for the copy
        return pruning.pruned(question, catalogue, chosen)

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
        resume: str | Path | None = None,
    ) -> HeadReport:
        """Importance with its error, relevance, patterns and groups of every head. Raises UsageError."""
        cases, catalogue = self._asked(*self._read(data, labels), of, absolute, settings)
        store = self._store(resume, cases, of, absolute)
        found, grouped = measures.importance(
            self._subject, catalogue, cases, absolute=absolute, batch_size=settings.batch_size, store=store
        )
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
            weighted=self._weighted(catalogue, cases, store) if weighted else None,
            relevance=self._relevance(catalogue, cases, settings, store) if relevance else None,
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
        resume: str | Path | None = None,
        **options: Any,
    ) -> Pruning:
        """A metric as heads go: accuracy where classes have labels, else the loss or the target. Raises UsageError."""
        inputs, labels = self._read(data, labels)
        of = of or ("loss" if labels is not None else "target")
        cases, catalogue = self._asked(inputs, labels, of, absolute, settings)
        cases = cases if of == "loss" else [held(self._subject, case, settings) for case in cases]
        metric = "accuracy" if labels is not None and self._subject.task in CLASSES else of
        scores = pruning.Scores(
            subject=self._subject,
            catalogue=catalogue,
            cases=cases,
            metric=metric,
            batch_size=settings.batch_size,
            store=self._store(resume, cases, of, metric),
        )
        return pruning.curve(scores, absolute=absolute, **options)

    def _read(self, data: Any, labels: Any) -> tuple[list[Any], list[Any] | None]:
        return read(data, labels, images=reads_images(self._subject.task))

    def _asked(
        self, inputs: list[Any], labels: list[Any] | None, of: Of, absolute: Absolute, settings: Settings
    ) -> tuple[list[Case], Catalogue]:
        """What is asked of each input, and the heads that it is asked about."""
        _check(of=(of, get_args(Of)), absolute=(absolute, get_args(Absolute)))
        cases = posed(self._subject, inputs, labels, of, settings)
        return cases, self.learn(cases[0].question)

    def _store(self, folder: str | Path | None, cases: Sequence[Case], *choices: object) -> Store:
        """What earlier runs of the same recipe kept in a folder; without one, nothing is known and nothing kept."""
        if folder is None:
            return Store()
        return Store(Path(folder) / f"{recipe(self._subject, cases, self._gone, *choices)}.jsonl")

    def _weighted(self, catalogue: Catalogue, cases: Sequence[Case], store: Store) -> Any:
        def ask(question: Question, _: Sequence[Case]) -> Any:
            return measures.weighted(catalogue, question)[None]

        return answers(self._subject, cases, ask, what="weights", size=1, store=store).mean(0)

    def _relevance(self, catalogue: Catalogue, cases: Sequence[Case], settings: Settings, store: Store) -> Any:
        def ask(question: Question, _: Sequence[Case]) -> Any:
            return measures.relevance(catalogue, question, settings)[None]

        return np.abs(answers(self._subject, cases, ask, what="relevance", size=1, store=store)).mean(0)


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


def _notes(of: Of, absolute: Absolute, normalise: bool) -> tuple[str, ...]:
    what = {"target": "what is explained", "loss": "the loss"}[of]
    when = {"example": "of each document's gradient", "token": "of each token's part of it, added up"}[absolute]
    divided = ", divided by the L2 norm of its layer" if normalise else ""
    return (
        f"Importance: the mean over documents of the absolute value {when}, of {what} by the head's gate{divided}.",
        "A head of little importance may still be hard to spare, and one of much easy: see the pruning curve.",
    )
