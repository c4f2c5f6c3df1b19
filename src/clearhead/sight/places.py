"""Where an attention stands: its module, the inputs that its queries and keys come from, and their positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clearhead.tape import Function, is_tensor, mapped

# What moves entries about without computing: done to numbered positions too, it tells where each came to stand.
MOVES = frozenset(
    "view reshape permute transpose contiguous getitem roll pad flatten unflatten squeeze unsqueeze movedim expand "
    "clone chunk split unbind narrow select T mT repeat_interleave view_as".split()
)


@dataclass(frozen=True, slots=True)
class Place:
    """The path of a module, the names of the inputs that queries and keys depend on, and their positions.

    Positions count from 1 along a sequence and are 0 for padding; None where they were not followed.
    """

    module: str
    query: frozenset[str]
    key: frozenset[str]
    query_index: Tensor | None = None
    key_index: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """A call that may move entries about, and which of its results is meant."""

    name: str
    function: Function
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    item: int

    def done_to(self, index: Tensor, source: Tensor) -> Tensor | None:
        """The same done to an `index` in the place of its `source`; None for a call that takes no whole numbers."""

        def instead(tensor: Tensor) -> Tensor:
            return index if tensor is source else tensor

        try:
            moved = self.function(
                *(mapped(each, instead, where=is_tensor) for each in self.args),
                **{name: mapped(each, instead, where=is_tensor) for name, each in self.kwargs.items()},
            )
        except (RuntimeError, TypeError):
            return None
        found = moved if isinstance(moved, Tensor) else moved[self.item]
        return found if isinstance(found, Tensor) else None


def counted(tensor: Tensor) -> Tensor:
    """The positions of a sequence [1, positions, width], from 1 on, in its shape."""
    count = torch.arange(1, tensor.shape[1] + 1, dtype=torch.int32, device=tensor.device)
    return count[None, :, None].expand(tensor.shape)


def followed(call: Moved, source: Tensor | None, index: Tensor | None, result: Tensor) -> Tensor | None:
    """Which position of a sequence each entry of a result belongs to, given that of a `source` among the arguments.

    A sequence [1, positions, width] is counted afresh.
    """
    if result.dim() == 3 and result.shape[0] == 1:
        return counted(result)
    if source is None or index is None:
        return None
    if call.name in MOVES:
        return call.done_to(index.contiguous(), source)
    if result.shape[:-1] == source.shape[:-1]:
        return index[..., :1].expand(result.shape)
    return None


def named(call: Moved, source: Tensor | None, names: tuple[str | None, ...], result: Tensor) -> tuple[str | None, ...]:
    """The names along a sequence after a call, given those of its `source`."""
    if source is None or not any(names) or result.dim() != 3 or result.shape[0] != 1:
        return ()
    if result.shape[1] == source.shape[1]:
        return names
    moved = call.done_to(counted(source).contiguous(), source) if call.name in MOVES else None
    if moved is None or moved.shape != result.shape:
        return ()
    return tuple(names[int(at) - 1] if at else None for at in moved[0, :, 0].tolist())


# ---- the axes of a table of weights --------------------------------------------------------------------------------


def order(name: str, args: tuple[Any, ...], operands: Sequence[Tensor], table: Tensor) -> tuple[int, ...] | None:
    """How to permute a table so that queries and keys stand last, from the product that it weighs values by.

    Keys are summed over, queries are left. None where they stand so already, or where there is not one axis of each.
    """
    own = tuple(range(table.dim()))
    if name == "einsum":
        found = _in_equation(args[0], [operand is table for operand in operands].index(True), len(own))
    else:  # values times weights: the axis before the last is summed over
        found = (*own[:-2], own[-1], own[-2]) if operands[-2] is not table else own
    return None if found in (own, ()) else found


def _in_equation(equation: object, at: int, dims: int) -> tuple[int, ...]:
    if not isinstance(equation, str):
        return ()
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    mine, others = terms[at], "".join(terms[:at] + terms[at + 1 :])
    if not arrow:
        right = "".join(sorted(letter for letter in set(left) - {",", "."} if left.count(letter) == 1))
    mine = mine.replace("...", "0123456789"[: dims + 3 - len(mine)]) if "." in mine else mine
    keys = [axis for axis, letter in enumerate(mine) if letter in others and letter not in right]
    queries = [axis for axis, letter in enumerate(mine) if letter in right and letter not in others]
    rest = [axis for axis in range(dims) if axis not in (*keys, *queries)]
    return (*rest, *queries, *keys) if len(keys) == len(queries) == 1 else ()
