"""Targets: from a model's outputs to the scalar that is explained, and its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import ModelError, UsageError, choice, suggest
from clearhead.maps import Target
from clearhead.question import Ask, Choice, Layout
from clearhead.units import Unit

OTHERS = "others"  # a contrast: the mean of all other classes
NUMBERED, NUMBER = "class ", re.compile(r"-?[0-9]+")  # labels that are only numbers are called so
LONGEST_ANSWER = 30  # tokens


def logits(output: Any) -> Tensor:
    """The scores in a model's output: its `logits`, or the output itself if it is a tensor.

    Raises ModelError when there are none.
    """
    found = output if isinstance(output, Tensor) else _field(output, "logits")
    if not isinstance(found, Tensor):
        raise ModelError(
            f"An index or label as target needs a model with logits; this one returns {type(output).__name__}. "
            "Pass target=lambda output: ... that picks a scalar tensor from it."
        )
    return found


def _field(output: Any, name: str) -> Any:
    found = getattr(output, name, None)
    return output.get(name) if found is None and isinstance(output, Mapping) else found


def by_callable(function: Callable[[Any], Tensor]) -> Ask:
    """A scalar that the user computes from the output of a batch of one."""

    def ask(outputs: list[Any], _: int) -> tuple[Target, Tensor]:
        value = function(outputs[0])
        if not isinstance(value, Tensor) or value.numel() != 1:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(f"A target function must return a scalar tensor; found {found}. Pick one entry, or sum.")
        return Target(kind="callable", label=getattr(function, "__name__", "callable")), value

    return ask


# ---- one of many scores --------------------------------------------------------------------------------------------


def picked(
    scores: Tensor, chosen: int, against: int | str | None, name: Callable[[int], str], **about: Any
) -> tuple[Target, Tensor]:
    r"""One score $z_k$ of [classes], or its difference to another: $z_k - z_j$, or to the mean of all others."""
    if against is None:
        return Target(label=name(chosen), index=chosen, **about), scores[chosen]
    about = {**about, "kind": "difference"}
    if against == OTHERS:
        others = (scores.sum() - scores[chosen]) / (len(scores) - 1)
        return Target(label=name(chosen), index=chosen, contrast=OTHERS, **about), scores[chosen] - others
    if against == chosen:
        raise UsageError(f"`contrast` must differ from the target; both are {name(chosen)!r}.")
    contrast = int(against)
    return Target(label=name(chosen), index=chosen, contrast=name(contrast), **about), scores[chosen] - scores[contrast]


def classes(wanted: str | int | None, contrast: str | int | None, labels: Mapping[int, str], last: int = -1) -> Ask:
    """A class logit: the predicted class unless one is named; of two classes, its difference to the other.

    Where the logits have a sequence axis, the position `last` is meant and the index is a token.
    """

    def scored(outputs: list[Any], row: int) -> tuple[Tensor, str]:
        scores = logits(outputs[0])
        own = scores[row] if scores.dim() > 1 else scores
        return (own, "class") if own.dim() == 1 else (own[last if last < len(own) else -1], "token")

    def choose(outputs: list[Any], row: int) -> Ask:
        own, kind = scored(outputs, row)
        chosen = index(wanted, labels, len(own), "target") if wanted is not None else int(own.detach().argmax())
        against = _against(contrast, labels, len(own))
        if against is None and kind == "class" and len(own) == 2:
            against = 1 - chosen
        return lambda outputs, row: picked(
            scored(outputs, row)[0], chosen, against, lambda i: _label(i, labels, kind), kind=kind
        )

    return Choice(choose)


def token_classes(
    wanted: str | int | None,
    contrast: str | int | None,
    labels: Mapping[int, str],
    units: Sequence[Unit],
    place: int | None,
) -> Ask:
    """A class logit of one token: of the one asked for, or of the surest one whose class is not the first."""

    def choose(outputs: list[Any], row: int) -> Ask:
        scores = logits(outputs[0])[row].detach()
        at = place if place is not None else _surest(scores, units)
        count = scores.shape[-1]
        chosen = index(wanted, labels, count, "target") if wanted is not None else int(scores[at].argmax())
        against = _against(contrast, labels, count)
        return lambda outputs, row: picked(
            logits(outputs[0])[row][at], chosen, against, lambda i: _label(i, labels), kind="class", position=at
        )

    return Choice(choose)


def _surest(scores: Tensor, units: Sequence[Unit]) -> int:
    """The token with the largest score among those whose class is not the first, which usually means none."""
    tokens = [i for i, unit in enumerate(units) if not unit.special]
    named = [i for i in tokens if int(scores[i].argmax()) != 0]
    return max(named or tokens, key=lambda i: float(scores[i].max()))


def index(wanted: str | int, labels: Mapping[int, str], count: int, name: str) -> int:
    """The index of a class by its label or number. Raises UsageError."""
    if isinstance(wanted, str):
        known = {label.lower(): number for number, label in labels.items()}
        if wanted.lower() in known:
            return known[wanted.lower()]
        numbered = wanted.removeprefix(NUMBERED)
        if numbered in known:
            return known[numbered]
        if not NUMBER.fullmatch(numbered):
            listed = ", ".join(labels.values()) if labels else f"0 to {count - 1}"
            raise UsageError(f"`{name}` must be one of {listed}; found {wanted!r}.{suggest(wanted, labels.values())}")
    elif isinstance(wanted, bool) or not isinstance(wanted, int):
        raise UsageError(f"`{name}` must be a label, an index or a function; found {wanted!r}.")
    number = int(wanted.removeprefix(NUMBERED) if isinstance(wanted, str) else wanted)
    if not 0 <= number < count:
        raise UsageError(f"`{name}` must be an index from 0 to {count - 1}; found {number}.")
    return number


def _against(contrast: str | int | None, labels: Mapping[int, str], count: int) -> int | str | None:
    if contrast is None:
        return None
    if isinstance(contrast, str) and contrast.lower() == OTHERS and OTHERS not in labels.values():
        return OTHERS
    return index(contrast, labels, count, "contrast")


def _label(number: int, labels: Mapping[int, str], kind: str = "class") -> str:
    """The name of a class; one that is only a number is called so, or else it would read as a value."""
    label = labels.get(number, str(number))
    return f"{NUMBERED}{label}" if kind == "class" and NUMBER.fullmatch(label) else label


# ---- an answer in a text -------------------------------------------------------------------------------------------


def answer(wanted: str | None, units: Sequence[Unit], texts: Mapping[str, str]) -> Ask:
    """The logit of the first token of the best answer, of its last one, or the sum of `both`. Raises UsageError."""
    chosen = wanted or "both"
    if chosen not in ("start", "end", "both"):
        raise choice("target", wanted, ("start", "end", "both"))

    def choose(outputs: list[Any], row: int) -> Ask:
        first, last = best_answer(outputs, row, units)
        label = texts["context"][units[first].start : units[last].end]
        return answer_at(chosen, first, last, label)

    return Choice(choose)


def answer_at(kind: str, first: int, last: int, label: str) -> Ask:
    """The logit of the first token of one answer, of its last one, or the sum of `both`."""

    def ask(outputs: list[Any], row: int) -> tuple[Target, Tensor]:
        starts, ends = _ends(outputs)
        parts = {"start": [starts[row, first]], "end": [ends[row, last]], "both": [starts[row, first], ends[row, last]]}
        return Target(kind=kind, label=label, position=last if kind == "end" else first), sum_of(parts[kind])

    return ask


def best_answer(outputs: list[Any], row: int, units: Sequence[Unit]) -> tuple[int, int]:
    """The places of the first and last token of the best answer. Raises ModelError."""
    starts, ends = _ends(outputs)
    inside = [i for i, unit in enumerate(units) if unit.stream == "context" and not unit.special]
    return _best(starts[row].detach(), ends[row].detach(), inside)


def _ends(outputs: list[Any]) -> tuple[Tensor, Tensor]:
    starts, ends = (_field(outputs[0], name) for name in ("start_logits", "end_logits"))
    if not isinstance(starts, Tensor) or not isinstance(ends, Tensor):
        raise ModelError(
            f"An answer needs a model that gives start_logits and end_logits; this one gives "
            f"{type(outputs[0]).__name__}. Choose another task with task=..."
        )
    return starts, ends


def _best(starts: Tensor, ends: Tensor, inside: Sequence[int]) -> tuple[int, int]:
    """The span of the context, not longer than an answer may be, with the largest sum of start and end."""
    places = torch.tensor(list(inside), device=starts.device)
    sums = starts[places][:, None] + ends[places][None, :]
    apart = places[None, :] - places[:, None]
    sums = sums.masked_fill((apart < 0) | (apart >= LONGEST_ANSWER), -torch.inf)
    best = int(sums.argmax())
    return int(places[best // len(places)]), int(places[best % len(places)])


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    """The sum of scalars."""
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).sum()


# ---- similarity ----------------------------------------------------------------------------------------------------


def similarity(vectors: Callable[[list[Any], int], tuple[Tensor, Tensor]]) -> Ask:
    r"""The cosine of two vectors: $\cos(u, v) = \frac{u}{[|u|]} \cdot \frac{v}{[|v|]}$, norms constant.

    Each side is explained with the other held fixed; as a product of two, each gets half, so that both together add
    up to the similarity.
    """

    def ask(outputs: list[Any], row: int) -> tuple[Target, Tensor]:
        u, v = vectors(outputs, row)
        u, v = (x / torch.linalg.vector_norm(x.float() if x.itemsize < 4 else x, dim=-1).to(x) for x in (u, v))
        return Target(kind="similarity", label="cosine similarity"), (u * v).sum()

    return ask


def pooled(mode: str, layouts: Sequence[Layout]) -> Callable[[list[Any], int], tuple[Tensor, Tensor]]:
    """From the outputs of an encoder for two texts to one vector each: the mean of all tokens, or the first one."""

    def vectors(outputs: list[Any], row: int) -> tuple[Tensor, Tensor]:
        found = []
        for output, layout in zip(outputs, layouts, strict=True):
            states: Tensor = output[0] if not isinstance(output, Tensor) else output
            (span,) = layout.spans
            own = states[row, span.offset : span.offset + span.last - span.first]
            found.append(own.mean(0) if mode == "mean" else own[0])
        return found[0], found[1]

    return vectors


def embedded(outputs: list[Any], row: int) -> tuple[Tensor, Tensor]:
    """The vectors of an image and a text in the output of a model that compares them. Raises ModelError."""
    found = [_field(outputs[0], name) for name in ("image_embeds", "text_embeds")]
    if not all(isinstance(each, Tensor) for each in found):
        raise ModelError(
            f"Comparing image and text needs a model that gives image_embeds and text_embeds; this one gives "
            f"{type(outputs[0]).__name__}. Choose another task with task=..."
        )
    return found[0][row], found[1][row]
