"""Linear layers in every spelling: epsilon, bias, zeros."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import oracles
from clearhead.config import Settings
from clearhead.relevance import propagate
from relevance.strategies import checked, examples, problems
from relevance.twins import KINDS, RECORD, agree, array, booked, inputs, named, rules

LINEAR = {
    "F.linear": F.linear,
    "keywords": lambda x, W, b: F.linear(input=x, weight=W, bias=b),
    "addmm": lambda x, W, b: torch.addmm(b, x.reshape(-1, x.shape[-1]), W.T).reshape(*x.shape[:-1], len(W)),
}
PRODUCT = {
    "F.linear": F.linear,
    "@": lambda x, W: x @ W.T,
    "matmul": lambda x, W: torch.matmul(x, W.T),
    "x.matmul": lambda x, W: x.matmul(W.T),
    "mm": lambda x, W: torch.mm(x.reshape(-1, x.shape[-1]), W.T).reshape(*x.shape[:-1], len(W)),
}


@pytest.mark.parametrize("spelling", LINEAR)
@given(problem=problems(), seed=st.integers(0, 10**6))
@examples
def test_linear(spelling, problem, seed):
    x, out, settings = problem
    W, b = (inputs(*shape, dtype=x.dtype, seed=seed + n) for n, shape in enumerate([(out, x.shape[-1]), (out,)]))
    c = array(inputs(*x.shape[:-1], out, seed=seed + 2).to(x.dtype))
    weights = torch.from_numpy(c).to(x.dtype)
    layer = oracles.Linear(array(W), array(b))
    checked(lambda t: (LINEAR[spelling](t, W, b) * weights).sum(), x, layer, c, settings)


@pytest.mark.parametrize("settings", KINDS, ids=named)
@pytest.mark.parametrize("spelling", PRODUCT)
def test_a_product_with_a_constant_matrix_is_linear_without_bias(spelling, settings):
    x, W, weights = inputs(2, 3, 5), inputs(4, 5, seed=2), inputs(2, 3, 4, seed=3)
    layer = oracles.Linear(array(W))
    agree(lambda t: (PRODUCT[spelling](t, W) * weights).sum(), x, layer, array(weights), settings)


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_linear_of_a_vector_is_one_position(settings):
    x, W, b = inputs(5), inputs(4, 5, seed=2), inputs(4, seed=3)
    p = propagate(lambda t: F.linear(t, W, b).sum(), [x], settings)
    expected = oracles.explain(oracles.Linear(array(W), array(b)), array(x)[None], np.ones((1, 4)), rules(settings))
    np.testing.assert_allclose(p.sources[0].relevance, expected.relevance[0], rtol=1e-9)


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_a_constant_on_the_left_passes_the_gradient(settings):
    x, A, c = inputs(4, 3), inputs(5, 4, seed=2), inputs(5, 3, seed=3)
    p = propagate(lambda t: ((A @ t) * c).sum(), [x], settings)
    np.testing.assert_allclose(p.sources[0].relevance, x * (A.T @ c), rtol=1e-12)
    assert not any(p.ledger)


def test_rule_zero_passes_the_gradient_also_where_the_output_is_zero():
    """There R = 0 / 0: only the modified gradient knows."""
    x, W, V = torch.tensor([[1.0, -1.0]]).double(), torch.ones(1, 2).double(), torch.full((1, 1), 3.0).double()
    p = propagate(lambda t: F.linear(F.linear(t, W), V).sum(), [x], RECORD)
    assert p.sources[0].gradient.tolist() == [[3.0, 3.0]]
    stabilised = propagate(lambda t: F.linear(F.linear(t, W), V).sum(), [x], Settings(leak="record"))
    np.testing.assert_allclose(stabilised.sources[0].gradient, [[0.0, 0.0]], atol=1e-12)


def test_sign_of_zero_is_plus_one():
    """z = 0 with bias: eps is added, never subtracted, and nothing divides by zero."""
    x, W, b = torch.zeros(1, 2).double(), torch.ones(1, 2).double(), torch.zeros(1).double()
    p = propagate(lambda t: (F.linear(t, W, b) + 1).sum(), [x], Settings(leak="record"))
    assert torch.isfinite(p.sources[0].gradient).all()
    assert booked(p)["constant", False] == 1
    minus = propagate(lambda t: F.linear(t, W, -b).sum(), [-x], Settings(leak="record"))
    assert torch.isfinite(minus.sources[0].gradient).all()
