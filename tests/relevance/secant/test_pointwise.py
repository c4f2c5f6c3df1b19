"""Pointwise functions: the multiplier is the slope of the line through both points, whatever lies between."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import hypothesis
import mpmath
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from relevance.secant.books import close, difference_of, pair, shares, weighted
from relevance.secant.slow import DIGITS, EXACT
from relevance.strategies import examples

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
TANH_SCALE = mpmath.sqrt(2 / mpmath.pi)


@dataclass(frozen=True)
class Case:
    """A function as torch and as mathematics know it, its domain, and where it has two slopes.

    `jumps`: where torch changes from one formula to another that differs in the last digits.
    `noise`: torch computes it to a rounding of 1 and of x, not of f(x). `pieces`: it is made of pieces, so that a
    quotient of the two values is all there is, with the noise of their rounding where they are close.
    """

    torch: Callable[[torch.Tensor], torch.Tensor]
    exact: Callable[[mpf], mpf]
    above: float = -math.inf
    nowhere: float | None = None
    kinks: tuple[float, ...] = ()
    jumps: tuple[float, ...] = ()
    noise: bool = False
    pieces: bool = False

    @property
    def natural(self) -> float:
        """The scale on which the function bends: 1, or that of x itself where 0 is a pole."""
        return 0.0 if self.above == 0 or self.nowhere == 0 else 1.0


def between(low: float, high: float) -> Callable[[mpf], mpf]:
    return lambda x: min(max(x, mpf(low)), mpf(high))


def softplus(x: mpf) -> mpf:
    return x if x > 20 else mpmath.log1p(mpmath.exp(x))  # as torch does it


def elu(x: mpf, scale: float = 1.0, alpha: float = 1.0) -> mpf:
    return scale * (x if x > 0 else alpha * mpmath.expm1(x))


SELU = (1.0507009873554804934193349852946, 1.6732632423543772848170429916717)
CASES: dict[str, Case] = {
    "gelu": Case(F.gelu, EXACT["gelu"], noise=True),
    "gelu, tanh": Case(
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: x / (1 + mpmath.exp(-2 * TANH_SCALE * (x + mpf("0.044715") * x**3))),
        noise=True,
    ),
    "silu": Case(F.silu, EXACT["silu"]),
    "mish": Case(F.mish, lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))), noise=True),
    "relu": Case(torch.relu, EXACT["relu"], kinks=(0,)),
    "leaky_relu": Case(lambda x: F.leaky_relu(x, 0.25), lambda x: x if x > 0 else x / 4, kinks=(0,)),
    "prelu": Case(
        lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype)), lambda x: x if x > 0 else x / 4, kinks=(0,)
    ),
    "rrelu": Case(lambda x: F.rrelu(x, 0.125, 0.375), lambda x: x if x > 0 else x / 4, kinks=(0,)),
    "elu": Case(F.elu, elu, pieces=True),
    "selu": Case(F.selu, lambda x: elu(x, *SELU), kinks=(0,)),
    "celu": Case(lambda x: F.celu(x, 0.5), lambda x: x if x > 0 else mpmath.expm1(2 * x) / 2, pieces=True),
    "tanh": Case(torch.tanh, mpmath.tanh),
    "sigmoid": Case(torch.sigmoid, EXACT["sigmoid"]),
    "logsigmoid": Case(F.logsigmoid, lambda x: -mpmath.log1p(mpmath.exp(-x))),
    "softplus": Case(F.softplus, softplus, jumps=(20,)),
    "softsign": Case(F.softsign, lambda x: x / (1 + abs(x)), kinks=(0,)),
    "exp": Case(torch.exp, mpmath.exp),
    "exp2": Case(torch.exp2, lambda x: mpf(2) ** x),
    "expm1": Case(torch.expm1, mpmath.expm1),
    "log": Case(torch.log, mpmath.log, above=0),
    "log2": Case(torch.log2, lambda x: mpmath.log(x, 2), above=0),
    "log10": Case(torch.log10, lambda x: mpmath.log(x, 10), above=0),
    "log1p": Case(torch.log1p, mpmath.log1p, above=-1),
    "sqrt": Case(torch.sqrt, mpmath.sqrt, above=0),
    "rsqrt": Case(torch.rsqrt, EXACT["rsqrt"], above=0),
    "reciprocal": Case(torch.reciprocal, EXACT["reciprocal"], nowhere=0),
    "square": Case(torch.square, lambda x: x**2),
    "pow 2": Case(lambda x: x**2, lambda x: x**2),
    "pow 3": Case(lambda x: x.pow(3), lambda x: x**3),
    "pow 0.5": Case(lambda x: torch.pow(x, 0.5), mpmath.sqrt, above=0),
    "pow -0.5": Case(lambda x: x.pow(-0.5), EXACT["rsqrt"], above=0),
    "pow -1": Case(lambda x: x**-1, EXACT["reciprocal"], nowhere=0),
    "one over": Case(lambda x: 1 / x, EXACT["reciprocal"], nowhere=0),
    "two to the": Case(lambda x: 2**x, lambda x: mpf(2) ** x),
    "abs": Case(torch.abs, abs, kinks=(0,)),
    "erf": Case(torch.erf, mpmath.erf),
    "erfc": Case(torch.erfc, mpmath.erfc, noise=True),
    "sin": Case(torch.sin, mpmath.sin),
    "cos": Case(torch.cos, mpmath.cos),
    "tan": Case(lambda x: torch.tan(torch.tanh(x)), lambda x: mpmath.tan(mpmath.tanh(x))),  # away from its poles
    "sinh": Case(torch.sinh, mpmath.sinh),
    "cosh": Case(torch.cosh, mpmath.cosh),
    "asinh": Case(torch.asinh, mpmath.asinh),
    "atan": Case(torch.atan, mpmath.atan),
    # the inverse ones within their domain: of the sine, of the cosine with a sign, ...
    "asin": Case(lambda x: torch.asin(x.tanh() / 2), lambda x: mpmath.asin(mpmath.tanh(x) / 2)),
    "acos": Case(lambda x: torch.acos(x.tanh() / 2), lambda x: mpmath.acos(mpmath.tanh(x) / 2)),
    "atanh": Case(lambda x: torch.atanh(x.tanh() / 2), lambda x: mpmath.atanh(mpmath.tanh(x) / 2)),
    "erfinv": Case(lambda x: torch.erfinv(x.tanh() / 2), lambda x: mpmath.erfinv(mpmath.tanh(x) / 2)),
    "clamp": Case(lambda x: x.clamp(-1, 2), between(-1, 2), kinks=(-1, 2)),
    "clamp_min": Case(lambda x: x.clamp_min(0.5), between(0.5, math.inf), kinks=(0.5,)),
    "clamp_max": Case(lambda x: torch.clamp_max(x, 0.5), between(-math.inf, 0.5), kinks=(0.5,)),
    "relu6": Case(F.relu6, between(0, 6), kinks=(0, 6)),
    "hardtanh": Case(F.hardtanh, between(-1, 1), kinks=(-1, 1)),
    "hardsigmoid": Case(
        F.hardsigmoid, lambda x: between(0, 1)(x / 6 + mpf(1) / 2), kinks=(-3, 3), noise=True, pieces=True
    ),
    "hardswish": Case(F.hardswish, lambda x: x * between(0, 6)(x + 3) / 6, kinks=(-3, 3), noise=True),
    "hardshrink": Case(F.hardshrink, lambda x: x if abs(x) > 0.5 else mpf(0), kinks=(-0.5, 0.5)),
    "softshrink": Case(F.softshrink, lambda x: mpmath.sign(x) * max(abs(x) - mpf(1) / 2, mpf(0)), kinks=(-0.5, 0.5)),
    "tanhshrink": Case(F.tanhshrink, lambda x: x - mpmath.tanh(x), noise=True),
    "threshold": Case(lambda x: F.threshold(x, 0.5, -3.0), lambda x: x if x > 0.5 else mpf(-3), kinks=(0.5,)),
}


@dataclass(frozen=True)
class Judged:
    """One pair of points: the exact slope, and how far rounding may move slope and share."""

    x: float
    b: float
    slope: float
    of_slope: float
    of_share: float


def judged(case: Case, x: float, b: float, dtype: torch.dtype) -> Judged | None:
    """The exact answer, where the function and its slope can be written down in that type; else None."""
    info, h = torch.finfo(dtype), mpf(10) ** -25
    if min(x, b) <= case.above or case.nowhere in (x, b) or (x == b and (x in case.kinks or case.pieces)):
        return None
    if any(min(x, b) <= jump <= max(x, b) for jump in case.jumps):
        return None
    with mpmath.workdps(DIGITS):
        u, v = mpf(x), mpf(b)
        y, z = case.exact(u), case.exact(v)
        points = {u, v} | ({(u + v) / 2} if (u + v) / 2 != case.nowhere else set())
        slopes = [abs(mpmath.diff(case.exact, at, h=h)) for at in points if float(at) not in case.kinks]
        slope = mpmath.diff(case.exact, u, h=h) if u == v else (y - z) / (u - v)
    steepest, far = float(max([abs(slope), *slopes])), max(abs(x), abs(b))
    size = max(float(abs(y)), float(abs(z)), max(far, 1.0) if case.noise else 0.0)
    if max(size, steepest, steepest * far) > info.max / 16:
        return None
    rounding = info.eps * (size + far * steepest) + info.tiny
    near = any(min(x, b) - 1e-4 <= kink <= max(x, b) + 1e-4 for kink in case.kinks)
    # Two thirds of the digits are left where a quotient hands over to a derivative: eps / d against d^2.
    handed = info.eps ** (2 / 3)
    of_slope = 64 * handed * max(steepest, size / max(far, case.natural)) + info.tiny
    if x != b and (near or case.pieces or case.kinks or info.bits == 16):
        of_slope += 8 * rounding / abs(x - b)
    of_slope += abs(x - b) * steepest if near else 0.0
    of_share = 8 * rounding + 64 * handed * float(abs(y - z)) + (8 * info.eps * steepest if near else 0.0)
    return Judged(x, b, float(slope), of_slope, of_share + (1e-6 if info.bits == 16 else 0.0))


def check(name: str, points: list[tuple[float, float]], dtype: torch.dtype) -> int:
    """Each slope is the exact one, and each share the difference that torch itself makes; how many were judged."""
    case = CASES[name]
    rounded = [tuple(torch.tensor(v, dtype=dtype).double().item() for v in both) for both in points]
    rounded = [(x, b) for x, b in rounded if math.isfinite(x) and math.isfinite(b)]
    answers = [j for x, b in rounded if (j := judged(case, x, b, dtype)) is not None]
    if not answers:
        return 0
    x, b = (torch.tensor([getattr(j, at) for j in answers], dtype=dtype) for at in "xb")
    handed, least = 64 * torch.finfo(dtype).eps ** (2 / 3), sum(j.of_share for j in answers)
    p = difference_of(lambda t: case.torch(t).double().sum(), [x], [b], rounding=handed, least=least)
    native = case.torch(x).double() - case.torch(b).double()
    for j, m, R, dy in zip(answers, p.sources[0].gradient, p.sources[0].relevance, native, strict=True):
        assert abs(float(R) - float(dy)) <= j.of_share, f"share {float(R)} of {float(dy)} at {j}"
        assert abs(float(m) - j.slope) <= j.of_slope, f"slope {float(m)} at {j}"
    return len(answers)


@st.composite
def points(draw) -> list[tuple[float, float]]:
    """Two numbers of any size: at any distance, or with nothing in common."""

    def number(low: float, high: float) -> float:
        return draw(st.sampled_from([1.0, -1.0])) * 10 ** draw(st.floats(low, high))

    found = []
    for _ in range(draw(st.integers(1, 6))):
        x = number(-8, 8)
        kind = draw(st.sampled_from(["near", "relative", "apart"]))
        b = number(-8, 8) if kind == "apart" else x - number(-12, 3) * (abs(x) if kind == "relative" else 1)
        found.append((x, b))
    return found


@pytest.mark.parametrize("name", CASES)
@given(points=points(), dtype=st.sampled_from(DTYPES))
@hypothesis.settings(examples, max_examples=20)
def test_the_slope_is_the_exact_secant(name, points, dtype):
    check(name, points, dtype)


SIZES = [1e-8, 1e-4, 0.1, 0.5, 1.0, 2.0, 3.0, 6.0, 20.0, 1e3, 1e8]
STEPS = [0.0, 1e-12, 1e-9, 1e-7, 1e-5, 1e-3, 0.1, 1.0, 10.0, 1e3]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_slope_at_every_size_and_distance(name, dtype):
    """A table that leaves nothing to chance: each size with each step up and down, and across 0."""
    grid = [(s * x, s * x - t * d) for x in SIZES for d in STEPS for s in (1, -1) for t in (1, -1)]
    assert check(name, grid[:: 1 if dtype == torch.float32 else 3], dtype) > 20


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_where_both_values_are_one_the_slope_is_the_derivative(name, dtype):
    """By torch's own derivative, to all digits: no difference is taken."""
    x = torch.tensor([0.3, 0.7, 1.7, 3.3], dtype=dtype).requires_grad_()
    (expected,) = torch.autograd.grad(CASES[name].torch(x).sum(), x)
    x = x.detach()
    p = difference_of(lambda t: CASES[name].torch(t).sum(), [x], [x.clone()])
    close(p.sources[0].gradient, expected, 4 * torch.finfo(dtype).eps)
    assert not p.sources[0].relevance.any()


