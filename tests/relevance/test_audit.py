"""A planted loss of a thousandth is seen and named; a healthy run is silent."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from clearhead.relevance import audit, propagate, table
from relevance.twins import (
    KINDS,
    RECORD,
    encoder,
    inputs,
    lively,
    named,
    residual,
)


class Lossy(torch.autograd.Function):
    """Hands on 0.999 of the relevance it gets."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, G):
        return 0.999 * G


def planted(monkeypatch, operation: str) -> None:
    """Make one row of the rule table lose a thousandth."""
    row = table.ROWS[operation]
    leaky = replace(row, apply=lambda run, call: Lossy.apply(row.apply(run, call)))
    monkeypatch.setitem(table.ROWS, operation, leaky)


def test_the_audit_of_a_healthy_run_is_silent():
    for flavour in ("sdpa", "eager"):
        net = encoder(flavour)
        for settings in KINDS:
            found = audit(lambda t, net=net: net(t)[0, 0], [inputs(4, 6)], settings, model=net)
            assert [i for i in found if abs(i.relevance) > 1e-9] == []


@pytest.mark.parametrize("settings", KINDS, ids=named)
@pytest.mark.parametrize(
    ("operation", "modules"),
    [
        ("layer_norm", {"1"}),
        ("linear", {"2"}),
        ("gelu", {"0.mlp.1"}),
        ("add", {"0"}),
        ("mul", {""}),
        ("scaled_dot_product_attention", {"0.attention"}),
        ("softmax", {"0.attention"}),
        ("matmul", {"0.attention"}),
    ],
)
def test_a_planted_leak_of_a_thousandth_is_seen_and_named(operation, modules, settings, monkeypatch):
    written = operation in {"softmax", "matmul"}
    net, x = encoder("eager" if written else "sdpa"), inputs(4, 6)

    def f(t):
        return (net(t) * 2.0)[0, 0]

    healthy = propagate(f, [x], settings, model=net)
    planted(monkeypatch, operation)
    ill = propagate(f, [x], settings, model=net)
    assert residual(healthy) <= 1e-12
    found = audit(f, [x], settings, model=net)
    if operation == "softmax" and settings.attention == "cp":  # no relevance passes through it, so none is lost
        assert residual(ill) <= 1e-12
        return
    assert 1e-6 < residual(ill) < 1e-1
    sizes = [abs(each.relevance) for each in found]
    assert sizes == sorted(sizes, reverse=True)
    loud = [each for each in found if abs(each.relevance) > 1e-9]
    assert {each.operation for each in loud} == {operation}
    assert modules <= {each.module for each in loud}


@pytest.mark.parametrize("operation", ["layer_norm", "linear"])
def test_the_residual_is_the_thousandth_that_was_lost(operation, monkeypatch):
    """One layer, one loss: f has relevance f at its output, and 0.1 % of it is gone."""
    net = lively(nn.Sequential(nn.LayerNorm(4) if operation == "layer_norm" else nn.Linear(4, 4)))
    planted(monkeypatch, operation)
    p = propagate(lambda t: net(t).sum(), [inputs(3, 4)], RECORD, model=net)
    gap = (
        p.value
        - sum(float(s.relevance.sum()) for s in p.sources)
        - sum(e.relevance for e in p.ledger if not e.returned)
    )
    assert gap == pytest.approx(1e-3 * p.value, rel=1e-9)
    (found,) = [i for i in audit(lambda t: net(t).sum(), [inputs(3, 4)], RECORD, model=net) if abs(i.relevance) > 1e-9]
    assert (found.operation, found.module) == (operation, "0")
    assert abs(found.relevance) == pytest.approx(abs(gap), rel=1e-6)
