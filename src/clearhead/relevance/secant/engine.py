"""One forward pass of input and baseline, one backward pass: what the difference of a scalar is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.maps import LedgerEntry
from clearhead.relevance.engine import Propagation, Recording
from clearhead.relevance.secant.pairs import Pairs
from clearhead.relevance.secant.table import ROWS


def difference(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    baselines: Sequence[Tensor],
    settings: Settings,
    *,
    model: nn.Module | None = None,
) -> Propagation:
    r"""What the difference of the scalar `function(*inputs)` to `function(*baselines)` is made of.

    $f(x) - f(b) = \sum_i (x_i - b_i)\,m_i$ + what leaked. `model` names the modules in the ledger. Raises UsageError
    for baselines of another shape, and what `Recording.explain` raises. Shrikumar et al. 2017, "Learning Important
    Features Through Propagating Activation Differences", carried through every operation.

    >>> import torch
    >>> from clearhead.config import Settings
    >>> x, b = torch.tensor([3.0, 2.0]), torch.tensor([1.0, 1.0])
    >>> p = difference(lambda x: x[0] * x[1], [x], [b], Settings(method="secant"))
    >>> p.value, p.base, p.sources[0].relevance.tolist()
    (6.0, 1.0, [3.0, 2.0])
    """
    for x, b in zip(inputs, baselines, strict=True):
        if x.shape != b.shape or x.dtype != b.dtype:
            raise UsageError(
                f"A baseline has the shape and float type of its input; found {tuple(b.shape)} {b.dtype} for "
                f"{tuple(x.shape)} {x.dtype}."
            )
    run = Pairs(settings, model, ROWS)
    recording = Recording(run)
    value = recording.watched(function, *[recording.source(x, b) for x, b in zip(inputs, baselines, strict=True)])
    followed = _at_baseline(run, value)
    found = recording.explain(value)
    if not run.parted:
        return replace(found, bases=(followed,))
    with torch.no_grad():
        base = float(function(*baselines))
    return replace(found, bases=(base,), ledgers=((*found.ledger, *parting(run, followed - base)),))


def _at_baseline(run: Pairs, value: Tensor) -> float:
    other = run.other(value) if isinstance(value, Tensor) else None
    return float("nan") if other is None or other.numel() != 1 else float(other)


def parting(run: Pairs, amount: float) -> tuple[LedgerEntry, ...]:
    """What the baseline would have given besides, had it not followed the input: named where that began."""
    place, cause = next(iter(run.parted.items()))
    if not amount:
        return ()
    return (LedgerEntry(cause=cause, module=place.module, operation=place.operation, relevance=amount, returned=False),)
