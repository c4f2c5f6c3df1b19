"""Zennit's row: its epsilon rule on every linear layer and convolution of a stack of modules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.shapes import question
from bench.workers.vision import importable


def rows(model: nn.Module, length: int) -> dict[str, Callable[[], Any]]:
    """The hooks are set once, on a copy, so that the plain gradient stays plain."""
    importable()
    from zennit.attribution import Gradient
    from zennit.composites import LayerMapComposite, layer_map_base
    from zennit.rules import Epsilon
    from zennit.types import Convolution, Linear

    hooked = copy.deepcopy(model)
    _, vectors = question(model, length)
    attributor = Gradient(hooked, LayerMapComposite([*layer_map_base(), ((Convolution, Linear), Epsilon())]))
    attributor.__enter__()

    def second(output: Tensor) -> Tensor:
        return output * torch.tensor([0.0, 1.0])

    def epsilon() -> Tensor:
        x = vectors()
        _, relevance = attributor(x, second)
        found: Tensor = relevance.flatten(x.dim() - 1 if x.dim() < 4 else 1).sum(-1)
        return found

    return {"epsilon": epsilon}
