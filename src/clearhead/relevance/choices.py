"""Which rule each layer has, where not all have the same: looked up once for each module."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.rulebook import CONVOLUTIONS, INPUT, Choice, Where, parsed

_KNOWN: Any = WeakKeyDictionary()  # by model, what was looked up, by what was asked for


class Choices:
    """The rules of the layers of one model. Raises UsageError for a pattern that means none of its modules."""

    def __init__(self, settings: Settings, model: nn.Module | None) -> None:
        self._usual = settings.choice
        self._rules = parsed(settings.rules, self._usual)
        self._found: dict[tuple[str, bool, bool], Choice] = {}
        _check([where for where, _ in self._rules], model)

    def at(self, path: str, *, convolution: bool, reads: bool) -> Choice:
        """The rule of a layer by its path, whether it is a convolution, and whether it reads the input."""
        key = path, convolution, reads
        if key not in self._found:
            fits = (own for where, own in self._rules if where.means(path, convolution=convolution, reads=reads))
            self._found[key] = [self._usual, *fits][-1]
        return self._found[key]


def chosen(settings: Settings, model: nn.Module | None) -> Choices | None:
    """The rules of the layers of a model; None where all have the same. Raises UsageError."""
    if not settings.rules:
        return None
    if model is None:
        return Choices(settings, None)
    known: dict[Any, Choices] = _KNOWN.setdefault(model, {})
    key = repr((settings.rules, settings.choice))
    if key not in known:
        known[key] = Choices(settings, model)
    return known[key]


def _check(asked: list[Where], model: nn.Module | None) -> None:
    """Raise UsageError for what means no module of the model."""
    if model is not None:
        paths = [path for path, _ in model.named_modules() if path]
        for where in asked:
            where.check(paths)
    elif any(where.words not in (INPUT, CONVOLUTIONS) for where in asked):
        raise UsageError("`rules` by the path of a module need the model; found none. Pass `model`.")
