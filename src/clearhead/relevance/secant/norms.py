"""Normalisation: centring, a product with the scale, and the scale's own secant, fused into one pass back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from clearhead.relevance.run import Row
from clearhead.relevance.secant.carrying import carried, held
from clearhead.relevance.secant.linear import native
from clearhead.relevance.secant.meter import unruled
from clearhead.relevance.secant.numerics import over, wide
from clearhead.relevance.secant.pairs import Pair, Pairs
from clearhead.tape import dependent

# y = g c s + h with c = x - mean(x) (or x), s = (mean(c^2) + eps)^(-1/2). The secant of s by c_k is
# -(s_x^2 s_b^2) / (s_x + s_b) * 2 mean(c)_k / d, so with u = g m:
#     m_c = mean(s) u - mean(c) s_x^2 s_b^2 / mean(s) * mean_k(u mean(c))
# which is how a plain norm sends back, with mean(s) for the scale and mean(c) s_x s_b / mean(s)^2 for the input. In
# short, with seen = mean(c) s_x s_b / mean(s):  m_c = mean(s) (u - seen mean_k(u seen)).


def layer_norm(run: Pairs, call: Pair) -> Any:
    """`F.layer_norm(x, shape, weight, bias, eps)`."""
    (x, _), (weight, _), (bias, _) = call.both(0, "input"), call.both(2, "weight"), call.both(3, "bias")
    if dependent(weight) or dependent(bias) or not dependent(x):
        return unruled(run, call)
    shape, eps = list(call.get(1, "normalized_shape")), call.get(4, "eps", 1e-5)
    other = run.other(x)
    if other is None:
        return native(run, call)
    y, mean, s = torch.native_layer_norm(x.detach(), shape, weight, bias, eps)
    y_b, mean_b, s_b = torch.native_layer_norm(other, shape, weight, bias, eps)
    mean, s, mean_b, s_b = (wide(each) for each in (mean, s, mean_b, s_b))
    scale, factor = _scales(s, s_b)
    seen = torch.add(wide(x.detach()), wide(other)).sub_(mean + mean_b).mul_(factor / scale / 2)

    def back(m: Tensor, seen: Tensor, scale: Tensor, weight: Tensor | None) -> tuple[Tensor]:
        """The kernel that torch has for it, of an input of mean 0."""
        weight = weight if weight is None else weight.to(seen.dtype)
        given = (m.contiguous().to(seen.dtype), seen, shape, torch.zeros_like(scale), scale, weight, None)
        found, _, _ = torch.ops.aten.native_layer_norm_backward(*given, [True, False, False])
        return (found.to(m.dtype),)

    return run.pair(carried(y, (x,), back, seen, scale, weight), y_b)


def rms_norm(run: Pairs, call: Pair) -> Any:
    """`F.rms_norm(x, shape, weight, eps)`."""
    (x, _), (weight, _) = call.both(0, "input"), call.both(2, "weight")
    other = run.other(x) if dependent(x) else None
    if dependent(weight) or other is None:
        return unruled(run, call)
    axes, eps = tuple(range(-len(call.get(1, "normalized_shape")), 0)), call.get(3, "eps")
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    values = wide(x.detach()), wide(other)
    s, s_b = (torch.rsqrt(each.square().mean(axes, keepdim=True) + eps) for each in values)
    scale, factor = _scales(s, s_b)
    seen = torch.add(*values).mul_(factor / 2)

    def back(m: Tensor, seen: Tensor, scale: Tensor, weight: Tensor | None) -> tuple[Tensor]:
        u = wide(m) if weight is None else wide(m) * weight
        along = (u * seen).mean(axes, keepdim=True)
        return ((torch.addcmul(u, seen, along, value=-1) * scale).to(m.dtype),)

    return run.pair(carried(held(call).native(), (x,), back, seen, scale, weight), call.other())


def _scales(s: Tensor, s_b: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\bar s$, and $s s_b/\bar s$ by which $\bar c$ becomes what a norm has seen."""
    scale = (s + s_b) / 2
    return scale, s * (s_b / scale)


def norm(run: Pairs, call: Pair) -> Any:
    """The Euclidean norm, written out: the root of a sum of squares."""
    x, order = call.args[0] if call.args else call.kwargs["x"], _order(call)
    if order not in (None, 2, 2.0, "fro"):
        return unruled(run, call)
    dim = call.kwargs.get("dim", call.args[2] if len(call.args) > 2 else None)
    keepdim = call.kwargs.get("keepdim", call.args[3] if len(call.args) > 3 else False)
    other = run.other(x)
    if other is None:
        return native(run, call)
    y, y_b = held(call).native(), call.other()
    whole, whole_b = (each if keepdim or dim is None else _widened(each, dim, x.dim()) for each in (y, y_b))
    direction = over((x.detach() + other), whole + whole_b, 0.0)
    back = lambda m, direction: (m.reshape(whole.shape) * direction,)  # noqa: E731
    return run.pair(carried(y, (x,), back, direction), y_b)


def _order(call: Pair) -> Any:
    return call.kwargs.get("ord", call.kwargs.get("p", call.args[1] if len(call.args) > 1 else 2))


def _widened(y: Tensor, dim: Any, count: int) -> Tensor:
    """The reduced axes put back, each of length 1."""
    for axis in sorted(each % count for each in ([dim] if isinstance(dim, int) else dim)):
        y = y.unsqueeze(axis)
    return y


def variance(run: Pairs, call: Pair) -> Any:
    """`var`, `std`, `var_mean`, `std_mean`, written out."""
    name, x = call.operation.name, call.get(0, "input")
    axes, less, keepdim = _reduction(call, x.dim())
    count = math.prod(x.shape[axis] for axis in axes)

    def written_out(x: Tensor) -> Any:
        mean = x.mean(axes, keepdim=True)
        centred = x - mean
        found = (centred * centred).sum(axes, keepdim=keepdim) / max(count - less, 0)
        found = found.sqrt() if name.startswith("std") else found
        return (found, mean.reshape(found.shape)) if name.endswith("mean") else found

    return run.tape.under(written_out, x)


def _reduction(call: Pair, count: int) -> tuple[tuple[int, ...], float, bool]:
    """Over which axes, what is taken off the count, and whether the axes stay, in any of torch's spellings."""
    rest, options = list(call.args[1:]), call.kwargs
    dim = options.get("dim", rest.pop(0) if rest and not isinstance(rest[0], bool) else None)
    unbiased = options.get("unbiased", rest.pop(0) if rest else True)
    keepdim = bool(options.get("keepdim", rest.pop(0) if rest else False))
    axes = tuple(range(count)) if dim is None else ((dim,) if isinstance(dim, int) else tuple(dim))
    return axes, float(options.get("correction", 1 if unbiased else 0)), keepdim


_FUSED = "m_c = mean(s) u - mean(c) s_x^2 s_b^2 / mean(s) mean(u mean(c)), u = g m"
ROWS = {
    "layer_norm": Row(layer_norm, _FUSED),
    "rms_norm": Row(rms_norm, _FUSED),
    "norm": Row(norm, "m_x = m (x + b) / (|x| + |b|)"),
    **dict.fromkeys("var std var_mean std_mean".split(), Row(variance, "centred, squared, averaged")),
}
