"""The interception layer: sees every torch call of any model, in its own thread, and is gone with its block."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any
from weakref import WeakMethod

from torch import nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode, _pop_mode_temporarily

from clearhead import inventory
from clearhead.tape import functions
from clearhead.tape.names import Function, Operation, resolve

_OWN = f"{Path(__file__).parents[1]}{os.sep}"  # no module stands here: frames of rules need no look

Interpreter = Callable[[Operation, Function, tuple[Any, ...], dict[str, Any]], Any]


class Tape(TorchFunctionMode):
    """Hands each torch call to `interpret(operation, function, args, kwargs)`; knows nothing of what it means.

    >>> import torch
    >>> seen = []
    >>> def interpret(operation, function, args, kwargs):
    ...     seen.append(operation.name)
    ...     return function(*args, **kwargs)
    >>> with Tape(interpret):
    ...     y = torch.ones(2) * 3
    >>> seen[-1]
    'mul'
    """

    def __init__(self, interpret: Interpreter, model: nn.Module | None = None) -> None:
        super().__init__()
        # Whoever interprets usually owns the tape: a weak reference, so that no cycle keeps activations alive.
        self._interpret = WeakMethod(interpret) if isinstance(interpret, MethodType) else lambda: interpret
        self._paths = {} if model is None else {id(module): path for path, module in inventory.modules(model)}

    def __torch_function__(
        self, function: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by torch, with this mode switched off for the time of the call."""
        found = resolve(function)
        if found.question:
            return function(*args, **(kwargs or {}))
        interpret = self._interpret()
        if interpret is None:
            raise RuntimeError("The tape outlived its interpreter.")
        return interpret(found, function, args, kwargs or {})

    def custom(self, kind: Any, apply: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Called for a custom autograd function: seen part by part, or as one whole where that is not possible."""
        interpret = self._interpret()
        if interpret is None:
            raise RuntimeError("The tape outlived its interpreter.")
        with _pop_mode_temporarily():
            try:
                return interpret(functions.custom(kind), apply, args, kwargs)
            except functions.OpaqueError:
                return interpret(functions.opaque(kind), apply, args, kwargs)

    def __enter__(self) -> Any:
        """From here on, torch asks this tape."""
        functions.watch(current)
        return super().__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Torch is as it was."""
        super().__exit__(kind, error, trace)
        functions.unwatch()

    def under(self, function: Function, *args: Any, **kwargs: Any) -> Any:
        """Call a function whose own torch calls shall meet the tape again, from inside an interpreter."""
        with self:
            return function(*args, **kwargs)

    def path(self, module: nn.Module) -> str:
        """The path of a module of the model; empty for another."""
        found: str = self._paths.get(id(module), "")
        return found

    def module(self) -> str:
        """The path of the module whose `forward` is being executed, read off the stack: no hook is ever set.

        Costs microseconds, so it is asked only where something is worth writing down.
        """
        frame = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if code.co_argcount and code.co_varnames[0] == "self" and not code.co_filename.startswith(_OWN):
                path: str | None = self._paths.get(id(frame.f_locals.get("self")))
                if path is not None:
                    return path
            frame = frame.f_back  # type: ignore[assignment]
        return ""


def current() -> Tape | None:
    """The tape that this thread's next call would be handed to."""
    mode = _get_current_function_mode()
    return mode if isinstance(mode, Tape) else None
