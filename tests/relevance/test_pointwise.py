"""Pointwise functions hand on what they got; gates are constants."""

from __future__ import annotations

import math

import hypothesis
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import oracles
from clearhead.relevance import propagate
from relevance.strategies import choices, examples, values
from relevance.twins import KINDS, RECORD, array, inputs, named, residual

POINTWISE = {
    "gelu": [
        F.gelu,
        torch.nn.GELU(),
        lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
        lambda x: x * 0.5 * (1.0 + (x / 1.41421356237309504).erf()),
    ],
    "gelu_tanh": [
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))),
        lambda x: 0.5 * x * (1 + torch.tanh(x * 0.7978845608028654 * (1 + 0.044715 * x * x))),
    ],
    "quick_gelu": [lambda x: x * torch.sigmoid(1.702 * x), lambda x: (x * 1.702).sigmoid() * x],
    "silu": [
        F.silu,
        torch.nn.SiLU(),
        lambda x: x * x.sigmoid(),
        lambda x: F.silu(x.clone(), inplace=True),
        lambda x: x / (1 + torch.exp(-x)),
    ],
    "tanh": [torch.tanh, torch.Tensor.tanh, lambda x: x.clone().tanh_()],
    "relu": [
        F.relu,
        torch.relu,
        torch.Tensor.relu,
        lambda x: F.relu(x.clone(), inplace=True),
        lambda x: x.clone().relu_(),
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_min(0),
    ],
    "erf": [torch.erf, torch.special.erf],
    "sin": [torch.sin, torch.Tensor.sin],
    "leaky_relu": [F.leaky_relu, torch.nn.LeakyReLU()],
    "elu": [F.elu],
    "expm1": [torch.expm1],
    "mish": [F.mish, lambda x: x * torch.tanh(F.softplus(x))],
    "hardswish": [F.hardswish],
    "square": [torch.square, lambda x: x**2, lambda x: x.pow(2), lambda x: torch.pow(x, 2), lambda x: x * x],
    "cube": [lambda x: x**3, lambda x: x * x * x, lambda x: x * x**2],
}
SPELLED = [pytest.param(name, n, id=f"{name}-{n}") for name, each in POINTWISE.items() for n in range(len(each))]


@pytest.mark.parametrize(("name", "n"), SPELLED)
@given(x=values(2, 4), settings=choices, seed=st.integers(0, 10**6))
@hypothesis.settings(examples, max_examples=15)
def test_pointwise_functions_hand_on_what_they_got(name, n, x, settings, seed):
    x = x.clamp(-9, 9)  # where two spellings of one function still agree to all digits
    weights = inputs(2, 4, seed=seed)
    p = propagate(lambda t: (POINTWISE[name][n](t) * weights).sum(), [x], settings)
    y = oracles.Pointwise(name).forward(array(x))
    np.testing.assert_allclose(p.sources[0].relevance, y * array(weights), rtol=1e-9, atol=1e-14)
    assert p.value == pytest.approx(float((y * array(weights)).sum()), rel=1e-9, abs=1e-12)
    assert sum(abs(entry.relevance) for entry in p.ledger) <= 1e-12 * float(p.sources[0].relevance.abs().sum())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", POINTWISE)
def test_the_slope_at_zero_is_the_derivative(name, dtype):
    x = torch.tensor([0.0, -0.0, 2.0], dtype=dtype)
    p = propagate(lambda t: POINTWISE[name][0](t).sum(), [x], RECORD)
    f, slope = oracles.POINTWISE[name]
    np.testing.assert_allclose(p.sources[0].gradient, [slope, slope, f(2.0) / 2], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", POINTWISE)
def test_the_slope_near_zero_is_close_to_the_derivative(name):
    x = torch.tensor([1e-4, -1e-4, 1e-12, -1e-12, 1e-30, -1e-30, 1e-200, -1e-200], dtype=torch.float64)
    p = propagate(lambda t: POINTWISE[name][0](t).sum(), [x], RECORD)
    f, slope = oracles.POINTWISE[name]
    expected = [f(float(v)) / float(v) for v in x]
    np.testing.assert_allclose(p.sources[0].gradient, expected, rtol=1e-6, atol=1e-12)
    if name not in {"relu", "leaky_relu"}:
        np.testing.assert_allclose(p.sources[0].gradient[2:], slope, rtol=1e-6, atol=1e-9)


GATES = {
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "F.sigmoid": torch.special.expit,
    "softplus": F.softplus,
    "cos": torch.cos,
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: (x.abs() + 1).rsqrt(),
    "reciprocal": torch.reciprocal,
    "one over": lambda x: 1 / x,
    "std": lambda x: x.std(-1, keepdim=True),
    "var": lambda x: torch.var(x, dim=-1, keepdim=True),
    "norm": lambda x: x.norm(dim=-1, keepdim=True),
    "softmax": lambda x: x.softmax(-1),
}


@pytest.mark.parametrize("settings", [s for s in KINDS if s.attention == "cp"], ids=named)
@pytest.mark.parametrize("gate", GATES)
def test_gates_are_constants(gate, settings):
    x, u, weights = inputs(3, 4), inputs(3, 4, seed=2), inputs(3, 4, seed=3)
    f = GATES[gate]
    p = propagate(lambda a, b: (f(a) * b * weights).sum(), [x, u], settings)
    assert not p.sources[0].relevance.any()
    np.testing.assert_allclose(p.sources[1].relevance, f(x) * u * weights, rtol=1e-12)
    assert residual(p) <= 1e-12
