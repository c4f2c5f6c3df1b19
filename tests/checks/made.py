"""Maps and models made up for the tests of checks."""

from __future__ import annotations

import numpy as np

from clearhead import RelevanceMap, Target, Unit


def relevance_map(values, *, special=(), method="lrp", additive=True, value=1.0) -> RelevanceMap:
    units = tuple(Unit(index=i, text=str(i), special=i in special) for i in range(len(values)))
    return RelevanceMap(
        method=method,
        model="toy",
        task="text-classification",
        target=Target(kind="class", label="fine"),
        value=value,
        units=units,
        relevance=np.asarray(values, dtype=float),
        additive=additive,
    )


def linear(weights):
    """A model whose units add up: its relevance is known to be the weights."""
    return lambda kept: kept @ np.asarray(weights, dtype=float)


def curved(seed: int, units: int):
    """A model whose units act together: a different number for every set of units."""
    draw = np.random.default_rng(seed)
    alone, pairs = draw.normal(size=units), draw.normal(size=(units, units)) / 2
    return lambda kept: np.tanh(kept @ alone) + ((kept @ pairs) * kept).sum(1)
