"""Which of several methods is as faithful as the best of them, and the cheapest of those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clearhead.checks.samples import ROUNDS
from clearhead.validations import Candidate, Evaluation, Faithfulness, Validation

NEAR = 0.98  # of the best: what is above is as good
FAR = 0.90  # of the best: what is below is worse, however few inputs there are


def chosen(
    means: Evaluation, found: Sequence[Validation], *, near: float = NEAR, far: float = FAR, seed: int = 0
) -> Evaluation:
    r"""The evaluation with its methods as candidates, the most faithful first; the cheapest of the best is `chosen`.

    A method's share is the mean over ways to remove of its mean dA, divided by the largest of all methods. One is level
    with the best if its share is at least `near` of the best one's, or at least `far` and the 95 % interval of the
    paired difference, by 2000 bootstrap samples of inputs, holds 0. Nothing is chosen where no method has a dA above 0
    in any way of removing. `found` are the validations that the means are of.
    """
    shares = _shares(means, found)
    if shares is None:
        return replace(means, notes=(*means.notes, "No method orders units better than chance here; none is chosen."))
    mean = shares.mean(1)
    best = int(mean.argmax())
    draws = np.random.default_rng(seed).integers(0, shares.shape[1], (ROUNDS, shares.shape[1]))
    highs = np.array([np.percentile((each - shares[best])[draws].mean(1), 97.5) for each in shares])
    level = (mean >= near * mean[best]) | ((mean >= far * mean[best]) & (highs >= 0))
    made = [
        Candidate(method=name, share=float(mean[n]), seconds=means.seconds.get(name, 0.0), level=bool(level[n]))
        for n, name in enumerate(means.methods)
    ]
    ranked = tuple(sorted(made, key=lambda each: -each.share))
    cheapest = min((each for each in ranked if each.level), key=lambda each: each.seconds)
    return replace(means, candidates=ranked, chosen=cheapest.method)


def _shares(means: Evaluation, found: Sequence[Validation]) -> NDArray[np.float64] | None:
    """Of each method and input the mean share [methods, inputs] over ways to remove; None if there is no such way."""
    tables = []
    for way in means.faithfulness:
        held = [next(each for each in one.faithfulness if each.removal == way.removal) for one in found]
        table = np.array([[_spread(each, name) for each in held] for name in means.methods])
        largest = table.mean(1).max()
        if largest > 0:
            tables.append(table / largest)
    return np.mean(tables, axis=0) if tables else None


def _spread(found: Faithfulness, method: str) -> float:
    value = next(row for row in found.rows if row.method == method).figures["dA"].value
    return 0.0 if value is None else value
