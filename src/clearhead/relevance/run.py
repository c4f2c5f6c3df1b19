"""One forward pass under the tape: which row a call meets, and what the rows share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from clearhead.config import Settings
from clearhead.errors import UnruledOperationError
from clearhead.relevance import graph
from clearhead.relevance.checkpointing import Moment, tape_of
from clearhead.relevance.choices import chosen
from clearhead.relevance.ledger import Account, Ledger, Place
from clearhead.rulebook import Choice
from clearhead.tape import (
    Function,
    Keeper,
    Names,
    Operation,
    constants_detached,
    dependent,
    given_back,
    mapped,
    picked,
    writes_in_place,
)

Key = tuple[str, str, int]  # a call within a pass: the path of its module, the operation, how many of these before it
Start = tuple[Tensor, Tensor]  # a point [d] from which a slope is drawn, and the function there [d]


@dataclass(slots=True)
class Call:
    """One call of one operation, its constants detached and its in-place spelling made pure."""

    operation: Operation
    function: Function
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def native(self) -> Any:
        """What torch makes of it."""
        return self.function(*self.args, **self.kwargs)

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """An argument, by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def changed(self, change: Callable[[Tensor], Tensor]) -> Call:
        """The same call with every dependent tensor changed."""
        args = tuple(mapped(value, change) for value in self.args)
        return Call(self.operation, self.function, args, {k: mapped(v, change) for k, v in self.kwargs.items()})

    def put(self, other: Tensor, *, for_: Tensor) -> Call:
        """The same call with another tensor in the place of one of its arguments."""
        args = tuple(other if x is for_ else x for x in self.args)
        kwargs = {name: other if x is for_ else x for name, x in self.kwargs.items()}
        return Call(self.operation, self.function, args, kwargs)

    def dependents(self) -> Iterator[Tensor]:
        """The tensors among the arguments that depend on what is explained."""
        yield from picked((*self.args, *self.kwargs.values()))


@dataclass(slots=True)
class Image:
    """A tensor that is a pointwise function f of another one, `root`; `at_zero` is f(0).

    `versions` of root and image tell whether either was overwritten since.
    """

    root: Tensor
    at_zero: float
    versions: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Known:
    """What a run knows of a tensor: of which it is an image, the vectors all items share, whether it was detached."""

    image: Image | None
    shared: tuple[Tensor, Tensor] | None
    detached: bool


@dataclass(slots=True)
class Lookup:
    """A tensor where relevance ends: `leaf` collects the gradient, the model computes with a copy.

    `name` is the module that looked up `indices`, or the parameter that a learned vector is; `first` and `length`
    say where along a joined sequence the vector came to stand. `base` is what a baseline has in its place. `own`
    collects what a rule gives it straight, as R; `range` is between what its values lie, if that is known.
    """

    leaf: Tensor
    name: str
    indices: Tensor | None = None
    first: int = 0
    length: int | None = None
    base: Tensor | None = None
    own: Tensor | None = None
    range: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Owed:
    """A constant that takes its share, $c G_c$, of what reaches the leaf that stands in its place."""

    cause: str
    leaf: Tensor
    place: Place


