"""Engine and oracle agree on whole small networks, under every choice of rules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import oracles
from clearhead.config import Settings
from clearhead.relevance import propagate
from relevance.twins import (
    KINDS,
    SETTINGS,
    Attention,
    Block,
    Gated,
    agree,
    array,
    inputs,
    lively,
    mlp,
    named,
    oracle_of,
    residual,
)

T, D = 4, 6
CAUSAL = torch.tril(torch.ones(T, T, dtype=torch.bool))
PADDED = torch.arange(T)[None, :].expand(T, T) < T - 1


def deep() -> nn.Module:
    return nn.Sequential(nn.Linear(D, 7), nn.GELU(), nn.Linear(7, 5), nn.GELU(approximate="tanh"), nn.Linear(5, 3))


def block(*, pre: bool, heads: int = 2, flavour: str = "sdpa", mask: torch.Tensor | None = None) -> nn.Module:
    attention = Attention(D, heads, flavour=flavour)
    attention.mask = mask
    return Block(D, attention, mlp(D, 5), nn.LayerNorm, pre=pre)


def modern() -> nn.Module:
    """Rotated queries and keys, shared key heads, RMSNorm, a gated MLP, causal."""
    attention = Attention(8, 4, kv_heads=2, bias=False)
    attention.mask = CAUSAL
    angles = torch.outer(torch.arange(T, dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64))
    attention.turn = torch.cat((angles, angles), dim=-1)
    return nn.Sequential(Block(8, attention, Gated(8, 5), nn.RMSNorm, pre=True), nn.RMSNorm(8), nn.Linear(8, 3))


NETS: dict[str, Callable[[], nn.Module]] = {
    "deep": deep,
    "gated": lambda: nn.Sequential(nn.RMSNorm(D), Gated(D, 5)),
    "pre-norm": lambda: nn.Sequential(block(pre=True), nn.LayerNorm(D)),
    "post-norm": lambda: block(pre=False),
    "one head, causal": lambda: block(pre=True, heads=1, mask=CAUSAL),
    "three heads, padded": lambda: block(pre=False, heads=3, mask=PADDED),
    "eager": lambda: block(pre=False, flavour="eager", mask=CAUSAL),
    "modern": modern,
    "two layers": lambda: nn.Sequential(block(pre=True), block(pre=False, flavour="eager")),
}


def made(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, torch.Tensor, np.ndarray]:
    """The network, an input and the weights of the sum that is explained."""
    net = lively(NETS[name](), dtype)
    x = inputs(T, 8 if name == "modern" else D, dtype=dtype)
    return net, x, array(inputs(*net(x).shape, seed=5))


@pytest.mark.parametrize("settings", SETTINGS, ids=named)
@pytest.mark.parametrize("name", NETS)
def test_nets_agree_with_their_oracles(name, settings):
    net, x, c = made(name)
    weights = torch.from_numpy(c)
    p, _ = agree(lambda t: (net(t) * weights).sum(), x, oracle_of(net), c, settings, net)
    assert p.sources[0].relevance.abs().max() > 1e-3


@pytest.mark.parametrize("settings", KINDS, ids=named)
@pytest.mark.parametrize("name", NETS)
def test_nets_agree_in_single_precision(name, settings):
    net, x, c = made(name, torch.float32)
    weights = torch.from_numpy(c).float()
    agree(lambda t: (net(t) * weights).sum(), x, oracle_of(net), array(weights), settings, net)


@pytest.mark.parametrize("settings", KINDS, ids=named)
@pytest.mark.parametrize("name", ["pre-norm", "three heads, padded", "modern"])
def test_a_batch_is_its_singles(name, settings):
    net, x, c = made(name)
    x = torch.stack((x, inputs(*x.shape, seed=7), -2 * x))
    c = np.stack((c, 2 * c, -c))
    weights = torch.from_numpy(c)
    agree(lambda t: (net(t) * weights).sum(), x, oracle_of(net), c, settings, net)


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_one_class_of_one_position(settings):
    net, x, _ = made("pre-norm")
    c = np.zeros((T, D))
    c[0, 3] = 1
    agree(lambda t: net(t)[0, 3], x, oracle_of(net), c, settings, net)


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_relevance_is_that_of_the_scaled_target(settings):
    """Explaining 1000 f gives 1000 R: no rule depends on the size of the relevance."""
    net, x, _ = made("post-norm")
    one, many = (propagate(lambda t, k=k: k * net(t)[0, 0], [x], settings, model=net) for k in (1.0, 1000.0))
    torch.testing.assert_close(many.sources[0].relevance, 1000 * one.sources[0].relevance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_two_inputs_are_two_sources(settings):
    """f(u, v) = f'(u + v): both terms are sources, each with its own share of the sum."""
    net, x, c = made("deep")
    u, v, weights = x * 0.25, x * 0.75, torch.from_numpy(c)
    p = propagate(lambda a, b: (net(a + b) * weights).sum(), [u, v], settings, model=net)
    assert len(p.sources) == 2
    whole = oracles.explain(
        oracle_of(net), array(x), c, oracles.Rules(settings.rule, settings.epsilon, leak=settings.leak)
    )
    for source, share in zip(p.sources, (0.25, 0.75), strict=True):
        np.testing.assert_allclose(source.relevance, share * whole.relevance, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("settings", KINDS, ids=named)
@pytest.mark.parametrize("seed", range(2))
def test_the_books_close(seed, settings, dtype):
    net = lively(nn.Sequential(block(pre=True), modern_for(D), nn.LayerNorm(D), nn.Linear(D, 2)), dtype, seed)
    p = propagate(
        lambda t: net(t)[:, 0].logsumexp(1).sum() + net(t)[0, -1, 1],
        [inputs(2, T, D, dtype=dtype)],
        settings,
        model=net,
    )
    assert residual(p) <= (1e-12 if dtype == torch.float64 else 1e-5)
    assert p.value == pytest.approx(
        float(net(inputs(2, T, D, dtype=dtype))[0, -1, 1] + net(inputs(2, T, D, dtype=dtype))[:, 0].logsumexp(1).sum()),
        rel=1e-5,
    )


def modern_for(d: int) -> nn.Module:
    return Block(d, Attention(d, 2, kv_heads=1, bias=False), Gated(d, 5), nn.RMSNorm, pre=True)


def test_with_leaks_returned_relevance_sums_to_the_value():
    for name in NETS:
        net, x, c = made(name)
        weights = torch.from_numpy(c)
        for attention in ("cp", "attnlrp"):
            p = propagate(
                lambda t, net=net, w=weights: (net(t) * w).sum(), [x], Settings(attention=attention), model=net
            )
            assert all(entry.returned for entry in p.ledger if abs(entry.relevance) > 1e-12)
            R = p.sources[0].relevance
            assert abs(float(R.sum()) - p.value) <= 1e-12 * max(float(R.abs().sum()), abs(p.value))
