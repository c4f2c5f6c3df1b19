"""Targets: from a model's outputs to the scalar that is explained, and its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import ModelError, UsageError, suggest
from clearhead.maps import Target
from clearhead.question import Ask

Wanted = str | int | Callable[[Any], Tensor] | None


def logits(output: Any) -> Tensor:
    """The scores in a model's output: its `logits`, or the output itself if it is a tensor.

    Raises ModelError when there are none.
    """
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("logits")
    if not isinstance(found, Tensor):
        raise ModelError(
            f"An index or label as target needs a model with logits; this one returns {type(output).__name__}. "
            "Pass target=lambda output: ... that picks a scalar tensor from it."
        )
    return found


def by_callable(function: Callable[[Any], Tensor]) -> Ask:
    """A scalar that the user computes from the output."""

    def ask(outputs: list[Any]) -> tuple[Target, Tensor]:
        value = function(outputs[0])
        if not isinstance(value, Tensor) or value.numel() != 1:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(f"A target function must return a scalar tensor; found {found}. Pick one entry, or sum.")
        return Target(kind="callable", label=getattr(function, "__name__", "callable")), value

    return ask


def classes(wanted: str | int | None, contrast: str | int | None, labels: Mapping[int, str]) -> Ask:
    """A class logit: the predicted class unless one is named; of two classes, its difference to the other.

    Where the logits have a sequence axis, the last position is meant and the index is a token.
    """

    def ask(outputs: list[Any]) -> tuple[Target, Tensor]:
        scores = logits(outputs[0])
        row = scores[0] if scores.dim() > 1 else scores
        kind = "class" if row.dim() == 1 else "token"
        row = row if row.dim() == 1 else row[-1]
        chosen = _index(wanted, labels, len(row), "target") if wanted is not None else int(row.detach().argmax())
        against = _index(contrast, labels, len(row), "contrast") if contrast is not None else None
        if against is None and kind == "class" and len(row) == 2:
            against = 1 - chosen
        if against == chosen:
            raise UsageError(f"`contrast` must differ from the target; both are {_label(chosen, labels)!r}.")
        if against is None:
            return Target(kind=kind, label=_label(chosen, labels), index=chosen), row[chosen]
        target = Target(kind="difference", label=_label(chosen, labels), index=chosen, contrast=_label(against, labels))
        return target, row[chosen] - row[against]

    return ask


def similarity(pool: Callable[[Any], Tensor]) -> Ask:
    r"""The cosine of two pooled texts: $\cos(u, v) = \frac{u}{[|u|]} \cdot \frac{v}{[|v|]}$, norms constant.

    Each side is explained with the other held fixed; as a product of two, each gets half, so that both together add
    up to the similarity.
    """

    def ask(outputs: list[Any]) -> tuple[Target, Tensor]:
        u, v = (pool(output) for output in outputs)
        u, v = (x / torch.linalg.vector_norm(x.float() if x.itemsize < 4 else x, dim=-1).to(x) for x in (u, v))
        return Target(kind="similarity", label="cosine similarity"), (u * v).sum()

    return ask


def pooling(mode: str) -> Callable[[Any], Tensor]:
    """From an encoder's output to one vector: the mean of all tokens, or the first one."""

    def pool(output: Any) -> Tensor:
        states: Tensor = output[0] if not isinstance(output, Tensor) else output
        return states[0].mean(0) if mode == "mean" else states[0, 0]

    return pool


def _index(wanted: str | int, labels: Mapping[int, str], count: int, name: str) -> int:
    if isinstance(wanted, str):
        known = {label.lower(): index for index, label in labels.items()}
        if wanted.lower() in known:
            return known[wanted.lower()]
        if not re.fullmatch(r"-?[0-9]+", wanted):
            listed = ", ".join(labels.values()) if labels else f"0 to {count - 1}"
            raise UsageError(f"`{name}` must be one of {listed}; found {wanted!r}.{suggest(wanted, labels.values())}")
    elif isinstance(wanted, bool) or not isinstance(wanted, int):
        raise UsageError(f"`{name}` must be a label, an index or a function; found {wanted!r}.")
    index = int(wanted)
    if not 0 <= index < count:
        raise UsageError(f"`{name}` must be an index from 0 to {count - 1}; found {index}.")
    return index


def _label(index: int, labels: Mapping[int, str]) -> str:
    return labels.get(index, str(index))
