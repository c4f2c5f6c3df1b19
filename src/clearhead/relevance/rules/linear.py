"""Linear layers: epsilon and 0 rules, their bias and epsilon leaks; products of two dependent matrices.

Other rules stand in `layers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd import Function

from clearhead.relevance.ledger import Account
from clearhead.relevance.meter import arriving, hooked, metered, owned
from clearhead.relevance.numerics import stabilised, weighed
from clearhead.relevance.rules import layers
from clearhead.relevance.rules.rounded import dense
from clearhead.relevance.run import Call, Row, Run
from clearhead.tape import dependent


class Linear(Function):
    r"""$z = Wa + b$ under the epsilon rule: $G_a = W^T\big(G_z\, z/(z + \epsilon\,\mathrm{sign} z)\big)$.

    Leaks per position: $\sum_j G'_j b_j$ (bias) and $\epsilon \sum_j G'_j\,\mathrm{sign} z_j$ (epsilon); returned to
    `a` in shares of $|a_i|$ when asked. Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview".
    """

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, call: Call, weight_OI: Tensor, bias_O: Tensor | None, epsilon: float, account: Account
    ) -> Tensor:
        """Torch's own result, bit for bit."""
        z = owned(call.native())
        ctx.epsilon, ctx.account = epsilon, account
        ctx.save_for_backward(weight_OI, bias_O)
        ctx.a, ctx.z = account.keep(a, when=account.returns), account.keep(z, when=bool(epsilon))
        return z

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The rule, the books, and what is handed back."""
        weight_OI, bias_O = ctx.saved_tensors
        weight_OI = weight_OI.to(gradient.dtype)  # wider under autocast
        leaks = {}
        if ctx.epsilon:
            gradient, leaks["epsilon"] = stabilised(gradient, ctx.z.take(), ctx.epsilon)
        if bias_O is not None:
            leaks["bias"] = weighed(gradient, bias_O)
        a = ctx.a and ctx.a.take()
        return ctx.account.settle(a, gradient @ weight_OI, leaks), None, None, None, None, None


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer as the other rules see it: the last axis is a position's."""

    weight: Tensor
    bias: Tensor | None

    def seen(self, a: Tensor, weight: Tensor) -> Tensor:
        """$W a$."""
        return a @ weight.T

    def sent(self, s: Tensor, weight: Tensor) -> Tensor:
        """$W^T s$."""
        return s @ weight

    def settle(self, account: Account, a: Tensor, passed: Tensor, leaks: Mapping[str, Tensor]) -> Tensor:
        """What leaked at a position goes back to it."""
        return account.settle(a, passed, {cause: leak.sum(-1, keepdim=True) for cause, leak in leaks.items()})


def propagate(run: Run, call: Call, a: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """The rule that was chosen, for any spelling of a linear layer."""
    choice, weight_OI = run.choice(call, a), dense(run, call, a, weight_OI)
    if choice.rule in layers.SHARES:
        return layers.propagate(run, call, a, Dense(weight_OI, bias_O), choice)
    epsilon = choice.absorbed
    if not epsilon and bias_O is None:
        return call.native()  # type: ignore[no-any-return]
    if not epsilon and bias_O is not None and not run.returns:
        return _with_bias_booked(run, call, bias_O)
    held = call.changed(Tensor.detach)
    return Linear.apply(a, held, weight_OI, bias_O, epsilon, run.account(call))  # type: ignore[no-any-return]


def _with_bias_booked(run: Run, call: Call, bias_O: Tensor) -> Tensor:
    """Rule 0, recorded: torch's own gradient is the rule, and the bias takes its part."""
    if run.batch == 1 and not run.settings.checkpoint:  # torch sums the gradients of all positions itself
        owed = run.owed("bias", bias_O, run.place(call))
        return call.put(owed, for_=bias_O).native()  # type: ignore[no-any-return]
    account = run.account(call)
    return arriving(call.native(), lambda gradient: account.book("bias", weighed(gradient, bias_O)))


def linear(run: Run, call: Call) -> Any:
    """`F.linear(a, weight, bias)`."""
    a, weight, bias = call.get(0, "input"), call.get(1, "weight"), call.get(2, "bias")
    if dependent(weight) or dependent(bias) or not dependent(a):
        return bilinear(run, call)
    if weight.dim() != 2:
        return run.apply(None, call)
    return propagate(run, call, a, weight, bias)


def addmm(run: Run, call: Call) -> Any:
    """`torch.addmm(bias, a, weight)`: a linear layer with its weight the other way round."""
    bias, a, weight = call.get(0, "input"), call.get(1, "mat1"), call.get(2, "mat2")
    plain = call.get(3, "beta", 1) == 1 and call.get(4, "alpha", 1) == 1 and bias.shape == weight.shape[1:]
    if not plain or dependent(bias) or dependent(weight):
        return run.apply(None, call)
    return propagate(run, call, a, weight.T, bias)


def matmul(run: Run, call: Call) -> Any:
    """A constant matrix on the right is a linear layer; on the left it mixes positions; two dependents share."""
    a, other = call.get(0, "input"), call.get(1, "other", call.kwargs.get("mat2"))
    if dependent(a) and not dependent(other) and other.dim() == 2:
        return propagate(run, call, a, other.T, None)
    return bilinear(run, call)


def bilinear(_: Run, call: Call) -> Any:
    """Two dependent factors: half each. One: torch's own gradient."""
    factors = sum(1 for _ in call.dependents())
    return hooked(call.native(), lambda gradient: gradient / factors) if factors > 1 else call.native()


def baddbmm(run: Run, call: Call) -> Any:
    """`torch.baddbmm(bias, a, b)`: two dependent matrices get half each, a constant bias leaks."""
    factors = sum(1 for _ in call.dependents())
    if dependent(call.get(0, "input")):
        return run.apply(None, call)
    return metered(run, call, "constant", share=1 / factors)


def solve_triangular(_: Run, call: Call) -> Any:
    """`torch.linalg.solve_triangular(A, B)`: the matrix is a constant, as a denominator is; B passes through it."""
    matrix, *rest = call.args
    held = matrix.detach() if isinstance(matrix, Tensor) else matrix
    return Call(call.operation, call.function, (held, *rest), call.kwargs).native()


def bilinear_name(name: str) -> Row:
    """The row of an operation that is linear in each of its tensors."""
    return Row(bilinear, f"{name}: one dependent factor: as is; several: equal shares")


_BILINEAR = "bmm mv dot vdot inner outer einsum linalg_vecdot _grouped_mm grouped_mm".split()
_EPSILON = "G_a = W^T (G z / (z + eps sign z))"
ROWS = {
    "linear": Row(linear, _EPSILON, ("bias", "epsilon")),
    "addmm": Row(addmm, _EPSILON, ("bias", "epsilon")),
    "baddbmm": Row(baddbmm, "half to each of two dependent matrices; a constant bias leaks", ("constant",)),
    "matmul": Row(matmul, f"constant on the right: {_EPSILON}; two dependents: half each", ("epsilon",)),
    "linalg_solve_triangular": Row(solve_triangular, "X = A^-1 B: A a constant, B as is"),
    **{name: bilinear_name(name) for name in _BILINEAR},
}
