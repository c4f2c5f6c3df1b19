"""Custom autograd functions and checkpoints are what their forward computes; torch is as it was afterwards."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import torch.utils.checkpoint as checkpoints
from torch import nn
from torch.autograd import Function

from clearhead.config import Settings
from clearhead.errors import UnruledOperationError
from clearhead.relevance import propagate
from clearhead.relevance.secant import difference
from clearhead.tape import Tape
from relevance.twins import EXTREMES, booked, inputs, named, residual

SECANT = Settings(method="secant")
W = inputs(4, 4, seed=2)


class Gelu(Function):
    """With a backward that is wrong on purpose: what it says is not asked."""

    @staticmethod
    def forward(ctx, x, slope):
        ctx.save_for_backward(x)
        ctx.slope = slope
        return torch.nn.functional.gelu(x) * slope

    @staticmethod
    def backward(ctx, gradient):
        raise AssertionError("nobody should ask")


class Newer(Function):
    """The other spelling, where the context comes afterwards; its second result is marked as a constant."""

    @staticmethod
    def forward(x, slope=3.0):
        return torch.nn.functional.gelu(x) * slope, x.abs()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, gradient, _):
        raise AssertionError("nobody should ask")


class Outside(Function):
    """What it computes leaves torch, as an extension in another language does; the gradient is right."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(np.tanh(x.detach().numpy()))

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (1 - x.tanh() ** 2)


def spelled(spelling):
    """A linear layer, the function in one of its spellings, and a sum."""
    functions = {
        "custom": lambda h: Gelu.apply(h, 3.0),
        "newer": lambda h: Newer.apply(h)[0],
        "plain": lambda h: torch.nn.functional.gelu(h) * 3.0,
        "reentrant": lambda h: checkpoints.checkpoint(
            lambda t: torch.nn.functional.gelu(t) * 3.0, h, use_reentrant=True
        ),
        "checkpoint": lambda h: checkpoints.checkpoint(
            lambda t: torch.nn.functional.gelu(t) * 3.0, h, use_reentrant=False
        ),
    }
    return lambda x: (functions[spelling](x @ W.T) * torch.arange(4.0).double()).sum()


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("spelling", ["custom", "newer", "reentrant", "checkpoint"])
def test_relevance_is_that_of_the_same_thing_written_plainly(spelling, settings):
    x = inputs(3, 4)
    found, expected = (propagate(spelled(each), [x], settings) for each in (spelling, "plain"))
    assert found.value == expected.value
    assert torch.equal(found.sources[0].relevance, expected.sources[0].relevance)
    assert booked(found) == booked(expected)


@pytest.mark.parametrize("spelling", ["custom", "newer", "reentrant", "checkpoint"])
def test_so_is_the_difference_between_two_inputs(spelling):
    x, b = inputs(3, 4), inputs(3, 4, seed=9)
    found, expected = (difference(spelled(each), [x], [b], SECANT) for each in (spelling, "plain"))
    assert torch.equal(found.sources[0].relevance, expected.sources[0].relevance)


def test_what_is_marked_as_constant_is_one():
    p = propagate(lambda x: (Newer.apply(x)[0] * Newer.apply(x)[1]).sum(), [inputs(3)], EXTREMES[1])
    plain = propagate(lambda x: (torch.nn.functional.gelu(x) * 3 * x.abs().detach()).sum(), [inputs(3)], EXTREMES[1])
    assert torch.equal(p.sources[0].relevance, plain.sources[0].relevance)


def test_what_leaves_torch_is_metered_as_one_and_named():
    """f(x) less x f'(x) is what a gradient does not carry; `strict` refuses it."""
    x = inputs(5)
    for _ in range(2):  # the second time it is known
        p = propagate(lambda x: Outside.apply(x).sum(), [x], Settings())
        (entry,) = p.ledger
        assert (entry.cause, entry.operation) == ("unruled", "Outside.apply")
        assert entry.relevance == pytest.approx(float((x.tanh() - x * (1 - x.tanh() ** 2)).sum()), rel=1e-9)
        assert residual(p) < 1e-12
    with pytest.raises(UnruledOperationError, match=r"Outside\.apply"):
        propagate(lambda x: Outside.apply(x).sum(), [x], Settings(strict=True))


def test_one_with_rules_for_all_of_it_is_not_refused():
    p = propagate(spelled("custom"), [inputs(3, 4)], Settings(strict=True))
    assert residual(p) < 1e-12


def test_torch_is_as_it_was_also_after_an_exception():
    before = Function.__dict__["apply"], checkpoints._checkpoint_without_reentrant_generator

    def fails(x):
        assert Function.__dict__["apply"] is not before[0]
        raise KeyError

    with pytest.raises(KeyError):
        propagate(fails, [inputs(2)], Settings())
    assert before == (Function.__dict__["apply"], checkpoints._checkpoint_without_reentrant_generator)


def test_another_thread_and_a_plain_call_run_by_themselves():
    """Only the thread of the tape asks it; there a custom function has its own backward still."""
    x = inputs(3).requires_grad_()
    (expected,) = torch.autograd.grad(Outside.apply(x).sum(), x)
    found, plain = [], []

    def elsewhere():
        (gradient,) = torch.autograd.grad(Outside.apply(x).sum(), x)
        checkpointed = checkpoints.checkpoint(torch.tanh, x, use_reentrant=False)
        found.append((gradient, torch.autograd.grad(checkpointed.sum(), x)[0]))

    def model(t):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return Outside.apply(t).sum()

    propagate(model, [x.detach()], Settings())
    plain.append(torch.autograd.grad(Outside.apply(x).sum(), x)[0])
    assert torch.equal(found[0][0], expected)
    assert torch.allclose(found[0][1], 1 - x.detach().tanh() ** 2, rtol=1e-12)
    assert torch.equal(plain[0], expected)


def test_the_tape_shows_the_parts_to_any_interpreter():
    seen = []

    def interpret(operation, function, args, kwargs):
        seen.append(operation.name)
        if operation.composite is not None and operation.name.endswith(".apply"):
            return tape.under(operation.composite, *args, **kwargs)
        return function(*args, **kwargs)

    tape = Tape(interpret)
    x = torch.ones(2, requires_grad=True)
    with tape:
        Gelu.apply(x, 2.0)
    assert seen == ["Gelu.apply", "gelu", "mul"]


class Layer(nn.Module):
    """A module that checkpoints itself, as models do to save memory."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)).double()

    def forward(self, x, checkpointed=True):
        return x + (checkpoints.checkpoint(self.inner, x, use_reentrant=False) if checkpointed else self.inner(x))


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
def test_a_checkpointed_module_explains_like_a_plain_one(settings):
    net = Layer().requires_grad_(False)
    found, expected = (
        propagate(lambda x, on=on: net(x, on).sum(), [inputs(2, 4)], settings, model=net) for on in (True, False)
    )
    assert torch.equal(found.sources[0].relevance, expected.sources[0].relevance)
    assert found.ledger == expected.ledger