def test_the_exact_functions_are_torchs():
    """The two spellings of each case agree, or a case would judge another function."""
    x = torch.tensor([1e-3, 0.2, 0.45, 0.6, 1.5, 2.5, 4.0, 5.5, 19.0, 21.0], dtype=torch.float64)
    for name, case in CASES.items():
        given = x if case.above == 0 or case.nowhere == 0 else torch.cat([x, -x if case.above < -1 else -x[:4]])
        exact = [float(case.exact(mpf(float(v)))) for v in given]
        expected = torch.tensor(exact, dtype=torch.float64)
        assert torch.allclose(case.torch(given), expected, rtol=1e-12, atol=1e-14), name


SPELLINGS = {
    "method": lambda x: x.tanh(),
    "function": torch.tanh,
    "in place": lambda x: x.clone().tanh_(),
    "module": torch.nn.Tanh(),
    "out": lambda x: torch.tanh(input=x),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_same_function(spelling):
    x, b = pair(3, 4)
    close(shares(lambda t: SPELLINGS[spelling](t).sum(), x, b), x.tanh() - b.tanh(), 1e-14)


STEPS_AND_SAWS = {
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "trunc": torch.trunc,
    "frac": torch.frac,
}


@pytest.mark.parametrize("name", STEPS_AND_SAWS)
def test_a_step_is_shared_out_though_it_has_no_slope(name):
    """What a gradient cannot see, a secant does."""
    x, b = pair(5, 4)
    x, b = x * 2, b * 2
    R = shares(lambda t: STEPS_AND_SAWS[name](t).sum(), x, b)
    close(R, STEPS_AND_SAWS[name](x) - STEPS_AND_SAWS[name](b))
    assert bool(R.any())


WRITTEN_OUT = {
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "gelu, tanh": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))),
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "square": lambda x: x * x,
    "cube": lambda x: x * x * x,
    "mish": lambda x: x * torch.tanh(F.softplus(x)),
    "ratio": lambda x: x / (1 + x * x),
}


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_a_function_written_out_shares_the_same_difference(name):
    """Whatever it is composed of: each entry of the result depends on one entry, which must get all."""
    x, b = pair(3, 4)
    f = weighted(WRITTEN_OUT[name])
    R = shares(f, x, b)
    each = [f(torch.where(mask.reshape(3, 4), x, b)) - f(b) for mask in torch.eye(12, dtype=torch.bool)]
    close(R, torch.stack(each).reshape(3, 4), 1e-12)
