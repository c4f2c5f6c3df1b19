"""The input moved by next to nothing: noise on pixels and vectors, and on the rows that tokens are looked up in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from clearhead.errors import ModelError
from clearhead.question import Question
from clearhead.removal import Region, regions
from clearhead.sanity.randomising import write
from clearhead.sanity.settling import looked_up, settled

RADIUS = 0.05  # of a standard deviation


@contextmanager
def near(question: Question, number: int = 0, *, radius: float = RADIUS, seed: int = 0) -> Iterator[Question]:
    r"""Within the block, the question about an input nearby; the same `number` and `seed` give the same one.

    Every entry is moved by $u\,r\,\sigma$ with u uniform from -1 to 1, `radius` r and $\sigma$ the standard deviation
    of the tensor: pixels and vectors in the input, and in baselines where these have what the input has; tokens in
    their rows of the model's table, which have their old bits afterwards. Two places with the same token move alike,
    and a head that is tied to the table moves with it. The target is that of the input itself. Yeh et al. 2019,
    definition 2.2.

    Raises UsageError for several inputs, ModelError if the model fails, or looks its tokens up in no table.
    """
    draw = torch.Generator().manual_seed(seed * 1_000_003 + number)
    found = settled(question)
    tables = _tables(question)
    found = _on_floats(found, radius, draw)
    with ExitStack() as stack:
        for table, rows in tables:
            stack.enter_context(_moved(table, rows, radius, draw))
        yield found


def _noise(like: Tensor, spread: float, radius: float, draw: torch.Generator) -> Tensor:
    uniform = 2 * torch.rand(like.shape, generator=draw) - 1
    return uniform.to(like.device) * (radius * spread)


def _spread(values: Tensor) -> float:
    return float(values.detach().float().std(correction=0))


# ---- floats --------------------------------------------------------------------------------------------------------


def _on_floats(question: Question, radius: float, draw: torch.Generator) -> Question:
    """The question with noise on the pixels and vectors of its units."""
    tensors = [dict(part.tensors) for part in question.passes]
    bases = [[dict(each) for each in baseline.tensors] for baseline in question.baselines]
    for region in _of_kind(question, floats=True):
        x = tensors[region.number][region.name]
        own = region.within((region.units >= 0)[None], x)
        moved = torch.where(own, (x.float() + _noise(x, _spread(x), radius, draw)).to(x), x)
        tensors[region.number][region.name] = moved
        for each in (base[region.number] for base in bases):
            each[region.name] = torch.where(each[region.name] == x, moved, each[region.name])
    return replace(
        question,
        passes=tuple(replace(part, tensors=new) for part, new in zip(question.passes, tensors, strict=True)),
        baselines=tuple(replace(each, tensors=tuple(new)) for each, new in zip(question.baselines, bases, strict=True)),
    )


def _of_kind(question: Question, *, floats: bool) -> list[Region]:
    found = regions(question)
    return [r for r in found if question.passes[r.number].tensors[r.name].is_floating_point() == floats]


# ---- tokens --------------------------------------------------------------------------------------------------------


def _tables(question: Question) -> list[tuple[nn.Parameter, Tensor]]:
    """The parameters that the units' ids are looked up in, each with the rows that are."""
    found: dict[int, list[Tensor]] = {}
    known = {each.data_ptr(): each for each in question.model.parameters()}
    for tables in looked_up(question):
        own = [(weight.data_ptr(), ids.flatten()) for weight, ids in tables if weight.data_ptr() in known]
        if not own:
            raise ModelError(
                f"Inputs nearby have tokens whose vectors are moved; {type(question.model).__name__} looks them up in "
                "no parameter of its own. Leave max-sensitivity out."
            )
        for key, rows in own:
            found.setdefault(key, []).append(rows)
    return [(known[key], torch.unique(torch.cat(rows))) for key, rows in found.items()]


@contextmanager
def _moved(table: nn.Parameter, rows: Tensor, radius: float, draw: torch.Generator) -> Iterator[None]:
    """Some rows of a table with noise on them, for a while."""
    old = table.detach()[rows].clone()
    try:
        write(table, (old.float() + _noise(old, _spread(table), radius, draw)).to(old), rows)
        yield
    finally:
        write(table, old, rows)
