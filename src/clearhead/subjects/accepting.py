"""Which modules can be explained at all: what is said before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from torch import Tensor, nn

from clearhead.errors import ModelError, UsageError
from clearhead.question import COMPILED

_INTEGERS = ("torch.ao.nn.quantized", "torch.nn.quantized", "torch.ao.nn.intrinsic.quantized")  # where such layers live


def accepted(model: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """The module to explain, and what is to be said about it; of a compiled one, the one that was compiled.

    Raises UsageError for what is no module, ModelError for one that has no weights, has some on the meta device that no
    hook loads, or computes with integers.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"A model is a torch.nn.Module; found {type(model).__name__}. Wrap a function in a module that keeps what "
            "it computes with as attributes, or load a folder with AttentionVisualizer.from_pretrained."
        )
    plain = getattr(model, "_orig_mod", None)
    notes = (COMPILED,) if isinstance(plain, nn.Module) else ()
    found = plain if isinstance(plain, nn.Module) else model
    for name, layer in found.named_modules():
        if type(layer).__module__.startswith(_INTEGERS):
            raise ModelError(
                f"No gradient passes through layers that compute with integers; module {name!r} is a "
                f"{type(layer).__module__}.{type(layer).__name__}. Explain the model before it was quantised, or one "
                "whose weights are quantised but whose activations are not."
            )
    weights = list(chain(found.parameters(), found.buffers()))
    if not weights and next(_elsewhere(found), None) is None:
        raise ModelError(
            f"A model has parameters or buffers; {type(found).__name__} has none. If it wraps a model, keep that as an "
            "attribute, so that its weights are known."
        )
    lacking = next(_never_loaded(found), None)
    if lacking is not None:
        raise ModelError(
            f"Weights on the meta device have a shape but no values; {type(found).__name__} has {lacking!r} there, and "
            "no hook that would load it. Load them first, for example with model.to_empty(device='cpu') and "
            "load_state_dict, or from_pretrained."
        )
    return found, notes


def _never_loaded(module: nn.Module, path: str = "") -> Iterator[str]:
    """The names of weights on the meta device, but for those of modules round whose `forward` something was put.

    Libraries that offload weights replace `forward`, or set a hook before it, and load what it needs.
    """
    if "forward" in vars(module) or module._forward_pre_hooks:
        return
    for name, weight in chain(module.named_parameters(path, recurse=False), module.named_buffers(path, recurse=False)):
        if weight.is_meta:
            yield name
    for name, child in module.named_children():
        yield from _never_loaded(child, f"{path}.{name}" if path else name)


def _elsewhere(model: nn.Module) -> Iterator[Tensor]:
    """Tensors that modules keep as plain attributes."""
    for module in model.modules():
        for value in vars(module).values():
            yield from (value,) if isinstance(value, Tensor) else ()
