"""Normalisation: the scale is a constant, `y = g (x - mean) [1/std] + b`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from clearhead.relevance.ledger import Account
from clearhead.relevance.meter import owned
from clearhead.relevance.numerics import weighed
from clearhead.relevance.run import Call, Row, Run

Computed = Callable[[Tensor], tuple[Tensor, Tensor]]


class Norm(Function):
    r"""$y = g\,(x - \bar x)\,c + b$ with $c = 1/\mathrm{std}$ held constant: $G_x = u - \bar u$, $u = c\,g\,G_y$.

    Without centring (RMSNorm) $G_x = u$. Leak per position: $\sum_j G_j b_j$ (norm bias). Ali et al. 2022, "XAI for
    Transformers: Better Explanations through Conservative Propagation", section 4.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        compute: Computed,
        weight: Tensor | None,
        bias: Tensor | None,
        centred: bool,
        account: Account,
    ) -> Tensor:
        """Torch's own result, made in here; all tensors have the normalised axes flattened into the last one."""
        y, scale = compute(x)
        ctx.save_for_backward(scale, weight, bias)
        ctx.x = account.keep(x, when=account.returns and bias is not None)
        if ctx.x is not None:
            account.keeper.make(y, lambda x: compute(x)[0], ctx.x)
        ctx.centred, ctx.account = centred, account
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The rule, the books, and what is handed back."""
        scale, weight, bias = ctx.saved_tensors
        u = gradient.clone() if weight is None else gradient * weight.to(gradient.dtype)  # another one under autocast
        passed = (u.sub_(u.mean(-1, keepdim=True)) if ctx.centred else u).mul_(scale)
        leaks = {} if bias is None else {"norm bias": weighed(gradient, bias)}
        return ctx.account.settle(ctx.x and ctx.x.take(), passed, leaks), None, None, None, None, None


def _normalise(run: Run, call: Call, compute: Computed, bias: Tensor | None, *, centred: bool) -> Tensor:
    """`compute` gives y and the scale for x; axes that are normalised together are flattened into one on the way."""
    x, shape, weight = call.get(0, "input"), call.get(1, "normalized_shape"), call.get(2, "weight")
    account = run.account(call)
    axes = len(shape)
    if axes == 1:
        return Norm.apply(x, compute, weight, bias, centred, account)  # type: ignore[no-any-return]
    weight, bias = (None if t is None else t.flatten() for t in (weight, bias))

    def flat(flattened: Tensor) -> tuple[Tensor, Tensor]:
        y, scale = compute(flattened.reshape(x.shape))
        return y.flatten(-axes), scale.flatten(-axes)

    result: Tensor = Norm.apply(x.flatten(-axes), flat, weight, bias, centred, account)
    return owned(result.reshape(x.shape))


def layer_norm(run: Run, call: Call) -> Tensor:
    """`F.layer_norm(x, shape, weight, bias, eps)`."""
    shape, weight, bias = (call.get(i, n) for i, n in enumerate(("normalized_shape", "weight", "bias"), 1))
    eps = call.get(4, "eps", 1e-5)

    def compute(x: Tensor) -> tuple[Tensor, Tensor]:
        y, _, scale = torch.native_layer_norm(x, list(shape), weight, bias, eps)
        return y, scale

    return _normalise(run, call, compute, bias, centred=True)


def rms_norm(run: Run, call: Call) -> Tensor:
    """`F.rms_norm(x, shape, weight, eps)`."""
    given, shape, eps = call.get(0, "input"), call.get(1, "normalized_shape"), call.get(3, "eps")
    least = torch.finfo(given.dtype).eps if eps is None else eps

    def compute(x: Tensor) -> tuple[Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        square = wide.square().mean(tuple(range(-len(shape), 0)), keepdim=True)
        return call.put(x, for_=given).native(), torch.rsqrt(square + least)

    return _normalise(run, call, compute, None, centred=False)


def constant(_: Run, call: Call) -> Any:
    """The result depends on nothing: it acts as a scale or a gate."""
    return call.changed(Tensor.detach).native()


def scale_and_mean(_: Run, call: Call) -> tuple[Tensor, Tensor]:
    """`std_mean`, `var_mean`: the scale is a constant, the mean is not."""
    scale, mean = call.native()
    return scale.detach(), mean


CONSTANT = Row(constant, "a constant: passes nothing, takes nothing")
_SCALES = "rsqrt sqrt std var norm reciprocal cdist logsumexp"
_OUTSIDE = "numpy unique unique_consecutive"  # what leaves torch, or counts
# New tensors, for which only shape and type of the given one count.
FACTORIES = (
    "zeros_like ones_like full_like empty_like rand_like randn_like randint_like "
    "new_zeros new_ones new_full new_empty new_tensor"
)
_GATES = "exp exp2 sigmoid softplus logsigmoid hardsigmoid cos acos log log2 log10 erfc"

ROWS = {
    "layer_norm": Row(layer_norm, "y = g (x - mean) [1/std] + b: G_x = u - mean(u), u = g G / std", ("norm bias",)),
    "rms_norm": Row(rms_norm, "y = g x [1/rms]: G_x = g G / rms"),
    **dict.fromkeys(("std_mean", "var_mean"), Row(scale_and_mean, "the scale a constant, the mean as is")),
    **dict.fromkeys(" ".join((_SCALES, _GATES, _OUTSIDE, FACTORIES)).split(), CONSTANT),
}
