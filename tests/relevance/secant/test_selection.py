"""Choices: where both runs choose alike all is exact; where not, the base is still true and the rest is named."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearhead.config import Settings
from clearhead.relevance.secant import difference
from relevance.secant.books import causes, close, difference_of, gap, pair, weighted
from relevance.twins import inputs

ROW = torch.tensor([5.0, 1.0, 3.0, -2.0, 0.0, 4.0], dtype=torch.float64)  # the order that both runs keep
IMAGE = (torch.arange(24, dtype=torch.float64) * 7 % 24 - 11.5).reshape(1, 1, 4, 6)  # no two alike

# Functions that choose; x [3, 6] or [1, 1, 4, 6].
CHOICES = {
    "max": lambda x: x.max(-1).values,
    "torch.max": lambda x: torch.max(x, dim=0, keepdim=True)[0],
    "max of all": lambda x: x.max().reshape(1),
    "min": lambda x: x.min(dim=-1)[0],
    "amax": lambda x: x.amax(-1),
    "amin": lambda x: torch.amin(x, dim=(0, 1)).reshape(1),
    "median": lambda x: x.median(-1).values,
    "topk": lambda x: x.topk(3, dim=-1).values,
    "topk, smallest": lambda x: torch.topk(x, 2, largest=False)[0],
    "sort": lambda x: x.sort(dim=-1, descending=True).values,
    "gather of argsort": lambda x: x.gather(-1, x.argsort(-1)),
    "gather of argmax": lambda x: x.gather(-1, x.argmax(-1, keepdim=True)),
    "index of topk": lambda x: x[torch.arange(3)[:, None], x.topk(2).indices] * inputs(3, 2, seed=4),
    "max_pool1d": lambda x: F.max_pool1d(x[None], 2),
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x[None], 2),
    "where": lambda x: torch.where(x > 0.5, x, 0.01 * x),
    "where of a mean": lambda x: torch.where(x.mean(-1, keepdim=True) > 1.3, x, -x),
    "masked_fill": lambda x: x.masked_fill(x < 0.5, 7.0),
    "boolean index": lambda x: x[x > 0.5].sum().reshape(1),
    "argmin and its kin": lambda x: x * (torch.argmin(x, -1, keepdim=True) + torch.count_nonzero(x > 0.5)),
    "nonzero": lambda x: (
        x[(x >= 0.5).any(-1) & ~(x == 9).all(-1) & (x != 9).any(-1)].sum().reshape(1) * len(torch.nonzero(x > 0.5))
    ),
    "as a number": lambda x: x * (int((x > 0.5).sum()) + bool((x[0] <= 0.5).long().sum() > 2)) + (x > 2.5).int() * x,
    "as truth": lambda x: x * (x - 0.5).clamp_min(0).bool(),
    "times a mask": lambda x: x * (x > 0.5),
    "times a float mask": lambda x: x * (x > 0.5).double(),
    "routing": lambda x: (x.softmax(-1).topk(2).values * x.gather(-1, x.softmax(-1).topk(2).indices)).sum(-1),
    "one-hot routing": lambda x: F.one_hot(x.argmax(-1), 6).double() @ inputs(6, 6, seed=4) * x,
}
POOLS = {
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "max_pool2d, padded": lambda x: F.max_pool2d(x, 3, stride=1, padding=1),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, (2, 3)),
    "adaptive_max_pool3d": lambda x: F.adaptive_max_pool3d(x[None], (1, 2, 2)),
    "max_pool3d": lambda x: F.max_pool3d(x[None], (1, 2, 2)),
}
BOTH = {**CHOICES, **POOLS}


def alike(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two inputs that differ everywhere and are ordered alike."""
    x = IMAGE.clone() if name in POOLS else torch.stack([ROW, 2 * ROW.flip(0), ROW.roll(1) + 0.25])
    return x, x + 0.4 * torch.sin(inputs(*x.shape, seed=3))


