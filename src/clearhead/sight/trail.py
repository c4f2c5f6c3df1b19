"""Tensors that can be made again: how a large one came from smaller ones, so that the large one need not be kept."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from clearhead.tape import Function, Keeper, Kept, Operation, address, is_tensor, mapped, picked, writes_in_place

CHANCE = frozenset("bernoulli multinomial normal rand_like randn_like randint_like empty_like new_empty".split())
GROWTH = 3  # from here on a result is worth making again, though no product made it: a float mask of a boolean one is


@dataclass(slots=True, eq=False)
class Step:
    """One call that made a tensor; tensors among its arguments are kept, or steps themselves.

    `held` is how many bytes it keeps alive; `item` which of several results is meant.
    """

    function: Function
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    held: int
    overwrites: bool = False
    item: int | None = None

    def value(self) -> Tensor:
        """The tensor, computed anew from what is kept."""
        args, kwargs = _made(self.args), _made(self.kwargs)
        if self.overwrites:
            args = (args[0].clone(), *args[1:])
        result = self.function(*args, **kwargs)
        if self.overwrites:
            result = args[0]
        return result if self.item is None else result[self.item]  # type: ignore[no-any-return]


@dataclass(slots=True)
class Held:
    """What the tensors of a call turn into in a step, and how many bytes that keeps alive."""

    keeper: Keeper
    weights: Container[int]  # the storages of the model's parameters, which may be trained on: these are copied
    steps: Mapping[int, Step]  # by the identity of a tensor
    size: int = 0
    seen: set[int] = field(default_factory=set)

    def hold(self, tensor: Tensor) -> Step | Kept:
        """The step that makes a tensor, or its kept value."""
        step = self.steps.get(id(tensor))
        at = id(step) if step else place(tensor)
        if at not in self.seen:
            self.seen.add(at)
            self.size += step.held if step else tensor.untyped_storage().nbytes()
        return step or self.keeper.keep(tensor.clone() if at in self.weights else tensor)


def steps(
    keeper: Keeper,
    weights: Container[int],
    known: Mapping[int, Step],
    operation: Operation,
    function: Function,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Step:
    """The step of a call that is about to be made; `known` holds the steps of its tensors by their identity."""
    held = Held(keeper, weights, known)
    kept = tuple(mapped(value, held.hold, where=is_tensor) for value in args)
    named = {name: mapped(value, held.hold, where=is_tensor) for name, value in kwargs.items()}
    return Step(function, kept, named, held.size, overwrites=writes_in_place(operation, args, kwargs))


def place(tensor: Tensor) -> int:
    """Where the memory of a tensor begins."""
    return address(tensor)


def grows(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> bool:
    """Is the result so much larger than all it was made of that making it again saves memory?"""
    if not isinstance(result, Tensor) or is_functorch_wrapped_tensor(result) or not repeats(operation, args, kwargs):
        return False
    tensors = list(picked((*args, *kwargs.values()), is_tensor))
    held = {place(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
    return bool(tensors) and GROWTH * sum(held.values()) <= result.numel() * result.element_size()


def repeats(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Does a call give the same at each time?"""
    if operation.name == "dropout":
        return not kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
    return operation.name not in CHANCE


def _made(value: Any) -> Any:
    if isinstance(value, Step):
        return value.value()
    if isinstance(value, Kept):
        return value.value
    if isinstance(value, dict):
        return {name: _made(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_made(each) for each in value])
    return value
