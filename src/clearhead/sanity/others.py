"""Other inputs in the place of one: of other content, or next to it; what is explained stays the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.errors import UsageError
from clearhead.lookups import Blanks, Noting
from clearhead.question import Question, decide
from clearhead.removal import Region, called, regions
from clearhead.tape import Function

RADIUS = 0.05  # of a standard deviation


def settled(question: Question) -> Question:
    """The question of one item whose target is what the model says now, whatever becomes of model and input.

    Raises ModelError if the model fails.
    """
    (item,) = question.items
    with question.evaluated(), torch.no_grad():
        outputs = [called(question, part.tensors, Noting()) for part in question.passes]
        aims = tuple(replace(aim, ask=decide(aim.ask, outputs, 0)) for aim in item.aims)
    return replace(question, items=(replace(item, aims=aims),))


# ---- other content -------------------------------------------------------------------------------------------------


def other(question: Question, seed: int = 0) -> Question:
    """The question about another input: random tokens, or the parts of the image or the vectors in random order.

    Where a baseline has what the input has, as at special tokens, the input stays, and so do baselines. Raises
    UsageError where nothing can change.
    """
    draw, changed = torch.Generator().manual_seed(seed), False
    tensors = [dict(part.tensors) for part in question.passes]
    for region in regions(question):
        x = tensors[region.number][region.name]
        own = _ordinary(question, region, x)
        new = _drawn(question, x, own, draw) if not x.is_floating_point() else _shuffled(region, x, own, draw)
        changed |= not torch.equal(new, x)
        tensors[region.number][region.name] = new
    if not changed:
        raise UsageError("Another input has other units; here none can change. Give an input with at least two.")
    passes = (replace(part, tensors=new) for part, new in zip(question.passes, tensors, strict=True))
    return replace(question, passes=tuple(passes))


def _ordinary(question: Question, region: Region, x: Tensor) -> Tensor:
    """Which positions [T] or pixels [H, W] belong to units that a baseline would replace; all units without one."""
    own = region.units >= 0
    for each in question.baselines[:1]:
        differs = (each.tensors[region.number][region.name] != x)[0]
        flat = differs.any(0) if region.image else differs.reshape(len(differs), -1).any(1)
        units = torch.unique(region.units[flat & own])
        own = own & torch.isin(region.units, units)
    return own


def _drawn(question: Question, ids: Tensor, own: Tensor, draw: torch.Generator) -> Tensor:
    """Ids of random tokens in some places."""
    count = vocabulary(question.model) or int(ids.max()) + 1
    random = torch.randint(0, count, ids.shape, generator=draw).to(ids)
    return torch.where(own.reshape(1, -1, *[1] * (ids.dim() - 2)), random, ids)


def vocabulary(model: nn.Module) -> int | None:
    """How many tokens the model's table of words holds; None if it tells of none."""
    with suppress(AttributeError, NotImplementedError):
        return int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    return None


def _shuffled(region: Region, x: Tensor, own: Tensor, draw: torch.Generator) -> Tensor:
    """What the units hold, given to others at random: the parts of an image, or vectors."""
    units = torch.unique(region.units[own])
    order = units[torch.randperm(len(units), generator=draw).to(units.device)]
    new, flat = x.clone().flatten(2) if region.image else x.clone(), region.units.flatten()
    for unit, source in zip(units.tolist(), order.tolist(), strict=True):
        mine, theirs = (flat == unit).nonzero().flatten(), (flat == source).nonzero().flatten()
        count = min(len(mine), len(theirs))
        whole = x.flatten(2) if region.image else x
        if region.image:
            new[:, :, mine[:count]] = whole[:, :, theirs[:count]]
        else:
            new[:, mine[:count]] = whole[:, theirs[:count]]
    return new.reshape(x.shape)


# ---- next to it ----------------------------------------------------------------------------------------------------


@contextmanager
def near(question: Question, number: int = 0, *, radius: float = RADIUS) -> Iterator[Question]:
    """Within the block, the question about an input nearby; the same `number` gives the same one.

    Every entry is moved by uniform noise of at most `radius` standard deviations: pixels and vectors in the input,
    tokens in their rows of the model's table, which have their old bits afterwards. Yeh et al. 2019, definition 2.2.
    """
    draw = torch.Generator().manual_seed(1 + number)
    tensors = [dict(part.tensors) for part in question.passes]
    with ExitStack() as stack:
        for region in regions(question):
            x = tensors[region.number][region.name]
            if x.is_floating_point():
                tensors[region.number][region.name] = x + _noise(x, x.std(), radius, draw)
        for table, rows in _tables(question).items():
            stack.enter_context(_moved(table, rows, radius, draw))
        passes = (replace(part, tensors=new) for part, new in zip(question.passes, tensors, strict=True))
        yield replace(question, passes=tuple(passes))


def _noise(like: Tensor, spread: Tensor, radius: float, draw: torch.Generator) -> Tensor:
    uniform = 2 * torch.rand(like.shape, generator=draw) - 1
    return (uniform.to(like.device) * radius * spread).to(like)


class _Looking(Blanks):
    """Notes which tables the ids of some tensors are looked up in."""

    def __init__(self, ids: list[Tensor]) -> None:
        super().__init__("zero")
        self._ids = ids
        self.found: list[Tensor] = []

    def looked_up(self, function: Function, ids: Tensor, weight: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
        """The vectors of ids."""
        if any(ids.numel() == each.numel() and torch.equal(ids.flatten(), each.flatten()) for each in self._ids):
            self.found.append(weight)
        return super().looked_up(function, ids, weight, *rest, **kwargs)


def _tables(question: Question) -> dict[nn.Parameter, Tensor]:
    """The parameters that tokens are looked up in, each with the ids that are."""
    found: dict[nn.Parameter, Tensor] = {}
    parameters = {each.data_ptr(): each for each in question.model.parameters()}
    for number, part in enumerate(question.passes):
        ids = [_ids(part.tensors, region.name) for region in regions(question) if region.number == number]
        looking = _Looking([each for each in ids if each is not None])
        with question.evaluated(), torch.no_grad():
            called(question, part.tensors, looking)
        for weight in looking.found:
            table = parameters.get(weight.data_ptr())
            for each in ids if table is not None else ():
                if each is not None and table is not None:
                    rows = each.flatten().clamp(0, len(table) - 1)
                    found[table] = torch.unique(torch.cat([found[table], rows]) if table in found else rows)
    return found


def _ids(tensors: Mapping[str, Any], name: str) -> Tensor | None:
    value = tensors[name]
    return value if isinstance(value, Tensor) and not value.is_floating_point() else None


@contextmanager
def _moved(table: nn.Parameter, rows: Tensor, radius: float, draw: torch.Generator) -> Iterator[None]:
    """Some rows of a table with noise on them, for a while."""
    old = table.detach()[rows].clone()
    try:
        with torch.no_grad():
            table[rows] = old + _noise(old, table.detach().float().std(), radius, draw)
        yield
    finally:
        with torch.no_grad():
            table[rows] = old
