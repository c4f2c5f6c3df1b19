"""The books close over constants that reach the output by other ways than a sum, and over rare operations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearhead.config import Settings
from clearhead.relevance import propagate
from relevance.twins import (
    EXTREMES,
    booked,
    inputs,
    named,
    residual,
)


def _assigned(x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Into a buffer that was a constant until then."""
    y = torch.ones(6, 4, dtype=x.dtype)
    y[1:4] = x
    return y * 2


def sampled(x, where):
    return F.grid_sample(x[None, None], where.reshape(1, 2, 3, 2), align_corners=False)


MIXED = {
    "cat": lambda x, c: torch.cat((c, x)),
    "stack": lambda x, c: torch.stack((x, c)),
    "hstack": lambda x, c: torch.hstack((c, x)),
    "where": lambda x, c: torch.where(c > 0, x, c),
    "where number": lambda x, c: torch.where(c > 0, x, 2.0),
    "x.where": lambda x, c: x.where(c > 0, c),
    "masked_fill": lambda x, c: x.masked_fill(c > 0, 2.0),
    "pad": lambda x, c: F.pad(x, (1, 1), value=3.0),
    "maximum": torch.maximum,
    "minimum": lambda x, c: torch.minimum(c, x),
    "clamp": lambda x, c: x.clamp(-0.4, 0.6),
    "clamp tensor": lambda x, c: torch.clamp(x, min=c),
    "lerp": lambda x, c: torch.lerp(x, c, 0.3),
    "addcmul": lambda x, c: torch.addcmul(c, x, c, value=0.5),
    "addcdiv": lambda x, c: torch.addcdiv(c, x, c),
    "index_fill": lambda x, c: x.index_fill(0, torch.tensor([1]), 2.0),
    "masked_scatter": lambda x, c: x.masked_scatter(c > 0, c),
    "scatter": lambda x, c: x.scatter(0, torch.zeros(1, 4, dtype=torch.long), c),
    "index_copy": lambda x, c: x.index_copy(0, torch.tensor([1]), c[:1]),
    "scatter_add": lambda x, c: c.scatter_add(0, torch.zeros(3, 4, dtype=torch.long), x),
    "index_add": lambda x, c: x.index_add(0, torch.tensor([1]), c[:1]),
    "index_put": lambda x, c: x.new_ones(3, 4).index_put((torch.tensor([0]),), x[1]),
    "addmm": lambda x, c: torch.addmm(c, x, c.T @ c),
    "baddbmm": lambda x, c: torch.baddbmm(c[None], x[None], (c.T @ c)[None]),
    "sum of a list": lambda x, c: sum([x, c, x]),
    "einsum": lambda x, c: torch.einsum("ij,ij->i", x, c),
    "polynomial": lambda x, c: x**3 + 2 * x**2 - x + 1,
    "buffer": lambda x, c: torch.zeros(3, 4).double().add_(x).add_(c),
    "out": lambda x, c: c.clone().copy_(x) + c,
    "assigned": _assigned,
    "outer": lambda x, c: torch.outer(x[0], c[0]),
    "log_softmax": lambda x, c: x.log_softmax(-1),
    "logsumexp": lambda x, c: x[:, 0] - x.logsumexp(-1),
    "log": lambda x, c: x + (x.abs() + 1).log(),
    "expm1": lambda x, c: x + torch.expm1(x),
    "pow": lambda x, c: x.abs() ** 1.7,
    "prod": lambda x, c: x.prod(-1),
    "cumprod": lambda x, c: x.cumprod(-1),
    "var": lambda x, c: x.var(-1) + x[:, 0],
    "cross_entropy": lambda x, c: F.cross_entropy(x, torch.tensor([0, 1, 2])),
    "glu": lambda x, c: F.glu(x),
    "round": lambda x, c: x.round() + x,
    "group_norm": lambda x, c: F.group_norm(x, 2, c[0], c[1]),
    "instance_norm": lambda x, c: F.instance_norm(x[None], weight=c[0, :3], bias=c[1, :3]),
    "batch_norm": lambda x, c: F.batch_norm(x, c[0], c[1].abs(), c[2], c[0]),
    "batch_norm, own statistics": lambda x, c: F.batch_norm(x, None, None, c[2], c[0], training=True),
    "solve_triangular": lambda x, c: (
        torch.linalg.solve_triangular((x[:, :3] + 2 * torch.eye(3)).tril(), c, upper=False) * x
    ),
    "solved for": lambda x, c: torch.linalg.solve_triangular((c[:, :3] + 2 * torch.eye(3)).tril(), x, upper=False),
    "max of two": torch.max,
    "min with a number": lambda x, c: torch.min(x, torch.tensor(0.1).double()),
    "grid_sample": sampled,
    "grid_sample where it says": lambda x, c: sampled(c, x) * x.sum(),
    "fourier": lambda x, c: torch.fft.fft2(x).real + torch.fft.irfft(torch.fft.rfft(x) * c[:, :3], n=4),
    "polar": lambda x, c: torch.view_as_real(torch.polar(x, c)),
    "acos": lambda x, c: torch.acos(x.tanh()) * x,
    "complex": lambda x, c: torch.view_as_real(torch.view_as_complex(x.reshape(3, 2, 2)) * torch.polar(c, c)[:, :2]),
    "conv1d": lambda x, c: F.conv1d(x[None], c.reshape(2, 3, 2), torch.ones(2).double()),
    "bilinear": lambda x, c: F.bilinear(x, x * 2, c[:2, None] * torch.ones(2, 4, 4).double(), torch.ones(2).double()),
    "cdist": lambda x, c: torch.cdist(x, c) * x[:, :3],
    "cosine": F.cosine_similarity,
    "cosine of two": lambda x, c: F.cosine_similarity(x, x.flip(0)),
    "rsqrt": lambda x, c: x.abs().rsqrt() + x,
}


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("name", MIXED)
def test_the_books_close_over(name, settings):
    """Between two linear layers, so that what is lost on the way is not hidden by the ends."""
    x, W, c = inputs(3, 4), inputs(4, 4, seed=2), inputs(3, 4, seed=3)

    def f(t):
        y = MIXED[name](F.linear(t, W), c)
        return (y * torch.arange(1.0, y.numel() + 1).double().reshape(y.shape)).sum()

    p = propagate(f, [x], settings)
    assert p.value == pytest.approx(float(f(x)), rel=1e-12)
    assert all(math.isfinite(entry.relevance) for entry in p.ledger)
    assert residual(p) <= 1e-12


@pytest.mark.parametrize("leak", ["return", "record"])
def test_a_learned_vector_put_before_the_sequence_is_booked_as_constant(leak):
    x, cls = inputs(3, 4), inputs(1, 4, seed=3)
    p = propagate(lambda t: (torch.cat((cls, t)) * 2).sum(), [x], Settings(leak=leak))
    np.testing.assert_allclose(p.sources[0].relevance, 2 * x, rtol=1e-12)
    assert booked(p)["constant", False] == pytest.approx(float(2 * cls.sum()), rel=1e-12)
