"""What no row covers is named and metered: its gradient is used, and what that gets wrong is in the ledger."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clearhead.config import Settings
from clearhead.errors import UnruledOperationError
from clearhead.relevance.secant import difference
from relevance.secant.books import close, difference_of, pair, weighted
from relevance.twins import inputs

C, PLACES = inputs(3, 4, seed=4), torch.tensor([[0, 1, 1, 2]]).expand(3, 4)

# Functions of x [3, 4] -> the operation that has no row.
CURVED = {
    "cumprod": lambda x: torch.cumprod(x * 2, -1).tanh(),
    "logcumsumexp": lambda x: torch.logcumsumexp(x, -1),
    "atan2": lambda x: torch.atan2(x[0], x[1].exp()),
    "logsumexp": lambda x: torch.logsumexp(x, (0, 1)).reshape(1),
    "cross_entropy_loss": lambda x: F.cross_entropy(x, torch.tensor([1, 0, 3])).reshape(1),
    "cdist": lambda x: torch.cdist(x[None, :1], x[None, 1:]),
    "scatter_reduce": lambda x: torch.scatter_reduce(C, 1, PLACES, x, "prod"),
    "linalg_det": lambda x: torch.linalg.det(x[:, :3]).reshape(1),
}
STRAIGHT = {
    "lerp": lambda x: torch.lerp(C, x, 0.3),
    "addcmul": lambda x: torch.addcmul(C, x, C, value=2.0),
    "renorm": lambda x: torch.renorm(x, 2, 0, 1e6),
}


@pytest.mark.parametrize("name", CURVED)
def test_what_is_lost_is_named(name):
    x, b = pair(3, 4)
    p = difference_of(weighted(CURVED[name]), [x], [b], leaks=True)
    assert {(e.cause, e.operation) for e in p.ledger} == {("unruled", name)}
    assert abs(sum(e.relevance for e in p.ledger)) > 1e-3


@pytest.mark.parametrize("name", STRAIGHT)
def test_where_the_gradient_is_right_nothing_is_lost(name):
    x, b = pair(3, 4)
    f = weighted(STRAIGHT[name])
    (gradient,) = torch.autograd.grad(f(leaf := x.clone().requires_grad_()), leaf)
    p = difference_of(f, [x], [b], leaks=True)
    close(p.sources[0].gradient, gradient)
    assert sum(abs(e.relevance) for e in p.ledger) <= 1e-12


def test_around_it_all_is_exact():
    """What comes before has its own secants; only the one operation is a gradient."""
    x, b = pair(3, 4)
    p = difference_of(lambda t: torch.cumprod(t.exp(), -1)[:, 0].sum() + t.tanh().sum(), [x], [b], leaks=True)
    close(p.sources[0].relevance[:, 1:], x.tanh()[:, 1:] - b.tanh()[:, 1:])


def test_strict_refuses_it():
    x, b = pair(3, 4)
    with pytest.raises(UnruledOperationError, match="cumprod"):
        difference(lambda t: torch.cumprod(t, -1).sum(), [x], [b], Settings(method="secant", strict=True))


class Own(torch.autograd.Function):
    """A function with its own way back, of which no tape sees the inside."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        x = torch.from_numpy(x.detach().numpy().copy())  # out of sight
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return gradient * (s + x * s * (1 - s))


@pytest.mark.parametrize("around", [lambda x: x, torch.tanh], ids=["alone", "behind another"])
def test_code_that_no_tape_sees_keeps_the_books(around):
    x, b = pair(3, 4)
    f = weighted(lambda t: Own.apply(around(t)) * 2 + t.exp())
    p = difference_of(f, [x], [b], leaks=True)
    assert {e.cause for e in p.ledger} <= {"unruled", "detached"}
    assert abs(sum(e.relevance for e in p.ledger)) > 1e-3
