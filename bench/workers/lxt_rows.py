"""LXT's row: AttnLRP in its efficient mode, by its documented call."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from bench.shapes import question, scalar
from bench.workers.vision import importable

PATCHES = True
MODULES = {
    "BERT": "transformers.models.bert.modeling_bert",
    "GPT-2": "transformers.models.gpt2.modeling_gpt2",
    "Llama": "transformers.models.llama.modeling_llama",
}


def prepare(shape: str) -> None:
    """Patch the classes of the family, for the whole process, before a model is made of them."""
    importable()
    from lxt.efficient import monkey_patch

    monkey_patch(importlib.import_module(MODULES[shape]))


def rows(model: nn.Module, length: int) -> dict[str, Callable[[], Any]]:
    """Forward, backward, and the product of embeddings and gradient."""
    answer, vectors = question(model, length)

    def attnlrp() -> Tensor:
        x = vectors().requires_grad_()
        scalar(answer(x)).backward()
        return (x * x.grad).sum(-1).detach()

    return {"attnlrp": attnlrp}
