"""Python functions made of operations are taken apart: fused layers and helpers explain like what they are made of."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from clearhead.config import Settings
from clearhead.relevance import propagate
from relevance.twins import KINDS, Attention, Block, agree, array, booked, inputs, lively, named, oracle_of, residual

RECORD = Settings(rule="0", leak="record")


def multihead(d: int = 6, heads: int = 2, **options) -> nn.MultiheadAttention:
    return lively(nn.MultiheadAttention(d, heads, batch_first=True, **options))


def taken_apart(net: nn.MultiheadAttention, flavour: str = "sdpa") -> Attention:
    """The same layer with four linear ones."""
    d = net.embed_dim
    own = Attention(d, net.num_heads, flavour=flavour).double().requires_grad_(False)
    for n, each in enumerate((own.q, own.k, own.v)):
        each.weight.copy_(net.in_proj_weight[n * d : (n + 1) * d])
        each.bias.copy_(net.in_proj_bias[n * d : (n + 1) * d])
    own.o.load_state_dict(net.out_proj.state_dict())
    return own


@pytest.mark.parametrize("settings", KINDS, ids=named)
@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_is_its_parts(need_weights, settings):
    net, x, c = multihead(), inputs(2, 4, 6), inputs(2, 4, 6, seed=5)
    p, _ = agree(
        lambda t: (net(t, t, t, need_weights=need_weights)[0] * c).sum(),
        x,
        oracle_of(taken_apart(net)),
        array(c),
        settings,
        net,
    )
    assert residual(p) <= 1e-12
    p = propagate(lambda t: (net(t, t, t, need_weights=need_weights)[0] * c).sum(), [x], settings, model=net)
    assert residual(p) <= 1e-12


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_multihead_attention_hides_what_is_padding(settings):
    net, x = multihead(), inputs(2, 4, 6)
    padding = torch.tensor([[False, False, False, True], [False, False, True, True]])
    p = propagate(lambda t: net(t, t, t, key_padding_mask=padding)[0][:, 0].sum(), [x], settings, model=net)
    assert not p.sources[0].relevance[padding].any()
    assert p.sources[0].relevance[~padding].any()
    assert residual(p) <= 1e-12


def encoder_layer(*, norm_first: bool, activation: str) -> nn.TransformerEncoderLayer:
    return lively(nn.TransformerEncoderLayer(6, 2, 5, activation=activation, norm_first=norm_first, batch_first=True))


@pytest.mark.parametrize("settings", [s for s in KINDS if (s.attention, s.leak) != ("attnlrp", "return")], ids=named)
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_encoder_layer_in_evaluation_mode_is_its_parts(norm_first, activation, settings):
    """Its fast path is one opaque operation; nothing of it may be taken under the tape."""
    net = encoder_layer(norm_first=norm_first, activation=activation)
    body = nn.Sequential(net.linear1, nn.ReLU() if activation == "relu" else nn.GELU(), net.linear2)
    twin = Block(6, taken_apart(net.self_attn), body, lambda _: None, pre=norm_first)
    twin.first, twin.second = net.norm1, net.norm2
    x, c = inputs(2, 4, 6), inputs(2, 4, 6, seed=5)
    agree(lambda t: (net(t) * c).sum(), x, oracle_of(twin), array(c), settings, net)


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_an_encoder_of_several_layers_balances(settings):
    layer = nn.TransformerEncoderLayer(6, 2, 5, batch_first=True)
    net = lively(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    x = inputs(2, 4, 6)
    padding = torch.tensor([[False] * 4, [False, False, True, True]])
    p = propagate(lambda t: net(t, src_key_padding_mask=padding)[:, 0].sum(), [x], settings, model=net)
    assert residual(p) <= 1e-12
    assert not p.sources[0].relevance[padding].any()
    assert p.value == pytest.approx(float(net(x, src_key_padding_mask=padding)[:, 0].sum()), rel=1e-9)
    modules = {e.module for e in p.ledger if abs(e.relevance) > 1e-12}
    assert {"layers.0.linear1", "layers.1.linear2", "layers.0.norm1"} <= modules
    assert all(module.startswith("layers.") for module in modules)


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_a_decoder_with_cross_attention_balances(settings):
    net = lively(nn.TransformerDecoderLayer(6, 2, 5, batch_first=True, activation="gelu"))
    target, memory = inputs(1, 3, 6), inputs(1, 4, 6, seed=2)
    causal = nn.Transformer.generate_square_subsequent_mask(3, dtype=torch.float64)
    p = propagate(lambda a, b: net(a, b, tgt_mask=causal)[0, 1].sum(), [target, memory], settings, model=net)
    assert residual(p) <= 1e-12
    assert not p.sources[0].relevance[0, 2].any()
    assert p.sources[1].relevance.any()


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_normalize_divides_by_a_constant(settings):
    x, c = inputs(3, 4), inputs(3, 4, seed=2)
    p = propagate(lambda t: (F.normalize(t, dim=-1) * c).sum(), [x], settings)
    np.testing.assert_allclose(p.sources[0].relevance, F.normalize(x, dim=-1) * c, rtol=1e-12)
    assert not any(abs(e.relevance) > 1e-12 for e in p.ledger)


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_cosine_similarity_with_a_reference(settings):
    """cos = sum x r / |x| |r|: the norms are constants, so the terms are the relevances."""
    x, r = inputs(3, 4), inputs(4, seed=2)
    p = propagate(lambda t: F.cosine_similarity(t, r, dim=-1).sum(), [x], settings)
    np.testing.assert_allclose(p.sources[0].relevance, x * r / (x.norm(dim=-1, keepdim=True) * r.norm()), rtol=1e-9)
    assert residual(p) <= 1e-12


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_cosine_similarity_of_two_dependents(settings):
    a, b = inputs(3, 4), inputs(3, 4, seed=2)
    p = propagate(lambda s, t: F.cosine_similarity(s, t, dim=-1).sum(), [a, b], settings)
    terms = a * b / (a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True)) / 2
    for source in p.sources:
        np.testing.assert_allclose(source.relevance, terms, rtol=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        "softmin",
        "log_softmax",
        "glu",
        "hardtanh",
        "softsign",
        "tanhshrink",
        "celu",
        "selu",
        "relu6",
        "prelu",
        "interpolate",
        "unfold",
        "adaptive_avg_pool1d",
        "instance_norm",
        "lp_pool1d",
        "huber_loss",
        "hardsigmoid",
    ],
)
def test_other_functions_written_in_python_balance(name):
    functions = {
        "softmin": lambda x: F.softmin(x, -1) * x,
        "log_softmax": lambda x: F.log_softmax(x, -1),
        "glu": F.glu,
        "hardtanh": F.hardtanh,
        "softsign": F.softsign,
        "tanhshrink": F.tanhshrink,
        "celu": F.celu,
        "selu": F.selu,
        "relu6": F.relu6,
        "prelu": lambda x: F.prelu(x, torch.tensor([0.2]).double()),
        "interpolate": lambda x: F.interpolate(x[None], scale_factor=2),
        "unfold": lambda x: F.unfold(x[None, None], 2),
        "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x, 2),
        "instance_norm": lambda x: F.instance_norm(x[None]),
        "lp_pool1d": lambda x: F.lp_pool1d(x, 2, 2) + x[:, :2],
        "huber_loss": lambda x: F.huber_loss(x, torch.zeros(3, 4).double()),
        "hardsigmoid": lambda x: torch.nn.functional.hardsigmoid(x) + x,
    }
    f, x = functions[name], inputs(3, 4)

    def weighted(t):
        y = f(t)
        return (y * torch.arange(1.0, y.numel() + 1).double().reshape(y.shape)).sum()

    for settings in KINDS:
        p = propagate(weighted, [x], settings)
        assert p.value == pytest.approx(float(weighted(x)), rel=1e-12)
        assert residual(p) <= 1e-12, settings


def test_einsum_is_the_matrix_product_it_stands_for():
    a, b, c = inputs(3, 4), inputs(5, 4, seed=2), inputs(3, 5, seed=3)
    p = propagate(lambda s, t: (torch.einsum("ij,kj->ik", s, t) * c).sum(), [a, b], RECORD)
    q = propagate(lambda s, t: ((s @ t.T) * c).sum(), [a, b], RECORD)
    for one, two in zip(p.sources, q.sources, strict=True):
        np.testing.assert_allclose(one.relevance, two.relevance, rtol=1e-12)


def test_properties_and_questions_pass_through():
    def f(t):
        assert t.shape == (3, 4)
        assert (t.ndim, t.dtype, t.device.type, t.is_cuda, len(t), t.numel()) == (2, torch.float64, "cpu", False, 3, 12)
        assert t.size(-1) == 4
        assert bool((t == t).all())
        assert t.T.shape == (4, 3)
        assert float(t.detach()[0, 0]) == t[0, 0].item()
        return (t.T * 2).sum()

    p = propagate(f, [inputs(3, 4)], RECORD)
    np.testing.assert_allclose(p.sources[0].relevance, 2 * inputs(3, 4), rtol=1e-12)


def test_the_tape_is_gone_when_the_block_ends_and_only_in_its_own_thread():
    seen = []

    def look():
        seen.append(len(_get_current_function_mode_stack()))

    def f(t):
        look()
        other = threading.Thread(target=look)
        other.start()
        other.join()
        return t.sum()

    look()
    propagate(f, [inputs(3)], RECORD)
    look()
    assert seen == [0, seen[1], 0, 0]
    assert seen[1] >= 1


def test_a_mode_of_the_callers_sees_the_model_too():
    """Somebody else's mode outside ours is neither removed nor blinded."""

    class Counting(TorchFunctionMode):
        count = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.count += 1
            return function(*args, **(kwargs or {}))

    net = lively(nn.Linear(4, 2))
    alone = propagate(lambda t: net(t).sum(), [inputs(3, 4)], Settings(), model=net)
    with Counting() as counting:
        p = propagate(lambda t: net(t).sum(), [inputs(3, 4)], Settings(), model=net)
        assert _get_current_function_mode_stack() == [counting]
    assert counting.count > 0
    assert torch.equal(p.sources[0].relevance, alone.sources[0].relevance)
    assert booked(p) == booked(alone)
