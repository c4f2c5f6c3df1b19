"""The rules a second time: pairs of arrays, explicit matrices, secants in 40 digits. Knows neither torch nor clearhead.

A `Pair` is a tensor of which both values are known, and how a multiplier of it becomes multipliers of what it was
made of. `multipliers` walks back from the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import mpmath
import numpy as np

Array = np.ndarray
Back = Callable[[Array], Array]
DIGITS = 40


@dataclass(eq=False)
class Pair:
    """Both values of a tensor, and its parents with the way back to each."""

    x: Array
    b: Array
    parents: tuple[tuple[Pair, Back], ...] = field(default=(), repr=False)

    @property
    def mean(self) -> Array:
        return (self.x + self.b) / 2


def leaf(x, b) -> Pair:
    return Pair(np.asarray(x, dtype=np.float64), np.asarray(b, dtype=np.float64))


def multipliers(result: Pair, weights: Array, *leaves: Pair) -> list[Array]:
    """The multipliers of the leaves, for the sum of the result with these weights."""
    order: list[Pair] = []
    seen: set[int] = set()

    def visit(pair: Pair) -> None:
        if id(pair) not in seen:
            seen.add(id(pair))
            for parent, _ in pair.parents:
                visit(parent)
            order.append(pair)

    visit(result)
    found = {id(pair): np.zeros_like(pair.x) for pair in order}
    found[id(result)] = np.broadcast_to(np.asarray(weights, dtype=np.float64), result.x.shape).copy()
    for pair in reversed(order):
        for parent, back in pair.parents:
            found[id(parent)] += back(found[id(pair)])
    return [found[id(each)] if id(each) in found else np.zeros_like(each.x) for each in leaves]


# ---- linear ---------------------------------------------------------------------------------------------------------


def affine(pair: Pair, function: Callable[[Array], Array]) -> Pair:
    """Any function that is linear but for a constant: its matrix, column by column."""
    shape = pair.x.shape
    at_zero = function(np.zeros(shape))
    columns = [function(e.reshape(shape)) - at_zero for e in np.eye(pair.x.size)]
    matrix = np.stack([c.ravel() for c in columns])
    return Pair(function(pair.x), function(pair.b), ((pair, lambda m: (matrix @ m.ravel()).reshape(shape)),))


def linear(pair: Pair, W: Array, bias: Array | float = 0.0) -> Pair:
    return Pair(pair.x @ W.T + bias, pair.b @ W.T + bias, ((pair, lambda m: m @ W),))


def add(u: Pair, v: Pair) -> Pair:
    return Pair(u.x + v.x, u.b + v.b, tuple((each, _narrowed(each)) for each in (u, v)))


def scaled(pair: Pair, factor: Array | float) -> Pair:
    return Pair(pair.x * factor, pair.b * factor, ((pair, lambda m: _narrowed(pair)(m * factor)),))


def mean(pair: Pair, axis: int = -1) -> Pair:
    n = pair.x.shape[axis]
    spread = lambda m: np.broadcast_to(m / n, pair.x.shape)  # noqa: E731
    return Pair(pair.x.mean(axis, keepdims=True), pair.b.mean(axis, keepdims=True), ((pair, spread),))


def moved_axes(pair: Pair, function: Callable[[Array], Array], back: Callable[[Array], Array]) -> Pair:
    """Reshape, transpose: `back` undoes `function`."""
    return Pair(function(pair.x), function(pair.b), ((pair, back),))


def part(pair: Pair, index) -> Pair:
    """Entries picked by an index that both runs share."""

    def back(m: Array) -> Array:
        whole = np.zeros_like(pair.x)
        np.add.at(whole, index, m)
        return whole

    return Pair(pair.x[index], pair.b[index], ((pair, back),))


def _narrowed(pair: Pair) -> Back:
    """Sum over the axes along which a tensor was broadcast."""
    shape = pair.x.shape

    def back(m: Array) -> Array:
        m = m.sum(tuple(range(m.ndim - len(shape))))
        axes = tuple(i for i, n in enumerate(shape) if n == 1 and m.shape[i] != 1)
        return m.sum(axes, keepdims=True) if axes else m

    return back


# ---- products -------------------------------------------------------------------------------------------------------


def times(u: Pair, v: Pair) -> Pair:
    """Each factor gets the mean of the other's two values."""
    back_u, back_v = _narrowed(u), _narrowed(v)
    parents = ((u, lambda m: back_u(m * v.mean)), (v, lambda m: back_v(m * u.mean)))
    return Pair(u.x * v.x, u.b * v.b, parents)


def matmul(u: Pair, v: Pair) -> Pair:
    back_u, back_v = _narrowed(u), _narrowed(v)
    parents = (
        (u, lambda m: back_u(m @ np.swapaxes(v.mean, -1, -2))),
        (v, lambda m: back_v(np.swapaxes(u.mean, -1, -2) @ m)),
    )
    return Pair(u.x @ v.x, u.b @ v.b, parents)


# ---- pointwise ------------------------------------------------------------------------------------------------------

EXACT: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "gelu": lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    "relu": lambda x: x if x > 0 else mpmath.mpf(0),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "sqrt": mpmath.sqrt,
    "exp": mpmath.exp,
    "log": mpmath.log,
    "reciprocal": lambda x: 1 / x,
    "square": lambda x: x * x,
}


