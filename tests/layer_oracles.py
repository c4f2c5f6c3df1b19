"""The rules of linear layers and convolutions a second time: every contribution by itself, in loops, from the papers.

A layer is its explicit matrix [outputs, inputs] and which inputs each output is `wired` to. A rule takes the relevance
of the outputs and gives that of the inputs, and what it gives to none of them. Imports nothing of clearhead.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

import oracles

Array = np.ndarray
ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-23}


# ---- layers as matrices --------------------------------------------------------------------------------------------


def convolution(
    weight: Array, shape: tuple[int, ...], *, stride=1, padding=0, dilation=1, groups=1, transposed=False
) -> tuple[Array, Array]:
    """The matrix of a convolution of one input [channels, *places], and its wiring, from the definition."""
    axes = len(shape) - 1
    kernel = weight.shape[2:]
    ins, per_group = shape[0], weight.shape[0 if not transposed else 1]
    outs = per_group * groups if transposed else per_group
    reach = [dilation * (k - 1) + 1 for k in kernel]
    if transposed:
        sides = [(n - 1) * stride - 2 * padding + r for n, r in zip(shape[1:], reach, strict=True)]
    else:
        sides = [(n + 2 * padding - r) // stride + 1 for n, r in zip(shape[1:], reach, strict=True)]
    full = (outs, *sides)
    W, wired = (
        np.zeros((int(np.prod(full)), int(np.prod(shape)))),
        np.zeros((int(np.prod(full)), int(np.prod(shape))), bool),
    )
    for o, i in itertools.product(range(outs), range(ins)):
        if o // (outs // groups) != i // (ins // groups):
            continue
        for at in np.ndindex(*kernel):
            few, many = (shape[1:], sides) if transposed else (sides, shape[1:])
            for near in np.ndindex(*few):
                far = tuple(near[n] * stride - padding + dilation * at[n] for n in range(axes))
                if any(not 0 <= far[n] < many[n] for n in range(axes)):
                    continue
                out, into = (far, near) if transposed else (near, far)
                j, k = np.ravel_multi_index((o, *out), full), np.ravel_multi_index((i, *into), shape)
                w = weight[(i, o % per_group, *at)] if transposed else weight[(o, i % (ins // groups), *at)]
                W[j, k] += w
                wired[j, k] = True
    return W, wired


# ---- rules ---------------------------------------------------------------------------------------------------------


@dataclass
class Given:
    """What each input got, and what each output gave to nobody, by cause."""

    R: Array
    leaks: dict[str, Array] = field(default_factory=dict)


def gamma(W: Array, wired: Array, a: Array, b: Array, R: Array, *, gamma: float = 0.25, **_) -> Given:
    """R_i = sum_j f(a_i w_ji) / (sum_k f(a_k w_jk) + f(b_j)) R_j; f(p) = (1 + gamma) p where p has the sign of z_j.

    Montavon et al. 2019, table 1, as generalised to outputs of both signs.
    """
    got, bias = np.zeros_like(a), np.zeros(len(W))
    for j in range(len(W)):
        parts = [*(a[i] * W[j, i] for i in range(len(a))), b[j]]
        z = sum(parts)
        weighted = [p * (1 + gamma) if (p > 0 and z >= 0) or (p < 0 and z < 0) else p for p in parts]
        if R[j] == 0:
            continue
        for i in range(len(a)):
            got[i] += weighted[i] / sum(weighted) * R[j]
        bias[j] = weighted[-1] / sum(weighted) * R[j]
    return Given(got, {"bias": bias})


def alpha_beta(
    W: Array, wired: Array, a: Array, b: Array, R: Array, *, alpha: float = 2.0, rounding: float = 2.0**-52, **_
) -> Given:
    """R_i = sum_j (alpha p+_ji / sum p+ - beta p-_ji / sum p-) R_j, alpha - beta = 1: Bach et al. 2015, equation 60.

    Where no contribution of a sign is larger than rounding, that sign's part has nobody to go to.
    """
    got, bias, untaken = np.zeros_like(a), np.zeros(len(W)), np.zeros(len(W))
    for j in range(len(W)):
        parts = [*(a[i] * W[j, i] for i in range(len(a))), b[j]]
        size = sum(abs(p) for p in parts)
        for factor, own in ((alpha, [max(p, 0.0) for p in parts]), (1 - alpha, [min(p, 0.0) for p in parts])):
            if abs(sum(own)) <= rounding * size:
                untaken[j] += factor * R[j]
                continue
            for i in range(len(a)):
                got[i] += factor * own[i] / sum(own) * R[j]
            bias[j] += factor * own[-1] / sum(own) * R[j]
    return Given(got, {"bias": bias, "untaken": untaken})


def z_plus(W: Array, wired: Array, a: Array, b: Array, R: Array, **options) -> Given:
    """Alpha-beta with alpha 1: Montavon et al. 2017."""
    return alpha_beta(W, wired, a, b, R, **{**options, "alpha": 1.0})


def _shared(shares: Array, R: Array) -> Given:
    got, untaken = np.zeros(shares.shape[1]), np.zeros(len(shares))
    for j in range(len(shares)):
        whole = sum(shares[j])
        if whole == 0:
            untaken[j] = R[j]
            continue
        for i in range(shares.shape[1]):
            got[i] += shares[j, i] / whole * R[j]
    return Given(got, {"untaken": untaken})


def w2(W: Array, wired: Array, a: Array, b: Array, R: Array, **_) -> Given:
    """R_i = sum_j w_ji^2 / sum_k w_jk^2 R_j: Montavon et al. 2017."""
    return _shared(W * W, R)


def flat(W: Array, wired: Array, a: Array, b: Array, R: Array, **_) -> Given:
    """R_i = sum_j R_j / n_j over the n_j inputs that output j sees: Lapuschkin et al. 2019."""
    return _shared(wired.astype(float), R)


def z_box(W: Array, wired: Array, a: Array, b: Array, R: Array, *, low=-5.0, high=5.0, **_) -> Given:
    """R_i = sum_j (a_i w_ji - l_i w+_ji - h_i w-_ji) / sum_k (...) R_j: Montavon et al. 2017."""
    low, high = np.broadcast_to(low, a.shape), np.broadcast_to(high, a.shape)
    shares = np.zeros_like(W)
    for j, i in np.ndindex(*W.shape):
        shares[j, i] = a[i] * W[j, i] - low[i] * max(W[j, i], 0) - high[i] * min(W[j, i], 0)
    return _shared(shares, R)


RULES = {"gamma": gamma, "alpha-beta": alpha_beta, "z+": z_plus, "w2": w2, "flat": flat, "zB": z_box}


def returned(given: Given, wired: Array, a: Array) -> tuple[Array, float]:
    """Each output's leak goes back to the inputs it is wired to, in shares of their size; what nobody can take."""
    R, lost = given.R.copy(), 0.0
    for j, leak in enumerate(sum(given.leaks.values())):
        sizes = np.abs(a) * wired[j]
        if sizes.sum() == 0:
            lost += leak
            continue
        for i in range(len(a)):
            R[i] += sizes[i] / sizes.sum() * leak
    return R, lost