@dataclass(frozen=True, slots=True)
class Straight:
    """A way past the gradient, from a tensor that holds entries of a source to the source: relevance itself goes it."""

    lookup: Lookup
    own: Tensor
    reader: Tensor
    told: Callable[[Tensor], None] | None = None

    @property
    def range(self) -> tuple[Tensor, Tensor] | None:
        """Between what the values of the source lie."""
        return self.lookup.range

    def put(self, relevance: Tensor) -> Tensor:
        """Relevance in the places of the reader, in those of the source."""
        if self.told is not None:
            self.told(relevance)
        return graph.moved_back(self.lookup.leaf, self.reader, relevance.to(self.reader.dtype))

    def along(self, values: Tensor) -> Tensor:
        """Values in the places of the source, in those of the reader."""
        return graph.moved_along(self.lookup.leaf, self.reader, values)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table of rules: how relevance crosses one operation.

    `apply(run, call)` gives the operation's result; `formula` and `leaks` say what it does in print. `always` rows
    see calls without a dependent argument too; `writes` rows overwrite their first argument themselves.
    """

    apply: Callable[[Any, Any], Any]
    formula: str
    leaks: tuple[str, ...] = ()
    always: bool = False
    writes: bool = False


class Run:
    """Interprets calls by the rule table and collects sources, images and leaks for one forward pass."""

    def __init__(self, settings: Settings, model: nn.Module | None, rows: dict[str, Row], *, batch: int = 1) -> None:
        self.settings = settings
        self.batch = batch
        self.item: int | None = None
        self.ledger = Ledger(batch)
        self.keeper = Keeper()
        self.lookups: list[Lookup] = []
        self.owing: list[Owed] = []
        self.images: Any = WeakTensorKeyDictionary()
        self.detached: Any = WeakTensorKeyDictionary()
        self._shared: Any = WeakTensorKeyDictionary()
        self.rows = rows
        self.tape = tape_of(self, model)
        self._names = Names(model)
        self._calls = 0
        self._starts: Mapping[Key, Start] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._choice, self._choices = settings.choice, chosen(settings, model)
        self.reads_input = False  # does a layer, as far as one was asked for

    # ---- from call to row --------------------------------------------------------------------------------------

    def interpret(self, operation: Operation, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the tape calls for each operation."""
        row, given = self.rows.get(operation.name), args
        args, depends = constants_detached(args)
        if kwargs:
            values, also = constants_detached(tuple(kwargs.values()))
            kwargs, depends = dict(zip(kwargs, values, strict=True)), depends or also
        writes = writes_in_place(operation, args, kwargs)
        if writes and args:
            self.keeper.spare(args[0])
        if "out" in kwargs:
            self.keeper.spare(kwargs["out"])
        if not depends and not (row is not None and row.always):
            return given_back(function(*args, **kwargs), args, given)
        if row is None and operation.composite is not None:
            return self.tape.under(operation.composite, *args, **kwargs)
        call = Call(operation, function, args, kwargs)
        if row is AS_IS:
            return self.unmetered(call)
        if writes and not (row is not None and row.writes):
            return self._in_place(row, call)
        return self.apply(row, call)

    def apply(self, row: Row | None, call: Call) -> Any:
        """The result of one call under its row; without a row, torch's own under the leak meter."""
        return (row or self.rows[OTHER]).apply(self, call)

    def unmetered(self, call: Call) -> Any:
        """An operation whose rule is torch's own gradient."""
        return call.native()

    def entering(self, x: Tensor) -> Tensor:
        """What a row hands on in the place of a tensor that is no argument of its call."""
        return x

    def _in_place(self, row: Row | None, call: Call) -> Any:
        """Compute beside, by the row, then write the result where the model expects it."""
        written, *rest = call.args
        kwargs = dict(call.kwargs)
        flag = call.operation.in_place_argument
        if flag is not None and len(call.args) > flag:
            rest[flag - 1] = False
        elif flag is not None:
            kwargs["inplace"] = False
        function = call.operation.out_of_place or call.function
        result = self.apply(row, Call(call.operation, function, (written.clone(), *rest), kwargs))
        if not dependent(result) and written.requires_grad and not written._is_view():
            written.detach_()  # what was overwritten by a constant is one
        return written.copy_(result)

    # ---- what rows share ---------------------------------------------------------------------------------------

    @property
    def returns(self) -> bool:
        """Are leaks handed back where they leaked?"""
        return self.settings.leak == "return"

    def place(self, call: Call) -> Place:
        """Where the call stands; asked only by rows that have something to book."""
        self._calls += 1
        return Place(call.operation.name, self.tape.module(), self._calls, self.item)

    def account(self, call: Call) -> Account:
        """Where the leaks of the call are written down."""
        return Account(self.ledger, self.place(call), self.returns, self.keeper)

    def owed(self, cause: str, constant: Tensor, place: Place) -> Tensor:
        """What stands in the place of a constant that takes a share; of one item, for nobody could tell whose."""
        leaf = constant.detach().requires_grad_()
        self.owing.append(Owed(cause, leaf, place))
        return leaf

    def choice(self, call: Call, a: Tensor) -> Choice:
        """The rule of a layer that reads `a`."""
        if self._choices is None:
            return self._choice
        reads, convolution = self._read(a) is not None, call.operation.name.startswith("conv")
        self.reads_input |= reads
        return self._choices.at(self.tape.module(), convolution=convolution, reads=reads)

    def _read(self, a: Tensor) -> Lookup | None:
        """The source whose entries a tensor holds, moved or copied but not computed with."""
        leaf = graph.source_of(a)
        return None if leaf is None else next((each for each in self.lookups if each.leaf is leaf), None)

    def straight(self, a: Tensor) -> Straight | None:
        """The way from a layer that reads a source past the gradient; None if it reads what was computed."""
        lookup = self._read(a)
        if lookup is None:
            return None
        if lookup.own is None:
            lookup.own = torch.zeros_like(lookup.leaf).requires_grad_()
        return Straight(lookup, lookup.own, a)

    def begin(self, starts: Mapping[Key, Start]) -> None:
        """Begin a pass in which slopes of pointwise functions are drawn from these points."""
        self._starts = starts
        self._counts.clear()

    def start(self, call: Call, x: Tensor, compute: Callable[[Tensor], Tensor]) -> Start | None:
        """The point from which the slope of a pointwise function is drawn; None stands for zero."""
        found = self._starts.get(self.counted(call)) if self._starts else None
        return found if found is not None and x.dim() > 1 and found[0].shape == x.shape[-1:] else None

    def counted(self, call: Call) -> Key:
        """Which call of its pass this is."""
        place = self.tape.module(), call.operation.name
        self._counts[place] += 1
        return *place, self._counts[place]

    def source(self, value: Tensor, indices: Tensor | None = None, first: int = 0, length: int | None = None) -> Tensor:
        """End relevance here: the model goes on with a copy of a new leaf, of which each item has its own."""
        name = self.tape.module() if indices is not None else self.learned(value) or ""
        looked_up = value
        if self.batch > 1 and value.dim() == 3 and value.shape[0] == 1:
            value = value.expand(self.batch, -1, -1)
        leaf = value.detach().clone().requires_grad_()
        self.lookups.append(Lookup(leaf, name, indices, first, length))
        copy = leaf.clone()
        if self.batch > 1 and looked_up.dim() == 2 and indices is not None:
            self._shared[copy] = (looked_up.detach(), indices)
        return copy

    def own(self, x: Tensor, beside: Tensor) -> Tensor:
        """Of looked-up vectors [T, d] that all items share, a copy for each item, as `beside` [B, T, d] has them."""
        if beside.dim() != 3 or beside.shape[0] != self.batch or x not in self._shared:
            return x
        value, indices = self._shared[x]
        return self.source(value.unsqueeze(0), indices)

    def learned(self, value: object) -> str | None:
        """The name of the parameter or buffer of the model that the value is, or is a view of."""
        return self._names.of(value) if isinstance(value, Tensor) else None

    def image(self, tensor: Tensor) -> Image:
        """What the tensor is a pointwise function of; itself if nothing else is known."""
        known: Image | None = self.images.get(tensor)
        if known is not None and known.versions == (known.root._version, tensor._version):
            return known
        return Image(tensor, 0.0, (tensor._version, tensor._version))

    def remember(self, tensor: Tensor, root: Tensor, at_zero: float) -> None:
        """Note that `tensor` is a pointwise function of `root`."""
        self.images[tensor] = Image(root, at_zero, (root._version, tensor._version))

    # ---- calls that are made again -----------------------------------------------------------------------------

    def moment(self) -> Moment:
        """Where the run is in its pass."""
        return Moment(self._calls, self.item, tuple(self.lookups), (self._starts, self._counts.copy()))

    def resume(self, moment: Moment) -> None:
        """Go on from there."""
        self._calls, self.item, self.lookups = moment.calls, moment.item, list(moment.lookups)
        self._starts, self._counts = moment.rest[0], moment.rest[1].copy()

    def known(self, x: Tensor) -> Known:
        """What is known of a tensor beside its value."""
        image = self.image(x) if x.requires_grad else None
        return Known(image if image and image.root is not x else None, self._shared.get(x), x in self.detached)

    def tell(self, copy: Tensor, known: Known, instead: Mapping[int, Tensor]) -> None:
        """The same is known of a copy, which is an image of what stands `instead` of the root, if anything does."""
        if known.image is not None:
            self.remember(copy, instead.get(id(known.image.root), known.image.root), known.image.at_zero)
        if known.shared is not None:
            self._shared[copy] = known.shared
        if known.detached:
            self.detached[copy] = True

    def known_by(self, x: Tensor) -> list[Tensor]:
        """The root that it is an image of, if it is one."""
        root = self.image(x).root
        return [] if root is x else [root]

    def cause_of(self, constant: object) -> str:
        """Why a constant is one."""
        return "detached" if isinstance(constant, Tensor) and constant in self.detached else "constant"


def unruled_at(place: Place) -> UnruledOperationError:
    """Why `strict` refuses an operation."""
    return UnruledOperationError(
        f"`strict` allows only operations that have a rule; found `{place.operation}` in module "
        f"{place.module or '(none)'!r}. Add a row for it, or leave `strict` out to meter what it loses."
    )


def as_is(_: Run, call: Call) -> Any:
    """Torch's own gradient is the rule."""
    return call.native()


OTHER = "(any other)"  # the row of operations that have none
AS_IS = Row(as_is, "homogeneous of degree one: the gradient is the rule")


def tensors(result: Any) -> list[Tensor]:
    """The tensors in a result that carry a gradient."""
    return list(picked((result,)))
