"""What every secant must be, whatever the function: checked here, each time a test asks for a difference."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from clearhead.config import Settings
from clearhead.relevance.secant import difference
from relevance.twins import inputs, seeded

SECANT = Settings(method="secant")
ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 3e-2, torch.bfloat16: 2e-1}


def pair(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> tuple[Tensor, Tensor]:
    """An input and a baseline that have nothing to do with each other."""
    return inputs(*shape, dtype=dtype, seed=seed), inputs(*shape, dtype=dtype, seed=seed + 5000)


def moved(p) -> float:
    """The size of all that the books speak of."""
    sums = [float(source.relevance.abs().sum()) for source in p.sources] + [abs(e.relevance) for e in p.ledger]
    return max(sum(sums), abs(p.value), abs(p.base), 1e-300)


def gap(p) -> float:
    """What base, relevance and ledger do not explain of the value, relative to all that moved."""
    given = sum(float(source.relevance.sum()) for source in p.sources)
    return abs(p.value - p.base - given - sum(e.relevance for e in p.ledger)) / moved(p)


def causes(p) -> set[str]:
    """Why something is missing, if anything is."""
    return {entry.cause for entry in p.ledger}


def difference_of(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    baselines: Sequence[Tensor],
    *,
    model: nn.Module | None = None,
    rounding: float | None = None,
    least: float = 0.0,
    leaks: bool = False,
):
    """The difference f(x) - f(b) as the engine shares it out, held against all that is promised of it.

    Value and base are those of plain calls, the books close, every share is difference times multiplier, what was
    given is left alone; and unless `leaks` are expected, nothing is in the ledger. `rounding` is relative to all that
    moves, `least` is what it may come to where next to nothing does.
    """
    rounding = ROUNDING[inputs[0].dtype] if rounding is None else rounding
    with torch.no_grad():
        value, base = (float(function(*[t.clone() for t in given])) for given in (inputs, baselines))
    before = [(t.clone(), t._version, t.requires_grad) for t in (*inputs, *baselines)]
    p = difference(function, list(inputs), list(baselines), SECANT, model=model)
    for t, (copy, version, requires_grad) in zip((*inputs, *baselines), before, strict=True):
        assert torch.equal(t, copy)
        assert (t._version, t.requires_grad, t.grad) == (version, requires_grad, None)
    for source, x, b in zip(p.sources, inputs, baselines, strict=False):
        assert source.relevance.dtype == torch.float64
        assert source.relevance.shape == source.gradient.shape == x.shape
        assert not source.relevance.requires_grad
        assert bool(torch.isfinite(source.relevance).all() and torch.isfinite(source.gradient).all())
        assert torch.equal(source.relevance, (x.double() - b.double()) * source.gradient.double())
    assert len(p.sources) >= len(inputs)
    scale = moved(p)
    allowed = rounding * scale + least
    assert abs(p.value - value) <= allowed, (p.value, value)
    assert abs(p.base - base) <= allowed, (p.base, base)
    assert gap(p) * scale <= allowed, (p.value, p.base, gap(p), p.ledger)
    if not leaks:
        assert p.ledger == ()
    return p


def shares(function, x: Tensor, b: Tensor, **options) -> Tensor:
    """The relevance of the only input."""
    return difference_of(function, [x], [b], **options).sources[0].relevance


def weighted(function: Callable[..., Tensor], seed: int = 77) -> Callable[..., Tensor]:
    """A scalar that tells every entry of the function's result apart: its sum with fixed random weights."""

    def scalar(*args: Tensor) -> Tensor:
        y = function(*args)
        return (y * _weights(tuple(y.shape), y.dtype, seed)).sum()

    return scalar


@cache
def _weights(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return inputs(*shape, dtype=dtype, seed=seed)


def close(found: Tensor, expected: object, rounding: float = 1e-12, scale: float | None = None) -> None:
    """Equal to rounding, relative to the largest of the expected entries."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    found = found.double()
    assert found.shape == expected.shape
    size = float(expected.abs().max()) if scale is None else scale
    worst = float((found - expected).abs().max())
    assert worst <= rounding * max(size, 1e-300), f"off by {worst:.3g} of {size:.3g}"


def fingerprint(model: nn.Module) -> list[object]:
    """All that a caller could find changed on a model."""
    found: list[object] = [torch.get_rng_state().tolist(), torch.is_grad_enabled()]
    for name, each in model.named_modules():
        hooks = [key for key, value in vars(each).items() if "hook" in key and value]
        found.append((name, each.training, hooks, sorted(vars(each))))
    for name, t in itertools.chain(model.named_parameters(), model.named_buffers()):
        found.append((name, id(t), t._version, t.requires_grad, t.grad is None, t.data_ptr(), hash_of(t)))
    return found


def hash_of(t: Tensor) -> int:
    return hash(t.detach().cpu().double().numpy().tobytes())


def seeded_net(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    """A network with weights from a seed, biases and norms that are not the identity, in evaluation mode."""
    with seeded(seed), torch.no_grad():
        net = make()
        for p in net.parameters():
            if p.dim() == 1 or not p.any():
                p.add_(0.3 * torch.randn(p.shape))
    return net.to(dtype).eval().requires_grad_(False)
