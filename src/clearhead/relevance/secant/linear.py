"""What is linear in each of its tensors: a constant factor passes as it is, of two each gets the other's mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clearhead.relevance.run import Row
from clearhead.relevance.secant.carrying import carried, fitted, held
from clearhead.relevance.secant.meter import unruled
from clearhead.relevance.secant.pairs import Pair, Pairs
from clearhead.tape import dependent


def native(run: Pairs, call: Pair) -> Any:
    """Linear: torch's own gradient is the secant."""
    return run.paired(call.native(), call.other(), call)


NATIVE = Row(native, "linear: m_x is the gradient", writes=True)


def multiplied(run: Pairs, call: Pair, rule: Callable[[Pairs, Pair, Tensor, Tensor], Tensor]) -> Any:
    """A product of two that depend on the input, by a rule; one of them alone is linear."""
    factors = list(call.dependents())
    if len(factors) == 1:
        return native(run, call)
    return run.pair(rule(run, call, *factors), call.other()) if len(factors) == 2 else unruled(run, call)


def mul(run: Pairs, call: Pair) -> Any:
    """`u * v`."""
    return multiplied(run, call, _entries)


def matmul(run: Pairs, call: Pair) -> Any:
    """`u @ v` of matrices; with vectors among them, by torch's own gradients."""
    return multiplied(run, call, _matrices if all(x.dim() >= 2 for x in call.dependents()) else _means)


def bilinear(run: Pairs, call: Pair) -> Any:
    """`bmm`, `einsum`, `dot`, ...: linear in each of two."""
    return multiplied(run, call, _means)


def _entries(run: Pairs, call: Pair, u: Tensor, v: Tensor) -> Tensor:
    r"""$m_u = m\,\bar v$, $m_v = m\,\bar u$."""

    def back(m: Tensor, mean_u: Tensor, mean_v: Tensor) -> tuple[Tensor, Tensor]:
        return (m * mean_v).sum_to_size(mean_u.shape), (m * mean_u).sum_to_size(mean_v.shape)

    return carried(held(call).native(), (u, v), back, run.middle(u), run.middle(v))


def _matrices(run: Pairs, call: Pair, u: Tensor, v: Tensor) -> Tensor:
    r"""$m_U = m\,\bar V^T$, $m_V = \bar U^T m$."""

    def back(m: Tensor, mean_u: Tensor, mean_v: Tensor) -> tuple[Tensor, Tensor]:
        for_u, for_v = m @ mean_v.transpose(-1, -2), mean_u.transpose(-1, -2) @ m
        return for_u.sum_to_size(mean_u.shape), for_v.sum_to_size(mean_v.shape)

    return carried(held(call).native(), (u, v), back, run.middle(u), run.middle(v))


def _means(run: Pairs, call: Pair, u: Tensor, v: Tensor) -> Tensor:
    """Torch's own gradients of the same call of both means, which is made on the way back."""
    means = call.changed(lambda x: run.middle(x).requires_grad_())

    def back(m: Tensor) -> Sequence[Tensor]:
        with torch.enable_grad():
            return torch.autograd.grad(means.native(), list(means.dependents()), m)

    return carried(held(call).native(), (u, v), back)


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


def solve_triangular(run: Pairs, call: Pair) -> Any:
    r"""$AX = B$: $\bar A\,\Delta X = \Delta B - \Delta A\,\bar X$, as each step of a substitution by hand gives it."""
    a, b = call.get(0, "A"), call.get(1, "B")
    if not dependent(a):
        return native(run, call)
    upper, unit = call.kwargs["upper"], call.kwargs.get("unitriangular", False)
    if not call.kwargs.get("left", True):
        turned = {"upper": not upper, "unitriangular": unit}
        return run.tape.under(lambda a, b: call.function(a.mT, b.mT, **turned).mT, a, b)
    x, x_b = held(call).native(), call.other()

    def back(m: Tensor, mean_a: Tensor, mean_x: Tensor) -> tuple[Tensor, Tensor | None]:
        for_b = torch.linalg.solve_triangular(mean_a.mT, m, upper=not upper, unitriangular=unit)
        for_a = -for_b @ mean_x.mT
        for_a = for_a.triu(int(unit)) if upper else for_a.tril(-int(unit))
        return for_a.sum_to_size(mean_a.shape), fitted(for_b, b)

    return run.pair(carried(x, (a, b), back, run.middle(a), (x + x_b) / 2), x_b)


_BILINEAR = "bmm mv dot vdot inner outer einsum tensordot linalg_vecdot _grouped_mm grouped_mm".split()
_MEANS = "m_u = m mean(v), m_v = m mean(u)"
ROWS = {
    "mul": Row(mul, _MEANS),
    "matmul": Row(matmul, "m_U = m mean(V)^T, m_V = mean(U)^T m"),
    "linear": Row(linear, "linear: m_x is the gradient"),
    "addmm": Row(addmm, "linear, and the matrix product"),
    "baddbmm": Row(baddbmm, "linear, and the matrix product"),
    "linalg_solve_triangular": Row(solve_triangular, "m_B = mean(A)^-T m, m_A = -m_B mean(X)^T"),
    **dict.fromkeys(_BILINEAR, Row(bilinear, _MEANS)),
    **dict.fromkeys(
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d".split(), Row(convolution, _MEANS)
    ),
}
