"""The tensors among the arguments of a call, wherever they stand in lists and tuples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor


def dependent(value: object) -> bool:
    """Does the value depend on what is explained?"""
    return isinstance(value, Tensor) and value.requires_grad


def constants_detached(values: tuple[Any, ...]) -> tuple[tuple[Any, ...], bool]:
    """The values with parameters (leaves that ask for gradients) detached, and whether a dependent one is left."""
    depends, changed = False, None
    for i, value in enumerate(values):
        if isinstance(value, Tensor):
            if not value.requires_grad:
                continue
            if not value.is_leaf:
                depends = True
                continue
            new: Any = value.detach()
        elif isinstance(value, (list, tuple)) and value:
            items, also = constants_detached(tuple(value))
            depends = depends or also
            if all(a is b for a, b in zip(items, value, strict=True)):
                continue
            new = list(items) if isinstance(value, list) else items
        else:
            continue
        changed = changed if changed is not None else list(values)
        changed[i] = new
    return (values if changed is None else tuple(changed)), depends


def given_back(result: Any, args: tuple[Any, ...], given: tuple[Any, ...]) -> Any:
    """The result of a call, and where that is one of its detached constants, the model's own in its place.

    `to` gives a weight back that is where it is to go, and a hook may register what it got.
    """
    if args is not given:
        for detached, own in zip(args, given, strict=True):
            if result is detached:
                return own
    return result


def mapped(value: Any, change: Callable[[Tensor], Any], *, where: Callable[[object], bool] = dependent) -> Any:
    """The value with each tensor in it that `where` picks changed."""
    if where(value):
        return change(value)
    if isinstance(value, (list, tuple)) and any(True for _ in picked((value,), where)):
        return type(value)([mapped(item, change, where=where) for item in value])
    return value


def picked(values: Sequence[Any], where: Callable[[object], bool] = dependent) -> Iterator[Tensor]:
    """The tensors that `where` picks, in order."""
    for value in values:
        if isinstance(value, Tensor):
            if where(value):
                yield value
        elif isinstance(value, (list, tuple)):
            yield from picked(value, where)


def is_tensor(value: object) -> bool:
    """Is it a tensor at all?"""
    return isinstance(value, Tensor)
