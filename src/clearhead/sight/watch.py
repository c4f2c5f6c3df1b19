"""A forward pass that is watched for attention: every softmax over keys whose result weighs values, fused or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from clearhead.sight import places, trail
from clearhead.sight.edge import Edge
from clearhead.sight.sites import Fused, Site, Written
from clearhead.tape import (
    Function,
    Keeper,
    Names,
    Operation,
    Tape,
    constants_detached,
    given_back,
    is_tensor,
    picked,
    writes_in_place,
)

SOFTMAX = frozenset({"softmax", "_softmax", "_safe_softmax"})
PRODUCTS = frozenset({"matmul", "bmm", "baddbmm", "einsum"})
FUSED = "scaled_dot_product_attention"
# A softmax that is moved, cut or scaled entry by entry is still a table of weights.
CARRIES = frozenset(
    "dropout to type type_as float half double bfloat16 view reshape transpose permute contiguous getitem squeeze "
    "unsqueeze flatten unflatten clone expand nan_to_num where mul masked_fill movedim view_as cat chunk split".split()
)
AS_ONE = SOFTMAX | PRODUCTS | CARRIES | {FUSED}  # not taken apart, though some of them are written in Python

NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a tensor: the inputs it comes from, how it can be made again, whether it holds weights.

    `index` says of each entry to which position of the sequence it belongs, from 1 on; 0 is padding. `version` tells
    whether the tensor was overwritten since. `beside` names learned vectors along a sequence, by place. `asks` are the
    inputs that the queries of a table come from.
    """

    origins: frozenset[str] = NOTHING
    step: trail.Step | None = None
    weights: bool = False
    index: Tensor | None = None
    version: int = 0
    beside: tuple[str | None, ...] = ()
    asks: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """A sequence in which learned vectors stand beside those of an input: their names by place, None for the others."""

    names: tuple[str | None, ...]
    origins: frozenset[str]


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it is met, with what is known of the tensors among its arguments, by their identity."""

    operation: Operation
    function: Function
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    marks: Mapping[int, Mark]

    def tensors(self) -> list[Tensor]:
        """The tensors among its arguments, in order."""
        return list(picked((*self.args, *self.kwargs.values()), is_tensor))

    def mark(self, tensor: Tensor) -> Mark:
        """What is known of an argument."""
        return self.marks.get(id(tensor), Mark())


class Watch:
    """Interprets calls by making them as they are, and tells `found` of each attention it sees.

    `inputs` are the tensors whose influence is followed, by name; `grid` says that positions are parts of an image,
    which models cut into windows. Gradients are recorded from `begin` on: an `Edge`, every attention, or every lookup.
    """

    def __init__(
        self,
        model: nn.Module,
        found: Callable[[Site], None],
        inputs: Mapping[str, Tensor],
        *,
        grid: bool = False,
        begin: Edge | Literal["attention", "lookup"] | None = None,
    ) -> None:
        self.tape = Tape(self.interpret, model)
        self.beside: list[Beside] = []
        self._found, self._grid = found, grid
        self._edge = begin if isinstance(begin, Edge) else None
        self._attentions, self._lookups = begin == "attention", begin == "lookup"
        self._keeper = Keeper()
        self._open: set[Function] = set()  # functions that are being taken apart
        self._marks: Any = WeakTensorKeyDictionary()
        self._names = Names(model)
        for name, tensor in inputs.items():
            self._marks[tensor] = Mark(frozenset({name}))

    # ---- every call --------------------------------------------------------------------------------------------

    def interpret(self, operation: Operation, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the tape calls for each operation."""
        if self._edge is not None:
            args, kwargs = self._edge.crossed(self.tape.module, operation, args, kwargs, self._marks)
        given = args
        args, _ = constants_detached(args)
        if kwargs:
            kwargs = dict(zip(kwargs, constants_detached(tuple(kwargs.values()))[0], strict=True))
        tensors = list(picked((*args, *kwargs.values()), is_tensor))
        marks = {id(tensor): mark for tensor in tensors if (mark := self._marks.get(tensor)) is not None}
        if operation.composite is not None and operation.name not in AS_ONE and marks and function not in self._open:
            return self._apart(operation.composite, function, args, kwargs)
        call = Call(operation, function, args, kwargs, marks)
        if operation.name == FUSED:
            result = self._fused(call)
        elif operation.name in PRODUCTS and any(mark.weights for mark in marks.values()):
            result = self._weighed(call)
        else:
            return given_back(self._made(call), args, given)
        self._mark(result, Mark(_union(marks.values()), version=result._version))
        return result

    def _apart(self, composite: Function, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function written in Python, call by call; one that hands itself back on the way is made as it is."""
        self._open.add(function)
        try:
            return self.tape.under(composite, *args, **kwargs)
        finally:
            self._open.discard(function)

    def _made(self, call: Call) -> Any:
        """Any other call: made as it is, and what is known of its result is noted."""
        operation, args, kwargs = call.operation, call.args, call.kwargs
        step = self._step(call)
        overwrites = writes_in_place(operation, args, kwargs)
        if overwrites:
            self._keeper.spare(args[0])
        result = call.function(*args, **kwargs)
        if self._lookups and operation.name == "embedding" and result.is_floating_point():
            _, result = started(result)
        known = args[0] if result is None and overwrites else result
        if step is None and not overwrites and trail.grows(operation, args, kwargs, result):
            step = trail.steps(self._keeper, self._names, {}, operation, call.function, args, kwargs)
        if call.marks or step is not None:
            whole = Mark(_union(call.marks.values()), step, _carries(call), asks=_asking(call))
            for item, tensor in enumerate(_results(known)):
                self._note(call, tensor, whole if isinstance(known, Tensor) else _of(whole, item), item)
        return result

    def _note(self, call: Call, tensor: Tensor, mark: Mark, item: int) -> None:
        """Note what is known of one result of a call."""
        if tensor in self._marks and not writes_in_place(call.operation, call.args, call.kwargs):
            return  # a call that gives its argument back
        size = tensor.numel() * tensor.element_size()
        step = mark.step if mark.step is not None and mark.step.held < size else None
        index, beside = None, tuple[str | None, ...]()
        if self._grid:
            moved = places.Moved(call.operation.name, call.function, call.args, call.kwargs, item)
            source = next((t for t in picked(call.args, is_tensor) if t in self._marks), None)
            before = self._marks[source] if source is not None else Mark()
            index = places.followed(moved, source, before.index, tensor)
            beside = self._joined(moved, tensor, mark.origins) or places.named(moved, source, before.beside, tensor)
        self._mark(tensor, Mark(mark.origins, step, mark.weights, index, tensor._version, beside, mark.asks))

    def _mark(self, tensor: Tensor, mark: Mark) -> None:
        self._marks[tensor] = mark

    def _step(self, call: Call) -> trail.Step | None:
        """How the result can be made again, if that begins with a product or goes on from a known one."""
        known = {
            id(tensor): mark.step
            for tensor in call.tensors()
            if (mark := call.mark(tensor)).step is not None and mark.version == tensor._version
        }
        operation, args, kwargs = call.operation, call.args, call.kwargs
        if (not known and operation.name not in PRODUCTS) or not trail.repeats(operation, args, kwargs):
            return None
        return trail.steps(self._keeper, self._names, known, operation, call.function, args, kwargs)

    def _joined(self, call: places.Moved, result: Tensor, origins: frozenset[str]) -> tuple[str | None, ...]:
        """Names along a sequence [1, positions, width] beside which learned vectors are put; empty where none are."""
        if call.name != "cat" or result.dim() != 3 or result.shape[0] != 1:
            return ()
        names = list[str | None]()
        for part in picked(call.args, is_tensor):
            mark = self._marks.get(part)
            if mark is None or not mark.origins:
                short = (self._names.of(part) or "learned").rpartition(".")[2]
                names += [short] if part.shape[1] == 1 else [f"{short} {n + 1}" for n in range(part.shape[1])]
            else:
                names += mark.beside or [None] * part.shape[1]
        if len(names) != result.shape[1] or not any(names):
            return ()
        self.beside.append(Beside(tuple(names), origins))
        return tuple(names)

    # ---- attention ---------------------------------------------------------------------------------------------

    def _fused(self, call: Call) -> Tensor:
        """One call that computes attention: its operands are kept."""
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
        site = Fused(
            place=self._place(call, given["query"], given["value"]),
            query=self._keeper.keep(given["query"]),
            key=self._keeper.keep(given["key"]),
            held_value=self._keeper.keep(given["value"]),
            mask=None if given.get("attn_mask") is None else self._keeper.keep(given["attn_mask"]),
            causal=bool(given.get("is_causal", False)),
            scale=given.get("scale"),
        )
        given.update(dropout_p=0.0)
        if self._edge is not None:
            self._edge.attention(site)
        result: Tensor = call.function(**given)
        site.output = result if result.requires_grad else None
        if self._attentions:
            site.output, result = started(result)
        self._found(site)
        return result

    def _weighed(self, call: Call) -> Tensor:
        """A product of weights that the model computed itself."""
        args, kwargs, operands = call.args, call.kwargs, call.tensors()
        table = next(t for t in operands if call.mark(t).weights)
        value = next((t for t in reversed(operands) if t is not table), table)
        order = places.order(call.operation.name, args, operands, table)
        turned = table if order is None else table.permute(order)
        site = Written(
            place=self._place(call, table, value, order),
            weights=_again(call.mark(table), table, order) or self._keeper.keep(turned),
            table=tuple(turned.shape),
            held_value=self._keeper.keep(value),
        )
        if self._edge is not None:
            self._edge.attention(site)
        if self._attentions:
            turned = turned.detach().requires_grad_()
        used = turned if order is None else turned.permute([order.index(axis) for axis in range(len(order))])
        if used is not table:
            args = tuple(_replaced(each, table, used) for each in args)
            kwargs = {name: _replaced(each, table, used) for name, each in kwargs.items()}
        site.output = turned if turned.requires_grad else None
        result: Tensor = call.function(*args, **kwargs)
        self._found(site)
        return result

    def _place(self, call: Call, query: Tensor, value: Tensor, order: tuple[int, ...] | None = None) -> places.Place:
        """`query` is the operand of a fused call, or a table whose axes are to be put in `order`."""
        of_query, of_value = call.mark(query), call.mark(value)
        asking = of_query.index if order is None or of_query.index is None else of_query.index.permute(order)
        return places.Place(
            module=self.tape.module(),
            query=of_query.origins if of_query.asks is None or not of_query.weights else of_query.asks,
            key=of_value.origins,
            query_index=None if asking is None else asking[..., 0],
            key_index=None if of_value.index is None else of_value.index[..., 0],
        )


def started(value: Tensor) -> tuple[Tensor, Tensor]:
    """A leaf of the same value, and a copy of it for the model to compute with."""
    with torch.enable_grad():
        leaf = value.detach().clone().requires_grad_()
        return leaf, leaf.clone()


def _union(marks: Iterable[Mark]) -> frozenset[str]:
    found: frozenset[str] = NOTHING
    for mark in marks:
        found |= mark.origins
    return found


def _carries(call: Call) -> bool:
    """Does the result hold weights: a softmax, or one that is carried on?"""
    if call.operation.name in SOFTMAX:
        return True
    tensors = list(picked(call.args, is_tensor))
    looked = tensors if call.operation.name == "where" else tensors[:1]
    return call.operation.name in CARRIES and any(call.mark(each).weights for each in looked)


def _asking(call: Call) -> frozenset[str] | None:
    """The inputs that rows of a table come from: those of a product's first factor, or as known before."""
    operands = call.tensors()
    if call.operation.name in PRODUCTS and len(operands) > 1:
        return call.mark(operands[-2]).origins
    return next((asks for each in operands if (asks := call.mark(each).asks) is not None), None)


def _again(mark: Mark, table: Tensor, order: tuple[int, ...] | None) -> trail.Step | None:
    """How a table is made again, its axes in order; None if that is not known."""
    if mark.step is None or mark.version != table._version:
        return None
    return mark.step if order is None else trail.Step(Tensor.permute, (mark.step, order), {}, mark.step.held)


def _of(mark: Mark, item: int) -> Mark:
    """The mark of one of several results."""
    return mark if mark.step is None else replace(mark, step=replace(mark.step, item=item))


def _results(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (list, tuple)):
        for each in result:
            yield from _results(each) if isinstance(each, Tensor) else ()


def _replaced(value: Any, old: Tensor, new: Tensor) -> Any:
    if value is old:
        return new
    if isinstance(value, (list, tuple)):
        return type(value)([_replaced(each, old, new) for each in value])
    return value
