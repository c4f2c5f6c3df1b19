"""Sources, what autograd does by itself, and writing in place."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearhead.relevance import propagate
from relevance.twins import EXTREMES, KINDS, RECORD, inputs, named, residual


def test_embedding_lookups_are_sources_in_order():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = torch.nn.Embedding(7, 3).double(), torch.nn.Embedding(5, 3).double()

        def forward(self, ids, x):
            return (self.words(ids) + self.places(torch.arange(ids.shape[1])) + x).sum()

    net, ids, x = Net(), torch.tensor([[1, 2, 2]]), inputs(3)
    p = propagate(lambda t: net(ids, t), [x], RECORD, model=net)
    assert [source.name for source in p.sources] == ["", "words", "places"]
    assert p.sources[0].indices is None
    assert torch.equal(p.sources[1].indices, ids)
    assert torch.equal(p.sources[2].indices, torch.arange(3))
    assert torch.equal(p.sources[1].value, net.words.weight[ids])
    np.testing.assert_allclose(p.sources[1].relevance, net.words.weight[ids].detach(), rtol=1e-12)
    np.testing.assert_allclose(p.sources[2].relevance, net.places.weight[:3].detach(), rtol=1e-12)
    np.testing.assert_allclose(p.sources[0].relevance, 3 * x, rtol=1e-12)
    assert residual(p) <= 1e-12


def test_one_lookup_read_twice_is_one_source():
    table, ids = torch.nn.Embedding(5, 3).double(), torch.tensor([[0, 1]])

    def f():
        e = table(ids)
        return (F.relu(e) + 2 * e).sum()

    p = propagate(f, [], RECORD, model=table)
    assert len(p.sources) == 1
    e = table.weight[ids].detach()
    np.testing.assert_allclose(p.sources[0].relevance, e.clamp(min=0) + 2 * e, rtol=1e-12)


def test_a_table_that_is_also_the_last_layer_is_both():
    """Tied weights: the lookup is a source, the same tensor as the weight of a linear layer is a constant."""
    table, ids = torch.nn.Embedding(5, 3).double(), torch.tensor([2, 4])
    p = propagate(lambda: F.linear(table(ids), table.weight)[1, 3], [], RECORD)
    W = table.weight.detach()
    np.testing.assert_allclose(p.sources[0].relevance, torch.stack((0 * W[3], W[4] * W[3])), rtol=1e-12)
    assert table.weight.grad is None


PASSING = {
    "max": lambda x: x.max(-1).values,
    "amax": lambda x: x.amax(1),
    "min": lambda x: torch.min(x, dim=0)[0],
    "gather": lambda x: x.gather(1, torch.tensor([[0, 2], [1, 1], [3, 0]])),
    "index": lambda x: x[[0, 2], 1:3],
    "ellipsis": lambda x: x[..., -1],
    "reshape": lambda x: x.reshape(2, 6),
    "view": lambda x: x.view(-1),
    "transpose": lambda x: x.transpose(0, 1),
    "permute": lambda x: x.permute(1, 0),
    "T": lambda x: x.T,
    "cat": lambda x: torch.cat((x, 2 * x), dim=1),
    "stack": lambda x: torch.stack((x, -x)),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "split": lambda x: x.split([1, 3], dim=1)[1],
    "unbind": lambda x: x.unbind(0)[1],
    "sort": lambda x: x.sort(-1).values[:, :2],
    "topk": lambda x: x.topk(2).values,
    "mean": lambda x: x.mean(0),
    "sum": lambda x: x.sum(1),
    "flip": lambda x: x.flip(0),
    "roll": lambda x: torch.roll(x, 1, 0),
    "expand": lambda x: x[None].expand(3, 3, 4),
    "repeat": lambda x: x.repeat(2, 1),
    "interleave": lambda x: x.repeat_interleave(2, 0),
    "masked_fill": lambda x: x.masked_fill(x > 0, 0.0),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "pad": lambda x: F.pad(x, (1, 1)),
    "contiguous": lambda x: x.T.contiguous(),
    "neg": operator.neg,
    "abs": torch.abs,
    "clone": torch.clone,
    "to": lambda x: x.to(torch.float64),
    "float": lambda x: x.double(),
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "cumsum": lambda x: x.cumsum(0),
    "flatten": torch.flatten,
    "unsqueeze": lambda x: x.unsqueeze(0).squeeze(0),
    "index_select": lambda x: x.index_select(0, torch.tensor([2, 0])),
    "tril": torch.tril,
    "diagonal": lambda x: x.diagonal(),
    "maximum": lambda x: torch.maximum(x, x.flip(0)),
    "relu": F.relu,
    "max_pool": lambda x: F.max_pool1d(x, 2),
    "identity": torch.nn.Identity(),
    "select": lambda x: x.select(0, 1),
    "einsum": lambda x: torch.einsum("ij,i->j", x, torch.arange(3.0).double()),
    "narrow": lambda x: x.narrow(1, 1, 2),
}


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("name", PASSING)
def test_what_is_homogeneous_passes_its_gradient(name, settings):
    x = inputs(3, 4)
    weights = inputs(*PASSING[name](x).shape, seed=2)
    plain = x.clone().requires_grad_()
    value = (PASSING[name](plain) * weights).sum()
    (G,) = torch.autograd.grad(value, plain)
    p = propagate(lambda t: (PASSING[name](t) * weights).sum(), [x], settings)
    np.testing.assert_allclose(p.sources[0].relevance, x * G, rtol=1e-12, atol=1e-15)
    assert p.value == pytest.approx(float(value.detach()), rel=1e-12)
    assert sum(abs(entry.relevance) for entry in p.ledger) <= 1e-12


WRITES = {
    "setitem": lambda y: y.__setitem__((0, slice(None)), 0.0),
    "setitem of a number": lambda y: y.__setitem__(0, 2.0),
    "setitem of a tensor": lambda y: y.__setitem__(0, torch.arange(4.0).double()),
    "setitem of a dependent": lambda y: y.__setitem__(0, y[1] * 2),
    "setitem with a mask": lambda y: y.__setitem__(y > 0, 1.0),
    "masked_fill_": lambda y: y.masked_fill_(y > 0, 0.5),
    "view": lambda y: y.view(-1)[:3].mul_(2.0),
    "column": lambda y: y[:, 1].add_(3.0),
    "transposed": lambda y: y.t().mul_(torch.arange(3.0).double()),
    "zero_": lambda y: y[2].zero_(),
    "fill_": lambda y: y[1].fill_(2.0),
    "copy_": lambda y: y[1].copy_(y[0] * 2),
    "clamp_": lambda y: y.clamp_(-0.5, 0.5),
    "chain": lambda y: y.mul_(2).add_(1).div_(3).sub_(0.2),
}


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("name", WRITES)
def test_writing_in_place_keeps_the_forward_pass_right(name, settings):
    x, weights, W = inputs(3, 4), inputs(3, 4, seed=2), inputs(4, 4, seed=3)

    def f(t):
        y = F.linear(t, W)
        WRITES[name](y)
        return (y * weights).sum()

    p = propagate(f, [x], settings)
    assert p.value == pytest.approx(float(f(x)), rel=1e-12)
    assert residual(p) <= 1e-12


OPERATIONS = {
    "relu": lambda y, V, n: F.relu(y),
    "tanh": lambda y, V, n: torch.tanh(y),
    "gelu": lambda y, V, n: F.gelu(y),
    "silu": lambda y, V, n: F.silu(y),
    "square": lambda y, V, n: y**2,
    "linear": F.linear,
    "matmul": lambda y, V, n: y @ V,
    "layer_norm": lambda y, V, n: F.layer_norm(y, (4,), n, n),
    "rms_norm": lambda y, V, n: F.rms_norm(y, (4,), n),
    "plus": lambda y, V, n: y + n,
    "times": lambda y, V, n: y * n,
    "over": lambda y, V, n: y / (1 + y.abs().mean()),
    "two factors": lambda y, V, n: y * y.flip(0),
    "softmax": lambda y, V, n: torch.softmax(y, -1) * y,
    "sum": lambda y, V, n: y + y.flip(0),
    "getitem": lambda y, V, n: y[[2, 0, 1]],
}
# What plain autograd refuses, because it needs the value itself; all else a model may do.
KEPT = {(name, "input") for name in ("gelu", "silu", "square", "linear", "matmul", "layer_norm", "rms_norm", "times")}
KEPT |= {("over", "input"), ("two factors", "input"), ("softmax", "input"), ("relu", "output"), ("tanh", "output")}


def overwritten(name: str, what: str, V: torch.Tensor, n: torch.Tensor):
    """An operation between two linear layers whose input or output is overwritten once it is done."""

    def f(t):
        y = F.linear(t, V)
        z = OPERATIONS[name](y, V, n)
        (y if what == "input" else z).mul_(3)
        return (F.linear(z, V) + y).square().sum()

    return f


WHAT = [(name, what) for name in OPERATIONS for what in ("input", "output")]


@pytest.mark.parametrize(("name", "what"), WHAT)
def test_what_plain_autograd_bears(name, what):
    x, V, n = inputs(3, 4).requires_grad_(), inputs(4, 4, seed=3).requires_grad_(), inputs(4, seed=6).requires_grad_()
    f = overwritten(name, what, V, n)
    if (name, what) in KEPT:
        with pytest.raises(RuntimeError, match="inplace"):
            f(x).backward()
    else:
        f(x).backward()


@pytest.mark.parametrize(("name", "what"), [each for each in WHAT if each not in KEPT])
def test_what_torch_lets_a_model_overwrite_it_may_overwrite(name, what):
    """A rule that needs a value which torch does not keep has to keep it by itself."""
    x, f = inputs(3, 4), overwritten(name, what, inputs(4, 4, seed=3), inputs(4, seed=6))
    for settings in KINDS:
        p = propagate(f, [x], settings)
        assert p.value == pytest.approx(float(f(x)), rel=1e-12)
        assert residual(p) <= 1e-12