def secant(exact: Callable[[mpmath.mpf], mpmath.mpf], x: float, b: float) -> mpmath.mpf:
    """(f(x) - f(b)) / (x - b) in 40 digits, and f'(x) where x is b."""
    with mpmath.workdps(DIGITS):
        x, b = mpmath.mpf(float(x)), mpmath.mpf(float(b))
        return mpmath.diff(exact, x) if x == b else (exact(x) - exact(b)) / (x - b)


def pointwise(pair: Pair, name: str) -> Pair:
    exact = EXACT[name]
    y = np.vectorize(lambda v: float(exact(mpmath.mpf(float(v)))), otypes=[float])
    slope = np.vectorize(lambda v, w: float(secant(exact, v, w)), otypes=[float])(pair.x, pair.b)
    return Pair(y(pair.x), y(pair.b), ((pair, lambda m: m * slope),))


# ---- softmax --------------------------------------------------------------------------------------------------------


def log_mean(a: mpmath.mpf, b: mpmath.mpf) -> mpmath.mpf:
    """The logarithmic mean; 0 where either is 0."""
    if a == 0 or b == 0:
        return mpmath.mpf(0)
    return a if a == b else (a - b) / (mpmath.log(a) - mpmath.log(b))


@dataclass(frozen=True)
class Row:
    """One softmax in 40 digits: probabilities of both runs, the mean probabilities `lam` and the weights `w`."""

    p: list[mpmath.mpf]
    base: list[mpmath.mpf]
    lam: list[mpmath.mpf]
    w: list[mpmath.mpf]
    Z: tuple[mpmath.mpf, mpmath.mpf]

    @classmethod
    def of(cls, s: Array, t: Array) -> Row:
        """Of the scores of both runs; minus infinity hides."""
        with mpmath.workdps(DIGITS):
            e, f = ([mpmath.exp(mpmath.mpf(float(v))) if v > -math.inf else mpmath.mpf(0) for v in r] for r in (s, t))
            Z = (mpmath.fsum(e), mpmath.fsum(f))
            p, base = ([v / total if total else mpmath.mpf(0) for v in r] for r, total in zip((e, f), Z, strict=True))
            lam = [log_mean(a, b) for a, b in zip(p, base, strict=True)]
            M = log_mean(*Z)
            w = [log_mean(a, b) / M if M else mpmath.mpf(0) for a, b in zip(e, f, strict=True)]
            return cls(p, base, lam, w, Z)


def rows_of(pair: Pair) -> list[Row]:
    return [Row.of(s, t) for s, t in zip(*(v.reshape(-1, v.shape[-1]) for v in (pair.x, pair.b)), strict=True)]


def _array(rows: list[list[mpmath.mpf]], shape: tuple[int, ...]) -> Array:
    return np.array([[float(v) for v in row] for row in rows]).reshape(shape)


def softmax(pair: Pair) -> Pair:
    """m_s = lam m - w sum_j lam_j m_j over the last axis."""
    rows, shape = rows_of(pair), pair.x.shape
    lam, w, p, base = (_array([getattr(r, name) for r in rows], shape) for name in ("lam", "w", "p", "base"))
    return Pair(p, base, ((pair, lambda m: lam * m - w * (lam * m).sum(-1, keepdims=True)),))


def log_softmax(pair: Pair) -> Pair:
    """m_s = m - w sum_j m_j over the last axis."""
    total = logsumexp(pair)
    return add(pair, scaled(total, -1.0))


def logsumexp(pair: Pair) -> Pair:
    """m_s = w m, kept as an axis of length 1."""
    rows, shape = rows_of(pair), pair.x.shape
    w = _array([r.w for r in rows], shape)
    with mpmath.workdps(DIGITS):
        x, b = (
            np.array([float(mpmath.log(r.Z[i])) if r.Z[i] else -math.inf for r in rows]).reshape(*shape[:-1], 1)
            for i in (0, 1)
        )
    return Pair(x, b, ((pair, lambda m: w * m),))


# ---- composed -------------------------------------------------------------------------------------------------------


def norm(pair: Pair, gain: Array | float = 1.0, bias: Array | float = 0.0, *, eps: float, centred: bool) -> Pair:
    """LayerNorm or RMSNorm over the last axis: centring, square, mean, rsqrt, product."""
    c = add(pair, scaled(mean(pair), -1.0)) if centred else pair
    variance = mean(times(c, c))
    scale = pointwise(Pair(variance.x + eps, variance.b + eps, ((variance, lambda m: m),)), "rsqrt")
    y = scaled(times(c, scale), gain)
    return Pair(y.x + bias, y.b + bias, ((y, lambda m: m),))


def attention(q: Pair, k: Pair, v: Pair, *, scale: float | None = None, mask: Array | None = None) -> Pair:
    """softmax(scale q k^T + mask) v; a mask of minus infinity hides."""
    turned = moved_axes(k, lambda t: np.swapaxes(t, -1, -2), lambda m: np.swapaxes(m, -1, -2))
    s = scaled(matmul(q, turned), 1 / math.sqrt(q.x.shape[-1]) if scale is None else scale)
    if mask is not None:
        s = Pair(s.x + mask, s.b + mask, ((s, lambda m: np.where(np.isfinite(mask), m, 0.0)),))
    return matmul(softmax(s), v)
