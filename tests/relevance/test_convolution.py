"""Convolutions against the linear rule on their explicit matrix: one row per output, one column per input."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearhead.config import Settings
from clearhead.relevance import propagate
from relevance.twins import booked, residual

CASES = {
    "1d": (partial(F.conv1d), (1, 2, 7), (3, 2, 3)),
    "1d strided": (partial(F.conv1d, stride=2, padding=1), (1, 2, 7), (3, 2, 3)),
    "1d same": (partial(F.conv1d, padding="same"), (1, 2, 6), (3, 2, 3)),
    "2d patches": (partial(F.conv2d, stride=2), (1, 3, 4, 6), (5, 3, 2, 2)),
    "2d padded, dilated": (partial(F.conv2d, padding=2, dilation=2), (1, 2, 5, 4), (2, 2, 3, 3)),
    "2d grouped": (partial(F.conv2d, groups=2), (1, 4, 4, 4), (6, 2, 3, 3)),
    "2d of a batch": (partial(F.conv2d), (2, 2, 4, 4), (3, 2, 2, 2)),
    "2d without batch": (partial(F.conv2d), (2, 4, 4), (3, 2, 2, 2)),
    "3d": (partial(F.conv3d), (1, 2, 3, 3, 3), (2, 2, 2, 2, 2)),
    "1d transposed": (partial(F.conv_transpose1d, stride=2), (1, 2, 4), (2, 3, 3)),
    "2d transposed, grouped": (partial(F.conv_transpose2d, groups=2), (1, 4, 3, 3), (4, 2, 2, 2)),
}
SETTINGS = [
    Settings(rule=rule, epsilon=epsilon, leak=leak)
    for rule, epsilon in (("epsilon", 0.3), ("0", 0.0))
    for leak in ("return", "record")
]


def matrix(convolve, shape, weight):
    """The convolution as a matrix, column by column, from unit inputs."""
    columns = []
    for i in range(int(np.prod(shape))):
        unit = torch.zeros(shape, dtype=torch.float64)
        unit.view(-1)[i] = 1
        columns.append(convolve(unit, weight, None).flatten())
    return torch.stack(columns, 1).numpy()


def slowly(W, window, a, b, G, settings):
    """R of the inputs by the explicit epsilon rule, with what each output leaks handed back inside its window."""
    epsilon = settings.epsilon if settings.rule == "epsilon" else 0.0
    z = W @ a + b
    R, leaked = np.zeros_like(a), 0.0
    for j, zj in enumerate(z):
        stable = zj + epsilon * (1 if zj >= 0 else -1)
        R_out = G[j] * zj
        got = W[j] * a * R_out / stable
        lost = R_out - got.sum()
        leaked += lost
        if settings.leak == "return":
            got = got + lost * window[j] * np.abs(a) / (window[j] * np.abs(a)).sum()
        R += got
    return R, leaked


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.rule}-{s.leak}")
@pytest.mark.parametrize("case", CASES)
def test_the_rule_equals_its_matrix(case, settings):
    convolve, shape, kernel = CASES[case]
    generator = torch.Generator().manual_seed(3)
    x, weight = (torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, kernel))
    channels = convolve(x, weight, None).shape[1 if x.dim() == weight.dim() else 0]
    bias = torch.randn(channels, generator=generator, dtype=torch.float64)
    out = convolve(x, weight, bias)
    G = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    p = propagate(lambda t: (convolve(t, weight, bias) * G).sum(), [x], settings)
    W, window = matrix(convolve, shape, weight), matrix(convolve, shape, torch.ones_like(weight))
    b = (out - convolve(x, weight, None)).flatten().numpy()
    R, leaked = slowly(W, window, x.flatten().numpy(), b, G.flatten().numpy(), settings)
    np.testing.assert_allclose(p.sources[0].relevance.flatten(), R, rtol=1e-9, atol=1e-11)
    returned = settings.leak == "return"
    assert sum(booked(p).get((cause, returned), 0.0) for cause in ("bias", "epsilon")) == pytest.approx(
        leaked, rel=1e-9
    )
    assert residual(p) <= 1e-12


def test_a_window_of_zeros_is_booked_as_lost():
    x = torch.zeros(1, 1, 4, dtype=torch.float64)
    weight, bias = torch.ones(1, 1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    p = propagate(lambda t: F.conv1d(t, weight, bias, stride=2).sum(), [x], Settings())
    assert p.value == 2
    assert sum(e.relevance for e in p.ledger if not e.returned) == pytest.approx(2)


def test_modules_and_their_path():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(8, 2)).double()
    p = propagate(lambda t: net(t)[0, 0], [torch.randn(1, 1, 6, 6).double()], Settings(leak="record"), model=net)
    assert {entry.module for entry in p.ledger if entry.operation == "conv2d"} == {"0", "2"}
    assert residual(p) <= 1e-12
