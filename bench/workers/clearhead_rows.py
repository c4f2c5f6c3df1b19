"""Clearhead's rows: the pass alone, and the whole call of a user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.shapes import question, scalar, tokens, uncached
from clearhead import AttentionVisualizer
from clearhead.config import Settings
from clearhead.relevance import propagate
from clearhead.tape import Tape

EPSILON = 1e-6  # zennit's default


def rows(model: nn.Module, length: int) -> dict[str, Callable[[], Any]]:
    """`attnlrp` alone; for models of transformers the calls of a user too, and the tape with no rules."""
    if isinstance(model, nn.Sequential):
        return {"epsilon": stacked(model, length)}
    return {
        "attnlrp": alone(model, length, "attnlrp"),
        "default, pass alone": alone(model, length, "default"),
        "explain, attnlrp": explained(model, length, "attnlrp"),
        "explain, default": explained(model, length, "default"),
        "tape without rules": taped(model, length),
    }


def alone(model: nn.Module, length: int, preset: str) -> Callable[[], Tensor]:
    """One pass there and back, and the relevance of each token: what a library of rules gives."""
    settings, _ = Settings.resolve(preset=preset)
    read, more = tokens(model, length), uncached(model)

    def run() -> Tensor:
        found = propagate(lambda: scalar(model(input_ids=read, **more)), [], settings, model=model)
        (words,) = (s for s in found.sources if s.indices is not None and torch.equal(s.indices, read))
        return words.relevance.sum(-1)

    return run


def explained(model: nn.Module, length: int, preset: str) -> Callable[[], Any]:
    """What a user calls, with units, ledger and books."""
    av = AttentionVisualizer(model, method="lrp", preset=preset, cross_check=False)
    read = tokens(model, length)
    return lambda: torch.tensor(av.explain({"input_ids": read}, target=1).relevance[:length])


def taped(model: nn.Module, length: int) -> Callable[[], Any]:
    """Forward + gradient with every operation handed over and called as it is."""
    answer, vectors = question(model, length)

    def run() -> Tensor:
        x = vectors().requires_grad_()
        with Tape(lambda _, function, args, kwargs: function(*args, **kwargs), model):
            value = scalar(answer(x))
        return torch.autograd.grad(value, x)[0]

    return run


def stacked(model: nn.Module, length: int) -> Callable[[], Tensor]:
    """The epsilon rule on a stack of modules; what bias and epsilon take is booked and not handed back."""
    settings, _ = Settings.resolve(preset="attnlrp", rule="epsilon", epsilon=EPSILON)
    answer, vectors = question(model, length)

    def run() -> Tensor:
        found = propagate(lambda x: scalar(answer(x)), [vectors()], settings, model=model)
        (source,) = (s for s in found.sources if not s.name)
        return source.relevance.flatten(source.value.dim() - 1 if source.value.dim() < 4 else 1).sum(-1)

    return run
