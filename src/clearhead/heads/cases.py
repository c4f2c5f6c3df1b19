"""What is asked of each document of a data set, and what the answers depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clearhead.config import Settings
from clearhead.errors import ClearheadError, UsageError
from clearhead.heads.gates import passed
from clearhead.inventory import parts
from clearhead.question import Question
from clearhead.subjects import TENSORS, Subject, Wanted, valued
from clearhead.subjects.targets import index, logits

Of = Literal["target", "loss"]
Score = Callable[[list[Any], int], Tensor]  # the outputs of all passes and the item's place in the batch, to a scalar
CLASSES = ("text-classification", "image-classification", TENSORS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One input with its question, and the scalar of which gates are differentiated."""

    given: Any
    question: Question
    score: Score
    label: Any = None


def posed(
    subject: Subject, data: Sequence[Any], labels: Sequence[Any] | None, of: Of, settings: Settings
) -> list[Case]:
    """A case for each input. Raises UsageError, also for labels that the loss needs and that are not there."""
    found = []
    for n, given in enumerate(data):
        label = None if labels is None else labels[n]
        try:
            found.append(_case(subject, given, label, of, settings))
        except ClearheadError as error:
            raise type(error)(f"Input {n + 1} of {len(data)}: {error}") from error
    return found


def _case(subject: Subject, given: Any, label: Any, of: Of, settings: Settings) -> Case:
    task = subject.task
    wanted = Wanted()
    if task == "encoder-decoder" and not isinstance(given, dict):
        wanted = Wanted(target="sequence", continuation=None if label is None else str(label))
    question = subject.question(given, wanted, settings)
    if len(question.items) != 1:
        raise UsageError(f"An input is one document; found {len(question.items)} rows. Pass them one by one.")
    score = _asked(question) if of == "target" else _loss(subject, question, label)
    return Case(given=given, question=question, score=score, label=label)


def held(subject: Subject, case: Case, settings: Settings) -> Case:
    """The same case with what the whole model predicts as its target, whatever a model without heads would predict."""
    with case.question.evaluated(), torch.no_grad():
        outputs = passed(case.question, lambda _, given: given, recording=False)
        targets = [aim.ask(outputs, 0)[0] for aim in case.question.items[0].aims]
    if len(targets) != 1 or targets[0].index is None or targets[0].kind not in ("class", "difference", "token"):
        return case
    at = targets[0].position if case.question.task == "token-classification" else None
    question = subject.question(case.given, Wanted(target=targets[0].index, position=at), settings)
    return replace(case, question=question, score=_asked(question))


def _asked(question: Question) -> Score:
    """The target as `explain` has it; of several, their sum."""

    def score(outputs: list[Any], row: int) -> Tensor:
        values = [aim.ask(outputs, row)[1].reshape(()) for aim in question.items[0].aims]
        return values[0] if len(values) == 1 else torch.stack(values).sum()

    return score


def _loss(subject: Subject, question: Question, label: Any) -> Score:
    """Cross entropy of a class, or the mean over the tokens of a text."""
    tensors = question.passes[0].tensors
    if question.task == "encoder-decoder":
        if label is None:
            raise UsageError("The loss of a translation needs what it should be; found none. Give it in `labels`.")
        count, asked = tensors["decoder_input_ids"].shape[1], _asked(question)
        return lambda outputs, row: -asked(outputs, row) / count
    if question.task == "causal-lm" or (question.task == TENSORS and label is None and "input_ids" in tensors):
        return _of_text(tensors["input_ids"][0])
    if question.task not in CLASSES:
        raise UsageError(f"The task {question.task} has no loss that is known here. Choose of='target'.")
    if label is None:
        raise UsageError(
            "of='loss' needs a label for each input; found none. Give `labels` or a .tsv that has them, or choose "
            "of='target'."
        )

    known, named = label_of(label), subject.labels
    if question.task != TENSORS:  # of tensors, only the output tells how many classes there are
        index(known, named, len(named), "label")

    def score(outputs: list[Any], row: int) -> Tensor:
        own = logits(outputs[0])[row]
        number = index(known, named, own.shape[-1], "label")
        return cross_entropy(own.reshape(1, -1), torch.tensor([number], device=own.device))

    return score


def label_of(label: Any) -> str | int:
    """A label as a class is named: numbers may come from numpy, pandas or a file. Raises UsageError for no label."""
    if isinstance(label, str):
        return label
    with suppress(TypeError, ValueError, OverflowError):
        if int(label) == label:
            return int(label)
    raise UsageError(f"A label must be the name of a class or its number; found {label!r}. Give each input one.")


def _of_text(ids: Tensor) -> Score:
    if len(ids) < 2:
        raise UsageError("The loss of a text needs two tokens at least; found one. Leave such a text out.")

    def score(outputs: list[Any], row: int) -> Tensor:
        scores = logits(outputs[0])
        if scores.dim() != 3:
            raise UsageError("of='loss' needs a label for each input; found none. Give `labels`.")
        return cross_entropy(scores[row, : len(ids) - 1], ids[1:])

    return score


# ---- what answers depend on ----------------------------------------------------------------------------------------


def recipe(subject: Subject, found: Sequence[Case], *choices: object) -> str:
    """A hash of the model with all of its weights, the documents with their labels, and the choices made."""
    digest = hashlib.sha256(repr((found[0].question.recipe, subject.task, subject.pooling, choices)).encode())
    digest.update(str(getattr(getattr(subject.model, "config", None), "to_json_string", str)()).encode())
    for name, tensor in chain(valued(subject.model), subject.model.named_buffers()):
        digest.update(_told(name, tensor))
    for case in found:
        digest.update(f"label {case.label}".encode())
        for part in case.question.passes:
            for name, value in part.tensors.items():
                digest.update(_told(name, value))
    return digest.hexdigest()


def _told(name: str, value: Any) -> bytes:
    """All of a tensor, or of what else a model is given, with its name."""
    if not isinstance(value, Tensor):
        return f"{name} {value!r}".encode()
    about = f"{name} {tuple(value.shape)} {value.dtype}".encode()
    held = (part.cpu().reshape(-1).contiguous() for part in parts(value.detach()) if not part.is_meta)
    return about + b"".join(part.view(torch.uint8).numpy().tobytes() for part in held)
