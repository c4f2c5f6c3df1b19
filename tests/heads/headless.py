"""Heads taken out by hand: what reads them is handed zeros, or has its weights cut. Nothing of clearhead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# The layer that reads the joined heads, by the names that libraries give it, and how many heads it reads.
READERS = {
    "bert": "bert.encoder.layer.{layer}.attention.output.dense",
    "gpt2": "transformer.h.{layer}.attn.c_proj",
    "llama": "model.layers.{layer}.self_attn.o_proj",
    "vit": "vit.layers.{layer}.attention.o_proj",
    "deberta": "deberta.encoder.layer.{layer}.attention.output.dense",
    "encoder": "model.encoder.layers.{layer}.self_attn.out_proj",
    "decoder": "model.decoder.layers.{layer}.self_attn.out_proj",
    "cross": "model.decoder.layers.{layer}.encoder_attn.out_proj",
}


@contextmanager
def handed_zeros(model: nn.Module, heads: list[tuple[str, int]], count: int) -> Iterator[None]:
    """Within the block the layers at some paths read zeros in the place of a head."""

    def change(head: int) -> Callable[..., Any]:
        def cut(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = args[0].clone()
            width = x.shape[-1] // count
            x[..., head * width : (head + 1) * width] = 0
            return (x, *args[1:])

        return cut

    handles = [model.get_submodule(path).register_forward_pre_hook(change(head)) for path, head in heads]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def scaled(module: nn.Module, head: int, count: int, gate: float) -> Iterator[None]:
    """Within the block a layer reads a head times a gate."""

    def change(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        gates = torch.ones(count, dtype=args[0].dtype)
        gates[head] = gate
        return ((args[0].unflatten(-1, (count, -1)) * gates[:, None]).flatten(-2), *args[1:])

    handle = module.register_forward_pre_hook(change)
    try:
        yield
    finally:
        handle.remove()


def fingerprint(model: nn.Module) -> tuple[Any, ...]:
    """All that a model must be left with."""
    return (
        [
            (name, p.detach().double().sum().item(), p.requires_grad, p.grad is None)
            for name, p in model.named_parameters()
        ],
        [(name, m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()],
        [sorted(vars(m)) for m in model.modules()],
        torch.get_rng_state().sum().item(),
        torch._C._len_torch_function_stack(),
    )
