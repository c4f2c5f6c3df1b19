"""What the graph of a forward pass tells: which source a tensor is made of, and what was computed from what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

# Nodes that only move, copy or leave out entries: relevance crosses them as a gradient does.
_MOVES = frozenset(
    "View UnsafeView ReshapeAlias Alias Clone Permute Transpose T Squeeze Unsqueeze Split SplitWithSizes Slice Select "
    "Unbind Unfold Im2Col Expand Index IndexSelect AsStrided ToCopy ConstantPadNd Flip Roll PixelUnshuffle Tap "
    "EntryTap Entry".split()
)


def source_of(x: Tensor) -> Tensor | None:
    """The leaf whose entries a tensor holds, moved or copied but not computed with; None if it is no such tensor."""
    for node in _moved(x.grad_fn):
        leaf: Tensor | None = getattr(node, "variable", None)
        if leaf is not None:
            return leaf
    return None


def moved_back(leaf: Tensor, x: Tensor, amount: Tensor) -> Tensor:
    """Amounts in the places of a tensor that holds entries of `leaf`, in the places of `leaf`."""
    return torch.autograd.grad(x, leaf, amount, retain_graph=True)[0]


def moved_along(leaf: Tensor, x: Tensor, values: Tensor) -> Tensor:
    """Values in the places of `leaf`, in the places of a tensor that holds its entries; 0 where it holds others."""
    with torch.enable_grad():
        amount = torch.zeros_like(x).requires_grad_()
        (back,) = torch.autograd.grad(x, leaf, amount, create_graph=True)
        return torch.autograd.grad(back, amount, values.expand_as(leaf).to(back.dtype))[0]


def computed_from(y: Tensor, x: Tensor) -> bool:
    """Was y computed from x, or from what x only moves or copies?

    Nodes that are older than x cannot lead to it, so the search ends at the age of x.
    """
    own = {id(node): node for node in _moved(x.grad_fn)}
    oldest = min((_age(node) for node in own.values()), default=0)
    open_, seen = [y.grad_fn], set[int]()
    while open_:
        node = open_.pop()
        if node is None or id(node) in seen:
            continue
        if id(node) in own:
            return True
        seen.add(id(node))
        if _age(node) >= oldest:
            open_ += [before for before, _ in node.next_functions]
    return False


def leaves_between(ys: Sequence[Tensor], xs: Sequence[Tensor], since: Tensor) -> list[Tensor] | None:
    """The leaves that ys were computed from beside xs; None if from anything else that is older than `since`."""
    ends = {(id(node), n): node for node, n in (_edge(x) for x in xs)}
    open_, seen, leaves, oldest = [_edge(y) for y in ys], dict[int, Any](), list[Tensor](), _age(since.grad_fn)
    while open_:
        node, n = open_.pop()
        if node is None or (id(node), n) in ends or id(node) in seen:
            continue
        seen[id(node)] = node  # held, for another node may get the number of one that is gone
        leaf: Tensor | None = getattr(node, "variable", None)
        if leaf is not None:
            leaves.append(leaf)
        elif _age(node) <= oldest:
            return None
        else:
            open_ += node.next_functions
    return leaves


def _edge(x: Tensor) -> tuple[Any, int]:
    return x.grad_fn, x.output_nr


def _moved(node: Any) -> Iterator[Any]:
    """A node, those before it that it only moves, and the one that these begin at."""
    while node is not None:
        yield node
        name = node.name().partition("Backward")[0]
        node = node.next_functions[0][0] if name in _MOVES and node.next_functions else None


def _age(node: Any) -> int:
    return int(node._sequence_nr())
