"""Calls of chosen modules as wholes: a tape that stands round them, in its own thread and for its own time only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any

from torch import nn
from torch.overrides import _get_current_function_mode, _pop_mode_temporarily

from clearhead.tape.mode import Interpreter, Tape
from clearhead.tape.names import Function

# Stands round a call of a module: the module, its own `__call__`, the arguments.
Around = Callable[[nn.Module, Function, tuple[Any, ...], dict[str, Any]], Any]

_lock = threading.Lock()
_watches = 0
_own: Function = nn.Module.__call__


class ModuleTape(Tape):
    """A tape that also hands each call of the `chosen` modules to `around`, which makes it `under` the tape, or not.

    >>> import torch
    >>> double, seen = nn.Linear(2, 2), []
    >>> def around(module, own, args, kwargs):
    ...     seen.append(type(module).__name__)
    ...     return own(module, *args, **kwargs)
    >>> with ModuleTape(lambda _, function, args, kwargs: function(*args, **kwargs), None, [double], around):
    ...     y = double(torch.ones(2))
    >>> seen
    ['Linear']
    """

    def __init__(
        self, interpret: Interpreter, model: nn.Module | None, chosen: Collection[nn.Module], around: Around
    ) -> None:
        super().__init__(interpret, model)
        self._chosen, self.around = {id(module) for module in chosen}, around

    def __enter__(self) -> Any:
        """From here on, modules ask as torch does."""
        _watch()
        return super().__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Torch is as it was."""
        super().__exit__(kind, error, trace)
        _unwatch()

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a module gives, by whoever stands round it."""
        if id(module) not in self._chosen:
            return _own(module, *args, **kwargs)
        with _pop_mode_temporarily():
            return self.around(module, _own, args, kwargs)


def _watch() -> None:
    """From here to `_unwatch`, modules ask for the tape of their thread first."""
    global _watches, _own  # noqa: PLW0603 - torch has one class of modules, and so there is one counter
    with _lock:
        _watches += 1
        if _watches == 1:
            _own = nn.Module.__call__
            nn.Module.__call__ = _asking  # type: ignore[method-assign]


def _unwatch() -> None:
    global _watches  # noqa: PLW0603
    with _lock:
        _watches -= 1
        if not _watches:
            nn.Module.__call__ = _own  # type: ignore[method-assign]


def _asking(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    tape = _get_current_function_mode()
    return tape.called(module, args, kwargs) if isinstance(tape, ModuleTape) else _own(module, *args, **kwargs)
