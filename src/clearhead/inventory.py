"""What stands in a model, read in one flat walk: torch's own generators are nested as deep as the model is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_PLAIN = (Tensor, nn.Parameter)


def modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Each module once, with its path, in the order of `named_modules`.

    >>> [path for path, _ in modules(nn.Sequential(nn.Linear(1, 1), nn.ReLU()))]
    ['', '0', '1']
    """
    open_, seen = [("", model)], set[nn.Module]()
    while open_:
        path, module = open_.pop()
        if module in seen:
            continue
        seen.add(module)
        yield path, module
        prefix = f"{path}." if path else ""
        open_ += [(prefix + name, child) for name, child in reversed(module._modules.items()) if child is not None]


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """Each parameter once, by its first name."""
    return _held(model, "_parameters")


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Each parameter and buffer once, by its first name."""
    return _held(model, "_parameters", "_buffers")


def offloaded(model: nn.Module) -> bool:
    """Are there weights without values, which are loaded when a module is called?"""
    return any(parameter.is_meta for parameter in model.parameters())


def parts(weight: Tensor) -> Iterator[Tensor]:
    """The plain tensors that a weight is made of: itself, or those that a subclass, such as of packed values, holds."""
    if type(weight) in _PLAIN or not is_traceable_wrapper_subclass(weight):
        yield weight
        return
    for name in weight.__tensor_flatten__()[0]:
        yield from parts(getattr(weight, name))


def versions(held: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Where each tensor lies, and how often it was written over: the same as long as nothing changed.

    What was written past autograd (`.data`) is not seen; `firsts` sees most of it.
    """
    return tuple(number for x in held.values() for part in parts(x) for number in (part.data_ptr(), part._version))


@torch.no_grad()
def firsts(held: Mapping[str, Tensor]) -> tuple[float, ...]:
    """The first entry of each tensor that has a value."""
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for x in (part for whole in held.values() for part in parts(whole)):
        if x.numel() and not x.is_meta:
            alike.setdefault((x.dtype, x.device), []).append(x.as_strided((), ()))
    return tuple(number for each in alike.values() for number in torch.stack(each).tolist())


def _held(model: nn.Module, *kinds: str) -> dict[str, Tensor]:
    found, seen = {}, set[int]()
    for path, module in modules(model):
        for kind in kinds:
            for name, x in getattr(module, kind).items():
                if x is not None and id(x) not in seen:
                    seen.add(id(x))
                    found[f"{path}.{name}" if path else name] = x
    return found
