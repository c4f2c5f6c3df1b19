"""Pointwise functions: the slope of the line through both points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from clearhead.relevance.run import Row
from clearhead.relevance.secant import numerics
from clearhead.relevance.secant.carrying import carried, held
from clearhead.relevance.secant.linear import native
from clearhead.relevance.secant.meter import unruled
from clearhead.relevance.secant.numerics import Pointwise, Slope, bent, quotient, wide
from clearhead.relevance.secant.pairs import Pair, Pairs
from clearhead.tape import dependent, mapped


def sloped(run: Pairs, call: Pair, x: Tensor, slope: Slope) -> Any:
    r"""A pointwise function of the one tensor x of a call: $m_x = m\,\frac{f(x) - f(b)}{x - b}$.

    Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation Differences", section 3.5.1.
    """
    other = run.other(x)
    y, at_other = held(call).native(), call.other()
    if other is None:
        return run.pair(y, at_other)
    values = (wide(each) for each in (x.detach(), other, y, at_other))
    return run.pair(carried(y, (x,), lambda m, slope: (m * slope,), slope(*values).to(y.dtype)), at_other)


def closed(slope: Slope) -> Callable[[Pairs, Pair], Any]:
    """The rule of a function whose secant is known in closed form."""

    def apply(run: Pairs, call: Pair) -> Any:
        return sloped(run, call, next(call.dependents()), slope)

    return apply


def general(make: Callable[..., Slope], **options: Any) -> Callable[[Pairs, Pair], Any]:
    """The rule of a function whose secant is a quotient."""

    def apply(run: Pairs, call: Pair) -> Any:
        factors = list(call.dependents())
        if len(factors) != 1:
            return unruled(run, call)
        alone = not any(isinstance(each, Tensor) and each.dim() for each in call.args[1:])
        more = {} if make is bent else {"split": alone, **options}
        return sloped(run, call, factors[0], make(_function(call), **more))

    return apply


def _function(call: Pair) -> Pointwise:
    """The call as a function of its one tensor, in the precision of what it is given."""

    def f(value: Tensor) -> Tensor:
        def change(x: Tensor) -> Tensor:
            return value if dependent(x) else x.to(value.dtype)

        args, kwargs = (mapped(each, change, where=_is_float) for each in (call.args, tuple(call.kwargs.values())))
        return call.function(*args, **dict(zip(call.kwargs, kwargs, strict=True)))  # type: ignore[no-any-return]

    return f


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def power(run: Pairs, call: Pair) -> Any:
    """`x ** p`: closed for the usual exponents; else a quotient, on any scale."""
    base, exponent = call.get(0, "input"), call.get(1, "exponent")
    if isinstance(base, (int, float)) and base > 0:
        return closed(numerics.to_the_power(base))(run, call)
    if not dependent(base):
        return general(quotient)(run, call)
    slope = _POWERS.get(float(exponent)) if isinstance(exponent, (int, float)) else None
    if slope is not None:
        return closed(slope)(run, call)
    return native(run, call) if exponent == 1 else general(quotient, least=0.0)(run, call)


_POWERS: dict[float, Slope] = {
    2.0: numerics.square,
    3.0: numerics.cube,
    0.5: numerics.sqrt,
    -0.5: numerics.rsqrt,
    -1.0: numerics.reciprocal,
}
_CLOSED: dict[str, Slope] = {
    "exp": numerics.exp,
    "tanh": numerics.tanh,
    "sigmoid": numerics.sigmoid,
    "silu": numerics.silu,
    "sqrt": numerics.sqrt,
    "rsqrt": numerics.rsqrt,
    "reciprocal": numerics.reciprocal,
    "sinh": numerics.sinh,
    "cosh": numerics.cosh,
    "softsign": numerics.softsign,
    "square": numerics.square,
    "log": numerics.log,
    "expm1": numerics.expm1,
    "exp2": numerics.to_the_power(2.0),
    "sin": numerics.sin,
    "cos": numerics.cos,
}
_STRAIGHT = "gelu mish softplus logsigmoid".split()  # but for a stretch round 0
_SMOOTH = "erf erfc tan asinh atan tanhshrink log1p acos asin atanh erfinv".split()
_ANY_SCALE = "log2 log10".split()
_BENT = (
    "relu leaky_relu rrelu prelu abs threshold relu6 hardtanh hardswish hardsigmoid hardshrink softshrink elu selu "
    "celu clamp clamp_min clamp_max sign floor ceil round trunc frac"
).split()
_LINE = "m_x = m (f(x) - f(b)) / (x - b)"

ROWS = {
    **{name: Row(closed(slope), f"{_LINE}, in closed form") for name, slope in _CLOSED.items()},
    **dict.fromkeys(_STRAIGHT, Row(general(quotient, grows=False), f"{_LINE}, f' where they are close")),
    **dict.fromkeys(_SMOOTH, Row(general(quotient), f"{_LINE}, f' where they are close")),
    **dict.fromkeys(_ANY_SCALE, Row(general(quotient, least=0.0), f"{_LINE}, f' where they are close")),
    **dict.fromkeys(_BENT, Row(general(bent), f"{_LINE}, f' where they are equal")),
    "pow": Row(power, f"{_LINE}, in closed form for the usual exponents"),
}
