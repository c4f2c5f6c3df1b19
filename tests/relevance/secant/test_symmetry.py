"""Whole networks: what must hold whatever the rules are, and the slow rules beside them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from relevance.secant import slow
from relevance.secant.books import (
    SECANT,
    close,
    difference,
    difference_of,
    fingerprint,
    gap,
    moved,
    pair,
    seeded_net,
    weighted,
)
from relevance.twins import Attention, Block, Gated, array, inputs, mlp

T, D = 4, 8


class CrossAttention(nn.Module):
    """A decoder layer that reads what it is given as both sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.TransformerDecoderLayer(D, 2, 12, batch_first=False)

    def forward(self, x):
        return self.inner(x, x.flip(0).tanh(), tgt_mask=nn.Transformer.generate_square_subsequent_mask(len(x)).to(x))


def causal(attention: Attention) -> Attention:
    attention.mask = torch.ones(T, T, dtype=torch.bool).tril()
    return attention


NETS = {
    "encoder, norm last": lambda: nn.TransformerEncoderLayer(D, 2, 12, batch_first=True),
    "encoder, norm first": lambda: nn.TransformerEncoderLayer(D, 4, 12, activation="gelu", norm_first=True),
    "encoder of two layers": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(D, 2, 12, batch_first=True), 2, nn.LayerNorm(D), enable_nested_tensor=False
    ),
    "decoder": CrossAttention,
    "modern": lambda: Block(D, Attention(D, 4, kv_heads=2, bias=False), Gated(D, 5), nn.RMSNorm, pre=True),
    "eager": lambda: Block(D, causal(Attention(D, 2, flavour="eager")), mlp(D, 5), nn.LayerNorm, pre=False),
}
EVERY = pytest.mark.parametrize("name", NETS)


def example(name: str, dtype: torch.dtype = torch.float64):
    net = seeded_net(NETS[name], dtype)
    return net, weighted(net), *pair(T, T, D, dtype=dtype)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_exchanged_runs_change_the_sign(name, dtype):
    net, f, x, b = example(name, dtype)
    there = difference_of(f, [x], [b], model=net)
    back = difference_of(f, [b], [x], model=net)
    close(there.sources[0].relevance, -back.sources[0].relevance, 1e-10 if dtype == torch.float64 else 1e-4)
    assert there.value == pytest.approx(back.base, rel=1e-5)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_of_identical_inputs_nothing_differs(name, dtype):
    net, f, x, _ = example(name, dtype)
    p = difference_of(f, [x], [x.clone()], model=net)
    assert p.value == p.base
    assert not p.sources[0].relevance.any()


@EVERY
def test_of_identical_inputs_the_multiplier_is_the_gradient(name):
    net, f, x, _ = example(name)
    (gradient,) = torch.autograd.grad(f(leaf := x.clone().requires_grad_()), leaf)
    close(difference_of(f, [x], [x.clone()], model=net).sources[0].gradient, gradient, 1e-10)


@EVERY
@pytest.mark.parametrize("step", [1e-3, 1e-5, 1e-7, 1e-9, 1e-12])
def test_near_each_other_the_multiplier_is_close_to_the_gradient(name, step):
    """By a multiple of the step, however small: no digit is lost on the way to 0."""
    net, f, x, _ = example(name)
    b = x - step * inputs(T, T, D, seed=9)
    (gradient,) = torch.autograd.grad(f(leaf := x.clone().requires_grad_()), leaf)
    p = difference_of(f, [x], [b], model=net)
    close(p.sources[0].gradient, gradient, 30 * step + 1e-8)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_books_close_in_every_type(name, dtype):
    net, f, x, b = example(name, dtype)
    p = difference_of(f, [x], [b], model=net)
    assert float(p.sources[0].relevance.abs().max()) > 1e-3


@EVERY
def test_entries_that_do_not_differ_get_exactly_nothing(name):
    net, f, x, b = example(name)
    b[:, 1] = x[:, 1]
    b[2, :, 3] = x[2, :, 3]
    R = difference_of(f, [x], [b], model=net).sources[0].relevance
    assert not R[:, 1].any()
    assert not R[2, :, 3].any()
    assert bool(R[0, 0].all())


@EVERY
def test_the_relevance_of_a_sum_is_the_sum_of_relevances(name):
    net, _, x, b = example(name)
    one, two, both = (
        difference_of(f, [x], [b], model=net).sources[0].relevance
        for f in (
            lambda t: net(t)[0, 0, 0],
            lambda t: net(t)[1, 2].sum(),
            lambda t: 2 * net(t)[0, 0, 0] - net(t)[1, 2].sum(),
        )
    )
    close(both, 2 * one - two, 1e-10)


@EVERY
def test_a_batch_is_its_singles(name):
    """Items along the first axis, where the layer has them there."""
    net, _, x, b = example(name)
    axis = 1 if name in {"encoder, norm first", "decoder"} else 0
    weights = inputs(T, T, D, seed=77)
    whole = difference_of(lambda t: (net(t) * weights).sum(), [x], [b], model=net).sources[0].relevance
    for n in range(T):
        one = [t.narrow(axis, n, 1) for t in (x, b, weights)]
        p = difference_of(lambda t, w=one[2]: (net(t) * w).sum(), [one[0]], [one[1]], model=net)
        close(p.sources[0].relevance, whole.narrow(axis, n, 1), 1e-10)


