"""Norms, fused and written out: centring, square, mean, rsqrt, product."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from relevance.secant import slow
from relevance.secant.books import close, difference_of, pair, seeded_net, shares, weighted
from relevance.twins import array, inputs

D = 5
GAIN, BIAS = inputs(D, seed=3), inputs(D, seed=4)


def layer_norm(x, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    return c * torch.rsqrt(c.pow(2).mean(-1, keepdim=True) + eps) * GAIN.to(x) + BIAS.to(x)


def rms_norm(x, eps=1e-5):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * GAIN.to(x)


NORMS = {
    "layer_norm": (lambda x, eps=1e-5: F.layer_norm(x, (D,), GAIN.to(x), BIAS.to(x), eps), layer_norm, True),
    "rms_norm": (lambda x, eps=1e-5: F.rms_norm(x, (D,), GAIN.to(x), eps), rms_norm, False),
}
EVERY = pytest.mark.parametrize("name", NORMS)


def expected(name: str, x: torch.Tensor, b: torch.Tensor, weights: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """The relevance by the slow rules."""
    leaf = slow.leaf(array(x), array(b))
    gain, bias = (array(GAIN.to(x)), array(BIAS.to(x)))
    y = slow.norm(leaf, gain, bias if name == "layer_norm" else 0.0, eps=eps, centred=NORMS[name][2])
    return torch.from_numpy(slow.multipliers(y, array(weights), leaf)[0]) * (x.double() - b.double())


@EVERY
@pytest.mark.parametrize("spelling", ["fused", "written out"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_rules_composed(name, spelling, dtype):
    x, b = pair(2, 3, D, dtype=dtype)
    f = NORMS[name][0 if spelling == "fused" else 1]
    R = shares(weighted(f), x, b)
    close(R, expected(name, x, b, inputs(2, 3, D, dtype=dtype, seed=77)), 1e-11 if dtype == torch.float64 else 1e-4)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_rows_of_very_different_size(name, dtype):
    """Each row from 1e-6 to 1e6 against each: where the size changes by 1e12 the scale does too."""
    sizes = torch.tensor([1e-6, 1e-3, 1.0, 1e3, 1e6], dtype=dtype)
    (x, b), many = pair(5, 5, D, dtype=dtype), len(sizes)
    x, b = x * sizes[:, None, None], b * sizes[None, :, None]
    fused, written, _ = NORMS[name]
    weights = inputs(5, 5, D, dtype=dtype, seed=77)
    exact = expected(name, x, b, weights, eps=1e-12 if dtype == torch.float64 else 1e-5)
    for f in (fused, written):
        eps = 1e-12 if dtype == torch.float64 else 1e-5
        R = shares(lambda t, f=f, eps=eps: (f(t, eps) * weights).sum(), x, b)
        for i in range(many):
            for j in range(many):
                size = float(exact[i, j].abs().max())
                close(R[i, j], exact[i, j], 1e-9 if dtype == torch.float64 else 1e-3, scale=max(size, 1e-6))


@EVERY
def test_constant_rows(name):
    """A row whose variance is 0, in one run, in the other, in both: the epsilon is all there is."""
    x, b = pair(4, D)
    x[0], b[1], x[2], b[2], x[3], b[3] = 3.0, -2.0, 1.5, 1.5, 0.0, 0.0
    b[3, 1] = 1e-9
    for f in NORMS[name][:2]:
        close(shares(weighted(f), x, b), expected(name, x, b, inputs(4, D, seed=77)), 1e-9)


@EVERY
def test_every_digit_of_a_small_difference(name):
    """Rows that agree but for the seventh digit: the secant is the gradient to that accuracy, and the books close."""
    x = inputs(3, D)
    b = x - 1e-7 * inputs(3, D, seed=9)
    f = weighted(NORMS[name][0])
    (gradient,) = torch.autograd.grad(f(leaf := x.clone().requires_grad_()), leaf)
    p = difference_of(f, [x], [b])
    close(p.sources[0].gradient, gradient, 1e-6)
    same = difference_of(f, [x], [x.clone()])
    close(same.sources[0].gradient, gradient, 1e-12)


@pytest.mark.parametrize("affine", [True, False])
def test_several_axes_at_once(affine):
    x, b = pair(3, 2, 4)
    gain, bias = (inputs(2, 4, seed=3), inputs(2, 4, seed=4)) if affine else (None, None)
    R = shares(weighted(lambda t: F.layer_norm(t, (2, 4), gain, bias)), x, b)
    leaf = slow.leaf(array(x).reshape(3, 8), array(b).reshape(3, 8))
    g = array(gain).ravel() if affine else 1.0
    m = slow.multipliers(
        slow.norm(leaf, g, eps=1e-5, centred=True), array(inputs(3, 2, 4, seed=77)).reshape(3, 8), leaf
    )
    close(R, torch.from_numpy(m[0]).reshape(3, 2, 4) * (x - b))


def test_rms_norm_over_several_axes():
    x, b = pair(3, 2, 4)
    gain = inputs(2, 4, seed=3)
    R = shares(weighted(lambda t: F.rms_norm(t, (2, 4), gain, 1e-5)), x, b)
    leaf = slow.leaf(array(x).reshape(3, 8), array(b).reshape(3, 8))
    y = slow.norm(leaf, array(gain).ravel(), eps=1e-5, centred=False)
    m = slow.multipliers(y, array(inputs(3, 2, 4, seed=77)).reshape(3, 8), leaf)[0]
    close(R, torch.from_numpy(m).reshape(3, 2, 4) * (x - b))


def test_rms_norm_with_the_epsilon_of_its_type():
    x, b = pair(3, D)
    R = shares(weighted(lambda t: F.rms_norm(t, (D,))), x, b)
    leaf = slow.leaf(array(x), array(b))
    y = slow.norm(leaf, eps=torch.finfo(torch.float64).eps, centred=False)
    m = slow.multipliers(y, array(inputs(3, D, seed=77)), leaf)[0]
    close(R, torch.from_numpy(m) * (x - b))


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 3), (2, 4, 3, 2)])
def test_group_norm(shape):
    """Each group of channels is a row of its own; gain and bias are by channel."""
    x, b = pair(*shape)
    gain, bias = inputs(4, seed=3), inputs(4, seed=4)
    R = shares(weighted(lambda t: F.group_norm(t, 2, gain, bias)), x, b)
    rows = (2, 2, int(np.prod(shape)) // 4)
    leaf = slow.leaf(array(x).reshape(rows), array(b).reshape(rows))
    full = array(gain.reshape(1, 4, *[1] * (len(shape) - 2)).expand(shape)).reshape(rows)
    y = slow.norm(leaf, full, eps=1e-5, centred=True)
    m = slow.multipliers(y, array(inputs(*shape, seed=77)).reshape(rows), leaf)[0]
    close(R, torch.from_numpy(m).reshape(shape) * (x - b))


OTHERS = {
    "normalize": (lambda x: F.normalize(x, dim=-1), lambda x: x / (x * x).sum(-1, keepdim=True).sqrt()),
    "cosine_similarity": (
        lambda x: F.cosine_similarity(x[0], x[1], dim=-1),
        lambda x: (F.normalize(x[0], dim=-1) * F.normalize(x[1], dim=-1)).sum(-1),
    ),
    "norm": (lambda x: x.norm(dim=-1), lambda x: x.square().sum(-1).sqrt()),
    "vector_norm": (lambda x: torch.linalg.vector_norm(x, dim=(1, 2)), lambda x: x.square().sum((1, 2)).sqrt()),
    "var": (lambda x: x.var(-1), lambda x: (x - x.mean(-1, keepdim=True)).square().sum(-1) / (D - 1)),
    "var, biased": (
        lambda x: torch.var(x, dim=-1, unbiased=False),
        lambda x: (x - x.mean(-1, keepdim=True)).square().mean(-1),
    ),
    "std": (
        lambda x: x.std(-1, keepdim=True),
        lambda x: ((x - x.mean(-1, keepdim=True)).square().sum(-1, keepdim=True) / (D - 1)).sqrt(),
    ),
    "var_mean": (
        lambda x: torch.var_mean(x, dim=-1)[0] * torch.var_mean(x, -1)[1],
        lambda x: (x - x.mean(-1, keepdim=True)).square().sum(-1) / (D - 1) * x.mean(-1),
    ),
    "std_mean": (
        lambda x: torch.cat(torch.std_mean(x, dim=-1), -1),
        lambda x: torch.cat([((x - x.mean(-1, keepdim=True)).square().sum(-1) / (D - 1)).sqrt(), x.mean(-1)], -1),
    ),
    "standardised by hand": (
        lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6),
        lambda x: (
            (c := x - x.mean(-1, keepdim=True))
            * ((c.square().sum(-1, keepdim=True) / (D - 1)).sqrt() + 1e-6).reciprocal()
        ),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_scales_of_other_kinds_are_their_parts(name):
    x, b = pair(2, 3, D)
    one, two = (shares(weighted(f), x, b) for f in OTHERS[name])
    close(one, two, 1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@EVERY
def test_half_precision(name, dtype):
    x, b = pair(3, D, dtype=dtype)
    R = shares(weighted(NORMS[name][0]), x, b)
    close(R, expected(name, x, b, inputs(3, D, dtype=dtype, seed=77)), 32 * torch.finfo(dtype).eps)


def test_half_precision_as_models_write_it():
    """Scores in half, the norm in single, and back: squares of 300 do not fit into half precision."""

    def norm(x):
        wide = x.to(torch.float32)
        return GAIN.to(x.dtype) * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype)

    x, b = pair(3, D, dtype=torch.float16)
    x, b = x * 300, b * 300
    R = shares(weighted(norm), x, b)
    close(R, expected("rms_norm", x, b, inputs(3, D, dtype=torch.float16, seed=77)), 2e-2)


def test_a_net_of_norms():
    net = seeded_net(lambda: nn.Sequential(nn.LayerNorm(D), nn.Linear(D, 4), nn.GroupNorm(2, 4), nn.RMSNorm(4)))
    x, b = pair(3, D)
    p = difference_of(weighted(net), [x], [b], model=net)
    assert bool(p.sources[0].relevance.all())


@pytest.mark.parametrize("spelling", ["functional", "native"])
def test_instance_norm_is_a_group_norm_of_single_channels(spelling):
    x, b = pair(2, 3, 5)
    gain, bias = inputs(3, seed=3), inputs(3, seed=4)
    calls = {
        "functional": lambda t: F.instance_norm(t, weight=gain, bias=bias),
        "native": lambda t: torch.instance_norm(t, gain, bias, None, None, True, 0.1, 1e-5, False),
    }
    expected = shares(weighted(lambda t: F.group_norm(t, 3, gain, bias)), x, b)
    close(shares(weighted(calls[spelling]), x, b), expected)


def test_batch_norm_with_statistics_of_its_own_is_a_norm_over_items_and_places():
    """The items of a batch are one row of it, so it is a layer norm of each channel, turned round."""
    x, b = pair(4, 3, 5)
    expected = shares(
        weighted(lambda t: F.layer_norm(t.movedim(1, 0).flatten(1), (20,)).reshape(3, 4, 5).movedim(0, 1)), x, b
    )
    close(shares(weighted(lambda t: F.batch_norm(t, None, None, training=True)), x, b), expected)
