"""The one owner of signs, stabilisers and accumulation types."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

INFINITY = float("inf")
NEAR = 1e-2  # closer points than this are no two points to draw a line through
LITTLE = 1 << 14  # memory for so few numbers is at hand
_HALF = (torch.float16, torch.bfloat16)


def by_item(values: Tensor, batch: int) -> Tensor:
    """The sum of all entries in float64 for each item of a batch [n, batch], for n tensors of one shape [n, ...].

    Items lie along the first axis of a tensor, or along the first part of it. Where they cannot, an amount that is not
    0 cannot be told apart by item, and is NaN.
    """
    told = values.dim() > 1 and values.shape[1] % batch == 0
    sums = values.reshape(len(values), batch if told else 1, -1).sum(-1, dtype=torch.float64)
    return sums if told or batch == 1 else torch.where(sums == 0, sums, torch.nan).expand(-1, batch)


def dot(value: Tensor, gradient: Tensor, batch: int = 1) -> Tensor:
    r"""$\sum x G$ over all entries of each item of a batch [batch], in float64."""
    return by_item(row_dot(value, gradient).unsqueeze(0), batch)[0]


def row_dot(value: Tensor, gradient: Tensor) -> Tensor:
    r"""$\sum_j x_j G_j$ over the last axis, kept as an axis of length 1, in float32 at least.

    A mask entry of -inf without gradient counts as 0, not as NaN.
    """
    if value.dtype in _HALF or gradient.dtype in _HALF:
        value, gradient = value.float(), gradient.float()
    product = torch.mul(value.detach(), gradient.detach(), out=room(gradient))
    product.nan_to_num_(nan=0.0, posinf=INFINITY, neginf=-INFINITY)
    return product.sum(-1, keepdim=True) if product.dim() else product.clone()


def weighed(gradient: Tensor, weight: Tensor) -> Tensor:
    r"""$\sum_j G_j w_j$ over the last axis, kept as an axis of length 1, for a weight [d]; in float32 at least."""
    if gradient.dtype in _HALF or gradient.dtype != weight.dtype:
        wide = torch.promote_types(gradient.dtype, torch.float32)
        gradient, weight = gradient.to(wide), weight.to(wide)
    return (gradient @ weight).unsqueeze(-1)


def slope_(y: Tensor, x: Tensor, at_zero: float) -> Tensor:
    r"""$f(x)/x$, and $f'(0)$ where $x = 0$: the slope of the line from the origin to $(x, f(x))$, written over y."""
    return y.div_(x).nan_to_num_(nan=at_zero, posinf=INFINITY, neginf=-INFINITY)


def chord(x: Tensor, y: Tensor, r: Tensor, f: Tensor) -> Tensor:
    r"""$(y - f)/(x - r)$, the slope of the line from $(r, f)$ to $(x, y)$; $|x - r|$ counts as NEAR at least."""
    if x.dtype in _HALF:
        return chord(x.float(), y.float(), r.float(), f.float()).to(x.dtype)
    away = torch.sub(x, r, out=room(x))
    slope = away.abs().clamp_min_(NEAR).copysign_(away)
    return torch.div(torch.sub(y, f, out=away), slope, out=slope)


