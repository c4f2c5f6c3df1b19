"""A question's forward passes with the layers that each sequence goes through: blocks, or feature maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from clearhead.errors import ModelError
from clearhead.question import Grid, Pass, Question
from clearhead.sight.capture import Row, Sight, called
from clearhead.sight.modules import Called, blocks, sequence, watched
from clearhead.sight.watch import Watch, started
from clearhead.tape import Kept


@dataclass(frozen=True, eq=False)
class State:
    """A tensor on its way: its value and its place in the graph as they were then, and the sequence it belongs to."""

    held: Kept
    edge: GradientEdge
    row: Row

    @property
    def value(self) -> Tensor:
        """The tensor as it was."""
        return self.held.value


@dataclass(frozen=True)
class Placed:
    """How a tensor falls into places with channels: the positions of a sequence, or a feature map of some size.

    `covers` are the units of each position, or the name of a learned vector; padding covers nothing.
    """

    covers: tuple[tuple[int, ...] | str, ...] | None = None
    size: tuple[int, int] = (0, 0)
    channels_last: bool = False

    def laid(self, tensor: Tensor) -> Tensor:
        """The tensor, or its gradient, as [places, channels] in float64."""
        if self.covers is not None:
            found = sequence(tensor)
            if found is None:
                raise ValueError("A sequence is [1, T, d] or [T, 1, d].")
            return found.double()
        last = tensor if self.channels_last else tensor.movedim(1, -1)
        return last.reshape(-1, last.shape[-1]).double()

    def units(self, places: Iterable[int]) -> frozenset[int]:
        """The units of some positions, without padding and learned vectors; of a feature map the places themselves."""
        if self.covers is None:
            return frozenset(places)
        covered = [self.covers[p] for p in places]
        return frozenset(unit for each in covered if not isinstance(each, str) for unit in each)


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer whose output, or input, is looked at: its name, and its number among the blocks of its sequence."""

    path: str
    state: State
    placed: Placed
    number: int | None = None
    before: bool = False  # what a module was given, not what it gave

    def __str__(self) -> str:
        return f"{'the input' if self.before else 'the output'} of {self.path or 'the model'!r}"


@dataclass(eq=False)
class Stack:
    """The layers that one sequence goes through, in order, and what comes before them.

    `maps` says that they are feature maps of an image, not blocks with a vector for each position.
    """

    row: Row
    stream: str
    layers: list[Layer] = field(default_factory=list)
    first: Layer | None = None
    maps: bool = False
    named: Layer | None = None  # the output of the module that was asked for

    @property
    def blocks(self) -> list[Layer]:
        """The layers that have a number."""
        return [layer for layer in self.layers if layer.number is not None]


def stacked(question: Question, path: str | None = None) -> tuple[Sight, list[Stack]]:
    """Make the passes of a question about one item with gradients from its input on, and note the layers.

    `path` is a module to be noted too. Parameters are constants. Raises ModelError if the model fails, or if no
    sequence or feature map was seen.
    """
    sight, stacks = Sight(question), list[Stack]()
    for number, part in enumerate(question.passes):
        stacks += _Pass(sight, number, part, path).stacks()
    if not stacks:
        raise ModelError(
            f"GradCAM needs a layer with a vector for each position of the input, or a feature map; "
            f"{type(question.model).__name__} has none. Choose method='lrp'."
        )
    return sight, stacks


