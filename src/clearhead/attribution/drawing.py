"""Random draws that begin at a seed and leave the generators as they were; how sure what was drawn is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

ROUNDS = 50  # of the bootstrap


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The generators of torch and numpy begin at `seed` within the block, and are put back behind it."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)


def error_of_mean(parts: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64] | None:
    r"""The standard error of a weighted mean: $\sqrt{\frac{\sum_g w_g (m_g - \bar m)^2}{G - 1}}$, for $\sum w_g = 1$.

    `parts` are G independent estimates [units]; None for fewer than two.
    """
    if len(parts) < 2:
        return None
    shares = np.asarray(weights, dtype=np.float64)[:, None] / float(np.sum(weights))
    spread = np.square(np.asarray(parts) - (shares * np.asarray(parts)).sum(0))
    return np.asarray(np.sqrt((shares * spread).sum(0) / (len(parts) - 1)))


def error_of_fit(
    keep: NDArray[np.bool_], scores: NDArray[np.float64], weights: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """The standard error of the coefficients of a weighted linear fit [units]: by the bootstrap over its rows.

    A row that stands for an end (all or nothing is kept) is in every sample.
    """
    design = np.concatenate([np.ones((len(keep), 1)), keep], 1)
    whole = np.all(keep, 1) | ~np.any(keep, 1)
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(ROUNDS):
        counts = np.where(whole, 1, np.bincount(draw.integers(0, len(keep), len(keep)), minlength=len(keep)))
        root = np.sqrt(weights * counts)[:, None]
        found.append(np.linalg.lstsq(design * root, scores * root[:, 0], rcond=None)[0][1:])
    return np.asarray(np.std(found, 0, ddof=1))
