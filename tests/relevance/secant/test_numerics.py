"""The logarithmic mean, where rounding could ruin it."""

from __future__ import annotations

import math

import hypothesis
import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearhead.relevance.secant.numerics import log_mean
from relevance.strategies import examples


def found(a: float, b: float, d: float, dtype: torch.dtype = torch.float64) -> float:
    tensors = [torch.tensor([v], dtype=dtype) for v in (a, b, d)]
    return float(log_mean(*tensors))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@given(top=st.floats(-80, 80), exponent=st.floats(-18, 2), sign=st.sampled_from([1, -1]))
@hypothesis.settings(examples, max_examples=200)
def test_the_logarithmic_mean(dtype, top, exponent, sign):
    """At every distance: values that agree to the last digit, and values of which one is nothing beside the other."""
    d = torch.tensor(sign * 10**exponent, dtype=dtype).double().item()
    with mpmath.workdps(40):
        log_a = mpmath.mpf(top / 2)
        a, b = mpmath.exp(log_a), mpmath.exp(log_a - d)
        exact = float((a - b) / d)
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    if exact < torch.finfo(dtype).max / 4 and max(a, b) < torch.finfo(dtype).max / 4:
        assert abs(found(float(a), float(b), d, dtype) - exact) <= 8 * eps * (1 + abs(d)) * exact + tiny


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_nothing_has_a_mean_of_nothing(dtype):
    inf = math.inf
    for a, b, d in ((0, 0, 0), (0, 0, math.nan), (0, 0, 3.0), (1, 0, inf), (0, 1, -inf), (0, 0, inf)):
        assert found(a, b, d, dtype) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_of_equal_values_it_is_their_value(dtype):
    for a in (1e-30, 0.25, 1.0, 1e30):
        assert found(a, a, 0.0, dtype) == torch.tensor(a, dtype=dtype).item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_value_too_small_to_write_down_counts_by_its_logarithm(dtype):
    """a = 1, b = exp(-2000), which is 0 in every type: the mean is still 1 / 2000."""
    assert found(1.0, 0.0, 2000.0, dtype) == pytest.approx(1 / 2000, rel=1e-6)
    assert found(0.0, 1.0, -2000.0, dtype) == pytest.approx(1 / 2000, rel=1e-6)


@given(a=st.floats(1e-30, 1), b=st.floats(1e-30, 1))
@examples
def test_it_is_symmetric_and_lies_between(a, b):
    d = math.log(a) - math.log(b)
    M = found(a, b, d)
    assert abs(M - found(b, a, -d)) <= 1e-12 * M
    assert math.sqrt(a) * math.sqrt(b) * (1 - 1e-9) <= M <= (a + b) / 2 * (1 + 1e-9)


def test_shapes_are_broadcast():
    a, b = torch.rand(3, 1, dtype=torch.float64) + 0.1, torch.rand(4, dtype=torch.float64) + 0.1
    M = log_mean(a.expand(3, 4), b.expand(3, 4), a.log() - b.log())
    assert M.shape == (3, 4)
    assert bool((M > 0).all())
