"""Custom autograd functions and checkpoints: under a tape, the torch calls inside them are seen like any others."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from torch.autograd import Function as Custom
from torch.autograd.function import _SingleLevelFunction

from clearhead.tape.arguments import dependent, mapped, picked
from clearhead.tape.names import Function, Operation

_opaque: set[type[Custom]] = set()
_thread = threading.local()


class OpaqueError(Exception):
    """What a `forward` computes cannot be followed: it detaches, or leaves torch."""


class Context:
    """What a `forward` is given to write into. No custom `backward` will run, so only the `forward` may read it."""

    def __init__(self, args: tuple[Any, ...]) -> None:
        self.needs_input_grad = tuple(dependent(value) for value in args)
        self.constant: tuple[Any, ...] = ()
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """What is read again as `saved_tensors`."""
        self.saved_tensors = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """Of no use here."""

    def mark_dirty(self, *tensors: Any) -> None:
        """Of no use here: the tape sees what is overwritten."""

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """These results are constants."""
        self.constant = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Of no use here."""


@cache
def custom(function: type[Custom]) -> Operation:
    """The operation that a custom function is; its parts are the calls of its `forward`, until it proved `opaque`.

    >>> class Twice(Custom):
    ...     @staticmethod
    ...     def forward(context, x):
    ...         return 2 * x
    >>> custom(Twice).name
    'Twice.apply'
    """
    return Operation(f"{function.__name__}.apply", composite=_forward(function) if function not in _opaque else None)


def opaque(function: type[Custom]) -> Operation:
    """The operation that a custom function is from now on: one whole."""
    _opaque.add(function)
    custom.cache_clear()
    return custom(function)


def apart() -> bool:
    """Is a custom function being taken apart in this thread?"""
    return getattr(_thread, "depth", 0) > 0


@contextmanager
def _taking_apart() -> Iterator[None]:
    _thread.depth = getattr(_thread, "depth", 0) + 1
    try:
        yield
    finally:
        _thread.depth -= 1


def _forward(function: type[Custom]) -> Function:
    """The `forward` of a custom function, as a plain one; that of a checkpoint is what it would compute twice.

    Raises OpaqueError if nothing of the result can be differentiated.
    """
    alone = function.setup_context is not _SingleLevelFunction.setup_context
    checkpoint = function.__name__ == "CheckpointFunction" and function.__module__ == "torch.utils.checkpoint"

    def forward(*args: Any, **kwargs: Any) -> Any:
        if checkpoint:
            run, _, *rest = args
            return run(*rest, **kwargs)
        context = Context(args)
        with _taking_apart():
            result = function.forward(*args, **kwargs) if alone else function.forward(context, *args, **kwargs)
        if alone:
            function.setup_context(context, args, result)
        found = mapped(result, lambda x: x.detach() if any(x is each for each in context.constant) else x)
        if any(context.needs_input_grad) and not any(True for _ in picked((found,))):
            raise OpaqueError(function.__name__)
        return found

    return forward


# ---- where torch asks ----------------------------------------------------------------------------------------------

Asked = Callable[[], Any]

_lock = threading.Lock()
_watches = 0
_apply = Custom.__dict__["apply"]
_replaced: list[tuple[ModuleType, str, Any]] = []


def watch(asked: Asked) -> None:
    """From here to `unwatch`, custom functions and checkpoints ask `asked()` for the tape of their thread first."""
    global _watches  # noqa: PLW0603 - torch has one class of functions, and so there is one counter
    with _lock:
        _watches += 1
        if _watches > 1:
            return
        Custom.apply = classmethod(_applied(asked))  # type: ignore[assignment, method-assign]
        for (path, name), instead in _INSTEAD.items():
            module = sys.modules.get(path)
            if module is not None and hasattr(module, name):
                own = getattr(module, name)
                _replaced.append((module, name, own))
                setattr(module, name, instead(asked, own))


def unwatch() -> None:
    """As often as `watch`: torch is as it was."""
    global _watches  # noqa: PLW0603
    with _lock:
        _watches -= 1
        if not _watches:
            Custom.apply = _apply  # type: ignore[method-assign]
            while _replaced:
                module, name, own = _replaced.pop()
                setattr(module, name, own)


def _applied(asked: Asked) -> Callable[..., Any]:
    def apply(cls: type[Custom], *args: Any, **kwargs: Any) -> Any:
        own = _apply.__get__(None, cls)
        tape = None if cls.__module__.startswith("clearhead.") else asked()
        return own(*args, **kwargs) if tape is None else tape.custom(cls, own, args, kwargs)

    return apply


def _checkpointed(asked: Asked, own: Callable[..., Iterator[None]]) -> Callable[..., Iterator[None]]:
    """Nothing is set up round what is checkpointed: it runs once, and everything is kept."""

    def generator(*args: Any, **kwargs: Any) -> Iterator[None]:
        if asked() is None:
            yield from own(*args, **kwargs)
        else:
            yield

    return generator


def _unchecked(asked: Asked, own: Callable[..., None]) -> Callable[..., None]:
    """Whether a kernel has a way back does not matter to a tape, which takes it apart."""

    def check(*args: Any, **kwargs: Any) -> None:
        if asked() is None:
            own(*args, **kwargs)

    return check


# Functions of torch that are no operations, and what stands in their place under a tape.
_INSTEAD: dict[tuple[str, str], Callable[[Asked, Any], Any]] = {
    ("torch.utils.checkpoint", "_checkpoint_without_reentrant_generator"): _checkpointed,
    ("torch.nn.attention.flex_attention", "_validate_device"): _unchecked,
}