def apart(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The same input, and one that is ordered the other way round."""
    x, _ = alike(name)
    return x, x.flip(-1) - 0.75


@pytest.mark.parametrize("name", BOTH)
def test_equal_choices_are_exact(name):
    """The choice is a constant: what is left is the gradient, and nothing leaks."""
    x, b = alike(name)
    f = weighted(BOTH[name])
    leaf = x.clone().requires_grad_()
    p = difference_of(f, [x], [b])
    if "routing" not in name:
        (gradient,) = torch.autograd.grad(f(leaf), leaf)
        close(p.sources[0].gradient, gradient)


@pytest.mark.parametrize("name", BOTH)
def test_other_choices_are_named_and_the_books_close(name):
    x, b = apart(name)
    p = difference_of(weighted(BOTH[name]), [x], [b], leaks=True)
    assert causes(p) == {"selection"}
    assert abs(sum(e.relevance for e in p.ledger)) > 1e-3


@pytest.mark.parametrize("name", ["max", "topk", "sort", "where", "gather of argmax"])
def test_rows_that_choose_alike_get_the_same_shares_beside_one_that_does_not(name):
    x, b = alike(name)
    exact = difference_of(weighted(CHOICES[name]), [x], [b])
    other = b.clone()
    other[1] = b[1].flip(-1) - 0.3
    p = difference_of(weighted(CHOICES[name]), [x], [other], leaks=True)
    assert causes(p) == {"selection"}
    for row in (0, 2):
        close(p.sources[0].relevance[row], exact.sources[0].relevance[row])


class Chooses(nn.Module):
    """Largest of all hidden units, inside a module whose path the ledger must name."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.pick = nn.Sequential(nn.Identity(), Largest())

    def forward(self, x):
        return self.pick(self.first(x))


class Largest(nn.Module):
    def forward(self, h):
        return h.max(-1).values


def test_the_ledger_names_module_and_operation():
    net = Chooses().double().requires_grad_(False)
    with torch.no_grad():
        net.first.weight.copy_(inputs(8, 6, seed=2))
    x, _ = pair(1, 6)
    p = difference_of(lambda t: net(t).sum(), [x], [-x], model=net, leaks=True)
    assert {(e.cause, e.module, e.operation) for e in p.ledger} == {("selection", "pick.1", "max")}
    assert gap(p) <= 1e-12


ELEMENTWISE = {
    "maximum of two": (torch.maximum, lambda u, v: (u + v + (u - v).abs()) / 2),
    "minimum of two": (torch.minimum, lambda u, v: (u + v - (u - v).abs()) / 2),
    "fmax": (torch.fmax, torch.maximum),
    "fmin": (torch.fmin, lambda u, v: -torch.fmax(-u, -v)),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_larger_of_two_is_pointwise_in_their_difference(name):
    """|u - v| has a secant, so nothing is lost whichever is larger."""
    (u, a), (v, b) = pair(4, 5), pair(4, 5, seed=2)
    one, two = (difference_of(weighted(f), [u, v], [a, b]) for f in ELEMENTWISE[name])
    for first, second in zip(one.sources, two.sources, strict=True):
        close(first.relevance, second.relevance)


POINTWISE = {
    "relu": torch.relu,
    "abs": torch.abs,
    "leaky_relu": F.leaky_relu,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "maximum with a constant": lambda x: torch.maximum(x, torch.zeros_like(x)),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_functions_of_one_entry_never_choose(name):
    """Their two sides are no selection: each entry gets its own difference, exactly."""
    x, b = pair(4, 5)
    f = POINTWISE[name]
    p = difference_of(weighted(f), [x], [b])
    close(p.sources[0].relevance, (f(x) - f(b)) * inputs(4, 5, seed=77))


def test_a_tie_is_no_reason_to_leak_when_both_runs_have_it():
    x = torch.tensor([[2.0, 2.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([[3.0, 3.0, 0.0]], dtype=torch.float64)
    for f in (lambda t: t.amax(-1), lambda t: t.max(-1).values):
        p = difference_of(lambda t, f=f: f(t).sum(), [x], [b])
        assert float(p.sources[0].relevance.sum()) == pytest.approx(-1.0, rel=1e-14)


def test_identical_inputs_choose_alike():
    x, _ = apart("max")
    for name in CHOICES:
        p = difference_of(weighted(CHOICES[name]), [x], [x.clone()])
        assert p.value == p.base
        assert not p.sources[0].relevance.any()


def mixture(x):
    """Two of four experts for each token, as models route: by index, one expert after the other."""
    gate, experts = inputs(6, 4, seed=2), inputs(4, 6, 6, seed=3)
    shares, chosen = (x @ gate).softmax(-1).topk(2)
    shares = shares / shares.sum(-1, keepdim=True)
    y = torch.zeros_like(x)
    for n, W in enumerate(experts):
        tokens, places = torch.where(chosen == n)
        y.index_add_(0, tokens, torch.tanh(x[tokens] @ W) * shares[tokens, places, None])
    return y


@pytest.mark.parametrize("far", [1e-3, 3.0])
def test_a_mixture_of_experts(far):
    """Near enough all tokens go where they went; further away the books say what that cost."""
    x = inputs(5, 6)
    p = difference_of(weighted(mixture), [x], [x + far * inputs(5, 6, seed=8)], leaks=far > 1)
    assert causes(p) == ({"selection"} if far > 1 else set())
    assert math.isfinite(p.base)


@pytest.mark.parametrize("detached", [True, False])
def test_a_model_may_look_at_numbers_outside_of_torch(detached):
    """The baseline follows what the input's numbers say; what is left open is a selection, named and in the books."""
    x, b = inputs(3, 4).abs(), inputs(3, 4, seed=9).abs() + 2

    def f(t):
        size = (t.detach() if detached else t).numpy()
        return (t * float(size.max())).sum()

    p = difference(f, [x], [b], Settings(method="secant"))
    given = float(p.sources[0].relevance.sum())
    assert p.value == pytest.approx(float((x * x.max()).sum()))
    assert p.base == pytest.approx(float((b * b.max()).sum()))
    assert {entry.cause for entry in p.ledger} == {"selection"}
    assert given + sum(entry.relevance for entry in p.ledger) == pytest.approx(p.value - p.base)
