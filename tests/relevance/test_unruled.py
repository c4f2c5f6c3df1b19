"""Operations without a rule are metered, or refused when asked to be strict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from clearhead.config import Settings
from clearhead.errors import UnruledOperationError
from clearhead.relevance import propagate
from relevance.twins import (
    KINDS,
    RECORD,
    booked,
    encoder,
    inputs,
    lively,
    named,
    residual,
)


class Strange(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


STRANGE = {"cumprod": lambda x: torch.cumprod(x, -1), "lgamma": lambda x: torch.lgamma(x.abs() + 1.5)}


@pytest.mark.parametrize("settings", KINDS, ids=named)
@pytest.mark.parametrize("name", ["cumprod", "lgamma"])
def test_an_operation_without_a_rule_is_metered(name, settings):
    net = nn.Sequential(nn.Linear(4, 4), Strange(STRANGE[name]), nn.Linear(4, 2))
    net = lively(net)
    p = propagate(lambda t: net(t).sum(), [inputs(3, 4)], settings, model=net)
    found = [e for e in p.ledger if e.cause == "unruled"]
    assert {(e.module, e.operation, e.returned) for e in found} == {("1", name, False)}
    assert abs(sum(e.relevance for e in found)) > 1e-3
    assert residual(p) <= 1e-12


@pytest.mark.parametrize("name", ["cumprod", "lgamma"])
def test_the_meter_reads_what_autograd_lost(name):
    x = inputs(3, 4)
    y = STRANGE[name](plain := x.clone().requires_grad_())
    (G,) = torch.autograd.grad(y.sum(), plain)
    p = propagate(lambda t: STRANGE[name](t).sum(), [x], replace(RECORD, attention="attnlrp"))
    np.testing.assert_allclose(p.sources[0].relevance, x * G, rtol=1e-9)
    unruled = sum(e.relevance for e in p.ledger if e.cause == "unruled")
    constant = booked(p)["constant", False]
    assert unruled + constant == pytest.approx(float((y.sum() - (x * G).sum()).detach()), rel=1e-9)


@pytest.mark.parametrize("name", ["cumprod", "lgamma"])
def test_strict_names_the_operation_and_the_module(name):
    net = lively(nn.Sequential(nn.Linear(4, 4), nn.Sequential(Strange(STRANGE[name]))))
    with pytest.raises(UnruledOperationError) as caught:
        propagate(lambda t: net(t).sum(), [inputs(3, 4)], Settings(strict=True), model=net)
    assert name in str(caught.value)
    assert "1.0" in str(caught.value)


def test_strict_lets_a_whole_encoder_pass():
    for flavour in ("sdpa", "eager"):
        net = encoder(flavour)
        for attention in ("cp", "attnlrp"):
            p = propagate(
                lambda t, net=net: net(t)[0, 0],
                [inputs(2, 4, 6)[0]],
                Settings(strict=True, attention=attention),
                model=net,
            )
            assert residual(p) <= 1e-12


def test_strict_does_not_mind_constants():
    """An operation that no relevance passes through needs no rule."""
    c = inputs(3, 4, seed=2)
    p = propagate(lambda t: (t * torch.cumprod(c, -1)).sum(), [inputs(3, 4)], Settings(strict=True))
    assert residual(p) <= 1e-12
