"""Sums, products, quotients and matrix products, in every spelling."""

from __future__ import annotations

import math
import operator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracles
from clearhead.config import Settings
from clearhead.relevance import propagate
from relevance.strategies import checked, choices, examples, values
from relevance.twins import EXTREMES, KINDS, RECORD, agree, array, booked, inputs, named, residual


def into(method: str, *, own: bool = True):
    """`x.method_(c)` on a copy, as an operation."""
    return lambda a, b: getattr(a.clone() if own else a, method)(b)


def augmented(op):
    return lambda a, b: op(a.clone(), b)


SUMS = {
    "+": operator.add,
    "torch.add": torch.add,
    "x.add": torch.Tensor.add,
    "+=": augmented(operator.iadd),
    "add_": into("add_"),
    "r+": lambda x, c: c + x,
    "alpha": lambda x, c: torch.add(x, c / 2, alpha=2),
    "minus minus": lambda x, c: x - (-c),
    "sub": lambda x, c: torch.sub(x, -c),
    "-=": lambda x, c: augmented(operator.isub)(x, -c),
    "sub_": lambda x, c: x.clone().sub_(-c),
    "rsub": lambda x, c: torch.rsub(-x, c),
    "r-": lambda x, c: c - (-x),
    "out of place, keywords": lambda x, c: torch.add(input=x, other=c),
}


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("kind", ["number", "row", "full"])
@pytest.mark.parametrize("spelling", SUMS)
def test_adding_a_constant_leaks(spelling, kind, settings):
    x, weights = inputs(3, 4), inputs(3, 4, seed=2)
    c = {"number": 0.7, "row": inputs(4, seed=3), "full": inputs(3, 4, seed=3)}[kind]
    layer = oracles.AddConstant(c if kind == "number" else array(c))
    agree(lambda t: (SUMS[spelling](t, c) * weights).sum(), x, layer, array(weights), settings)


@given(x=values(2, 3, 4), c=values(3, 4), settings=choices, seed=st.integers(0, 10**6))
@examples
def test_adding_a_constant_with_awkward_values(x, c, settings, seed):
    weights = inputs(2, 3, 4, seed=seed)
    checked(lambda t: ((t + c) * weights).sum(), x, oracles.AddConstant(array(c)), array(weights), settings)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (3, 1), (1, 1), ()])
@pytest.mark.parametrize("leak", ["return", "record"])
def test_a_dependent_that_is_broadcast_by_its_constant(shape, leak):
    """Each row of the sum is a position; its leak goes to x, wherever x was repeated from."""
    x, c, G = inputs(*shape), inputs(3, 4, seed=2), inputs(3, 4, seed=3)
    p = propagate(lambda t: ((t + c) * G).sum(), [x], Settings(leak=leak))
    full = x.expand(3, 4)
    R = full * G
    if leak == "return":
        R = R + full.abs() / full.abs().sum(-1, keepdim=True) * (c * G).sum(-1, keepdim=True)
    np.testing.assert_allclose(p.sources[0].relevance, R.sum_to_size(shape), rtol=1e-9)
    assert booked(p)["constant", leak == "return"] == pytest.approx(float((c * G).sum()), rel=1e-12)


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_minus_infinity_as_a_constant_is_never_multiplied(settings):
    """A mask: what it hides gets exactly nothing, and 0 * inf is never taken."""
    x, v = inputs(2, 3), inputs(3, 2, seed=2)
    mask = torch.tensor([0.3, -torch.inf, 0.0], dtype=torch.float64)
    p = propagate(lambda s, t: (torch.softmax(s + mask, -1) @ t).sum(), [x, v], settings)
    assert all(torch.isfinite(source.relevance).all() for source in p.sources)
    assert all(math.isfinite(entry.relevance) for entry in p.ledger)
    assert not p.sources[0].relevance[:, 1].any()
    assert not p.sources[1].relevance[1].any()
    assert p.sources[1].relevance[0].all()
    assert residual(p) <= 1e-12


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
def test_a_sum_of_two_dependents_gives_each_its_own_share(settings):
    a, b, weights = inputs(3, 4), inputs(3, 4, seed=2), inputs(3, 4, seed=3)
    for op in (operator.add, torch.add, augmented(operator.iadd)):
        p = propagate(lambda s, t, op=op: (op(s, t) * weights).sum(), [a, b], settings)
        for source, each in zip(p.sources, (a, b), strict=True):
            np.testing.assert_allclose(source.relevance, each * weights, rtol=1e-12)
        assert not any(p.ledger)


