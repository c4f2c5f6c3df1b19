"""How a rule is put into torch's graph: a result whose multiplier a function carries back to what it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from clearhead.relevance.secant.pairs import Pair

Back = Callable[..., Sequence["Tensor | None"]]  # from m and what was kept to the multipliers of the inputs


class _Carried(Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, back: Back, kept: Sequence[Tensor | None], *inputs: Any) -> Tensor:
        ctx.save_for_backward(*kept)
        ctx.back = back
        found: Tensor = torch.ops.aten._unsafe_view(y, y.shape)  # what was given may not be handed out
        return found

    @staticmethod
    def backward(ctx: Any, m: Tensor) -> tuple[Any, ...]:
        return None, None, None, *ctx.back(m, *ctx.saved_tensors)


def carried(y: Tensor, inputs: Sequence[Any], back: Back, *kept: Tensor | None) -> Tensor:
    """The value y as a function of the inputs, whose multipliers are `back(m, *kept)`."""
    return _Carried.apply(y, back, kept, *inputs)  # type: ignore[no-any-return]


def held(call: Pair) -> Pair:
    """The same call without gradients, whose rule carries multipliers itself."""
    bare = call.changed(Tensor.detach)
    return Pair(call.operation, call.function, bare.args, bare.kwargs, call.other_args, call.other_kwargs)


def fitted(m: Tensor, x: object) -> Tensor | None:
    """A multiplier summed to the shape of what was broadcast; None for a constant."""
    return m.sum_to_size(x.shape) if isinstance(x, Tensor) and x.requires_grad else None
