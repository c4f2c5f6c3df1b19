"""What is linear in each of its tensors: a constant factor passes as it is, of two each gets the other's mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from clearhead.relevance.run import Row
from clearhead.relevance.secant.meter import unruled
from clearhead.relevance.secant.pairs import Pair, Pairs
from clearhead.tape import dependent


def native(run: Pairs, call: Pair) -> Any:
    """Linear: torch's own gradient is the secant."""
    return run.paired(call.native(), call.other(), call)


NATIVE = Row(native, "linear: m_x is the gradient", writes=True)


class Product(Function):
    r"""$y = u v$ entry by entry: $m_u = m\,\bar v$, $m_v = m\,\bar u$, with the means of both values."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, call: Pair, mean_u: Tensor, mean_v: Tensor) -> Tensor:
        """Torch's own result."""
        ctx.save_for_backward(mean_u, mean_v)
        ctx.shapes = u.shape, v.shape
        return call.native()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, m: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Each by the other's mean."""
        mean_u, mean_v = ctx.saved_tensors
        u, v = ctx.shapes
        return (m * mean_v).sum_to_size(u), (m * mean_u).sum_to_size(v), None, None, None


class Matrices(Function):
    r"""$Y = U V$: $m_U = m\,\bar V^T$, $m_V = \bar U^T m$."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, call: Pair, mean_u: Tensor, mean_v: Tensor) -> Tensor:
        """Torch's own result."""
        ctx.save_for_backward(mean_u, mean_v)
        return call.native()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, m: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Each by the other's mean."""
        mean_u, mean_v = ctx.saved_tensors
        for_u, for_v = m @ mean_v.transpose(-1, -2), mean_u.transpose(-1, -2) @ m
        return for_u.sum_to_size(mean_u.shape), for_v.sum_to_size(mean_v.shape), None, None, None


class Bilinear(Function):
    r"""$y = f(u, v)$, linear in either: $m_u = m\,\partial f(u, \bar v)/\partial u$, and the other way round."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, call: Pair, means: Pair) -> Tensor:
        """Torch's own result; its gradients are taken of a call of the means, on the way back."""
        ctx.means = means
        return call.native()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, m: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Torch's gradients where both factors are means."""
        with torch.enable_grad():
            found = torch.autograd.grad(ctx.means.native(), list(ctx.means.dependents()), m)
        return found[0], found[1], None, None


def multiplied(run: Pairs, call: Pair, kind: type[Function]) -> Any:
    """A product of two that depend on the input; one of them alone is linear."""
    factors = list(call.dependents())
    if len(factors) == 1:
        return native(run, call)
    if len(factors) != 2:
        return unruled(run, call)
    if kind is Bilinear:
        means = call.changed(lambda x: run.middle(x).requires_grad_())
        return run.pair(Bilinear.apply(*factors, held(call), means), call.other())
    return run.pair(kind.apply(*factors, held(call), *map(run.middle, factors)), call.other())


def held(call: Pair) -> Pair:
    """The same call, which a function of its own differentiates."""
    bare = call.changed(Tensor.detach)
    return Pair(call.operation, call.function, bare.args, bare.kwargs, call.other_args, call.other_kwargs)


def mul(run: Pairs, call: Pair) -> Any:
    """`u * v`."""
    return multiplied(run, call, Product)


def matmul(run: Pairs, call: Pair) -> Any:
    """`u @ v` of matrices; with vectors among them, by torch's own gradients."""
    plain = all(x.dim() >= 2 for x in call.dependents())
    return multiplied(run, call, Matrices if plain else Bilinear)


def bilinear(run: Pairs, call: Pair) -> Any:
    """`bmm`, `einsum`, `dot`, ...: linear in each of two."""
    return multiplied(run, call, Bilinear)


def linear(run: Pairs, call: Pair) -> Any:
    """`F.linear(a, weight, bias)`: the weight may depend on the input too."""
    a, weight, bias = call.both(0, "input"), call.both(1, "weight"), call.both(2, "bias", None)
    if not dependent(weight[0]):
        return native(run, call)

    def written_out(a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product = a @ weight.transpose(-1, -2)
        return product if bias is None else product + bias

    return run.tape.under(written_out, a[0], weight[0], bias[0])


def convolution(run: Pairs, call: Pair) -> Any:
    """`F.conv1d(a, weight, bias)` and its kin: the weight may depend on the input too."""
    if not dependent(call.get(1, "weight")):
        return native(run, call)
    return unruled(run, call) if dependent(call.get(2, "bias")) else bilinear(run, call)


def _scaled(run: Pairs, call: Pair, names: tuple[str, str]) -> Any:
    """`beta * input + alpha * (u @ v)`, written out where both factors depend on the input."""
    (bias, _), (u, _), (v, _) = call.both(0, "input"), call.both(1, names[0]), call.both(2, names[1])
    if not (dependent(u) and dependent(v)):
        return native(run, call)
    options = call.kwargs
    beta, alpha = options.get("beta", 1), options.get("alpha", 1)

    def written_out(bias: Tensor, u: Tensor, v: Tensor) -> Tensor:
        product = u @ v
        product = product if alpha == 1 else product * alpha
        return product + (bias if beta == 1 else bias * beta)

    return run.tape.under(written_out, bias, u, v)


def addmm(run: Pairs, call: Pair) -> Any:
    """`torch.addmm(bias, u, v)`."""
    return _scaled(run, call, ("mat1", "mat2"))


def baddbmm(run: Pairs, call: Pair) -> Any:
    """`torch.baddbmm(bias, u, v)`."""
    return _scaled(run, call, ("batch1", "batch2"))


_MEANS = "m_u = m mean(v), m_v = m mean(u)"
ROWS = {
    "mul": Row(mul, _MEANS),
    "matmul": Row(matmul, "m_U = m mean(V)^T, m_V = mean(U)^T m"),
    "linear": Row(linear, "linear: m_x is the gradient"),
    "addmm": Row(addmm, "linear, and the matrix product"),
    "baddbmm": Row(baddbmm, "linear, and the matrix product"),
    **dict.fromkeys("bmm mv dot vdot inner outer einsum tensordot linalg_vecdot".split(), Row(bilinear, _MEANS)),
    **dict.fromkeys(
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d".split(), Row(convolution, _MEANS)
    ),
}
