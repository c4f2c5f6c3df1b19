r"""Secants of functions of one number, without differences of nearly equal numbers where that can be helped.

Everywhere x is the input's value and b the baseline's; $d = x - b$.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Pointwise = Callable[[Tensor], Tensor]
Slope = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # of x, b, f(x), f(b)

# Differences below which a quotient says less than the derivative in the middle: the quotient is off by about
# epsilon / d, the derivative by d^2 / 24.
_NEAR = {torch.float64: 1e-5, torch.float32: 4e-3}


def wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def middle(x: Tensor, b: Tensor) -> Tensor:
    """The mean of both values, also where their sum would overflow."""
    return torch.lerp(b, x, 0.5) if x.shape == b.shape else x / 2 + b / 2


def over(numerator: Tensor, d: Tensor, at_zero: float) -> Tensor:
    """`numerator / d`, written over the numerator; `at_zero` where both are 0 or neither is a number."""
    return numerator.div_(d).nan_to_num_(nan=at_zero, posinf=torch.inf, neginf=-torch.inf)


def log_mean(a: Tensor, b: Tensor, d: Tensor) -> Tensor:
    r"""The logarithmic mean $\frac{a - b}{\ln a - \ln b} = (a + b)\,\frac{\tanh(d/2)}{d}$ with $d = \ln a - \ln b$.

    In this form nothing cancels and nothing overflows; 0 where both are 0, a where they are equal.
    """
    return over((d / 2).tanh_(), d, 0.5).mul_(a + b)


def quotient(f: Pointwise, *, least: float = 1.0, grows: bool = True, split: bool = True) -> Slope:
    r"""$\frac{f(x) - f(b)}{x - b}$ of a smooth f, and $f'$ in the middle where x and b are close.

    Close is relative to `least` + |x|, or only to `least` if the scale on which f bends never `grows`.
    `split`: f acts on each entry alone, whatever the shape, so that the derivative is made of those entries only.
    """

    def slope(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
        d = x - b
        found = (at_x - at_b).div_(d)
        close = d.abs_() <= _NEAR[x.dtype] * (x.abs().add_(least) if grows else least)
        if not split:
            return torch.where(close, derivative(f, middle(x, b)), found)
        places = close.flatten().nonzero().squeeze(1)
        if places.numel():
            centre = middle(x.take(places), b.take(places))
            found.put_(places, derivative(f, centre))
        return found

    return slope


def derivative(f: Pointwise, x: Tensor) -> Tensor:
    """Torch's own derivative of each entry."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(f(leaf).sum(), leaf)[0]


# ---- secants in closed form ----------------------------------------------------------------------------------------


def exp(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    """The logarithmic mean of both values."""
    return log_mean(at_x, at_b, x - b)


def tanh(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$\frac{\tanh d}{d}\,(1 - \tanh x \tanh b)$."""
    d = x - b
    return over(d.tanh(), d, 1.0).mul_(1 - at_x * at_b)


def sigmoid(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$\frac{\tanh(d/2)}{d}\,\big(\sigma(x)\,\sigma(-b) + \sigma(b)\,\sigma(-x)\big)$."""
    d = x - b
    return over((d / 2).tanh_(), d, 0.5).mul_(at_x * (-b).sigmoid() + at_b * (-x).sigmoid())


def silu(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$x\,\sigma(x)$ as a product: $\bar\sigma + \bar x\,\frac{\sigma(x) - \sigma(b)}{d}$."""
    gates = x.sigmoid(), b.sigmoid()
    return sigmoid(x, b, *gates).mul_(middle(x, b)).add_(middle(*gates))


def sqrt(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$1 / (\sqrt x + \sqrt b)$."""
    return (at_x + at_b).reciprocal_()


def rsqrt(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$-\frac{s_x^2 s_b^2}{s_x + s_b}$ with $s = 1/\sqrt x$."""
    return -at_x * (at_b / (at_x + at_b)) * at_x * at_b


def reciprocal(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$-\frac1x\,\frac1b$."""
    return -at_x * at_b


def square(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$x + b$."""
    return x + b


def cube(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$x^2 + xb + b^2$."""
    return x * x + (x + b) * b


def log(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""The inverse of the logarithmic mean, $\frac{2\,\mathrm{artanh}\,r}{r\,(x + b)}$ with $r = \frac{x - b}{x + b}$.

    A quotient where one is three times the other, or more: there artanh loses its digits and nothing cancels.
    """
    d, total = x - b, x + b
    ratio = d / total
    near = over(torch.atanh(ratio), ratio, 1.0).mul_(2).div_(total)
    return torch.where(ratio.abs() < 0.5, near, (at_x - at_b).div_(d))


def expm1(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    """That of `exp`."""
    return log_mean(x.exp(), b.exp(), x - b)


def to_the_power(base: float) -> Slope:
    """That of `exp`, of a positive base: in units of its logarithm."""
    unit = math.log(base)

    def slope(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
        return log_mean(at_x, at_b, (x - b).mul_(unit)).mul_(unit)

    return slope


def sin(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$\cos(b + h)\,\frac{\sin h}{h}$ with $h = d/2$; a quotient where d is large."""
    h = (x - b) / 2
    return _within_a_turn(h, b.cos() * h.cos() - at_b * h.sin(), at_x - at_b)


def cos(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$-\sin(b + h)\,\frac{\sin h}{h}$ with $h = d/2$; a quotient where d is large."""
    h = (x - b) / 2
    return _within_a_turn(h, -(b.sin() * h.cos() + at_b * h.sin()), at_x - at_b)


def _within_a_turn(h: Tensor, slope: Tensor, change: Tensor) -> Tensor:
    return torch.where(h.abs() < 0.5, slope.mul_(over(h.sin(), h, 1.0)), change.div_(2 * h))


def sinh(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$\cosh\bar x\,\frac{\sinh(d/2)}{d/2}$."""
    half = (x - b) / 2
    return over(half.sinh(), half, 1.0).mul_(middle(x, b).cosh())


def cosh(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$\sinh\bar x\,\frac{\sinh(d/2)}{d/2}$."""
    half = (x - b) / 2
    return over(half.sinh(), half, 1.0).mul_(middle(x, b).sinh())


def softsign(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
    r"""$\frac{1}{(1 + |x|)(1 + |b|)}$, times $1 + \frac{2|x||b|}{|x| + |b|}$ where the signs differ."""
    size, other = x.abs(), b.abs()
    across = torch.where((x < 0) == (b < 0), 0.0, 2 * size * (other / (size + other)))
    return across.add_(1).div_(1 + size).div_(1 + other)


def bent(kinked: Pointwise) -> Slope:
    """The quotient of a function with kinks, near which a derivative says nothing; torch's own at d = 0."""

    def slope(x: Tensor, b: Tensor, at_x: Tensor, at_b: Tensor) -> Tensor:
        d = x - b
        found = (at_x - at_b).div_(d)
        same = d == 0
        if bool(same.any()):
            found = torch.where(same, derivative(kinked, x), found)
        return found

    return slope
