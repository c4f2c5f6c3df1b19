"""What an explanation must agree with, computed without clearhead: plain forward passes, indexed by hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from clearhead import AttentionVisualizer, RelevanceMap
from clearhead.generations import GenerationMap
from tasks.gallery import Entry, exact, gallery

ROUNDING = 1e-6  # of a logit: a value near 0 is a difference of numbers that are not
STEPS = 5  # how many tokens are produced where a model goes on by itself


@dataclass(frozen=True)
class Expected:
    """The number to be explained, and what the target is called."""

    value: float
    label: str | None = None
    index: int | None = None
    kind: str | None = None
    contrast: str | None = None


# ---- asking clearhead -----------------------------------------------------------------------------------------------


@cache
def door(name: str) -> AttentionVisualizer:
    one = gallery(name)
    return AttentionVisualizer(one.model, one.processor, method="lrp")


@cache
def exact_door(name: str) -> AttentionVisualizer:
    one = exact(name)
    return AttentionVisualizer(one.model, one.processor, method="lrp")


def options(task: str) -> dict[str, Any]:
    """What must be said so that a default question ends soon."""
    return {"generate": STEPS} if task == "encoder-decoder" else {}


@cache
def asked(name: str, n: int = 0) -> RelevanceMap | GenerationMap:
    """The default question, asked once."""
    one = gallery(name)
    return door(name).explain(one.inputs[n], **options(one.task))


@cache
def exactly_asked(name: str, n: int = 0) -> RelevanceMap | GenerationMap:
    """The same in float64."""
    one = exact(name)
    return exact_door(name).explain(one.inputs[n], **options(one.task))


def rows_of(found: RelevanceMap | GenerationMap) -> list[RelevanceMap]:
    return list(found) if isinstance(found, GenerationMap) else [found]


def balanced(found: RelevanceMap | GenerationMap) -> None:
    """The books of every row balance, up to rounding where positive and negative relevance cancel."""
    for row in rows_of(found):
        assert np.isfinite(row.relevance).all()
        assert row.conserves(), (row.target, row.conservation_error)
        assert row.residual <= max(1e-5, max(row.rounding_floor, ROUNDING) / abs(row.value)), (row.target, row.residual)
        assert np.abs(row.relevance).sum() > 0


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-4, abs=1e-5)


def same(one: RelevanceMap, other: RelevanceMap, *, tolerance: float = 1e-5) -> None:
    """Two maps of one prediction: the same units, target and books, and relevance to rounding."""
    assert one.units == other.units
    assert one.target == other.target
    assert (one.task, one.method, one.model, one.texts, one.pictures) == (
        other.task,
        other.method,
        other.model,
        other.texts,
        other.pictures,
    )
    scale = max(float(np.abs(other.relevance).sum()), abs(other.value), 0.05)
    assert one.value == pytest.approx(other.value, abs=tolerance * scale)
    np.testing.assert_allclose(one.relevance, other.relevance, rtol=0, atol=tolerance * scale)
    mine, theirs = ledger_of(one), ledger_of(other)
    for key in mine.keys() | theirs.keys():  # an amount of 0 has no entry, and rounding may keep one from being 0
        assert mine.get(key, 0.0) == pytest.approx(theirs.get(key, 0.0), abs=10 * tolerance * scale), key


def ledger_of(found: RelevanceMap) -> dict[tuple[Any, ...], float]:
    sums: dict[tuple[Any, ...], float] = {}
    for entry in found.ledger:
        key = entry.cause, entry.module, entry.operation, entry.returned
        sums[key] = sums.get(key, 0.0) + entry.relevance
    return sums


# ---- plain forward passes -------------------------------------------------------------------------------------------


@torch.no_grad()
def output(one: Entry, given: Any) -> Any:
    """What the model says to one input, as its makers run it."""
    if one.task == "image-classification":
        return one.model(**one.processor(given, return_tensors="pt"))
    if one.task == "image-text-similarity":
        image, text = given
        return one.model(**one.processor(images=image, text=text, return_tensors="pt"))
    return one.model(**encoded(one, given))


def encoded(one: Entry, given: Any) -> Any:
    texts = given if isinstance(given, tuple) else (given,)
    return one.tokenizer(*texts, return_tensors="pt")


def text_of(one: Entry, index: int) -> set[str]:
    """A token as people may write it: decoded by itself, or as the vocabulary spells it."""
    tokenizer = one.tokenizer
    return {tokenizer.decode([index]).strip(), str(tokenizer.convert_ids_to_tokens(index)).strip()}


@torch.no_grad()
def greedy(one: Entry, given: str, steps: int) -> tuple[list[int], list[int], list[torch.Tensor]]:
    """What was there at the start, what was produced, and the logits each was chosen from; without a cache."""
    read = encoded(one, given)
    two_sided = one.task == "encoder-decoder"
    ids = [one.model.config.decoder_start_token_id] if two_sided else read.input_ids[0].tolist()
    start, scores = list(ids), []
    for _ in range(steps):
        row = one.model(**_given(read, ids, two_sided)).logits[0, -1]
        scores.append(row)
        ids.append(int(row.argmax()))
        if ids[-1] == one.tokenizer.eos_token_id:
            break
    return start, ids[len(start) :], scores


@torch.no_grad()
def forced(one: Entry, given: str, produced: list[int]) -> list[torch.Tensor]:
    """The logits in front of each of some produced tokens, from one pass."""
    read = encoded(one, given)
    two_sided = one.task == "encoder-decoder"
    start = [one.model.config.decoder_start_token_id] if two_sided else read.input_ids[0].tolist()
    logits = one.model(**_given(read, [*start, *produced[:-1]], two_sided)).logits[0]
    return [logits[len(start) - 1 + t] for t in range(len(produced))]


def _given(read: Any, ids: list[int], two_sided: bool) -> dict[str, torch.Tensor]:
    if two_sided:
        return {**read, "decoder_input_ids": torch.tensor([ids])}
    return {"input_ids": torch.tensor([ids])}


# ---- the default question of each task ------------------------------------------------------------------------------


def _classes(one: Entry, given: Any) -> Expected:
    row = output(one, given).logits[0]
    labels, best = one.model.config.id2label, int(row.argmax())
    if len(row) == 2:
        return Expected(float(row[best] - row[1 - best]), labels[best], best, "difference", labels[1 - best])
    return Expected(float(row[best]), labels[best], best, "class")


def tagged(one: Entry, given: str) -> tuple[int, int, torch.Tensor]:
    """The token that is explained, its class, and all logits: the surest that is something, or else the surest."""
    scores = output(one, given).logits[0]
    special = one.tokenizer(given, return_special_tokens_mask=True).special_tokens_mask
    words = [n for n, is_special in enumerate(special) if not is_special]
    something = [n for n in words if int(scores[n].argmax()) != 0]
    place = max(something or words, key=lambda n: float(scores[n].max()))
    return place, int(scores[place].argmax()), scores


def _tags(one: Entry, given: str) -> Expected:
    place, best, scores = tagged(one, given)
    return Expected(float(scores[place, best]), one.model.config.id2label[best], best, "class")


def answered(one: Entry, given: tuple[str, str]) -> tuple[int, int, str, Any]:
    """The first and last token of the best answer, its text, and what the model said; every pair is tried."""
    found = output(one, given)
    read = one.tokenizer(*given, return_offsets_mapping=True)
    inside = [n for n, side in enumerate(read.sequence_ids()) if side == 1]
    pairs = [(a, b) for a in inside for b in inside if a <= b]
    first, last = max(pairs, key=lambda pair: float(found.start_logits[0, pair[0]] + found.end_logits[0, pair[1]]))
    text = given[1][read.offset_mapping[first][0] : read.offset_mapping[last][1]]
    return first, last, text, found


def _answer(one: Entry, given: tuple[str, str]) -> Expected:
    first, last, text, found = answered(one, given)
    return Expected(float(found.start_logits[0, first] + found.end_logits[0, last]), text, kind="both")


def _filled(one: Entry, given: str) -> Expected:
    (place,) = [n for n, i in enumerate(one.tokenizer(given).input_ids) if i == one.tokenizer.mask_token_id]
    row = output(one, given).logits[0, place]
    return Expected(float(row.max()), None, int(row.argmax()), "token")


def _next(one: Entry, given: str) -> Expected:
    row = output(one, given).logits[0, -1]
    return Expected(float(row.max()), None, int(row.argmax()), "token")


@torch.no_grad()
def _cosine(one: Entry, given: tuple[str, str]) -> Expected:
    u, v = (one.model(**one.tokenizer(text, return_tensors="pt"))[0][0].mean(0) for text in given)
    return Expected(float(torch.nn.functional.cosine_similarity(u, v, dim=0)), kind="similarity")


def _match(one: Entry, given: Any) -> Expected:
    found = output(one, given)
    cosine = torch.nn.functional.cosine_similarity(found.image_embeds[0], found.text_embeds[0], dim=0)
    return Expected(float(cosine), kind="similarity")


BY_HAND = {
    "text-classification": _classes,
    "image-classification": _classes,
    "token-classification": _tags,
    "question-answering": _answer,
    "masked-lm": _filled,
    "causal-lm": _next,
    "sentence-similarity": _cosine,
    "image-text-similarity": _match,
}


def expected(one: Entry, given: Any) -> list[Expected]:
    """The numbers that the default question of a task explains: one, or one per produced token."""
    if one.task != "encoder-decoder":
        return [BY_HAND[one.task](one, given)]
    _, produced, scores = greedy(one, given, STEPS)
    return [Expected(float(row[i]), None, i, "token") for i, row in zip(produced, scores, strict=True)]
