"""Models that write in place, take views and pass odd arguments: each once gave a wrong map or no map."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearhead import AttentionVisualizer
from clearhead.config import Settings
from clearhead.errors import ModelError
from clearhead.relevance import propagate
from clearhead.relevance.engine import replay
from clearhead.relevance.run import Run
from clearhead.relevance.table import ROWS
from relevance.twins import KINDS, inputs, named, residual


def gelu_overwritten(x):
    u, v = x[:, :2], x[:, 2:]
    h = F.gelu(u)
    h += v
    return (h * u).sum()


def gelu_added(x):
    u, v = x[:, :2], x[:, 2:]
    return ((F.gelu(u) + v) * u).sum()


def gated_in_place(x):
    g = x[0] * 2
    g.sigmoid_()
    return (g * x[0]).sum()


def gated(x):
    return (torch.sigmoid(x[0] * 2) * x[0]).sum()


def relu_of_a_product(x):
    scores = torch.einsum("bthd,bshd->bhts", x, x)
    return scores.relu_().sum()


def relu_of_a_product_beside(x):
    return torch.einsum("bthd,bshd->bhts", x, x).relu().sum()


PAIRS = {
    "an image that is overwritten": (gelu_overwritten, gelu_added, (1, 4, 3)),
    "a gate in place": (gated_in_place, gated, (2, 3)),
    "a hooked view in place": (relu_of_a_product, relu_of_a_product_beside, (1, 3, 2, 2)),
}


@pytest.mark.parametrize("settings", KINDS, ids=named)
@pytest.mark.parametrize("case", PAIRS)
def test_in_place_and_beside_are_the_same(case, settings):
    in_place, beside, shape = PAIRS[case]
    one, other = (propagate(f, [inputs(*shape)], settings) for f in (in_place, beside))
    np.testing.assert_allclose(one.sources[0].relevance, other.sources[0].relevance, rtol=1e-9, atol=1e-12)
    assert residual(one) <= 1e-12


@pytest.mark.parametrize("settings", KINDS, ids=named)
@pytest.mark.parametrize("inner", [nn.Linear(8, 16), nn.Sequential(nn.Linear(8, 16), nn.LayerNorm((5, 16)))])
def test_relu_in_place_behind_a_layer_of_a_sequence(inner, settings):
    torch.manual_seed(0)
    net = nn.Sequential(inner, nn.ReLU(inplace=True), nn.Linear(16, 3)).double()
    p = propagate(lambda t: net(t)[0, :, 0].sum(), [inputs(1, 5, 8)], settings, model=net)
    assert residual(p) <= 1e-12


def test_a_constant_that_is_overwritten_by_out_is_kept():
    c = inputs(4, seed=2)

    def f(x):
        held = c.clone()
        y = x + held
        torch.add(held, 5, out=held)
        return (y * 2).sum()

    assert residual(propagate(f, [inputs(3, 4)], Settings())) <= 1e-12


def test_a_product_under_the_models_own_no_grad():
    def f(x):
        with torch.no_grad():
            w = torch.softmax(x @ x.T, -1)
        return (w @ x).sum()

    for settings in KINDS:
        assert residual(propagate(f, [inputs(3, 4)], settings)) <= 1e-12


def test_a_backward_pass_that_fails_is_told():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.detach().clone()  # so that nothing but its backward tells how it depends on x

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("planted")

    with pytest.raises(ModelError, match=r"cannot be sent back.*planted"):
        propagate(lambda x: Broken.apply(x).sum(), [inputs(3)], Settings())


def test_explaining_leaves_no_cycle_behind():
    av = AttentionVisualizer(nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)))
    x = {"input": torch.randn(1, 8)}
    av.explain(x, target=0)
    gc.collect()
    gc.disable()
    try:
        before = sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())
        for _ in range(20):
            av.explain(x, target=0)
        after = sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())
    finally:
        gc.enable()
    assert after - before < 20


@pytest.mark.parametrize("batch", [1, 2])
def test_a_bias_takes_its_share_of_a_result_that_is_overwritten(batch):
    """For one item it is a leaf, for several a hook; neither may mind that the result is written over, in place."""
    W, b = inputs(3, 4, seed=2), inputs(3, seed=3)
    found = []
    for f in (lambda t: F.linear(t, W, b).mul_(3.0).pow_(2).sum(), lambda t: (F.linear(t, W, b) * 3.0).pow(2).sum()):
        run = Run(Settings(rule="0", leak="record"), None, ROWS, batch=batch)
        p = replay(run, f, [inputs(batch, 5, 4)])
        found.append([{(e.cause, e.module): e.relevance for e in ledger} for ledger in p.ledgers])
    assert found[0] == [pytest.approx(each, rel=1e-9) for each in found[1]]
    z = F.linear(inputs(batch, 5, 4), W, b) * 3
    expected = (z * 3 * b).sum((1, 2)).tolist()  # a square is a line through the origin: G = z^2 / z
    assert [each["bias", ""] for each in found[0]] == pytest.approx(expected, rel=1e-9)