TIMES = {
    "*": operator.mul,
    "torch.mul": torch.mul,
    "multiply": torch.multiply,
    "x.mul": torch.Tensor.mul,
    "*=": augmented(operator.imul),
    "mul_": into("mul_"),
    "r*": lambda x, c: c * x,
    "keywords": lambda x, c: torch.mul(input=x, other=c),
}


@pytest.mark.parametrize("spelling", TIMES)
def test_a_constant_factor_is_never_halved(spelling):
    x, weights = inputs(3, 4), inputs(3, 4, seed=2)
    for c in (0.7, inputs(4, seed=3), torch.tensor(2.0).double()):
        p = propagate(lambda t, c=c: (TIMES[spelling](t, c) * weights).sum(), [x], RECORD)
        np.testing.assert_allclose(p.sources[0].relevance, x * c * weights, rtol=1e-12)
        assert not any(p.ledger)


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("spelling", TIMES)
def test_two_dependent_factors_get_half_each(spelling, settings):
    a, b, weights = inputs(3, 4), inputs(3, 4, seed=2), inputs(3, 4, seed=3)
    p = propagate(lambda s, t: (TIMES[spelling](s, t) * weights).sum(), [a, b], settings)
    for source in p.sources:
        np.testing.assert_allclose(source.relevance, a * b * weights / 2, rtol=1e-12)
    assert p.value == pytest.approx(float((a * b * weights).sum()), rel=1e-12)


def test_the_factor_of_a_broadcast_product_gets_its_half():
    a, b = inputs(3, 4), inputs(4, seed=2)
    p = propagate(lambda s, t: (s * t).sum(), [a, b], RECORD)
    np.testing.assert_allclose(p.sources[0].relevance, a * b / 2, rtol=1e-12)
    np.testing.assert_allclose(p.sources[1].relevance, (a * b / 2).sum(0), rtol=1e-12)


def test_pointwise_images_of_two_tensors_are_a_product():
    """Only images of the same tensor are one function; 1 + tanh(b) leaks its 1."""
    a, b = inputs(3, 4), inputs(3, 4, seed=2)
    p = propagate(lambda s, t: (s * (1 + torch.tanh(t))).sum(), [a, b], RECORD)
    np.testing.assert_allclose(p.sources[0].relevance, a * (1 + b.tanh()) / 2, rtol=1e-12)
    np.testing.assert_allclose(p.sources[1].relevance, a * b.tanh() / 2, rtol=1e-12)
    assert booked(p)["constant", False] == pytest.approx(float(a.sum()) / 2, rel=1e-12)


def test_a_tensor_overwritten_in_between_is_another_tensor():
    """x changes in place between its two images, so their product is no function of one tensor."""
    x = inputs(3, 4)

    def f(t):
        t = t * 1.0
        first = torch.tanh(t)
        t.mul_(2.0)
        return (first * (1 + torch.tanh(t))).sum()

    p = propagate(f, [x], RECORD)
    assert p.value == pytest.approx(float((x.tanh() * (1 + (2 * x).tanh())).sum()), rel=1e-12)
    assert residual(p) <= 1e-12


QUOTIENT = {
    "/": operator.truediv,
    "torch.div": torch.div,
    "divide": torch.true_divide,
    "/=": augmented(operator.itruediv),
    "div_": into("div_"),
}


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("spelling", QUOTIENT)
def test_a_divisor_is_a_constant(spelling, settings):
    a, b, weights = inputs(3, 4), inputs(3, 4, seed=2), inputs(3, 4, seed=3)
    p = propagate(lambda s, t: (QUOTIENT[spelling](s, t) * weights).sum(), [a, b], settings)
    np.testing.assert_allclose(p.sources[0].relevance, a / b * weights, rtol=1e-12)
    assert not p.sources[1].relevance.any()


MATMULS = {
    "@": operator.matmul,
    "matmul": torch.matmul,
    "bmm": torch.bmm,
    "x.bmm": torch.Tensor.bmm,
    "baddbmm": lambda a, b: torch.baddbmm(torch.zeros((), dtype=a.dtype), a, b, beta=0),
    "einsum": lambda a, b: torch.einsum("bij,bjk->bik", a, b),
}


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("spelling", MATMULS)
def test_two_dependent_matrices_get_half_each(spelling, settings):
    a, b, weights = inputs(2, 3, 4), inputs(2, 4, 5, seed=2), inputs(2, 3, 5, seed=3)
    p = propagate(lambda s, t: (MATMULS[spelling](s, t) * weights).sum(), [a, b], settings)
    terms = torch.einsum("bij,bjk,bik->bijk", a, b, weights) / 2
    np.testing.assert_allclose(p.sources[0].relevance, terms.sum(3), rtol=1e-9)
    np.testing.assert_allclose(p.sources[1].relevance, terms.sum(1), rtol=1e-9)
