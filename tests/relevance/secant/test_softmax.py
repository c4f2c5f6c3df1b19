"""Softmax and its kin: logarithmic means, against the formula in 40 digits and against what needs no formula."""

from __future__ import annotations

import math

import hypothesis
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from relevance.secant import slow
from relevance.secant.books import close, difference_of, moved, pair, shares, weighted
from relevance.strategies import examples
from relevance.twins import inputs

FUNCTIONS = {
    "softmax": (torch.softmax, slow.softmax),
    "log_softmax": (torch.log_softmax, slow.log_softmax),
    "logsumexp": (lambda s, dim: torch.logsumexp(s, dim, keepdim=True), slow.logsumexp),
}
EVERY = pytest.mark.parametrize("name", FUNCTIONS)


def expected(name: str, x: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> np.ndarray:
    """The multipliers of the slow path along the last axis."""
    leaf = slow.leaf(x.double().numpy(), b.double().numpy())
    return slow.multipliers(FUNCTIONS[name][1](leaf), weights.double().numpy(), leaf)[0]


def agree(name: str, x: torch.Tensor, b: torch.Tensor, *, rounding: float | None = None):
    """Engine and slow path agree, to a rounding of what the logarithms of the type can carry."""
    eps = torch.finfo(x.dtype).eps
    weights = inputs(*FUNCTIONS[name][0](x, -1).shape, dtype=x.dtype, seed=9)
    p = difference_of(lambda s: (FUNCTIONS[name][0](s, -1) * weights).sum(), [x], [b], rounding=rounding)
    spread = max(float((x - b).abs().max()), float(x.max() - x.min()), float(b.max() - b.min()), 1.0)
    close(p.sources[0].gradient, expected(name, x, b, weights), 64 * eps * spread, scale=float(weights.abs().max()))
    return p


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_formula(name, dtype):
    agree(name, *pair(2, 3, 5, dtype=dtype))


@EVERY
@given(
    data=st.data(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    size=st.floats(-4, 4),
    gap=st.floats(-12, 4),
    n=st.integers(1, 5),
)
@hypothesis.settings(examples, max_examples=30)
def test_any_size_and_any_difference(name, data, dtype, size, gap, n):
    """Logits up to 1e4, that differ by 1e-12 up to 1e4."""
    x = inputs(2, n, dtype=dtype, seed=data.draw(st.integers(0, 10**6))).clamp(-1, 1) * 10**size
    d = inputs(2, n, dtype=dtype, seed=data.draw(st.integers(0, 10**6))).clamp(-1, 1) * 10**gap
    agree(name, x, x - d)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_no_overflow_from_one_end_to_the_other(name, dtype):
    """The largest score is another one in each run, by 20000; ties; all alike but one."""
    x = torch.tensor([[1e4, -1e4, 0.0, 0.0], [1e4, 1e4, 1e4, -1e4], [-1e4, -1e4, -1e4, -1e4]], dtype=dtype)
    b = torch.tensor([[-1e4, 1e4, 0.0, 1e4], [1e4, -1e4, 1e4, 1e4], [1e4, 1e4, 1e4, 1e4]], dtype=dtype)
    p = agree(name, x, b)
    assert bool(p.sources[0].relevance[0].any())


@EVERY
def test_a_shift_of_all_scores_is_followed_exactly(name):
    """Probabilities do not move, so no relevance is created: of a softmax none is left in sum."""
    x = inputs(3, 4)
    R = shares(lambda s: (FUNCTIONS[name][0](s, -1) * inputs(3, 1, seed=9)).sum(), x, x - 5.0)
    total = {"softmax": 0.0, "log_softmax": 0.0, "logsumexp": 5.0}[name]
    close(R.sum(-1), inputs(3, 1, seed=9)[:, 0] * total, 1e-12, scale=10.0)


@EVERY
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
def test_any_axis(name, dim):
    x, b = pair(2, 3, 4)
    f, _ = FUNCTIONS[name]
    weights = inputs(*f(x, dim).shape, seed=9)
    R = shares(lambda s: (f(s, dim) * weights).sum(), x, b)
    aside = [t.movedim(dim, -1) for t in (x, b, weights)]
    close(R.movedim(dim, -1), (aside[0] - aside[1]) * torch.from_numpy(expected(name, *aside)))


@EVERY
def test_exchanged_runs_change_the_sign(name):
    x, b = pair(3, 5)
    f = weighted(lambda s: FUNCTIONS[name][0](s * 3, -1))
    close(shares(f, x, b), -shares(f, b, x))


@EVERY
def test_scores_that_change_places_take_their_shares_along(name):
    x, b = pair(3, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    f, _ = FUNCTIONS[name]
    weights = inputs(3, 5, seed=9) if name != "logsumexp" else inputs(3, 1, seed=9)
    turned = weights[:, order] if name != "logsumexp" else weights
    R = shares(lambda s: (f(s, -1) * weights).sum(), x, b)
    S = shares(lambda s: (f(s, -1) * turned).sum(), x[:, order], b[:, order])
    close(S, R[:, order])


@EVERY
def test_of_equal_runs_it_is_the_gradient(name):
    x = inputs(3, 5)
    f = weighted(lambda s: FUNCTIONS[name][0](s, -1))
    (gradient,) = torch.autograd.grad(f(leaf := x.clone().requires_grad_()), leaf)
    p = difference_of(f, [x], [x.clone()])
    close(p.sources[0].gradient, gradient)
    assert not p.sources[0].relevance.any()
    near = difference_of(f, [x], [x - 1e-9 * inputs(3, 5, seed=4)])
    close(near.sources[0].gradient, gradient, 1e-7)


@pytest.mark.parametrize("lowest", [-math.inf, torch.finfo(torch.float32).min, -1e9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["softmax", "logsumexp"])
def test_masked_scores_get_exactly_nothing(name, dtype, lowest):
    x, b = pair(3, 5, dtype=dtype)
    hidden = torch.tensor([[0, 0, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    added = torch.zeros(3, 5, dtype=dtype).masked_fill(hidden, lowest)
    f, _ = FUNCTIONS[name]
    spellings = (lambda s: s + added, lambda s: s.masked_fill(hidden, lowest), lambda s: s.where(~hidden, lowest))
    for spelling in spellings:
        R = shares(weighted(lambda s, m=spelling: f(m(s), -1)), x, b)
        assert not R[hidden].any()
        for n, (row, at) in enumerate(zip(x, b, strict=True)):
            seen = ~hidden[n]
            weights = inputs(*f(x, -1).shape, dtype=dtype, seed=77)[n]
            narrow = expected(
                name, row[seen][None], at[seen][None], (weights[seen] if len(weights) > 1 else weights)[None]
            )
            close(
                R[n][seen], (row[seen] - at[seen]).double() * torch.from_numpy(narrow)[0], 64 * torch.finfo(dtype).eps
            )


@pytest.mark.parametrize("name", ["softmax", "logsumexp"])
def test_a_mask_that_hides_something_else_in_each_run(name):
    """Scores that are minus infinity in one run only: their mean is 0, and nothing is infinite or NaN."""
    x, b = pair(2, 4)

    def f(s):
        late = torch.where(s[:, :1] > 0, -math.inf, 0.0)
        return (FUNCTIONS[name][0](torch.cat([s[:, :3], s[:, 3:] + late], -1), -1) * inputs(2, 1, seed=9)).sum()

    x[0, 0], b[0, 0] = 1.0, -1.0
    difference_of(f, [x], [b], leaks=True)


def test_a_row_that_may_see_nothing():
    """NaN in torch's softmax, 0 in the safe one that attention uses; others beside it are not touched."""
    x, b = pair(3, 4)
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    hidden[1] = True
    R = shares(weighted(lambda s: torch._safe_softmax(s.masked_fill(hidden, -math.inf), -1)), x, b)
    assert not R[1].any()
    weights = inputs(3, 4, seed=77)
    close(R[0], (x[0] - b[0]) * torch.from_numpy(expected("softmax", x[:1], b[:1], weights[:1]))[0])


@pytest.mark.parametrize("spelling", ["softmax", "F.softmax", "method"])
def test_the_type_that_is_asked_for_is_the_type_that_is_computed_in(spelling):
    """As models do it: scores in half precision, their softmax in single."""
    x, b = pair(3, 5, dtype=torch.float32)
    x, b = x.bfloat16(), b.bfloat16()
    softmax = {
        "softmax": lambda s: torch.softmax(s, -1, dtype=torch.float32),
        "F.softmax": lambda s: F.softmax(s, dim=-1, dtype=torch.float32),
        "method": lambda s: s.softmax(dim=-1, dtype=torch.float32),
    }[spelling]
    weights = inputs(3, 5, dtype=torch.float32, seed=77)
    p = difference_of(weighted(softmax), [x], [b])
    assert p.sources[0].gradient.dtype == torch.bfloat16
    close(p.sources[0].gradient, expected("softmax", x, b, weights), 4 * torch.finfo(torch.bfloat16).eps)
    wide = difference_of(weighted(lambda s: s.softmax(-1, dtype=torch.float64)), [x.float()], [b.float()])
    close(
        wide.sources[0].gradient, expected("softmax", x, b, inputs(3, 5, seed=77)), 4 * torch.finfo(torch.float32).eps
    )


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(name, dtype):
    x, b = pair(3, 5, dtype=dtype)
    weights = inputs(*FUNCTIONS[name][0](x, -1).shape, dtype=dtype, seed=9)
    p = difference_of(lambda s: (FUNCTIONS[name][0](s, -1) * weights).sum(), [x * 20], [b * 20])
    exact = expected(name, x * 20, b * 20, weights)
    close(p.sources[0].gradient, exact, 64 * torch.finfo(dtype).eps, scale=float(weights.abs().max()))
    assert moved(p) < math.inf


def test_written_out_it_shares_the_same_sum():
    """exp over its sum is another way to share, but of the same difference in every row."""
    x, b = pair(3, 4)
    weights = inputs(3, 4, seed=9)
    by_hand = lambda s: ((e := s.exp()) / e.sum(-1, keepdim=True) * weights).sum()  # noqa: E731
    close(shares(by_hand, x, b).sum(-1), shares(lambda s: (s.softmax(-1) * weights).sum(), x, b).sum(-1))