def stabilised(gradient: Tensor, z: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    r"""$G \cdot z/(z + \epsilon\,\mathrm{sign} z)$, and per row what that takes away: $\sum_j z_j (G_j - G'_j)$.

    With $\mathrm{sign}(0) = +1$ this is $G\,|z|/(|z| + \epsilon)$, so no denominator is ever below epsilon.
    """
    share = z.abs().add_(epsilon)
    torch.div(gradient, share, out=share)
    lost = row_dot(z, share).mul_(epsilon)
    return torch.add(gradient, share, alpha=-epsilon, out=share), lost


def stabilised_entries(gradient: Tensor, z: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """As `stabilised`, with what is taken away entry by entry."""
    share = gradient / z.abs().add_(epsilon)
    return torch.add(gradient, share, alpha=-epsilon), share * z * epsilon


def fair_shares(leak: Tensor, size: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor | None]:
    """`leak / size` where that can be written down (as `dtype`), else 0; and where it can: None means everywhere."""
    share, dtype = leak / size, dtype or leak.dtype
    (tiny, huge), (_, most) = _limits(size.dtype), _limits(dtype)
    if size.device.type == "cpu" and size.numel():  # elsewhere asking costs more than it saves
        least, largest, low, high = (x.item() for pair in (size.aminmax(), share.aminmax()) for x in pair)
        if least >= tiny and largest <= huge and low >= -most and high <= most:
            return share.to(dtype), None
    taken = (size >= tiny) & (size <= huge) & (share.abs() <= most)
    return share.masked_fill(~taken, 0).to(dtype), taken


@cache
def _limits(dtype: torch.dtype) -> tuple[float, float]:
    """The smallest and the largest number."""
    return torch.finfo(dtype).tiny, torch.finfo(dtype).max


def give_back(a: Tensor, leak: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
    r"""Add $\mathrm{sign}(a_i)\, S / \sum_k |a_k|$ to the gradient of `a` [..., d], in place, for a leak S [..., 1].

    Gives the new gradient and which rows took their leak, None for all: a row of `a` that is all 0, or so small or so
    large that its share cannot be written down, takes none.
    """
    size = torch.abs(a, out=room(a)).sum(-1, keepdim=True, dtype=leak.dtype)
    share, taken = fair_shares(leak, size, gradient.dtype)
    return gradient.addcmul_(torch.sign(a, out=room(a)), share), taken


def strewn(a: Tensor, gradient: Tensor, leak: Tensor) -> tuple[Tensor, Tensor]:
    r"""Add what leaked to the gradient of `a`, in place, in shares of $|a_i G_i|$ among the entries of each a[n].

    Gives the new gradient, and which entries of the leak were taken: none where no entry has relevance, or where the
    leak [N, ...] has another first axis.
    """
    if not leak.dim() or leak.shape[0] != a.shape[0]:
        return gradient, torch.zeros_like(leak, dtype=torch.bool)
    shape = (-1, *[1] * (a.dim() - 1))
    carried = torch.where(torch.isfinite(a), a, 0).sign() * gradient.abs()
    size = (carried.abs() * a.abs().nan_to_num(posinf=0)).flatten(1).sum(1) if a.dim() > 1 else carried.abs() * a.abs()
    share, taken = fair_shares(leak.flatten(1).sum(1) if leak.dim() > 1 else leak, size, gradient.dtype)
    gradient.addcmul_(carried, share.reshape(shape))
    taken = torch.ones_like(share, dtype=torch.bool) if taken is None else taken
    return gradient, taken.reshape(-1, *[1] * (leak.dim() - 1)).expand_as(leak)


def infinite(result: Any) -> bool:
    """Is there NaN or +inf in a result? A mask is allowed its -inf."""
    return any(
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.numel() > 0
        and bool(torch.isnan(value).any() or torch.isposinf(value).any())
        for value in (result if isinstance(result, (list, tuple)) else (result,))
    )


# ---- memory for a moment -------------------------------------------------------------------------------------------


class _Room(threading.local):
    held: dict[torch.dtype, Tensor] | None = None


_ROOM = _Room()


@contextmanager
def rooms() -> Iterator[None]:
    """For a while, `room` gives the same memory again and again: a fresh page costs more than the sum that fills it."""
    outer, _ROOM.held = _ROOM.held, {}
    try:
        yield
    finally:
        _ROOM.held = outer


def room(like: Tensor) -> Tensor:
    """Memory of the shape and type of a tensor, until the next call: never kept, never handed on."""
    held, size = _ROOM.held, like.numel()
    if held is None or size < LITTLE or like.device.type != "cpu":  # other devices keep what was freed themselves
        return torch.empty(like.shape, dtype=like.dtype, device=like.device)
    found = held.get(like.dtype)
    if found is None or found.numel() < size:
        found = held[like.dtype] = torch.empty(size, dtype=like.dtype)
    return found[:size].view(like.shape)
