"""Products of two that depend on the input: each gets its Shapley value, here by its definition over all subsets."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from relevance.secant.books import close, difference_of, pair, shares, weighted
from relevance.twins import inputs

W = inputs(2, 2, 2, seed=4)


def shapley(function, xs: list[torch.Tensor], bs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The Shapley value of every entry: its part of the difference, averaged over all orders of coming in.

    With n entries, one that joins a coalition S counts |S|! (n - |S| - 1)! / n! times.
    """
    sizes = [x.numel() for x in xs]
    x, b, n = torch.cat([t.flatten() for t in xs]), torch.cat([t.flatten() for t in bs]), sum(sizes)

    def value(coalition: frozenset[int]) -> float:
        inside = torch.tensor([i in coalition for i in range(n)])
        parts = torch.where(inside, x, b).split(sizes)
        return float(function(*[part.reshape(t.shape) for part, t in zip(parts, xs, strict=True)]))

    values = {s: value(s) for k in range(n + 1) for s in map(frozenset, itertools.combinations(range(n), k))}
    found = torch.zeros(n, dtype=torch.float64)
    for s, v in values.items():
        for i in set(range(n)) - s:
            share = math.factorial(len(s)) * math.factorial(n - len(s) - 1) / math.factorial(n)
            found[i] += share * (values[s | {i}] - v)
    return [part.reshape(t.shape) for part, t in zip(found.split(sizes), xs, strict=True)]


