"""Operations that both tables of rules take apart into simpler ones, as one would write them by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from clearhead.relevance.run import Call, Row, Run

# Torch's own `batch_norm` and `instance_norm` have another order of arguments than those of `torch.nn.functional`.
_PYTHON = "input running_mean running_var weight bias own_statistics momentum eps".split()
_NATIVE = "input weight bias running_mean running_var own_statistics momentum eps cudnn_enabled".split()
_SPELLINGS = {"training": "own_statistics", "use_input_stats": "own_statistics"}


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """A layer norm of each group, and an affine map."""
    parted = input.reshape(input.shape[0], num_groups, -1)
    y = torch.nn.functional.layer_norm(parted, parted.shape[-1:], None, None, eps).reshape(input.shape)
    y = y if weight is None else y * _by_channel(weight, input)
    return y if bias is None else y + _by_channel(bias, input)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    own_statistics: bool = False,
    eps: float = 1e-5,
    **_: Any,
) -> Tensor:
    """An affine map of each channel; with statistics of its own, those of all items and places."""
    if own_statistics or running_mean is None or running_var is None:
        axes = (0, *range(2, input.dim()))
        centred = input - input.mean(axes, keepdim=True)
        y = centred * torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)
        y = y if weight is None else y * _by_channel(weight, input)
        return y if bias is None else y + _by_channel(bias, input)
    scale = torch.rsqrt(running_var + eps) if weight is None else weight * torch.rsqrt(running_var + eps)
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    return input * _by_channel(scale, input) + _by_channel(shift, input)


def instance_norm(input: Tensor, *, own_statistics: bool = True, **given: Any) -> Tensor:
    """A group norm with a group for each channel, or a batch norm with kept statistics."""
    if own_statistics:
        return group_norm(input, input.shape[1], given.get("weight"), given.get("bias"), given.get("eps", 1e-5))
    return batch_norm(input, **given)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """Half of the channels, each gated by one of the other half."""
    first, second = input.chunk(2, dim)
    return first * second.sigmoid()


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A product of two with a matrix between them for each output."""
    y = torch.einsum("...i,oij,...j->...o", input1, weight, input2)
    return y if bias is None else y + bias


def flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Callable[..., Tensor],
    block_mask: tuple[Any, ...],
    scale: float,
    kernel_options: dict[str, Any],
    score_buffers: tuple[Any, ...] = (),
    mask_buffers: tuple[Any, ...] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention with scores changed and hidden by functions of batch, head and both places; all places at once."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(-2, -1) * scale
    places = [
        torch.arange(size, device=query.device).reshape([-1 if n == axis else 1 for n in range(4)])
        for axis, size in enumerate(scores.shape)
    ]
    scores = score_mod(scores, *places, *score_buffers)
    scores = scores.masked_fill(~block_mask[-1](*places, *mask_buffers), -math.inf)
    held = scores.detach()
    sums, largest = held.logsumexp(-1) / math.log(2), held.amax(-1) / math.log(2)
    return torch._safe_softmax(scores, -1).to(value.dtype) @ value, sums, largest


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """Complex numbers by length and direction."""
    return torch.complex(abs * angle.cos(), abs * angle.sin())


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """One value for each channel [C], beside x [N, C, ...]."""
    return values.to(x.dtype).reshape(1, -1, *[1] * (x.dim() - 2))


def apart(function: Callable[..., Any]) -> Callable[[Run, Call], Any]:
    """The row of an operation that is written out by `function`, of the same arguments."""

    def apply(run: Run, call: Call) -> Any:
        return run.tape.under(function, *call.args, **call.kwargs)

    return apply


def by_name(function: Callable[..., Any]) -> Callable[[Run, Call], Any]:
    """The row of a norm with kept statistics, in either order of its arguments."""

    def apply(run: Run, call: Call) -> Any:
        order = _PYTHON if isinstance(call.function, FunctionType) else _NATIVE
        given = dict(zip(order, call.args, strict=False))
        given |= {_SPELLINGS.get(name, name): value for name, value in call.kwargs.items()}
        return run.tape.under(function, **given)

    return apply


ROWS = {
    "group_norm": Row(apart(group_norm), "a layer norm of each group, and an affine map"),
    "batch_norm": Row(by_name(batch_norm), "an affine map of each channel in evaluation mode"),
    "instance_norm": Row(by_name(instance_norm), "a group norm with a group for each channel"),
    "bilinear": Row(apart(bilinear), "a product with a matrix for each output, and a bias"),
    "flex_attention": Row(apart(flex_attention), "scores, softmax and a product with the values"),
    "polar": Row(apart(polar), "a length times a cosine, and times a sine"),
    "glu": Row(apart(glu), "a product with a gate"),
}