# ---- as parts of networks ------------------------------------------------------------------------------------------


class Ruled(oracles.Linear):
    """A linear layer of each position [T, d] under one of the rules."""

    def __init__(self, W: Array, b: Array | None, rule: str, **options) -> None:
        super().__init__(W, b)
        self.rule, self.options = RULES[rule], options

    def _position(self, a, z, R, books):
        given = self.rule(self.W, np.ones_like(self.W, bool), a, self.b, R, **self.options)
        return books.settle(a, given.R, {cause: float(leak.sum()) for cause, leak in given.leaks.items()})


class Bounded(oracles.Residual):
    """y = x + inner(x): shares w(x) x and w(h) h of R_y, w(z) = 1 + gamma where z has the sign of y, else 1."""

    def __init__(self, inner: oracles.Layer, gamma: float) -> None:
        super().__init__(inner)
        self.gamma = gamma

    def backward(self, R, books):
        to_x, to_h = np.zeros_like(R), np.zeros_like(R)
        for at in np.ndindex(*R.shape):
            x, h = self.x[at], self.h[at]
            weighted = [z * (1 + self.gamma * (z * (x + h) > 0)) for z in (x, h)]
            if R[at] != 0:
                to_x[at], to_h[at] = (each / sum(weighted) * R[at] for each in weighted)
        return to_x + self.inner.backward(to_h, books)
