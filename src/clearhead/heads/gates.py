r"""Every head has a gate $\xi_h = 1$ that multiplies what it gives out; shut, the head is gone, exactly.

Axes: batch B, windows W, heads H, queries Q, width D. Windows and batches of one attention may share an axis.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from clearhead.attention.looking import stream_names
from clearhead.errors import ClearheadError, ModelError, UsageError, suggest
from clearhead.headreports import Head
from clearhead.question import Question, failed, uncached
from clearhead.sight import places
from clearhead.sight.capture import Layer, seen
from clearhead.sight.sites import Site, laid
from clearhead.sight.watch import AS_ONE, CARRIES, FUSED, PRODUCTS, SOFTMAX
from clearhead.tape import Function, Operation, Tape, constants_detached, given_back, is_tensor, picked, writes_in_place

Call = tuple[str, int]  # the path of a module, and the number of its attention in one pass
Give = Callable[[Call, Tensor], Tensor]  # what heads give out [..., H, Q, D], to what the model goes on with
PLAIN = (-3, -2)  # the axes of heads and queries


class Gates:
    """Interprets calls by making them as they are, and hands what heads give out to `give`, which may change it.

    With `constants`, parameters take part without gradients.
    """

    def __init__(self, model: nn.Module, give: Give, *, constants: bool = False) -> None:
        self.tape = Tape(self.interpret, model)
        self._give, self._constants = give, constants
        self._tables: Any = WeakTensorKeyDictionary()
        self._open: set[Function] = set()
        self._calls: dict[str, int] = {}

    def interpret(self, operation: Operation, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the tape calls for each operation."""
        given = args
        if self._constants:
            args, _ = constants_detached(args)
            kwargs = dict(zip(kwargs, constants_detached(tuple(kwargs.values()))[0], strict=True))
        if operation.name == FUSED:
            return self._given(function(*args, **kwargs), PLAIN)
        if _holds_attention(operation, function) and function not in self._open:
            return self._apart(operation.composite, function, args, kwargs)
        if operation.name in SOFTMAX:
            return self._marked(function(*args, **kwargs))
        if not len(self._tables):
            return given_back(function(*args, **kwargs), args, given)
        return given_back(self._beyond(operation, function, args, kwargs), args, given)

    def _apart(self, composite: Any, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function written in Python that computes attention, call by call."""
        self._open.add(function)
        try:
            return self.tape.under(composite, *args, **kwargs)
        finally:
            self._open.discard(function)

    def _beyond(self, operation: Operation, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call after a softmax: does it carry the weights on, or weigh values by them?"""
        operands = list(picked((*args, *kwargs.values()), is_tensor))
        table = next((each for each in operands if each in self._tables), None)
        if table is not None and operation.name in PRODUCTS:
            return self._given(function(*args, **kwargs), _axes(operation.name, args, operands, table))
        own = list(picked(args, is_tensor))
        looked = own if operation.name == "where" else own[:1]
        carries = operation.name in CARRIES and any(each in self._tables for each in looked)
        result = function(*args, **kwargs)
        if carries:
            return self._marked(result)
        if writes_in_place(operation, args, kwargs):
            self._tables.pop(args[0], None)
        return result

    def _marked(self, result: Any) -> Any:
        for tensor in picked((result,), is_tensor):
            self._tables[tensor] = True
        return result

    def _given(self, result: Tensor, axes: tuple[int, int]) -> Tensor:
        """What heads give out, changed."""
        module = self.tape.module()
        number = self._calls[module] = self._calls.get(module, -1) + 1
        whole = result if result.dim() > 2 else result[None]
        moved = whole if axes == PLAIN else whole.movedim(axes, PLAIN)
        new = self._give((module, number), moved)
        if new is moved:
            return result
        new = new if axes == PLAIN else new.movedim(PLAIN, axes)
        return new if result.dim() > 2 else new[0]


def _holds_attention(operation: Operation, function: Function) -> bool:
    """Is it a function written in Python that computes attention inside?"""
    if operation.composite is None or operation.name in AS_ONE:
        return False
    code = getattr(function, "__code__", None)
    return code is not None and bool((SOFTMAX | {FUSED}) & set(code.co_names))


def _axes(name: str, args: tuple[Any, ...], operands: Sequence[Tensor], table: Tensor) -> tuple[int, int]:
    """The axes of heads and queries in the product of a table of weights and values."""
    if name != "einsum":
        return PLAIN if operands[-2] is table else (-3, -1)
    order = places.order(name, args, operands, table) or tuple(range(table.dim()))
    left, arrow, right = str(args[0]).replace(" ", "").partition("->")
    mine = left.split(",")[[each is table for each in operands].index(True)]
    if not arrow or "." in mine or len(order) < 3 or {mine[order[-3]], mine[order[-2]]} - set(right):
        raise ModelError(
            f"A gate needs to know which axis of a product are its heads; found the equation {args[0]!r}. Load the "
            "model with attn_implementation='sdpa', or write the axes out."
        )
    return right.index(mine[order[-3]]) - len(right), right.index(mine[order[-2]]) - len(right)


# ---- which heads there are -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """All heads of a model by name: each stream's layers, and the call that each layer is.

    A module that reads several inputs has its heads once, under the name of the first; `calls` knows all names.
    """

    heads: tuple[Head, ...]
    calls: Mapping[tuple[str, int], Call]
    count: Mapping[Call, int]

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def call_of(self) -> dict[Call, tuple[str, int]]:
        """The stream and layer of each call, as its heads are named."""
        return {self.calls[head.stream, head.layer]: (head.stream, head.layer) for head in self.heads}

    def starts(self) -> dict[Call, int]:
        """The number of the first head of each call among all heads."""
        found: dict[Call, int] = {}
        for n, head in enumerate(self.heads):
            found.setdefault(self.calls[head.stream, head.layer], n)
        return found

    def group_size(self, call: Call) -> int | None:
        """How many heads of a layer share their keys and values; None if each has its own."""
        own = [head.group for head in self.heads[self.starts()[call] :][: self.count[call]]]
        return None if own[0] is None else own.count(own[0])

    def chosen(self, wanted: Any) -> tuple[Head, ...]:
        """The heads meant by `Head` objects, texts such as `"encoder 3.5"`, or tuples; UsageError for others."""
        single = isinstance(wanted, (str, Head)) or (isinstance(wanted, tuple) and wanted and _is_number(wanted[-1]))
        numbers = dict.fromkeys(self._number(each) for each in ([wanted] if single else wanted))
        return tuple(self.heads[n] for n in numbers)

    def _number(self, wanted: Any) -> int:
        stream, layer, head = self._read(wanted)
        call = self.calls.get((stream, layer))
        if call is None or not 0 <= head < self.count[call]:
            names = dict.fromkeys(name for name, _ in self.calls)
            raise UsageError(
                f"A head must be one that the model has ({self.described()}); found {str(wanted)!r}."
                f"{suggest(stream, names) if stream not in names else ''}"
            )
        return self.starts()[call] + head

    def _read(self, wanted: Any) -> tuple[str, int, int]:
        """Stream, layer and number, however a head is spelled."""
        if isinstance(wanted, Head):
            return wanted.stream, wanted.layer, wanted.head
        parts = tuple(wanted) if isinstance(wanted, (tuple, list)) else ()
        if isinstance(wanted, str):
            stream, _, numbers = wanted.strip().rpartition(" ")
            numbered = [each for each in numbers.split(".") if each.isdecimal()]
            parts = (*([stream] if stream else []), *map(int, numbered)) if len(numbered) == 2 else ()
        streams = list(dict.fromkeys(head.stream for head in self.heads))
        if len(parts) == 2 and len(streams) == 1:
            parts = (streams[0], *parts)
        if len(parts) != 3 or not _is_number(parts[1]) or not _is_number(parts[2]):
            raise UsageError(
                f'A head is written "{streams[0]} 0.1" or ({streams[0]!r}, 0, 1): stream, layer, number, where there '
                f"is one stream without it; found {wanted!r}. There are {self.described()}."
            )
        return str(parts[0]), int(parts[1]), int(parts[2])

    def described(self) -> str:
        """What there is, in words: `encoder: layers 0 to 5, heads 0 to 11`."""
        found = []
        for name in dict.fromkeys(name for name, _ in self.calls):
            layers = [layer for stream, layer in self.calls if stream == name]
            most = max(self.count[self.calls[name, layer]] for layer in layers)
            found.append(f"{name}: layers 0 to {max(layers)}, heads 0 to {most - 1}")
        return "; ".join(found)

    def masks(self, heads: Iterable[Head]) -> dict[Call, Tensor]:
        """For each layer that loses heads a gate [H] of 0 and 1."""
        found: dict[Call, Tensor] = {}
        for head in heads:
            call = self.calls[head.stream, head.layer]
            found.setdefault(call, torch.ones(self.count[call]))[head.head] = 0
        return found

    def emptied(self, heads: Iterable[Head]) -> tuple[str, ...]:
        """A note about each layer that loses all of its heads."""
        lost = self.masks(heads)
        return tuple(
            f"All {self.count[call]} heads of {stream} layer {layer} are removed; its attention gives out nothing."
            for call, (stream, layer) in self.call_of.items()
            if call in lost and not lost[call].any()
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def discover(question: Question) -> Catalogue:
    """The heads of a model, from one question about one item. Raises ModelError without attention."""
    groups: list[int | None] = []
    given: list[tuple[Call, int]] = []

    def give(call: Call, each: Tensor) -> Tensor:
        given.append((call, each.shape[-3]))
        return each

    with question.evaluated():
        sight = seen(question, put=lambda site: groups.append(_shared(site)))
        passed(question, give, recording=False)
    names, before = stream_names(sight), _passes(sight.layers)
    heads, known, count, layers, numbers = list[Head](), {}, dict[Call, int](), dict[str, int](), dict[str, int]()
    for layer, group in zip(sight.layers, groups, strict=True):
        module, stream = layer.site.place.module, names[layer.query, layer.key]
        numbers[module] = numbers.get(module, -1) + 1
        call = (module, numbers[module] - before[layer.query.part, module])
        at = layers[stream] = layers.get(stream, -1) + 1
        known[stream, at] = call
        if call not in count:
            count[call] = layer.site.heads
            which = [None if group is None else h // group for h in range(count[call])]
            heads += [Head(stream=stream, layer=at, head=h, module=module, group=g) for h, g in enumerate(which)]
    if any(size % count.get(call, size + 1) for call, size in given) or {call for call, _ in given} != set(count):
        raise ModelError(
            f"Gates must meet the attentions that are seen; seen {len(known)}, met {len(given)}. Load the model with "
            "attn_implementation='sdpa'."
        )
    return Catalogue(heads=tuple(heads), calls=known, count=count)


def _passes(layers: Sequence[Layer]) -> dict[tuple[int, str], int]:
    """How many attentions of a module earlier passes saw, by pass and module."""
    found: dict[tuple[int, str], int] = {}
    total: dict[str, int] = {}
    for layer in layers:
        module = layer.site.place.module
        found.setdefault((layer.query.part, module), total.get(module, 0))
        total[module] = total.get(module, 0) + 1
    return found


def _shared(site: Site) -> int | None:
    """How many heads share their keys and values; None if each has its own.

    Where a model has written the same values out for each of them, they are the same numbers.
    """
    if site.held_value is None:
        return None
    values = laid(site.held_value.value)[0]
    if values.shape[-2] != site.shape[3]:  # an axis of keys that lies elsewhere: heads would too
        return None
    if 0 < len(values) < site.heads:
        return site.heads // len(values)
    if len(values) != site.heads or site.heads < 2 or not bool(values.any()):
        return None
    same = (values[1:] == values[:-1]).flatten(1).all(1).tolist()
    begins = [0, *(n + 1 for n, each in enumerate(same) if not each), site.heads]
    runs = {after - before for before, after in pairwise(begins)}
    return runs.pop() if len(runs) == 1 and max(runs) > 1 else None


def passed(question: Question, give: Give, *, recording: bool) -> list[Any]:
    """The outputs of all passes of a question, through gates. Raises ModelError if the model fails."""
    outputs = []
    for part in question.passes:
        gates = Gates(question.model, give, constants=True)
        try:
            with torch.inference_mode(False), torch.set_grad_enabled(recording):
                outputs.append(gates.tape.under(question.model, **uncached(question.model, part.tensors)))
        except (ClearheadError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            raise failed(question.model, part.tensors, error) from error
    return outputs


# ---- the gates -----------------------------------------------------------------------------------------------------


def shut(masks: Mapping[Call, Tensor]) -> Give:
    """Multiplies what heads give out by gates [H]."""

    def give(call: Call, given: Tensor) -> Tensor:
        mask = masks.get(call)
        if mask is None:
            return given
        return given * mask.to(given).repeat(_times(given, len(mask), call))[:, None, None]

    return give


def _times(given: Tensor, heads: int, call: Call) -> int:
    if given.shape[-3] % heads:
        raise ModelError(
            f"An attention must have as many heads in every pass; {call[0]!r} had {heads}, and now {given.shape[-3]}. "
            "Open the model again with AttentionVisualizer."
        )
    return given.shape[-3] // heads


def per_item(amounts: Tensor, items: int, heads: int) -> Tensor:
    """Amounts [..., Q] of rows of heads, in whatever way batch, windows and heads are laid out, as [B, W, H, Q]."""
    lead = math.prod(amounts.shape[:-1])
    if lead % (items * heads):
        raise ModelError(
            f"Each of {items} inputs must have its own rows in every attention; found {tuple(amounts.shape)} for "
            f"{heads} heads. Take batch_size=1."
        )
    return amounts.reshape(items, lead // (items * heads), heads, amounts.shape[-1])


@contextmanager
def gated(
    model: nn.Module, give: Callable[[Mapping[str, Tensor]], Give], modules: Iterable[str] = ()
) -> Iterator[None]:
    """Within the block, and in this thread, every pass of a model goes through gates; after it nothing is left.

    `give` is asked once per pass, with the tensors that the model is called with. The outermost of the model and the
    ancestors of `modules` that is called begins a pass.
    """
    paths = {"", *(".".join(path.split(".")[:n]) for path in modules for n in range(1, path.count(".") + 2))}
    thread, depth, tapes = threading.get_ident(), [0], list[Tape]()
    keep: list[Gates] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != thread:
            return
        depth[0] += 1
        if depth[0] == 1:
            gates = Gates(model, give(_named(module, args, kwargs)))
            keep.append(gates)
            tapes.append(gates.tape)
            gates.tape.__enter__()

    def leave(*_: Any) -> None:
        if threading.get_ident() != thread:
            return
        depth[0] -= 1
        if depth[0] == 0 and tapes:
            keep.pop()
            tapes.pop().__exit__(None, None, None)

    handles: list[Any] = []
    try:
        for path in sorted(paths):
            module = model.get_submodule(path)
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        while tapes:  # an interruption that is no Exception
            tapes.pop().__exit__(None, None, None)


def _named(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name."""
    code = module.forward.__code__ if hasattr(module.forward, "__code__") else None
    names = code.co_varnames[1 : code.co_argcount] if code is not None else ()
    return {**dict(zip(names, args, strict=False)), **kwargs}
