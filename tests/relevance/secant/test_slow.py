"""The slow rules against closed forms, without the engine: a judge must be judged too."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from relevance.secant import slow


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def both(*shape: int, seed: int = 0) -> slow.Pair:
    return slow.leaf(draw(*shape, seed=seed), draw(*shape, seed=seed + 100))


def block(x: slow.Pair) -> slow.Pair:
    """Attention and a gated layer, with norms, on [T, 4]."""
    h = slow.norm(x, draw(4, seed=1), draw(4, seed=2), eps=1e-5, centred=True)
    q, k, v = (slow.linear(h, draw(4, 4, seed=s), draw(4, seed=s + 1)) for s in (3, 5, 7))
    hidden = np.where(np.tri(len(x.x), dtype=bool), 0.0, -math.inf)
    x = slow.add(x, slow.attention(q, k, v, mask=hidden))
    h = slow.norm(x, draw(4, seed=9), eps=1e-6, centred=False)
    gate, up = slow.linear(h, draw(5, 4, seed=11)), slow.linear(h, draw(5, 4, seed=12))
    return slow.add(x, slow.linear(slow.times(slow.pointwise(gate, "silu"), up), draw(4, 5, seed=13)))


RESULTS = {
    "block": block,
    "softmax": slow.softmax,
    "log_softmax": slow.log_softmax,
    "logsumexp": slow.logsumexp,
    "gelu": lambda x: slow.pointwise(x, "gelu"),
    "square": lambda x: slow.times(x, x),
    "broadcast": lambda x: slow.times(x, slow.mean(x)),
    "part": lambda x: slow.part(x, (slice(None), [0, 0, 2])),
    "affine": lambda x: slow.affine(x, lambda t: t.cumsum(0)[::-1] * 3 + 1),
}


@pytest.mark.parametrize("name", RESULTS)
def test_shares_sum_to_the_difference(name):
    x = both(3, 4)
    y = RESULTS[name](x)
    c = draw(*y.x.shape, seed=50)
    (m,) = slow.multipliers(y, c, x)
    assert float(((x.x - x.b) * m).sum()) == pytest.approx(float(((y.x - y.b) * c).sum()), rel=1e-12)


@pytest.mark.parametrize("name", RESULTS)
def test_of_two_equal_values_the_secant_is_the_gradient(name):
    """Central differences of the values alone."""
    at = draw(3, 4)
    x = slow.leaf(at, at)
    y = RESULTS[name](x)
    c = draw(*y.x.shape, seed=50)

    def f(t):
        return float((RESULTS[name](slow.leaf(t, t)).x * c).sum())

    steps = 1e-6 * np.eye(at.size).reshape(-1, *at.shape)
    gradient = np.array([f(at + h) - f(at - h) for h in steps]).reshape(at.shape) / 2e-6
    np.testing.assert_allclose(slow.multipliers(y, c, x)[0], gradient, atol=1e-7)


def test_the_logarithmic_mean_lies_between_the_geometric_and_the_arithmetic():
    for a, b in draw(20, 2, seed=3) ** 2:
        M = slow.log_mean(mpmath.mpf(a), mpmath.mpf(b))
        assert math.sqrt(a * b) < M < (a + b) / 2
    assert slow.log_mean(mpmath.mpf(0), mpmath.mpf(1)) == 0
    assert slow.log_mean(mpmath.mpf(2), mpmath.mpf(2)) == 2


def test_a_softmax_of_two_by_hand():
    """Scores change places: Z stays, and every logarithmic mean is J = (e - 1) / (e + 1)."""
    x = slow.leaf([[1.0, 0.0]], [[0.0, 1.0]])
    m = slow.multipliers(slow.softmax(x), np.array([[1.0, 0.0]]), x)[0]
    J = (math.e - 1) / (math.e + 1)
    np.testing.assert_allclose(m, [[J - J * J, -J * J]], rtol=1e-12)


def test_a_planted_fault_of_a_thousandth_is_seen():
    x = both(3, 4)
    y = block(x)
    y.parents = tuple((parent, lambda m, back=back: back(m) * 1.001) for parent, back in y.parents)
    m = slow.multipliers(y, np.ones((3, 4)), x)[0]
    assert abs(float(((x.x - x.b) * m).sum()) - float((y.x - y.b).sum())) > 1e-4