# name -> the function of u and v, and their shapes
PRODUCTS = {
    "*": (lambda u, v: u * v, (2, 2), (2, 2)),
    "torch.mul": (torch.mul, (4,), (4,)),
    "mul, in place": (lambda u, v: u.clone().mul_(v), (4,), (4,)),
    "mul, broadcast": (lambda u, v: u * v, (3, 2), (2,)),
    "mul, both broadcast": (lambda u, v: u * v, (3, 1), (1, 3)),
    "mul by a scalar": (lambda u, v: u * v, (4,), ()),
    "@": (lambda u, v: u @ v, (2, 2), (2, 2)),
    "mm": (torch.mm, (1, 3), (3, 2)),
    "matmul, broadcast": (torch.matmul, (2, 1, 2), (2, 2)),
    "matmul with a vector": (torch.matmul, (2, 3), (3,)),
    "mv": (torch.mv, (2, 3), (3,)),
    "dot": (lambda u, v: torch.dot(u, v).reshape(1), (4,), (4,)),
    "outer": (torch.outer, (3,), (4,)),
    "inner": (torch.inner, (2, 2), (2, 2)),
    "bmm": (torch.bmm, (2, 1, 2), (2, 2, 1)),
    "baddbmm": (lambda u, v: torch.baddbmm(W[..., :1], u, v, beta=0.5, alpha=3), (2, 2, 1), (2, 1, 1)),
    "baddbmm, both in": (lambda u, v: torch.baddbmm(u, u, v), (1, 2, 2), (1, 2, 2)),
    "addmm": (lambda u, v: torch.addmm(W[0], u, v, alpha=2), (2, 2), (2, 2)),
    "einsum": (lambda u, v: torch.einsum("ij,jk->ki", u, v), (2, 2), (2, 2)),
    "einsum of heads": (lambda u, v: torch.einsum("bhd,bsd->bhs", u, v), (1, 2, 2), (1, 2, 2)),
    "einsum with a constant": (lambda u, v: torch.einsum("i,oij,j->o", u, W, v), (2,), (2,)),
    "tensordot": (lambda u, v: torch.tensordot(u, v, dims=1), (2, 2), (2, 2)),
    "F.bilinear": (lambda u, v: F.bilinear(u, v, W, W[0, 0]), (1, 2), (1, 2)),
    "bilinear, composed": (lambda u, v: (torch.matmul(u, W) * v).sum(-1), (1, 2), (2, 2)),
    "F.linear": (F.linear, (2, 2), (2, 2)),
    "conv1d": (F.conv1d, (1, 1, 4), (2, 1, 2)),
    "solve_triangular": (
        lambda u, v: torch.linalg.solve_triangular(u, v, upper=True, unitriangular=True),
        (2, 2),
        (2, 1),
    ),
    "vdot": (lambda u, v: torch.vdot(u, v).reshape(1), (4,), (4,)),
    "conv_transpose1d": (F.conv_transpose1d, (1, 2, 2), (2, 1, 2)),
    "conv2d with a bias": (lambda u, v: F.conv2d(u, v, W[0, 0, :1]), (1, 1, 2, 2), (1, 1, 1, 2)),
    "glu": (lambda u, v: F.glu(torch.cat([u, (v.exp()).log()]), 0) - u * v.sigmoid() + u * v, (3,), (3,)),
    "vecdot": (torch.linalg.vecdot, (2, 2), (2, 2)),
    "quotient": (lambda u, v: u / (v + 4), (4,), (4,)),
    "torch.div": (lambda u, v: torch.div(u, v + 4), (3, 2), (2,)),
    "quotient of a constant": (lambda u, v: 2 / (v + 4) + u, (4,), (4,)),
    "square": (lambda u, v: u * u + v, (3,), (3,)),
    "gram": (lambda u, v: u @ u.T + v, (2, 2), (2, 2)),
    "a product of sums": (lambda u, v: (u + 2 * v) * (v - 1), (3,), (3,)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_both_factors_get_their_shapley_values(name):
    function, *shapes = PRODUCTS[name]
    (u, a), (v, b) = pair(*shapes[0]), pair(*shapes[1], seed=2)
    f = weighted(function)
    p = difference_of(f, [u, v], [a, b])
    for source, expected in zip(p.sources, shapley(f, [u, v], [a, b]), strict=True):
        close(source.relevance, expected, scale=float((u - a).abs().max() + (v - b).abs().max()))


def test_the_shapley_values_by_hand():
    """u v from 1 * 2 to 3 * 5: u alone adds 4, after v it adds 10."""
    u, v = shapley(lambda s, t: s * t, *[[torch.tensor(n).double() for n in each] for each in ((3, 5), (1, 2))])
    assert (float(u), float(v)) == pytest.approx((7.0, 6.0))


def test_factors_of_very_different_size():
    (u, a), (v, b) = pair(3, 4), pair(3, 4, seed=2)
    p = difference_of(lambda s, t: ((s * 1e-8) * (t * 1e8)).sum(), [u, v], [a, b])
    close(p.sources[0].relevance, (u - a) * (v + b) / 2)
    close(p.sources[1].relevance, (v - b) * (u + a) / 2)


@pytest.mark.parametrize("gap", [1e-12, 1e-6, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_no_digit_is_lost_where_the_values_are_close(gap, dtype):
    """Multipliers of products are means, not quotients: exact however small the difference."""
    (u, _), (v, _) = pair(3, 4, dtype=dtype), pair(3, 4, seed=2, dtype=dtype)
    a, b = u - gap, v + gap
    p = difference_of(lambda s, t: (s * t).sum(), [u, v], [a, b])
    close(p.sources[0].gradient, (v.double() + b.double()) / 2, 2 * torch.finfo(dtype).eps)
    close(p.sources[1].gradient, (u.double() + a.double()) / 2, 2 * torch.finfo(dtype).eps)


def test_powers_of_one_tensor_give_it_everything():
    x, b = pair(3, 4)
    for f, exponent in ((lambda t: t * t, 2), (lambda t: t * t * t, 3), (lambda t: t.square() * t.pow(2), 4)):
        close(shares(lambda t, f=f: f(t).sum(), x, b), x**exponent - b**exponent)


def test_the_order_of_factors_does_not_matter():
    (u, a), (v, b) = pair(3, 4), pair(3, 4, seed=2)
    one = difference_of(weighted(lambda s, t: s * t), [u, v], [a, b])
    two = difference_of(weighted(lambda t, s: s * t), [v, u], [b, a])
    for first, second in zip(one.sources, reversed(two.sources), strict=True):
        close(first.relevance, second.relevance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_products_in_half_precision(dtype):
    (u, a), (v, b) = pair(2, 3, 4, dtype=dtype), pair(2, 4, 3, seed=2, dtype=dtype)
    p = difference_of(weighted(torch.bmm), [u, v], [a, b])
    c = inputs(2, 3, 3, dtype=dtype, seed=77).double()
    close(p.sources[0].gradient, c @ ((v.double() + b.double()) / 2).mT, 4 * torch.finfo(dtype).eps)
    close(p.sources[1].gradient, ((u.double() + a.double()) / 2).mT @ c, 4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_a_triangular_system_is_its_substitution(upper, unit, left):
    """One row after the other, as one would solve it by hand, under the rules of products, sums and quotients."""
    eye = torch.eye(4, dtype=torch.float64)
    (a, a_b), (b, b_b) = pair(2, 4, 4), pair(2, 4, 3, seed=2)
    a, a_b = ((each + 4 * eye).triu() if upper else (each + 4 * eye).tril() for each in (a, a_b))
    b, b_b = (each if left else each.mT for each in (b, b_b))

    def solved(a, b):
        return torch.linalg.solve_triangular(a, b, upper=upper, left=left, unitriangular=unit)

    def by_hand(a, b):
        a, b, low = (a, b, not upper) if left else (a.mT, b.mT, upper)
        rows: dict[int, torch.Tensor] = {}
        for i in range(4) if low else reversed(range(4)):
            rest = b[:, i]
            for j in rows:
                rest = rest - a[:, i, j, None] * rows[j]
            rows[i] = rest if unit else rest * (1 / a[:, i, i, None])
        x = torch.stack([rows[i] for i in range(4)], 1)
        return x if left else x.mT

    both = [difference_of(weighted(f), [a, b], [a_b, b_b]) for f in (solved, by_hand)]
    for n in (0, 1) if unit else ():  # a quotient can be shared out exactly in more than one way
        close(both[0].sources[n].relevance, both[1].sources[n].relevance)


def test_grouped_products_are_one_product_for_each_group():
    """As experts of a mixture compute them; torch has them in single precision at most."""
    u, v = (inputs(*shape, dtype=torch.float32) for shape in ((4, 8), (2, 8, 4)))
    u_b, v_b = (inputs(*shape, dtype=torch.float32, seed=9) for shape in ((4, 8), (2, 8, 4)))
    ends = torch.tensor([1, 4], dtype=torch.int32)
    weights = inputs(4, 4, dtype=torch.float32, seed=5)
    found, expected = (
        difference_of(lambda u, v, f=f: (f(u, v) * weights).sum(), [u, v], [u_b, v_b])
        for f in (lambda u, v: F.grouped_mm(u, v, offs=ends), lambda u, v: torch.cat([u[:1] @ v[0], u[1:] @ v[1]]))
    )
    for n in (0, 1):
        close(found.sources[n].relevance, expected.sources[n].relevance, 1e-5)