def slowly(net: Block, x: slow.Pair) -> slow.Pair:
    """A block of torch modules by the slow rules, from its weights."""

    def normed(norm, h):
        centred = isinstance(norm, nn.LayerNorm)
        bias, eps = array(norm.bias) if centred else 0.0, norm.eps or torch.finfo(norm.weight.dtype).eps
        return slow.norm(h, array(norm.weight), bias, eps=eps, centred=centred)

    def linear(layer, h):
        return slow.linear(h, array(layer.weight), 0.0 if layer.bias is None else array(layer.bias))

    def attended(attention, h):
        q, k, v = (linear(layer, h) for layer in (attention.q, attention.k, attention.v))
        width, groups = D // attention.heads, attention.heads // attention.kv_heads
        hidden = None if attention.mask is None else np.where(attention.mask.numpy(), 0.0, -math.inf)
        o = None
        for head in range(attention.heads):
            own = slice(head * width, (head + 1) * width)
            shared = slice(head // groups * width, (head // groups + 1) * width)
            cut = [slow.part(q, np.s_[:, own]), slow.part(k, np.s_[:, shared]), slow.part(v, np.s_[:, shared])]
            y = slow.linear(slow.attention(*cut, mask=hidden), array(attention.o.weight[:, own]))
            o = y if o is None else slow.add(o, y)
        bias = 0.0 if attention.o.bias is None else array(attention.o.bias)
        return slow.Pair(o.x + bias, o.b + bias, ((o, lambda m: m),))

    def hidden(inner, h):
        if isinstance(inner, Gated):
            gate = slow.pointwise(linear(inner.gate, h), "silu")
            return linear(inner.down, slow.times(gate, linear(inner.up, h)))
        return linear(inner[2], slow.pointwise(linear(inner[0], h), "gelu"))

    if net.pre:
        x = slow.add(x, attended(net.attention, normed(net.first, x)))
        return slow.add(x, hidden(net.mlp, normed(net.second, x)))
    x = normed(net.first, slow.add(x, attended(net.attention, x)))
    return normed(net.second, slow.add(x, hidden(net.mlp, x)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["modern", "eager"])
def test_a_block_is_the_slow_rules_composed(name, dtype):
    net = seeded_net(NETS[name], dtype)
    x, b = pair(T, D, dtype=dtype)
    weights = inputs(T, D, dtype=dtype, seed=77)
    p = difference_of(lambda t: (net(t) * weights).sum(), [x], [b], model=net)
    leaf = slow.leaf(array(x), array(b))
    y = slowly(net, leaf)
    m = torch.from_numpy(slow.multipliers(y, array(weights), leaf)[0])
    close(p.sources[0].gradient, m, 1e-10 if dtype == torch.float64 else 1e-3)


def test_the_model_is_left_as_found_also_after_an_exception():
    net = seeded_net(NETS["encoder of two layers"]).requires_grad_()
    before = fingerprint(net)
    x, b = pair(T, T, D)
    difference_of(weighted(net), [x], [b], model=net)
    assert fingerprint(net) == before

    class Planned(Exception):
        pass

    def f(t):
        net(t)
        raise Planned

    with pytest.raises(Planned):
        difference(f, [x], [b], SECANT, model=net)
    assert fingerprint(net) == before


def test_parameters_that_could_learn_are_constants_all_the_same():
    net, f, x, b = example("encoder, norm last")
    one = difference_of(f, [x], [b], model=net).sources[0].relevance
    two = difference_of(f, [x], [b], model=net.requires_grad_()).sources[0].relevance
    assert torch.equal(one, two)


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_the_callers_gradient_mode_does_not_matter(context):
    net, f, x, b = example("modern")
    expected = difference_of(f, [x], [b], model=net)
    with context():
        found = difference(f, [x], [b], SECANT, model=net)
    assert torch.equal(found.sources[0].relevance, expected.sources[0].relevance)
    assert (found.value, found.base) == (expected.value, expected.base)


def test_the_same_question_twice():
    net, f, x, b = example("decoder")
    one, two = (difference(f, [x], [b], SECANT, model=net) for _ in range(2))
    assert torch.equal(one.sources[0].relevance, two.sources[0].relevance)


def test_a_gap_of_a_thousandth_would_be_noticed():
    """The judge of all these tests: a share that is wrong by so much, a base that is, an entry that is missing."""
    from dataclasses import replace

    net, f, x, b = example("modern")
    p = difference_of(f, [x], [b], model=net)
    assert gap(p) <= 1e-12
    source = replace(p.sources[0], gradient=p.sources[0].gradient * 1.001)
    assert gap(replace(p, sources=(source,))) > 1e-6
    assert moved(p) < 1e6
