"""One prediction to explain, as subjects pose it and methods answer it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from clearhead.maps import Recipe, Target
from clearhead.units import Unit

Ask = Callable[[list[Any]], tuple[Target, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Span:
    """The units `first` to `last` (exclusive) of a pass, and the name of the tensor that holds their ids."""

    first: int
    last: int
    ids: str = ""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The patches of an image: so many rows and columns, row by row, from the unit `first` on."""

    rows: int
    columns: int
    first: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """One call of the model: its tensors, the units they hold, and which float tensors are explained themselves.

    Embedding lookups are explained without being named: `spans` say which ids are whose. The units lie along axis 1
    of an explained tensor, or on its `grid` if it is an image.
    """

    tensors: Mapping[str, Any]
    units: tuple[Unit, ...]
    explained: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    grid: Grid | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """A model, the passes to make, and `ask`: from their outputs to the target and the scalar to explain."""

    model: nn.Module
    name: str
    task: str
    passes: tuple[Pass, ...]
    ask: Ask
    recipe: Recipe
    texts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units of all passes, in order."""
        return tuple(unit for part in self.passes for unit in part.units)

    @contextmanager
    def evaluated(self) -> Iterator[tuple[str, ...]]:
        """The model in evaluation mode for a while, with a warning if it was not; every flag is put back."""
        training = [module for module in self.model.modules() if module.training]
        for module in training:
            module.training = False
        note = "The model was in training mode; it is explained as in evaluation mode, without dropout."
        try:
            yield (note,) if training else ()
        finally:
            for module in training:
                module.training = True
