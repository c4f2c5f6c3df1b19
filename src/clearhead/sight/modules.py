"""Which modules a forward pass called, with what and what they gave, and which of them are a model's blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

Held = TypeVar("Held")
Keep = Callable[["Called[Any]", Tensor], Held | None]  # told of a call and a tensor that goes in or comes out of it


@dataclass(eq=False)
class Called(Generic[Held]):
    """One call of a module, and the call that it was part of.

    `given` and `output` are what was kept of the first tensor that went in and of the first that came out; the
    addresses say of two calls whether it was the same tensor, also where nothing was kept.
    """

    path: str
    module: nn.Module
    member: bool  # of a list of modules
    within: Called[Held] | None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    given: Held | None = None
    output: Held | None = None
    shape: tuple[int, ...] = ()  # of the output
    given_at: int = 0
    output_at: int = 0

    @property
    def around(self) -> Iterator[Called[Held]]:
        """The calls that it was part of, from the inside out."""
        call = self.within
        while call is not None:
            yield call
            call = call.within


class Calls(Generic[Held]):
    """The calls of one pass: those that have ended, in that order, and those that are being made, outermost first."""

    def __init__(self, model: nn.Module, keep: Keep[Held], *, arguments: bool) -> None:
        self.ended: list[Called[Held]] = []
        self.open: list[Called[Held]] = []
        self._keep, self._arguments = keep, arguments
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._members = set(_members(model))
        self._thread = threading.get_ident()

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a module is called."""
        if threading.get_ident() != self._thread:
            return
        member = id(module) in self._members
        call = Called[Held](self._paths[id(module)], module, member, self.open[-1] if self.open else None)
        if self._arguments and any(True for _ in module.children()):
            call.args, call.kwargs = args, kwargs
        tensor = first_tensor((*args, *kwargs.values()))
        if tensor is not None:
            call.given, call.given_at = self._keep(call, tensor), tensor.data_ptr()
        self.open.append(call)

    def leave(self, module: nn.Module, _: tuple[Any, ...], __: dict[str, Any], output: Any) -> None:
        """After it has been called; calls inside of it that an exception ended are forgotten."""
        if threading.get_ident() != self._thread:
            return
        while self.open:
            call = self.open.pop()
            if call.module is module:
                break
        tensor = first_tensor((output,))
        if tensor is not None:
            call.output, call.output_at, call.shape = self._keep(call, tensor), tensor.data_ptr(), tuple(tensor.shape)
        self.ended.append(call)


@contextmanager
def watched(model: nn.Module, keep: Keep[Held], *, arguments: bool = False) -> Iterator[Calls[Held]]:
    """The calls of all modules while the block lasts, in this thread; hooks are set for that time only.

    `keep` says what is to be kept of a tensor, if anything. With `arguments` the calls of modules with
    parts keep theirs.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> with watched(net, lambda call, tensor: tuple(tensor.shape)) as calls:
    ...     y = net(torch.zeros(1, 2))
    >>> [(call.path, call.given, call.output) for call in calls.ended]
    [('0', (1, 2), (1, 3)), ('1', (1, 3), (1, 3)), ('', (1, 2), (1, 3))]
    """
    calls = Calls(model, keep, arguments=arguments)
    handles = []
    try:
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(calls.enter, with_kwargs=True))
            handles.append(module.register_forward_hook(calls.leave, with_kwargs=True))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def first_tensor(values: Any) -> Tensor | None:
    """The first tensor of floats in what a module takes or gives: a tensor, or one in a tuple, list or mapping."""
    if isinstance(values, Tensor):
        return values if values.is_floating_point() else None
    members = values.values() if isinstance(values, Mapping) else values if isinstance(values, (tuple, list)) else ()
    return next((found for each in members if (found := first_tensor(each)) is not None), None)


def sequence(tensor: Tensor) -> Tensor | None:
    """The vectors along a sequence [T, d] of what has one, [1, T, d] or [T, 1, d]."""
    if tensor.dim() != 3:
        return None
    if tensor.shape[0] == 1:
        return tensor[0]
    return tensor[:, 0] if tensor.shape[1] == 1 else None


# ---- blocks --------------------------------------------------------------------------------------------------------


def blocks(calls: Sequence[Called[Held]]) -> list[Called[Held]]:
    """The calls of a model's blocks, in order: of members of its lists whose output is a sequence or a feature map.

    Of lists within lists the outer ones count, whose members are blocks made of sublayers; unless the inner list has
    members of one kind, each of which goes on with what the one before it gave, from what the outer member was given
    or to what it gave: then the outer ones are stages, and the inner ones their blocks. A module without parts, such
    as a single linear map, is no block.
    """
    inner: dict[Called[Held] | None, list[Called[Held]]] = {}
    for call in calls:
        if call.member and len(call.shape) in (3, 4) and any(True for _ in call.module.children()):
            inner.setdefault(next((each for each in call.around if each.member), None), []).append(call)
    return [block for call in inner.get(None, ()) for block in _blocks_of(call, inner)]


def _blocks_of(call: Called[Held], inner: Mapping[Called[Held] | None, list[Called[Held]]]) -> Iterator[Called[Held]]:
    lists: dict[str, list[Called[Held]]] = {}
    for each in inner.get(call, ()):
        lists.setdefault(each.path.rpartition(".")[0], []).append(each)
    chain = next((members for members in lists.values() if _is_chain(members, call)), None)
    if chain is None:
        yield call
        return
    for each in chain:
        yield from _blocks_of(each, inner)


def _is_chain(members: Sequence[Called[Held]], outer: Called[Held]) -> bool:
    first, last = members[0], members[-1]
    alike = len({type(each.module) for each in members}) == 1
    apart = len({each.given_at for each in members}) == len(members) or len({e.module for e in members}) == 1
    return alike and apart and (first.given_at == outer.given_at or last.output_at == outer.output_at)


def _members(model: nn.Module) -> Iterator[int]:
    """The identities of the modules that are members of a list."""
    for module in model.modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            yield from (id(each) for each in module)
