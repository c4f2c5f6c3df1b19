"""Long inputs in little memory: of each block only what it is given is kept, and the way back computes it again.

Blocks are found as what a model repeats: the elements of a list of modules. A block is first called as ever; what that
recorded is dropped, but for its sources. The way back resumes the run where it was, calls the block once more, and goes
through what is recorded then. Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import Function as Custom
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from clearhead.config import Settings
from clearhead.errors import ModelError
from clearhead.relevance.graph import leaves_between
from clearhead.relevance.surroundings import Surroundings
from clearhead.tape import Function, Keeper, Kept, ModuleTape, Operation, Tape, dependent, is_tensor
from clearhead.tape.keeping import address

UNUSED = "`checkpoint` saves nothing here: no list of modules repeats a block that is called as a whole."


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a run is: the number of its calls, whose they are, the sources so far, and what else calls go by."""

    calls: int
    item: int | None
    lookups: Sequence[Any]
    rest: Any = None


class Repeating(Protocol):
    """A run that can be resumed where it was."""

    settings: Settings
    tape: Tape
    keeper: Keeper
    lookups: list[Any]

    def interpret(self, operation: Operation, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What its tape calls for each operation."""

    def moment(self) -> Moment:
        """Where it is."""

    def resume(self, moment: Moment) -> None:
        """Be where it was."""

    def known(self, x: Tensor) -> Any:
        """What is known of a tensor beside its value."""

    def tell(self, copy: Tensor, known: Any, instead: Mapping[int, Tensor]) -> None:
        """The same is known of a copy; tensors by which it is known have others `instead`, by their ids."""

    def known_by(self, x: Tensor) -> Sequence[Tensor]:
        """The tensors by which it is known."""


# ---- which, and what is said of it ---------------------------------------------------------------------------------


def blocks(model: nn.Module) -> list[nn.Module]:
    """The modules with parts whose class a list of modules repeats; of lists within lists, those of the outermost.

    Where there are none, what stands in a list by itself, for it may be called again and again.

    >>> model = nn.Sequential(nn.Linear(2, 2), *(nn.Sequential(nn.Linear(2, 2), nn.GELU()) for _ in range(3)))
    >>> blocks(model) == list(model[1:])
    True
    """
    parts = [part for part in model._modules.values() if part is not None]
    whole = [part for part in parts if any(True for _ in part.children())]
    if isinstance(model, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
        kinds = Counter(map(type, whole))
        repeated = [part for part in whole if kinds[type(part)] > 1]
        if repeated:
            return list(dict.fromkeys(repeated))
    found = list(dict.fromkeys(block for part in parts for block in blocks(part)))
    return found or (whole if isinstance(model, nn.ModuleList) and len(parts) == 1 else [])


def tape_of(run: Repeating, model: nn.Module | None) -> Tape:
    """The tape of a run; with `checkpoint` it stands round the blocks of the model."""
    if model is None or not run.settings.checkpoint:
        return Tape(run.interpret, model)
    return ModuleTape(run.interpret, model, blocks(model), Blocks(weakref.ref(run)))


def notes(run: Repeating) -> tuple[str, ...]:
    """What a reader should know of the blocks of a forward pass."""
    around = run.tape.around if isinstance(run.tape, ModuleTape) else None
    if not isinstance(around, Blocks):
        return ()
    if not around.whole:
        return () if around.again else (UNUSED,)
    count = around.whole + around.again
    return (
        f"`checkpoint` leaves {around.whole} of {count} calls of blocks as they are, for they cannot be made again: "
        "these read or give something past their arguments and results, or overwrite it.",
    )


# ---- calls ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Blocks:
    """Stands round the blocks of a run, and counts the calls that are made `again`, and those left `whole`."""

    run: Callable[[], Repeating | None]  # weak: the run owns the tape, which owns this
    again: int = 0
    whole: int = 0

    def __call__(self, module: nn.Module, own: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the module gives; where possible in tensors from which the way back leads through a second call."""
        run = self.run()
        if run is None:
            raise RuntimeError("The tape outlived its interpreter.")
        given, spec = tree_flatten((args, kwargs))
        if not torch.is_grad_enabled() or not any(map(_computed, given)):
            return run.tape.under(own, module, *args, **kwargs)
        held = {id(x): _Given.of(run, x) for x in {id(x): x for x in given if is_tensor(x)}.values()}
        block = Block(run, module, own, spec, [held.get(id(x), x) for x in given], [*held.values()])
        before = _versions(given, module)
        result = run.tape.under(own, module, *args, **kwargs)
        found, shape = tree_flatten(result)
        instead = block.recorded(given, found) if _versions(given, module) == before else None
        if instead is None:
            self.whole += 1
            return result
        self.again += 1
        return tree_unflatten([instead.get(id(y), y) for y in found], shape)


def _computed(x: object) -> bool:
    """Does it depend on what is explained, and is no parameter?"""
    return dependent(x) and x.grad_fn is not None  # type: ignore[attr-defined]


def _versions(given: Sequence[Any], module: nn.Module) -> list[int]:
    """What changes when one of the tensors that a module is given or holds is overwritten."""
    return [_version(x) for x in (*filter(is_tensor, given), *module.buffers())]


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version  # of inference, torch counts none


class Entry(Custom):
    """A tensor with another's place in the graph, and a value that it had."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        """The same memory, in a tensor that is no view."""
        ctx.set_materialize_grads(False)
        return _alias(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None]:
        """The gradient."""
        return gradient, None


def _alias(x: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten._unsafe_view(x.detach(), x.shape)
    return found


@dataclass(frozen=True, slots=True)
class _Given:
    """A tensor that a block was given, as it was then: one that depends on the input has a stand-in in the graph."""

    number: int
    x: Tensor
    depends: bool
    version: int
    kept: Kept
    known: Any

    @classmethod
    def of(cls, run: Repeating, x: Tensor) -> _Given:
        """The tensor now."""
        depends, known, kept = _computed(x), run.known(x), run.keeper.keep(x)
        held = Entry.apply(x, x) if depends else x
        return cls(id(x), held, depends, _version(x), kept, known)

    def copy(self) -> Tensor:
        """A tensor to call a module with again; a constant that nobody wrote over is itself."""
        if self.depends:
            return Entry.apply(self.x, self.kept.value)  # type: ignore[no-any-return]
        return self.x if self.version == _version(self.x) else self.kept.value


class Checkpoint(Custom):
    """Results of a block without what was recorded; on the way back it is called again."""

    @staticmethod
    def forward(ctx: Any, block: Block, ys: Sequence[Tensor], *xs: Tensor) -> tuple[Tensor, ...]:
        """The same memory; `xs` are what the block was given and its sources."""
        ctx.block = block
        ctx.set_materialize_grads(False)
        return tuple(map(_alias, ys))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """What a second call passes on."""
        return None, None, *ctx.block.sent(gradients)


@dataclass(slots=True)
class Block:
    """One call of a module: all that is needed to make it again."""

    run: Repeating
    module: nn.Module
    own: Function
    spec: TreeSpec
    given: list[Any]
    held: list[_Given]  # the tensors among these, each once
    places: list[int] = field(default_factory=list)  # of results that depend on what is explained
    sources: list[tuple[int, str]] = field(default_factory=list)  # which of the run's, and which tensor of it
    last: int = 0  # how many sources the run has behind it
    sums: list[tuple[float, float]] = field(default_factory=list)
    moment: Moment = field(init=False)
    surroundings: Surroundings = field(init=False)

    def __post_init__(self) -> None:
        self.moment = self.run.moment()
        self.surroundings = Surroundings.of([each.x for each in self.held])

    @property
    def entries(self) -> list[_Given]:
        """What depends on the input."""
        return [each for each in self.held if each.depends]

    def recorded(self, given: Sequence[Any], found: Sequence[Any]) -> dict[int, Tensor] | None:
        """By the ids of results, what stands for them; None if the call cannot be made again."""
        passed = {id(x) for x in given}
        first = {id(y): n for n, y in reversed([*enumerate(found)]) if _computed(y) and id(y) not in passed}
        self.places = sorted(first.values())
        ys, xs = self._results(given, found), [x for x in given if _computed(x)]
        entered = {address(x) for x in xs}
        if any(address(y) in entered for y in ys):
            return None
        leaves = leaves_between(ys, xs, self.entries[-1].x)
        if not ys or leaves is None or not self._found(leaves):
            return None
        self.sums, self.last = [_sums(y) for y in ys], len(self.run.lookups)
        stand_ins = Checkpoint.apply(self, ys, *(each.x for each in self.entries), *leaves)
        instead = {id(y): new for y, new in zip(ys, stand_ins, strict=True)}
        for y in ys:
            self.run.tell(instead[id(y)], self.run.known(y), instead)
        return instead

    def _results(self, given: Sequence[Any], found: Sequence[Any]) -> list[Tensor]:
        """The results that depend on what is explained, and what was computed on the way and they are known by."""
        ys = {id(found[n]): found[n] for n in self.places}
        others = {id(x): x for y in ys.values() for x in self.run.known_by(y)}
        return [*ys.values(), *(x for n, x in others.items() if n not in ys and not any(x is each for each in given))]

    def _found(self, leaves: Sequence[Tensor]) -> bool:
        """Note which sources these are; are they all known?"""
        names: dict[int, tuple[int, str]] = {}
        for n, lookup in enumerate(self.run.lookups):
            if n >= len(self.moment.lookups):
                names[id(lookup.leaf)] = n, "leaf"
            if lookup.own is not None:
                names[id(lookup.own)] = n, "own"
        self.sources = [names[id(leaf)] for leaf in leaves if id(leaf) in names]
        return len(self.sources) == len(leaves)

    # ---- the way back ----------------------------------------------------------------------------------------------

    def sent(self, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """The gradients of what the block was given and of its sources, through a call made now."""
        if all(gradient is None for gradient in gradients):
            return [None] * (len(self.entries) + len(self.sources))
        before = self.run.moment()
        # What a rule gives to a source straight is collected anew: the graph behind the block leads there as well.
        lookups = [replace(each, own=None) for each in self.moment.lookups]
        self.run.resume(replace(self.moment, lookups=lookups))
        try:
            with torch.inference_mode(False), torch.enable_grad():
                with self.surroundings.restored():
                    ys, xs = self._called()
                pairs = [(y, g) for y, g in zip(ys, gradients, strict=True) if g is not None]
                return torch.autograd.grad([y for y, _ in pairs], xs, [g for _, g in pairs], allow_unused=True)
        finally:
            self.run.resume(before)

    def _called(self) -> tuple[list[Tensor], list[Tensor]]:
        """The results of a second call, and what they were computed from."""
        copies = {each.number: each.copy() for each in self.held}
        for each in self.held:
            if copies[each.number] is not each.x:
                self.run.tell(copies[each.number], each.known, copies)
        given = [copies[each.number] if isinstance(each, _Given) else each for each in self.given]
        args, kwargs = tree_unflatten(given, self.spec)
        found, _ = tree_flatten(self.run.tape.under(self.own, self.module, *args, **kwargs))
        fewer = len(found) <= self.places[-1] or len(self.run.lookups) != self.last
        if fewer or not all(_computed(found[n]) for n in self.places):
            raise self._other()
        ys = self._results(given, found)
        if len(ys) != len(self.sums) or not all(map(_alike, self.sums, map(_sums, ys))):
            raise self._other()
        sources = [getattr(self.run.lookups[n], name) for n, name in self.sources]
        return ys, [*(copies[each.number] for each in self.entries), *sources]

    def _other(self) -> ModelError:
        return ModelError(
            f"With `checkpoint` a block must compute the same when it is called again; module "
            f"{self.run.tape.path(self.module)!r} gave something else. What it reads has changed since: something that "
            "the model keeps between calls, or random numbers of its own. Leave `checkpoint` out for this model."
        )


def _sums(x: Tensor) -> tuple[float, float]:
    """By which a tensor is recognised: the sum of its entries, and how far rounding may move that."""
    held = torch.view_as_real(x.detach()) if x.is_complex() else x.detach()
    size = held.abs().sum(dtype=torch.float64)
    return float(held.sum(dtype=torch.float64)), float(size) * torch.finfo(x.dtype).eps ** 0.5


def _alike(one: tuple[float, float], two: tuple[float, float]) -> bool:
    same = math.isclose(one[0], two[0], rel_tol=0, abs_tol=max(0.0, one[1]))
    return same or (math.isnan(one[0]) and math.isnan(two[0]))
