"""Every loss is booked once, with its cause, its module and whether it was returned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import oracles
from clearhead.config import Settings
from clearhead.errors import ModelError
from clearhead.relevance import propagate
from relevance.twins import (
    KINDS,
    RECORD,
    array,
    booked,
    encoder,
    inputs,
    lively,
    named,
    residual,
    rules,
)


def by_module(p) -> dict[tuple[str, str], float]:
    sums: dict[tuple[str, str], float] = {}
    for entry in p.ledger:
        sums[entry.cause, entry.module] = sums.get((entry.cause, entry.module), 0.0) + entry.relevance
    return sums


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_every_layers_leak_is_booked_under_its_module(settings):
    """The layers one by one: each oracle layer has books of its own."""
    net = lively(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 2)))
    x = inputs(3, 3)
    first, norm, last = net[0], net[2], net[3]
    layers = {
        "0": oracles.Linear(array(first.weight), array(first.bias)),
        "1": oracles.Pointwise("tanh"),
        "2": oracles.Norm(array(norm.weight), array(norm.bias), eps=norm.eps, centred=True),
        "3": oracles.Linear(array(last.weight), array(last.bias)),
    }
    R = oracles.Sequence(*layers.values()).forward(array(x))
    expected = {}
    for name, layer in reversed(layers.items()):
        books = oracles.Books(rules(settings))
        R = layer.backward(R, books)
        expected |= {(cause, name): amount for (cause, _), amount in books.entries.items() if amount}
    found = by_module(propagate(lambda t: net(t).sum(), [x], settings, model=net))
    assert {key for key, amount in found.items() if abs(amount) > 1e-12} == set(expected)
    for key, amount in expected.items():
        assert found[key] == pytest.approx(amount, rel=1e-9), key


def test_nested_modules_have_dotted_paths_and_operations_have_names():
    net = encoder()
    p = propagate(lambda t: net(t)[0, 0], [inputs(4, 6)], Settings(attention="attnlrp"), model=net)
    found = {(e.cause, e.module, e.operation) for e in p.ledger if abs(e.relevance) > 1e-12}
    assert {
        ("bias", "0.attention.o", "linear"),
        ("epsilon", "0.mlp.2", "linear"),
        ("norm bias", "0.first", "layer_norm"),
        ("norm bias", "1", "layer_norm"),
    } <= found
    assert {module for cause, module, _ in found if cause == "softmax"} == {"0.attention"}


def test_a_module_called_twice_is_booked_under_one_path():
    net = lively(nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    p = propagate(lambda t: net(net(t)).sum(), [inputs(2, 4)], RECORD, model=net)
    assert {e.module for e in p.ledger if abs(e.relevance) > 1e-12} == {"0"}
    assert residual(p) <= 1e-12


def test_without_a_model_there_are_no_paths():
    net = encoder()
    p = propagate(lambda t: net(t).sum(), [inputs(4, 6)], RECORD)
    assert p.ledger
    assert {e.module for e in p.ledger} == {""}


@pytest.mark.parametrize("leak", ["return", "record"])
def test_what_cannot_be_returned_is_recorded(leak):
    """A position of zeros has no |a| to share by; the other position has."""
    x, W, b = torch.tensor([[0.0, 0.0], [1.0, -2.0]]).double(), inputs(3, 2), inputs(3, seed=2)
    p = propagate(lambda t: F.linear(t, W, b).sum(), [x], Settings(rule="0", leak=leak))
    total = float(b.sum())
    assert booked(p)["bias", False] == pytest.approx(total if leak == "return" else 2 * total, rel=1e-12)
    assert booked(p)["bias", True] == pytest.approx(total if leak == "return" else 0, rel=1e-12)
    assert not p.sources[0].relevance[0].any()
    assert residual(p) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("size", [1e-10, 1e-18, 1e-37, 1e-42, 1e-200, 1e-310])
def test_tiny_inputs_are_returned_to_or_said_not_to_be(size, dtype):
    """Shares of |a| need no floor where 1/|a| is a number; elsewhere the leak is recorded, and nothing overflows."""
    if size < 1e-50 and dtype == torch.float32:
        size = 0.0
    x, W, b = torch.full((1, 2), size, dtype=dtype), inputs(3, 2, dtype=dtype), inputs(3, seed=2, dtype=dtype)
    p = propagate(lambda t: F.linear(F.linear(t, torch.eye(2, dtype=dtype)), W, b).sum(), [x], Settings(rule="0"))
    R, total = p.sources[0].relevance, float(b.sum())
    assert torch.isfinite(R).all()
    assert residual(p) <= (1e-12 if dtype == torch.float64 else 1e-5)
    assert booked(p)["bias", True] + booked(p)["bias", False] == pytest.approx(total, rel=1e-6)
    if size >= 1e-18:
        np.testing.assert_allclose(R, [[total / 2] * 2], rtol=1e-9 if dtype == torch.float64 else 1e-5)
        assert booked(p)["bias", False] == 0


@pytest.mark.parametrize(
    "f", [lambda t: t.detach().sum() + 1.0, lambda t: torch.sigmoid(t).sum(), lambda t: torch.tensor(2.5)]
)
def test_a_value_that_no_relevance_can_leave_is_refused(f):
    with pytest.raises(ModelError, match="must depend on the input"):
        propagate(f, [inputs(3)], RECORD)


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_a_detached_branch_is_booked(settings):
    W = inputs(4, 4, seed=2)
    p = propagate(lambda t: (F.linear(t, W) + F.linear(t, W).tanh().detach()).sum(), [inputs(3, 4)], settings)
    assert residual(p) <= 1e-12
    assert {cause for (cause, _), v in booked(p).items() if abs(v) > 1e-12} - {"epsilon"} <= {"constant", "detached"}
    assert any(abs(v) > 1e-3 for (cause, _), v in booked(p).items() if cause in {"constant", "detached"})
