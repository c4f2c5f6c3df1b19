"""What stands in a model, read in one flat walk: torch's own generators are nested as deep as the model is."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


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


def versions(model: nn.Module) -> tuple[int, ...]:
    """Where each parameter and buffer lies, and how often it was written over: the same as long as nothing changed.

    What was written past autograd (`.data`) is not seen; `firsts` sees most of it.
    """
    return tuple(number for x in tensors(model).values() for number in (x.data_ptr(), x._version))


@torch.no_grad()
def firsts(model: nn.Module) -> tuple[float, ...]:
    """The first entry of each parameter and buffer that is a plain tensor."""
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for x in tensors(model).values():
        if x.numel() and not x.is_meta and type(x) in (Tensor, nn.Parameter):
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
