"""The one owner of signs, stabilisers and accumulation types."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

INFINITY = float("inf")
NEAR = 1e-2  # closer points than this are no two points to draw a line through
_HALF = (torch.float16, torch.bfloat16)


def by_item(values: Tensor, batch: int) -> Tensor:
    """The sum of all entries in float64 for each item of a batch [batch], on the device of the values.

    Items lie along the first axis, or along the first part of it. Where they cannot, an amount that is not 0 cannot
    be told apart by item, and is NaN.
    """
    if batch == 1:
        return values.sum(dtype=torch.float64).reshape(1)
    if values.dim() and values.shape[0] % batch == 0:
        return values.reshape(batch, -1).sum(-1, dtype=torch.float64)
    whole = values.sum(dtype=torch.float64)
    return torch.where(whole == 0, whole, torch.nan).expand(batch)


def dot(value: Tensor, gradient: Tensor, batch: int = 1) -> Tensor:
    r"""$\sum x G$ over all entries of each item of a batch [batch], in float64."""
    return by_item(_product(value, gradient), batch)


def row_dot(value: Tensor, gradient: Tensor) -> Tensor:
    r"""$\sum_j x_j G_j$ over the last axis, kept as an axis of length 1."""
    return _product(value, gradient).sum(-1, keepdim=True)


def slope_(y: Tensor, x: Tensor, at_zero: float) -> Tensor:
    r"""$f(x)/x$, and $f'(0)$ where $x = 0$: the slope of the line from the origin to $(x, f(x))$, written over y."""
    return y.div_(x).nan_to_num_(nan=at_zero, posinf=INFINITY, neginf=-INFINITY)


def chord(x: Tensor, y: Tensor, r: Tensor, f: Tensor) -> Tensor:
    r"""$(y - f)/(x - r)$, the slope of the line from $(r, f)$ to $(x, y)$; $|x - r|$ counts as NEAR at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    away = x.to(wide) - r
    away = away.abs().clamp_min_(NEAR).copysign_(away)
    return torch.div(y.to(wide) - f, away, out=away).to(x.dtype)


def stabilised(gradient: Tensor, z: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    r"""$G \cdot z/(z + \epsilon\,\mathrm{sign} z)$, and per row what that takes away: $\sum_j z_j (G_j - G'_j)$.

    With $\mathrm{sign}(0) = +1$ this is $G\,|z|/(|z| + \epsilon)$, so no denominator is ever below epsilon.
    """
    share = z.abs().add_(epsilon)
    torch.div(gradient, share, out=share)
    lost = row_dot(z, share).mul_(epsilon)
    return share.mul_(-epsilon).add_(gradient), lost


def stabilised_entries(gradient: Tensor, z: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """As `stabilised`, with what is taken away entry by entry."""
    share = gradient / z.abs().add_(epsilon)
    return torch.add(gradient, share, alpha=-epsilon), share * z * epsilon


def fair_shares(leak: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """`leak / size` where that can be written down, else 0; and where it can."""
    share = leak / size
    taken = torch.isfinite(share) & torch.isfinite(size) & (size >= torch.finfo(size.dtype).tiny)
    return share.masked_fill(~taken, 0), taken


def give_back(a: Tensor, leak: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    r"""Add $\mathrm{sign}(a_i)\, S / \sum_k |a_k|$ to the gradient of `a` [..., d], in place, for a leak S [..., 1].

    Gives the new gradient and which rows took their leak: a row of `a` that is all 0, or so small or so large that
    its share cannot be written down, takes none.
    """
    share, taken = fair_shares(leak, a.abs().sum(-1, keepdim=True, dtype=leak.dtype))
    narrow = share.to(gradient.dtype)
    taken = taken & torch.isfinite(narrow)
    return gradient.addcmul_(a.sign(), narrow.masked_fill(~taken, 0)), taken


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
    share, taken = fair_shares(leak.flatten(1).sum(1) if leak.dim() > 1 else leak, size)
    narrow = share.to(gradient.dtype)
    taken = taken & torch.isfinite(narrow)
    gradient.addcmul_(carried, narrow.masked_fill(~taken, 0).reshape(shape))
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


def _product(value: Tensor, gradient: Tensor) -> Tensor:
    """Entry times gradient, in float32 at least; a mask entry of -inf without gradient counts as 0, not as NaN."""
    if value.dtype in _HALF:
        value, gradient = value.float(), gradient.float()
    return (value * gradient).nan_to_num_(nan=0.0, posinf=INFINITY, neginf=-INFINITY)
