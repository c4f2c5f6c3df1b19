"""Captum's rows: integrated gradients of 20 steps from zero vectors, as its documentation calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from bench.shapes import question

STEPS = 20


def rows(model: nn.Module, length: int) -> dict[str, Callable[[], Any]]:
    """All steps in one batch, which is captum's default, and one at a time, which needs a twentieth of the memory."""
    answer, vectors = question(model, length)

    def logits(x: Tensor) -> Tensor:
        scores: Tensor = answer(x).logits
        return scores if scores.dim() == 2 else scores[:, -1]

    attributor = IntegratedGradients(logits)

    def integrated(at_once: int | None) -> Tensor:
        x = vectors()
        found: Any = attributor.attribute(x, torch.zeros_like(x), target=1, n_steps=STEPS, internal_batch_size=at_once)
        return found.sum(-1)

    name = f"integrated gradients, {STEPS} steps"
    return {name: lambda: integrated(1), f"{name}, one batch": lambda: integrated(None)}
