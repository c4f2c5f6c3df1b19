"""The oracles against closed forms and against each other, without the engine: a judge must be judged too."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import oracles
from oracles import AddConstant, Attention, Gated, Head, Linear, Norm, Pointwise, Residual, Rules, Sequence, Undefined

ALL = [
    Rules(rule=rule, attention=attention, leak=leak)
    for rule, attention, leak in itertools.product(("epsilon", "0"), ("cp", "attnlrp"), ("return", "record"))
]
PLAIN = Rules(rule="0", leak="record")


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def linear(d: int, out: int, seed: int, *, bias: bool = True) -> Linear:
    return Linear(draw(out, d, seed=seed), draw(out, seed=seed + 1) if bias else None)


def attention(d: int = 4, *, biases: bool = True, **options) -> Attention:
    parts = (linear(d, d, seed, bias=biases) for seed in (10, 20, 30, 40))
    return Attention(*parts, **({"heads": 2, "kv_heads": 2} | options))


def gradient(f, x: np.ndarray, h: float = 1e-6) -> np.ndarray:
    """Central differences."""
    out = np.zeros_like(x)
    for at in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[at] = h
        out[at] = (f(x + step) - f(x - step)) / (2 * h)
    return out


def test_a_linear_net_is_the_product_of_its_weights():
    first, second = linear(3, 5, 1, bias=False), linear(5, 2, 2, bias=False)
    x, c = draw(4, 3), draw(4, 2, seed=5)
    R = oracles.explain(Sequence(first, second), x, c, PLAIN).relevance
    np.testing.assert_allclose(R, x * (c @ second.W @ first.W), rtol=1e-12)


def test_epsilon_by_hand():
    R = oracles.explain(
        Linear(np.array([[2.0, -3.0]])), np.array([[1.0, 1.0]]), np.array([[1.0]]), Rules(leak="record")
    )
    np.testing.assert_allclose(R.relevance, [[2 / 1.01, -3 / 1.01]])  # z = -1 is pushed to -1.01
    assert R.books.entries["epsilon", False] == pytest.approx(-0.01 / 1.01)


def test_leaks_are_returned_in_shares_of_the_inputs_size():
    R = oracles.explain(
        Linear(np.array([[2.0, -3.0, 5.0]]), np.array([4.0])),
        np.array([[1.0, -3.0, 0.0]]),
        np.array([[1.0]]),
        Rules(rule="0"),
    )
    np.testing.assert_allclose(R.relevance, [[2 + 4 / 4, 9 + 4 * 3 / 4, 0.0]])
    assert R.books.entries["bias", True] == 4


def test_nothing_can_be_returned_to_nothing():
    R = oracles.explain(linear(3, 2, 1), np.zeros((1, 3)), np.ones((1, 2)), Rules(rule="0"))
    assert R.books.entries["bias", False] == pytest.approx(R.value)
    assert R.books.total(returned=True) == 0
    assert not R.relevance.any()


def test_relevance_of_a_relu_net_is_gradient_times_input():
    net = Sequence(linear(3, 6, 1), Pointwise("relu"), linear(6, 5, 2), Pointwise("relu"), linear(5, 1, 3))
    x = draw(2, 3)
    G = gradient(lambda t: float(net.forward(t).sum()), x)
    np.testing.assert_allclose(oracles.explain(net, x, np.ones((2, 1)), PLAIN).relevance, x * G, rtol=1e-6)


def test_the_norms_matrix_is_the_norm():
    x, g, b = draw(3, 5), draw(5, seed=1), draw(5, seed=2)
    y = g * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) + b
    np.testing.assert_allclose(Norm(g, b, eps=1e-5, centred=True).forward(x), y)
    y = g * x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(Norm(g, eps=1e-6, centred=False).forward(x), y)


def test_cp_is_the_gradient_with_frozen_weights():
    layer, x, c = attention(), draw(3, 4), draw(3, 4, seed=9)
    layer.forward(x)
    frozen = [head.A for head in layer.each]

    def f(t):
        v = oracles.split(layer.v.forward(t), 2)
        return float(
            (layer.out.forward(np.concatenate([A @ part for A, part in zip(frozen, v, strict=True)], 1)) * c).sum()
        )

    expected = x * gradient(f, x)
    np.testing.assert_allclose(oracles.explain(layer, x, c, PLAIN).relevance, expected, rtol=1e-6)


def test_attnlrp_is_a_half_to_values_and_a_quarter_of_the_gradient_to_queries_and_keys():
    q, k, v, c = (draw(3, 2, seed=s) for s in range(4))
    head = Head(q, k, v)
    found = head.backward(head.o * c, oracles.Books(Rules(attention="attnlrp", leak="record")))
    at = (q, k, v)
    for n, share in enumerate((1 / 4, 1 / 4, 1 / 2)):
        G = gradient(lambda t, n=n: float((Head(*at[:n], t, *at[n + 1 :]).o * c).sum()), at[n])
        np.testing.assert_allclose(found[n], share * at[n] * G, atol=1e-8)


def test_two_factors_get_their_shapley_values():
    net = Gated(Linear(np.array([[1.0, 0.0]])), Linear(np.array([[0.0, 1.0]])))
    R = oracles.explain(net, np.array([[3.0, -5.0]]), np.array([[1.0]]), PLAIN)
    np.testing.assert_allclose(R.relevance, [[-7.5, -7.5]])  # (f(a, b) - f(0, b) + f(a, 0) - f(0, 0)) / 2


def test_a_net_without_biases_conserves_exactly():
    net = Sequence(
        Residual(attention(biases=False)), Norm(draw(4), eps=1e-5, centred=True), linear(4, 3, 7, bias=False)
    )
    answer = oracles.explain(net, draw(3, 4), draw(3, 3, seed=3), PLAIN)
    assert answer.relevance.sum() == pytest.approx(answer.value, rel=1e-12)


@pytest.mark.parametrize("rules", ALL, ids=str)
def test_the_books_close(rules):
    causal, bias = np.tri(4, dtype=bool), draw(4, 4, seed=8)
    body = Sequence(linear(4, 6, 5), Pointwise("gelu"), linear(6, 4, 6))
    inner = (attention(allowed=causal, bias=bias, kv_heads=1), body)
    inner[0].k, inner[0].v = linear(4, 2, 20), linear(4, 2, 30)
    net = Sequence(
        Residual(inner[0]), Norm(draw(4), draw(4, seed=2), eps=1e-5, centred=True), Residual(inner[1]), AddConstant(0.7)
    )
    answer = oracles.explain(net, draw(4, 4), draw(4, 4, seed=3), rules)
    assert abs(answer.residual) <= 1e-12 * np.abs(answer.relevance).sum()
    returned = rules.leak == "return"
    assert abs(answer.books.total(returned=returned)) > 1e-3
    assert answer.books.total(returned=not returned) == 0
    causes = {"bias", "norm bias", "constant"} | ({"epsilon"} if rules.eps else set())
    causes |= {"softmax"} if rules.attention == "attnlrp" else set()
    assert {cause for (cause, _), amount in answer.books.entries.items() if amount} == causes


def test_masked_keys_get_nothing():
    allowed = np.ones((3, 3), dtype=bool)
    allowed[:, 2] = False
    R = oracles.explain(attention(allowed=allowed), draw(3, 4), np.eye(3, 1) * draw(1, 4), Rules(attention="attnlrp"))
    assert not R.relevance[2].any()
    assert R.relevance[1].all()


def test_what_cannot_be_written_with_divisions_is_refused():
    with pytest.raises(Undefined):
        oracles.explain(Linear(np.array([[1.0, 1.0]])), np.array([[1.0, -1.0]]), np.ones((1, 1)), PLAIN)


@pytest.mark.parametrize("name", sorted(oracles.POINTWISE))
def test_the_slopes_at_zero(name):
    f, slope = oracles.POINTWISE[name]
    assert f(0.0) == 0
    assert f(-1e-7) / -1e-7 == pytest.approx(slope, abs=1e-6)  # from the left, where torch takes its derivative
