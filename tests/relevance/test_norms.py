"""Normalisation, fused and written out: the scale is a constant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import oracles
from clearhead.relevance import propagate
from relevance.strategies import checked, examples, problems
from relevance.twins import EXTREMES, agree, array, inputs, named


@given(problem=problems(), seed=st.integers(0, 10**6))
@examples
def test_layer_norm(problem, seed):
    x, _, settings = problem
    d = x.shape[-1]
    g, b = (inputs(d, dtype=x.dtype, seed=seed + n) for n in range(2))
    weights = inputs(*x.shape, dtype=x.dtype, seed=seed + 2)
    layer = oracles.Norm(array(g), array(b), eps=1e-5, centred=True)
    checked(lambda t: (F.layer_norm(t, (d,), g, b) * weights).sum(), x, layer, array(weights), settings)


@given(problem=problems(), seed=st.integers(0, 10**6))
@examples
def test_rms_norm(problem, seed):
    x, _, settings = problem
    d = x.shape[-1]
    g, weights = inputs(d, dtype=x.dtype, seed=seed), inputs(*x.shape, dtype=x.dtype, seed=seed + 2)
    layer = oracles.Norm(array(g), eps=1e-6, centred=False)
    checked(lambda t: (F.rms_norm(t, (d,), g, 1e-6) * weights).sum(), x, layer, array(weights), settings)


def by_hand(x, g, b):
    mean = x.mean(-1, keepdim=True)
    return g * ((x - mean) * torch.rsqrt((x - mean).pow(2).mean(-1, keepdim=True) + 1e-5)) + b


CENTRED = {
    "rsqrt": by_hand,
    "sqrt": lambda x, g, b: (x - x.mean(-1, True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5) * g + b,
    "reciprocal": lambda x, g, b: (
        (x - x.mean(-1, True)) * (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt().reciprocal() * g + b
    ),
    "power": lambda x, g, b: (x - x.mean(-1, True)) * (x.var(-1, correction=0, keepdim=True) + 1e-5) ** -0.5 * g + b,
    "var_mean": lambda x, g, b: (
        (x - torch.var_mean(x, -1, correction=0, keepdim=True)[1])
        * (torch.var_mean(x, -1, correction=0, keepdim=True)[0] + 1e-5).rsqrt()
        * g
        + b
    ),
}


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("spelling", CENTRED)
def test_layer_norm_by_hand_adds_its_bias_as_a_constant(spelling, settings):
    x, g, b, weights = inputs(2, 3, 4), inputs(4, seed=2), inputs(4, seed=3), inputs(2, 3, 4, seed=4)
    layer = oracles.Sequence(oracles.Norm(array(g), eps=1e-5, centred=True), oracles.AddConstant(array(b)))
    agree(lambda t: (CENTRED[spelling](t, g, b) * weights).sum(), x, layer, array(weights), settings)


SCALED = {
    "rsqrt": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)),
    "square": lambda x: x / (x * x).mean(-1, keepdim=True).sqrt(),
    "norm": lambda x: x / x.norm(dim=-1, keepdim=True) * 2,
    "torch.norm": lambda x: x / torch.norm(x, dim=-1, keepdim=True) * 2,
    "linalg": lambda x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True) * 2,
    "linalg.norm": lambda x: x / torch.linalg.norm(x, dim=-1, keepdim=True) * 2,
    "normalize": lambda x: F.normalize(x, dim=-1) * 2,
    "rms_norm": lambda x: F.rms_norm(x, (4,), eps=0.0),
    "abs": lambda x: 2 * x / x.abs().pow(2).sum(-1, keepdim=True).pow(0.5),
}


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("spelling", SCALED)
def test_scaling_norms_pass_everything_on(spelling, settings):
    x, weights = inputs(3, 4), inputs(3, 4, seed=4)
    layer = oracles.Norm(np.ones(4), eps=0.0, centred=False)
    p, _ = agree(lambda t: (SCALED[spelling](t) * weights).sum(), x, layer, array(weights), settings)
    np.testing.assert_allclose(p.sources[0].relevance, layer.forward(array(x)) * array(weights), rtol=1e-9)


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
def test_std_is_a_constant(settings):
    x, weights = inputs(3, 4), inputs(3, 4, seed=4)
    p = propagate(
        lambda t: ((t - t.mean(-1, keepdim=True)) / (t.std(-1, keepdim=True) + 0.1) * weights).sum(), [x], settings
    )
    G = weights / (x.std(-1, keepdim=True) + 0.1)
    np.testing.assert_allclose(p.sources[0].relevance, x * (G - G.mean(-1, keepdim=True)), rtol=1e-12)
    assert not any(abs(entry.relevance) > 1e-12 for entry in p.ledger)