class _Pass:
    """One pass under watch."""

    def __init__(self, sight: Sight, number: int, part: Pass, path: str | None) -> None:
        self._sight, self._number, self._part, self._path = sight, number, part, path
        self._module = None if path is None else sight.question.model.get_submodule(path)
        self._layout = sight.question.items[0].layouts[number]
        self._latest: dict[str, int] = {}
        self._first: dict[Row, tuple[str, State]] = {}  # the earliest sequence that depends on an input
        tensors, leaves = dict(part.tensors), dict[str, Tensor]()
        for name in part.explained:
            leaves[name], tensors[name] = started(tensors[name])
        named = dict.fromkeys((*(span.ids for span in self._layout.spans), *part.explained))
        self._inputs = {name: tensors[name] for name in named if name in tensors}
        model, grid = sight.question.model, self._layout.grid is not None
        self._watch = Watch(model, lambda _: None, self._inputs, grid=grid, begin="lookup")
        with watched(model, self._keep) as calls:
            sight.outputs.append(called(sight.question, tensors, self._watch, recording=True))
        sight.beside += [(number, each) for each in self._watch.beside]
        self._ended = calls.ended
        for name, leaf in leaves.items():
            row = Row(number, name)
            self._first.setdefault(row, (name, State(Kept(leaf.detach()), get_gradient_edge(leaf), row)))

    def _keep(self, call: Called[State], tensor: Tensor) -> State | None:
        """What is kept of a tensor: sequences and feature maps that come from an input, of modules that count."""
        mark = self._watch._marks.get(tensor)
        if mark is None or not mark.origins or not tensor.requires_grad:
            return None
        for name in sorted(mark.origins):
            self._latest.setdefault(name, len(self._latest))
        row = Row(self._number, max(mark.origins, key=self._latest.__getitem__))
        begins = row not in self._first and sequence(tensor) is not None
        if not (begins or call.member or call.module is self._module or tensor.dim() == 4):
            return None
        state = State(self._watch._keeper.keep(tensor), get_gradient_edge(tensor), row)
        if begins:
            self._first[row] = call.path, state
        return state

    def stacks(self) -> list[Stack]:
        """The layers of each input of the pass, where their positions are known."""
        found = blocks(self._ended)
        stacks = [self._stack(Row(self._number, name), found) for name in self._inputs]
        return [stack for stack in stacks if stack.layers or stack.first]

    def _stack(self, row: Row, found: Sequence[Called[State]]) -> Stack:
        own = self._layers(row, found)
        flat = [layer for layer in own if layer.placed.covers is not None]
        stack = Stack(row, self._stream(row), flat, maps=not flat and self._grid(row) is not None)
        if stack.maps:
            numbers = {id(layer.state): layer.number for layer in own}
            every = self._layers(row, self._ended)
            wide = [layer for layer in every if layer.placed.covers is None and min(layer.placed.size) > 1]
            stack.layers = [replace(layer, number=numbers.get(id(layer.state))) for layer in wide]
        stack.first = self._before(row, found, flat)
        if self._module is not None:
            asked = self._layers(row, [call for call in self._ended if call.module is self._module])
            numbers = {id(layer.state): layer.number for layer in stack.layers}
            stack.named = replace(asked[-1], number=numbers.get(id(asked[-1].state))) if asked else None
        return stack

    def _layers(self, row: Row, calls: Sequence[Called[State]]) -> list[Layer]:
        """The outputs of calls that belong to a sequence and whose places are known."""
        layers = list[Layer]()
        for call in calls:
            if call.output is not None and (placed := self._placed(row, call.output)) is not None:
                layers.append(Layer(call.path, call.output, placed, len(layers)))
        return layers

    def _before(self, row: Row, found: Sequence[Called[State]], flat: Sequence[Layer]) -> Layer | None:
        """What the first block was given, or the earliest sequence that depends on the input."""
        block = next((call for call in found if flat and call.output is flat[0].state), None)
        given = block.given if block is not None else None
        path, state = (block.path, given) if block and given else self._first.get(row, ("", None))
        placed = None if state is None else self._placed(row, state)
        return None if state is None or placed is None else Layer(path, state, placed, before=given is not None)

    def _stream(self, row: Row) -> str:
        """The name of what a sequence stands for; of two texts in one sequence both."""
        spans = [span for span in self._layout.spans if span.ids == row.name]
        if self._grid(row) is not None or not spans:
            return self._sight.stream(row)
        start = min(span.first for span in self._layout.spans) if self._layout.grid is None else 0
        units = [unit for span in spans for unit in self._layout.units[span.first - start : span.last - start]]
        return " and ".join(dict.fromkeys(unit.stream for unit in units))

    def _grid(self, row: Row) -> Grid | None:
        return grid_of(self._sight.question, row)

    def _placed(self, row: Row, state: State) -> Placed | None:
        if state.row != row:
            return None
        shape, grid = tuple(state.value.shape), self._grid(row)
        if len(shape) == 4 and grid is not None:
            tall, wide = self._part.tensors[row.name].shape[-2:]
            last = shape[2] * wide != shape[3] * tall and shape[1] * wide == shape[2] * tall
            return Placed(size=shape[1:3] if last else shape[2:4], channels_last=last)
        rows = sequence(state.value)
        try:
            return None if rows is None else Placed(covers=tuple(self._sight.covered(row, len(rows))))
        except ModelError:
            return None


def grid_of(question: Question, row: Row) -> Grid | None:
    """The grid of the image that a sequence stands for; None for texts."""
    grid = question.items[0].layouts[row.part].grid
    return grid if row.name in question.passes[row.part].explained else None


# ---- gradients -----------------------------------------------------------------------------------------------------


def gradients(value: Tensor, layers: Sequence[Layer]) -> list[Tensor | None]:
    """The gradient of a value at each layer [places, channels]; None where there is none. Raises ModelError."""
    try:
        found = torch.autograd.grad(value, [e.state.edge for e in layers], retain_graph=True, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ModelError(f"No gradient can be sent back through this model: {error}. Choose another method.") from error
    return [None if g is None else layer.placed.laid(g) for g, layer in zip(found, layers, strict=True)]


def supports(value: Tensor, layers: Sequence[Layer]) -> Mapping[Layer, frozenset[int]]:
    """The units at whose positions in a layer the gradient of a value is not 0; of a feature map, such places."""
    found = {}
    for layer, gradient in zip(layers, gradients(value, layers), strict=True):
        places = [] if gradient is None else (gradient != 0).any(-1).nonzero().flatten().tolist()
        found[layer] = layer.placed.units(places)
    return found
