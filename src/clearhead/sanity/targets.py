"""Other targets of the same input: another class or token in the place of the one that is explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from clearhead.maps import Target
from clearhead.question import Aim, Ask, Question
from clearhead.sanity.settling import answered, settled

SCORES = ("logits", "start_logits", "end_logits")  # what targets are read off
TARGETS = 2
Turn = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def targets(question: Question, number: int = TARGETS, *, seed: int = 0) -> dict[str, Question]:
    """The same input with other targets, by name: the runner-up, then others drawn at random.

    An aim goes on as it is and is handed the model's scores with two entries exchanged along the axis of classes or
    tokens: $z_k$ becomes $z_j$, and a difference $z_k - z_c$ becomes $z_j - z_c$. Of two classes that is the negative,
    which only a method without sign cannot tell. A summed log-probability gets that of tokens drawn at random, an
    answer in a text other places. None for what has no other: similarities and target functions.

    Nothing is posed or generated again, so this holds for each token that a model wrote too. Raises UsageError for
    several inputs, ModelError if the model fails.
    """
    found = settled(question)
    (item,), (aim, *_) = found.items, found.items[0].aims
    outputs, draw = answered(question), torch.Generator().manual_seed(seed)
    scores = _scores(outputs[0])
    if aim.alone or not scores:
        return {}
    read, target = _read(aim.ask, scores)
    turns = _turns(target, read, scores, number, draw)
    return {
        name: replace(found, items=(replace(item, aims=(_turned(aim, turn, name),)),)) for name, turn in turns.items()
    }


def _scores(output: Any) -> dict[str, Tensor]:
    """The scores in an output, by name."""
    if isinstance(output, Tensor):
        return {"logits": output}
    held = {name: getattr(output, name, None) for name in SCORES}
    return {name: each for name, each in held.items() if isinstance(each, Tensor)}


def _read(ask: Ask, scores: dict[str, Tensor]) -> tuple[dict[str, Tensor], Target]:
    """How the scalar depends on each score, and what it is; a score that it does not depend on is left out."""
    with torch.enable_grad():
        leaves = {name: each.detach().clone().requires_grad_() for name, each in scores.items()}
        target, value = ask([SimpleNamespace(**leaves)], 0)
        slopes = torch.autograd.grad(value, list(leaves.values()), allow_unused=True) if value.requires_grad else ()
    return {name: slope for name, slope in zip(leaves, slopes, strict=False) if slope is not None}, target


# ---- which -----------------------------------------------------------------------------------------------------------


def _turns(
    target: Target, read: dict[str, Tensor], scores: dict[str, Tensor], number: int, draw: torch.Generator
) -> dict[str, Turn]:
    if target.kind == "sequence" and "logits" in read:
        return {f"random tokens {n}": _permuted(scores["logits"].shape[-1], draw) for n in range(number)}
    if target.index is not None and "logits" in read:
        slope = read["logits"].reshape(-1, scores["logits"].shape[-1])
        place = int(slope.abs().sum(1).argmax())
        own = scores["logits"].reshape(slope.shape)[place]
        chosen = _chosen(own, target.index, (slope[place] != 0).nonzero().flatten().tolist(), number, draw)
        return {name: _exchanged({"logits": (target.index, j)}) for name, j in chosen.items()}
    if read and set(read) <= set(SCORES[1:]):
        return _elsewhere(read, scores, number, draw)
    return {}


def _chosen(scores: Tensor, k: int, read: Sequence[int], number: int, draw: torch.Generator) -> dict[str, int]:
    """The best of the classes that were not read, and others at random; what was read only if there is no other."""
    order = [j for j in scores.argsort(descending=True).tolist() if j != k]
    free = order if len(read) == len(scores) else [j for j in order if j not in read]
    free = free or order
    names = ["other class"] if len(scores) == 2 else ["runner-up", *(f"random target {n}" for n in range(1, number))]
    rest = [free[n + 1] for n in torch.randperm(len(free) - 1, generator=draw).tolist()]
    return dict(zip(names[:number], [free[0], *rest], strict=False))


def _elsewhere(
    read: dict[str, Tensor], scores: dict[str, Tensor], number: int, draw: torch.Generator
) -> dict[str, Turn]:
    """Other places for the beginning and the end of an answer."""
    found: dict[str, Turn] = {}
    for n in range(number):
        pairs = {}
        for name, slope in read.items():
            k = int(slope[0].abs().argmax())
            others = [j for j in range(scores[name].shape[-1]) if j != k]
            pairs[name] = (k, others[int(torch.randint(0, len(others), (), generator=draw))])
        found[f"random place {n}"] = _exchanged(pairs)
    return found


# ---- in their place ------------------------------------------------------------------------------------------------


def _exchanged(pairs: dict[str, tuple[int, int]]) -> Turn:
    """Scores with two entries of their last axis exchanged."""

    def turn(scores: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**scores, **{name: _taken(scores[name], *pair) for name, pair in pairs.items()}}

    return turn


def _taken(scores: Tensor, k: int, j: int) -> Tensor:
    order = torch.arange(scores.shape[-1], device=scores.device)
    order[k], order[j] = j, k
    return scores.index_select(-1, order)


def _permuted(count: int, draw: torch.Generator) -> Turn:
    order = torch.randperm(count, generator=draw)
    return lambda scores: {**scores, "logits": scores["logits"].index_select(-1, order.to(scores["logits"].device))}


def _turned(aim: Aim, turn: Turn, name: str) -> Aim:
    """The aim, handed scores that are turned."""

    def ask(outputs: list[Any], row: int) -> tuple[Target, Tensor]:
        target, value = aim.ask([SimpleNamespace(**turn(_scores(outputs[0])))], row)
        return replace(target, label=name, index=None), value

    return replace(aim, ask=ask)
