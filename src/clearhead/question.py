"""Predictions to explain, as subjects pose them and methods answer them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clearhead import inventory
from clearhead.errors import ModelError
from clearhead.maps import Recipe, Target
from clearhead.units import Unit

NOTHING = -1  # an id that is no token's
Operator = Literal["replace", "attention-mask", "delete"]

Ask = Callable[[list[Any], int], tuple[Target, Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """An ask that takes from the outputs what it explains, such as the largest of many: `choose` gives the ask for it.

    >>> import torch
    >>> def largest(outputs, row):
    ...     k = int(outputs[0][row].argmax())
    ...     return lambda outputs, row: (Target(kind="class", label=str(k)), outputs[0][row, k])
    >>> decided = decide(Choice(largest), [torch.tensor([[1.0, 3.0]])], 0)
    >>> float(decided([torch.tensor([[5.0, 2.0]])], 0)[1])
    2.0
    """

    choose: Callable[[list[Any], int], Ask]

    def __call__(self, outputs: list[Any], row: int) -> tuple[Target, Tensor]:
        """What these outputs themselves choose."""
        return self.choose(outputs, row)(outputs, row)


def decide(ask: Ask, outputs: list[Any], row: int) -> Ask:
    """The ask for what these outputs choose, whatever others say; one that chooses nothing as it is."""
    return ask.choose(outputs, row) if isinstance(ask, Choice) else ask


@dataclass(frozen=True, kw_only=True)
class Span:
    """The units `first` to `last` (exclusive) of a layout, and the tensor that holds their ids, from `offset` on."""

    first: int
    last: int
    ids: str = ""
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The parts of an image: so many rows and columns, row by row, from the unit `first` on.

    `patches` are the rows and columns that the model itself cuts the image into, if it does.
    """

    rows: int
    columns: int
    first: int = 0
    patches: tuple[int, int] | None = None
    stream: str = "image"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The units of one item in one pass: ids lie in `spans`, an image on its `grid`, anything else along axis 1."""

    units: tuple[Unit, ...]
    spans: tuple[Span, ...] = ()
    grid: Grid | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """One call of the model: its tensors, the first axis of each being the batch, and which of them are explained.

    Embedding lookups are explained without being named. `ranges` are the smallest and largest values that a tensor can
    have, where that is known.
    """

    tensors: Mapping[str, Any]
    explained: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Baseline:
    """What an input is compared with: another input in the same places, and what it is in words.

    `tensors` are those of each pass, of the same names and shapes as the pass has them. An id of `NOTHING` stands for
    no token at all: a lookup gives `vector` there, zeros or the mean of all vectors. Under another `operator` than
    `replace`, what differs is not replaced but hidden by the attention mask, or left out.
    """

    label: str
    tensors: tuple[Mapping[str, Any], ...]
    vector: Literal["zero", "mean"] = "zero"
    operator: Operator = "replace"


@dataclass(frozen=True, kw_only=True, eq=False)
class Aim:
    """One scalar to explain: `ask` takes the outputs of all passes and the item's place in the batch.

    `horizon` is how many of the item's units the scalar can depend on, where it is not all of them; `alone` says that
    it takes the outputs of a batch of one.
    """

    ask: Ask
    horizon: int | None = None
    alone: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One input of a batch: its layout in each pass, and what is asked about it.

    `generation` says that the aims are the tokens of one text that the model produced.
    """

    layouts: tuple[Layout, ...]
    aims: tuple[Aim, ...]
    generation: bool = False
    texts: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units of all passes, in order."""
        return tuple(unit for layout in self.layouts for unit in layout.units)


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """A model, the passes to make, the items that lie in their batch, and what these are compared with, if anything."""

    model: nn.Module
    name: str
    task: str
    passes: tuple[Pass, ...]
    items: tuple[Item, ...]
    recipe: Recipe
    apart: tuple[Question, ...] = ()
    baselines: tuple[Baseline, ...] = ()

    def alone(self, n: int) -> Question:
        """The same question about one item, as it was posed `apart` from the others, or cut out of the batch."""
        if self.apart:
            return self.apart[n]
        count = len(self.items)
        passes = tuple(replace(part, tensors=_narrowed(part.tensors, n, count)) for part in self.passes)
        baselines = tuple(
            replace(each, tensors=tuple(_narrowed(tensors, n, count) for tensors in each.tensors))
            for each in self.baselines
        )
        return replace(self, passes=passes, items=(self.items[n],), baselines=baselines)

    @contextmanager
    def evaluated(self) -> Iterator[tuple[str, ...]]:
        """The model in evaluation mode for a while, with a warning if it was not; every flag is put back."""
        modules = [module for _, module in inventory.modules(self.model)]
        training = [module for module in modules if module.training]
        for module in training:
            module.training = False
        notes: tuple[str, ...] = (TRAINING,) if training else ()
        if any(map(_compiled, modules)):
            notes += (COMPILED,)
        try:
            with _uncompiled():
                yield notes
        finally:
            for module in training:
                module.training = True


TRAINING = "The model was in training mode; it is explained as in evaluation mode, without dropout."
COMPILED = "The model, or a part of it, is compiled; it is explained as it was written, operation by operation."


def _compiled(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None


def _uncompiled() -> AbstractContextManager[Any]:
    """What was compiled runs as it was written, for a while; a compiler that nobody loaded stays so."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def uncached(model: nn.Module, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is called with: its tensors, and the wish to keep no keys and values, if it takes wishes."""
    wishes = "use_cache" in inspect.signature(model.forward).parameters and "use_cache" not in tensors
    return {**tensors, "use_cache": False} if wishes else dict(tensors)


def failed(model: nn.Module, tensors: Mapping[str, Any], error: Exception) -> ModelError:
    """What is raised for a model that fails on its tensors: what it said, and where weights are offloaded, why."""
    shapes = {name: tuple(t.shape) if isinstance(t, Tensor) else t for name, t in tensors.items()}
    said = f"The model failed on this input {shapes}: {type(error).__name__}: {error}"
    if isinstance(error, (NotImplementedError, RuntimeError)) and inventory.offloaded(model):
        said += (
            " Some weights are offloaded, and loaded for the module that holds them; another that reads them finds "
            "none. Load the model whole, or keep that module in memory."
        )
    return ModelError(said)


def batched(value: Any, batch: int) -> bool:
    """Does a tensor hold one row per item of the batch?"""
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == batch


def _narrowed(tensors: Mapping[str, Any], n: int, batch: int) -> dict[str, Any]:
    return {name: value[n : n + 1] if batched(value, batch) else value for name, value in tensors.items()}
