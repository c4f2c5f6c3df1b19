"""Pointwise functions: a line through (x, f(x)) and the origin, or a point where the model is told nothing."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from clearhead.relevance.ledger import Account
from clearhead.relevance.meter import metered
from clearhead.relevance.numerics import chord, row_dot, slope_
from clearhead.relevance.rules.norms import constant
from clearhead.relevance.run import AS_IS, Call, Row, Run, Start
from clearhead.tape import Keeper, dependent

Compute = Callable[[Tensor], Tensor]


class Identity(Function):
    r"""$y = f(x)$ with $f(0) = 0$ as a line through the origin: $G_x = G_y\, f(x)/x$, hence $R_x = R_y$.

    `compute` makes y from x, and again on the way back unless y is kept. Achtibat et al. 2024,
    "AttnLRP", section 3.2 (identity rule).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, compute: Compute, keeper: Keeper, keep: bool, at_zero: float) -> Tensor:
        """Torch's own result, made in here: an input handed out again would count as a view of itself."""
        y = compute(x)
        ctx.x, ctx.y = keeper.keep(x), keeper.keep(y) if keep else None
        ctx.compute, ctx.at_zero = compute, at_zero
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The slope of the line."""
        x = ctx.x.take()
        y = ctx.y.take().clone() if ctx.y else ctx.compute(x)
        return slope_(y, x, ctx.at_zero).mul_(gradient), None, None, None, None


class Chord(Function):
    r"""$y = f(x)$ as the line from a point r: $G_x = G_y\,(f(x) - f(r))/(x - r)$, where r is what x is of no input.

    Where $|x - r|$ is less than NEAR, it counts as NEAR. Leak per position: $\sum_j G_j\,(y_j - s_j x_j)$ with these
    slopes s (reference). Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation
    Differences", section 3.2 (rescale rule), for one operation at a time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, compute: Compute, again: bool, start: Start, account: Account) -> Tensor:
        """Torch's own result, made in here: an input handed out again would count as a view of itself."""
        y = compute(x)
        ctx.x, ctx.start, ctx.account = account.keep(x), start, account
        if again:
            account.keeper.make(y, compute, ctx.x)
        ctx.y = account.keep(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The slope of the line, the books, and what is handed back."""
        y, x, account = ctx.y.take(), ctx.x.take(), ctx.account  # y may be made of x
        passed = chord(x, y, *ctx.start).mul_(gradient)
        leaks = {"reference": row_dot(y, gradient) - row_dot(x, passed)}
        return account.settle(x, passed, leaks), None, None, None, None


def line(run: Run, call: Call, x: Tensor, compute: Compute, *, keep: bool, at_zero: float) -> Tensor:
    """A pointwise function of x under the rule; `keep` where `compute` does not look at its argument."""
    start = run.start(call, x, compute)
    if start is None:
        return Identity.apply(x, compute, run.keeper, keep, at_zero)  # type: ignore[no-any-return]
    return Chord.apply(x, compute, not keep, start, run.account(call))  # type: ignore[no-any-return]


def identity(at_zero: float) -> Callable[[Run, Call], Tensor]:
    """The rule of a pointwise function with f(0) = 0 and f'(0) = `at_zero`."""

    def apply(run: Run, call: Call) -> Tensor:
        x: Tensor = call.args[0] if call.args else call.kwargs["input"]
        function, rest, kwargs = call.function, call.args[1:], {k: v for k, v in call.kwargs.items() if k != "input"}

        def compute(value: Tensor) -> Tensor:
            return function(value, *rest, **kwargs)  # type: ignore[no-any-return]

        y = line(run, call, x, compute, keep=False, at_zero=at_zero)
        image = run.image(x)
        if image.at_zero:
            return mark(run, call, y)
        run.remember(y, image.root, 0.0)
        return y

    return apply


def power(run: Run, call: Call) -> Any:
    """`x ** p`: pointwise for p > 0; a scale for p < 0; a gate when the exponent is what depends."""
    exponent = call.get(1, "exponent")
    if not isinstance(exponent, (int, float)) or exponent <= 0:
        return constant(run, call)
    return identity(1.0 if exponent == 1 else 0.0)(run, call)


def clamp(run: Run, call: Call) -> Any:
    """Pointwise if 0 lies within the bounds; else what the bounds add is metered."""
    low, high = (
        (None, call.get(1, "max")) if call.operation.name == "clamp_max" else (call.get(1, "min"), call.get(2, "max"))
    )
    numbers = all(bound is None or isinstance(bound, (int, float)) for bound in (low, high))
    if numbers and (low is None or low <= 0) and (high is None or high >= 0):
        return identity(1.0)(run, call)
    return metered(run, call, "constant")


def negate(run: Run, call: Call) -> Any:
    """Linear; the image of an image."""
    return mark(run, call, call.native())


def mark(run: Run, call: Call, result: Tensor) -> Tensor:
    """Remember that `result` is a pointwise function of the root of the call's dependent arguments, if it is.

    All dependents must have one root and its shape, and all else must be numbers: a constant tensor would make it
    another function at each entry.
    """
    images = []
    for value in (*call.args, *call.kwargs.values()):
        if dependent(value):
            images.append(run.image(value))
        elif isinstance(value, Tensor) and value.dim():
            return result
    root = images[0].root
    if any(image.root is not root for image in images) or result.shape != root.shape:
        return result
    at_zero = _of_numbers(call, [image.at_zero for image in images])
    if math.isfinite(at_zero):
        run.remember(result, root, at_zero)
    return result


_ON_NUMBERS: dict[str, Callable[..., float]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
}


def _of_numbers(call: Call, numbers: list[float]) -> float:
    """What the call makes of numbers in the places of its dependent arguments; torch is asked where Python cannot."""
    known, plain = iter(numbers), _ON_NUMBERS.get(call.operation.name)
    if plain and not call.kwargs and all(isinstance(x, (int, float)) or dependent(x) for x in call.args):
        return float(plain(*(next(known) if isinstance(x, Tensor) else x for x in call.args)))
    zeros = call.changed(lambda x: torch.full((), next(known), dtype=x.dtype, device=x.device))
    return float(zeros.native())


def one_function(run: Run, call: Call, factors: list[Tensor]) -> Tensor | None:
    """The product of pointwise images of one tensor as one pointwise function of it, if that is what it is."""
    images = [run.image(factor) for factor in factors]
    root = images[0].root
    if any(image.root is not root for image in images) or math.prod(image.at_zero for image in images) != 0:
        return None
    held = call.changed(Tensor.detach)
    result = line(run, call, run.entering(root), lambda _: held.native(), keep=True, at_zero=0.0)
    return mark(run, call, result)


_LINE = "G_x = G (f(x) - f(r)) / (x - r), r from a text that says nothing; f(x)/x where there is none"
_SLOPE_AT_ZERO = {
    "gelu": 0.5, "silu": 0.5, "mish": 0.6, "tanh": 1.0, "erf": 2 / math.sqrt(math.pi), "sin": 1.0, "sinh": 1.0,
    "asinh": 1.0, "atan": 1.0, "tan": 1.0, "softsign": 1.0, "tanhshrink": 0.0, "softshrink": 0.0, "hardshrink": 0.0,
    "hardswish": 0.5, "hardtanh": 1.0, "relu6": 1.0, "elu": 1.0, "selu": 1.0507009873554805, "celu": 1.0,
    "square": 0.0, "expm1": 1.0, "log1p": 1.0, "asin": 1.0, "atanh": 1.0, "erfinv": math.sqrt(math.pi) / 2,
}  # fmt: skip

ROWS = {
    **{name: Row(identity(at_zero), _LINE, ("reference",)) for name, at_zero in _SLOPE_AT_ZERO.items()},
    **dict.fromkeys("relu leaky_relu rrelu prelu abs threshold".split(), AS_IS),
    "pow": Row(power, f"{_LINE} for a positive power; a constant else"),
    "clamp": Row(clamp, f"{_LINE} if 0 lies within the bounds", ("constant",)),
    "clamp_min": Row(clamp, f"{_LINE} if the bound is at most 0", ("constant",)),
    "clamp_max": Row(clamp, f"{_LINE} if the bound is at least 0", ("constant",)),
    "neg": Row(negate, "as is"),
    "sign": Row(constant, "a constant"),
}
