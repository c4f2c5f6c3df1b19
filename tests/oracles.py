"""Every rule a second time: explicit matrices, explicit relevance R, divisions, loops. Imports nothing of clearhead.

A layer is a small object: `forward` takes and gives activations [T, d] of one sequence, `backward` takes the relevance
of its output and gives that of its input. Where the rules cannot be written with R (0/0 times something that is not 0)
`Undefined` is raised; what holds there is tested with closed forms instead.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray


class Undefined(ArithmeticError):
    """Relevance written as R loses what the rule needs at exactly this point."""


@dataclass(frozen=True)
class Rules:
    """The choices of the rules; `eps` is what the linear rule adds to |z|."""

    rule: str = "epsilon"
    epsilon: float = 0.01
    attention: str = "cp"
    leak: str = "return"

    @property
    def eps(self) -> float:
        return self.epsilon if self.rule == "epsilon" else 0.0


@dataclass
class Books:
    """What leaked, by (cause, returned)."""

    rules: Rules
    entries: dict[tuple[str, bool], float] = field(default_factory=lambda: defaultdict(float))

    def settle(self, a: Array, R: Array, leaks: dict[str, float]) -> Array:
        """Book the leaks of one position with input `a` [d]; hand them back in shares of |a|, if asked and possible."""
        weight = float(np.abs(a).sum())
        returned = self.rules.leak == "return" and weight > 0
        for cause, amount in leaks.items():
            self.entries[cause, returned] += amount
        return R + np.abs(a) / weight * sum(leaks.values()) if returned else R

    def total(self, *, returned: bool) -> float:
        return sum(amount for (_, back), amount in self.entries.items() if back == returned)


def ratio(R: float, z: float, parts: Array) -> float:
    """R / z, what each of the `parts` that make up z is multiplied by; 0 if there is nothing to multiply."""
    if z != 0:
        return R / z
    if np.any(parts != 0):
        raise Undefined("0 / 0 with parts that are not 0")
    return 0.0


class Layer:
    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, R: Array, books: Books) -> Array:
        raise NotImplementedError


class Sequence(Layer):
    def __init__(self, *layers: Layer) -> None:
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, R, books):
        for layer in reversed(self.layers):
            R = layer.backward(R, books)
        return R


class Linear(Layer):
    """z_j = sum_i W_ji a_i + b_j; R_i = sum_j a_i W_ji R_j / (z_j + eps sign(z_j)), sign(0) = +1."""

    def __init__(self, W: Array, b: Array | None = None) -> None:
        self.W, self.b = W, np.zeros(len(W)) if b is None else b

    def forward(self, a):
        self.a = a
        self.z = np.array([[sum(w * x for w, x in zip(row, at, strict=True)) for row in self.W] for at in a]) + self.b
        return self.z

    def backward(self, R, books):
        return np.array([self._position(a, z, r, books) for a, z, r in zip(self.a, self.z, R, strict=True)])

    def _position(self, a, z, R, books):
        out, leaks = np.zeros_like(a), {"bias": 0.0, "epsilon": 0.0}
        for j in range(len(z)):
            push = books.rules.eps if z[j] >= 0 else -books.rules.eps
            parts = a * self.W[j]
            share = ratio(R[j], z[j] + push, np.append(parts, self.b[j]))
            out += parts * share
            leaks["bias"] += self.b[j] * share
            leaks["epsilon"] += push * share
        return books.settle(a, out, leaks)


class Norm(Layer):
    """y = A x + b with A = diag(g) (1 - 1/d if centred) / scale, the scale taken as a number."""

    def __init__(self, g: Array, b: Array | None = None, *, eps: float, centred: bool) -> None:
        self.g, self.b, self.eps, self.centred = g, np.zeros_like(g) if b is None else b, eps, centred

    def forward(self, x):
        self.x, self.A = x, [self._matrix(row) for row in x]
        self.y = np.array([A @ row + self.b for A, row in zip(self.A, x, strict=True)])
        return self.y

    def _matrix(self, row):
        d = len(row)
        centre = np.eye(d) - (np.ones((d, d)) / d if self.centred else 0)
        c = centre @ row
        return np.diag(self.g) @ centre / math.sqrt(float((c * c).sum()) / d + self.eps)

    def backward(self, R, books):
        return np.array([self._position(*each, books) for each in zip(self.x, self.A, self.y, R, strict=True)])

    def _position(self, x, A, y, R, books):
        out, leak = np.zeros_like(x), 0.0
        for j in range(len(y)):
            parts = x * A[j]
            share = ratio(R[j], y[j], np.append(parts, self.b[j]))
            out += parts * share
            leak += self.b[j] * share
        return books.settle(x, out, {"norm bias": leak})


class AddConstant(Layer):
    """y = x + c; R_x = x R_y / y, the rest leaks and is returned along the last axis."""

    def __init__(self, c: Array | float) -> None:
        self.c = c

    def forward(self, x):
        self.x, self.full = x, np.broadcast_to(np.asarray(self.c, dtype=float), x.shape)
        return x + self.full

    def backward(self, R, books):
        return np.array([self._position(*each, books) for each in zip(self.x, self.full, R, strict=True)])

    def _position(self, x, c, R, books):
        shares = [ratio(R[j], x[j] + c[j], np.array([x[j], c[j]])) for j in range(len(x))]
        return books.settle(x, x * shares, {"constant": float(sum(c * shares))})


class Scale(Layer):
    """A constant factor passes everything through."""

    def __init__(self, c: Array | float) -> None:
        self.c = c

    def forward(self, x):
        return x * self.c

    def backward(self, R, books):
        return R


def gelu(x: float) -> float:
    return x * 0.5 * math.erfc(-x / math.sqrt(2))


def gelu_tanh(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


# name -> f, f'(0); every f(0) is 0
POINTWISE: dict[str, tuple[Callable[[float], float], float]] = {
    "gelu": (gelu, 0.5),
    "gelu_tanh": (gelu_tanh, 0.5),
    "quick_gelu": (lambda x: x * sigmoid(1.702 * x), 0.5),
    "silu": (lambda x: x * sigmoid(x), 0.5),
    "tanh": (math.tanh, 1.0),
    "relu": (lambda x: max(x, 0.0), 0.0),
    "erf": (math.erf, 2 / math.sqrt(math.pi)),
    "sin": (math.sin, 1.0),
    "leaky_relu": (lambda x: x if x > 0 else 0.01 * x, 0.01),
    "elu": (lambda x: x if x > 0 else math.expm1(x), 1.0),
    "mish": (lambda x: x * math.tanh(math.log1p(math.exp(x))) if x < 30 else x, 0.6),
    "hardswish": (lambda x: x * min(max(x + 3, 0.0), 6.0) / 6, 0.5),
    "square": (lambda x: x**2, 0.0),
    "expm1": (math.expm1, 1.0),
    "cube": (lambda x: x**3, 0.0),
}


class Pointwise(Layer):
    """The identity rule: each unit hands on what it got; at x = 0 that is 0."""

    def __init__(self, name: str) -> None:
        self.f = POINTWISE[name][0]

    def forward(self, x):
        self.x = x
        return np.vectorize(self.f, otypes=[float])(x)

    def backward(self, R, books):
        return np.where(self.x == 0, 0.0, R)


class Residual(Layer):
    """y = x + inner(x): each term gets its own share of y."""

    def __init__(self, inner: Layer) -> None:
        self.inner = inner

    def forward(self, x):
        self.x, self.h = x, self.inner.forward(x)
        return x + self.h

    def backward(self, R, books):
        share = np.vectorize(lambda r, x, h: ratio(r, x + h, np.array([x, h])), otypes=[float])(R, self.x, self.h)
        return self.x * share + self.inner.backward(self.h * share, books)


class Gated(Layer):
    """y = gate(x) * up(x), both dependent: half each."""

    def __init__(self, gate: Layer, up: Layer) -> None:
        self.gate, self.up = gate, up

    def forward(self, x):
        return self.gate.forward(x) * self.up.forward(x)

    def backward(self, R, books):
        return self.gate.backward(R / 2, books) + self.up.backward(R / 2, books)


class Attention(Layer):
    """Heads over [T, d]: weights of `allowed` [T, T] keys; groups of query heads share a key head.

    `turn` [T, dh, dh] are rotations of queries and keys, `bias` [T, T] is added to the scaled scores.
    """

    def __init__(self, q, k, v, out, *, heads, kv_heads, allowed=None, bias=None, turn=None, scale=None) -> None:
        self.q, self.k, self.v, self.out = q, k, v, out
        self.heads, self.kv_heads = heads, kv_heads
        self.allowed, self.bias, self.turn, self.scale = allowed, bias, turn, scale

    def forward(self, x):
        raw = [self.q.forward(x), self.k.forward(x), self.v.forward(x)]
        q, k, v = split(raw[0], self.heads), split(raw[1], self.kv_heads), split(raw[2], self.kv_heads)
        self.raw_q, self.raw_k = q, k
        q, k = [rotate(each, self.turn) for each in q], [rotate(each, self.turn) for each in k]
        group = self.heads // self.kv_heads
        options = {"allowed": self.allowed, "bias": self.bias, "scale": self.scale}
        self.each = [Head(q[h], k[h // group], v[h // group], **options) for h in range(self.heads)]
        return self.out.forward(np.concatenate([head.o for head in self.each], axis=1))

    def backward(self, R, books):
        R_o = split(self.out.backward(R, books), self.heads)
        R_q = [np.zeros_like(each) for each in self.raw_q]
        R_k, R_v = ([np.zeros_like(each) for each in self.raw_k] for _ in range(2))
        for h, head in enumerate(self.each):
            kv = h // (self.heads // self.kv_heads)
            to_q, to_k, to_v = head.backward(R_o[h], books)
            R_q[h] += rotate_back(self.raw_q[h], to_q, self.turn)
            R_k[kv] += rotate_back(self.raw_k[kv], to_k, self.turn)
            R_v[kv] += to_v
        parts = zip((self.q, self.k, self.v), (R_q, R_k, R_v), strict=True)
        return sum(linear.backward(np.concatenate(r, axis=1), books) for linear, r in parts)


class Head:
    """o = softmax(scale q k^T + bias) v for one head; `backward` gives the relevance of q, k and v."""

    def __init__(self, q: Array, k: Array, v: Array, *, allowed=None, bias=None, scale=None) -> None:
        self.q, self.k, self.v = q, k, v
        self.allowed = np.ones((len(q), len(k)), dtype=bool) if allowed is None else allowed
        self.bias = np.zeros(self.allowed.shape) if bias is None else bias
        self.dot = np.array([[float(sum(a * b)) for b in k] for a in q])
        self.scaled = self.dot * (1 / math.sqrt(q.shape[1]) if scale is None else scale)
        self.s = self.scaled + self.bias
        self.A = np.array([self._weights(s, keys) for s, keys in zip(self.s, self.allowed, strict=True)])
        self.o = self.A @ v

    @staticmethod
    def _weights(s, keys):
        e = np.array([math.exp(value - max(s[keys])) if on else 0.0 for value, on in zip(s, keys, strict=True)])
        return e / e.sum()

    def backward(self, R, books):
        half = 1.0 if books.rules.attention == "cp" else 0.5
        R_A, R_v = np.zeros_like(self.A), np.zeros_like(self.v)
        for i, c in np.ndindex(*self.o.shape):
            parts = self.A[i] * self.v[:, c]
            pushed = parts * ratio(R[i, c], self.o[i, c], parts) * half
            R_v[:, c] += pushed
            R_A[i] += pushed
        if books.rules.attention == "cp":
            return np.zeros_like(self.q), np.zeros_like(self.k), R_v
        R_dot = np.array([self._row(i, R_A[i], books) for i in range(len(self.q))])
        return *self._scores(R_dot), R_v

    def _row(self, i, R_A, books):
        """AttnLRP, proposition 3.1: R_s = s (R_A - A sum R_A); then the bias of the scores takes its share."""
        on, out = self.allowed[i], np.zeros_like(R_A)
        s, A, bias = self.s[i][on], self.A[i][on], self.bias[i][on]
        R_s = s * (R_A[on] - A * R_A[on].sum())
        R_s = books.settle(s, R_s, {"softmax": float(R_A[on].sum() - R_s.sum())})
        if not np.any(bias):
            out[on] = R_s
            return out
        shares = np.array([ratio(r, z, np.array([z, b])) for r, z, b in zip(R_s, s, bias, strict=True)])
        leak = {"constant": float(sum(bias * shares))}
        out[on] = books.settle(self.scaled[i][on], self.scaled[i][on] * shares, leak)
        return out

    def _scores(self, R):
        R_q, R_k = np.zeros_like(self.q), np.zeros_like(self.k)
        for i, j in np.ndindex(*R.shape):
            parts = self.q[i] * self.k[j]
            pushed = parts * ratio(R[i, j], self.dot[i, j], parts) / 2
            R_q[i] += pushed
            R_k[j] += pushed
        return R_q, R_k


def split(x: Array, heads: int) -> list[Array]:
    return [part.copy() for part in np.split(x, heads, axis=1)]


def rotate(x: Array, turn: Array | None) -> Array:
    return x if turn is None else np.array([M @ row for M, row in zip(turn, x, strict=True)])


def rotate_back(x: Array, R: Array, turn: Array | None) -> Array:
    """A rotation is a constant matrix without bias; no epsilon is added to it."""
    if turn is None:
        return R
    out = np.zeros_like(x)
    for t, M in enumerate(turn):
        for j, turned in enumerate(M @ x[t]):
            parts = x[t] * M[j]
            out[t] += parts * ratio(R[t, j], turned, parts)
    return out


@dataclass(frozen=True)
class Answer:
    value: float
    relevance: Array
    books: Books

    @property
    def residual(self) -> float:
        return self.value - float(self.relevance.sum()) - self.books.total(returned=False)


def explain(layer: Layer, x: Array, c: Array, rules: Rules) -> Answer:
    """Explain f = sum_tj c_tj y_tj of one sequence x [T, d]."""
    books = Books(rules)
    y = layer.forward(np.asarray(x, dtype=np.float64))
    R = layer.backward(y * c, books)
    return Answer(float((y * c).sum()), R, books)
