r"""How much distributions of many heads differ: every pair in full, or from a sketch whose size is that of one head.

Tables are [heads, numbers]: rows of attention laid end to end, smoothed, no number 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float32]

_COLUMNS = 512  # numbers of a head at a time: a thousand heads of them stay in a cache of 2 MB
_HEADS = 16  # heads of a sketch at a time, for the same reason
_SAMPLES = 2  # waves for each number: eight take four times as long for two thirds of the error
_FREQUENCIES = np.linspace(0.0, 6.0, 60_001)  # beyond lies less than 1e-8 of the density


class Full:
    r"""All pairs in full: $JS(a,b) = H(\frac{a+b}{2}) - \frac{H(a) + H(b)}{2}$ in bits, averaged over rows.

    With $T_{ab} = \sum (a+b)\log_2(a+b)$ this is $\frac14(T_{aa} + T_{bb}) - \frac12 T_{ab}$: one logarithm for each
    pair and number, and the entropies of the heads are the diagonal. Sums of 512 numbers in float32, of those in
    float64: errors stay below 1e-6.
    """

    def __init__(self, heads: int) -> None:
        self.heads = heads
        self.totals = np.zeros((heads, heads))

    def add(self, table: Table) -> None:
        """Add the next numbers of every head."""
        workers = _threads()
        with ThreadPoolExecutor(workers) as pool:
            for first in range(0, table.shape[1], _COLUMNS):
                block = np.ascontiguousarray(table[:, first : first + _COLUMNS])
                shares = [range(n, self.heads, workers) for n in range(workers)]
                list(pool.map(self._add, [block] * workers, shares))

    def _add(self, block: Table, heads: Iterable[int]) -> None:
        both, logs = np.empty_like(block), np.empty_like(block)
        for head in heads:
            s, log = both[head:], logs[head:]
            np.log(np.add(block[head:], block[head], out=s), out=log)
            self.totals[head, head:] += np.einsum("hn,hn->h", s, log)

    def result(self, rows: int) -> NDArray[np.float64]:
        """The mean over so many rows of the divergence of each pair [heads, heads]."""
        own = np.diag(self.totals)
        upper = np.triu((own[:, None] + own) / 4 - self.totals / 2, 1) / (rows * np.log(2))
        return np.asarray(np.clip(upper + upper.T, 0.0, 1.0))


class Sketch:
    r"""All pairs about right, at a cost that grows with the number of heads and not of pairs.

    $\sqrt a$ times a wave in $\log a$ is a feature map of the divergence (Vedaldi & Zisserman 2012, table 1):
    $1 - JS(a,b) = \sum \int \kappa(\omega) \sqrt{ab} \cos(\omega \log\frac ba)\,d\omega$ with
    $\kappa(\omega) = \frac{2}{\ln 4} \frac{\mathrm{sech}(\pi\omega)}{1 + 4\omega^2}$. Here every number gets waves of
    random frequency and phase (Rahimi & Recht 2007), and those of a head are added up in `width` places (Charikar et
    al. 2002). Half the squared distance of two such vectors has the divergence as its mean; its error is relative, so
    that like heads stay alike.
    """

    def __init__(self, heads: int, width: int, seed: int) -> None:
        self.sums = np.zeros((heads, width))
        self.random = np.random.default_rng(seed)

    def add(self, table: Table) -> None:
        """Add the next numbers of every head."""
        width = self.sums.shape[1]
        for first in range(0, table.shape[1], width):
            block = table[:, first : first + width]
            waves = [self._wave(block.shape[1]) for _ in range(_SAMPLES)]
            places = self.random.integers(width, size=_SAMPLES)
            with ThreadPoolExecutor(_threads()) as pool:
                heads = [slice(n, n + _HEADS) for n in range(0, len(table), _HEADS)]
                jobs = [pool.submit(self._add, block, part, waves, places) for part in heads]
            for job in jobs:
                job.result()

    def _wave(self, count: int) -> tuple[Table, Table]:
        """Frequencies, one from each of so many parts of their distribution, and phases."""
        density = 1 / (np.cosh(np.pi * _FREQUENCIES) * (1 + 4 * _FREQUENCIES**2))
        below = np.cumsum(density)
        parts = (self.random.permutation(count) + self.random.random(count)) / count
        frequency = np.interp(parts, below / below[-1], _FREQUENCIES)
        return frequency.astype(np.float32), self.random.uniform(0, 2 * np.pi, count).astype(np.float32)

    def _add(self, table: Table, part: slice, waves: list[tuple[Table, Table]], places: Any) -> None:
        block = table[part]
        root, log, wide = np.sqrt(block), np.log(block), block.shape[1]
        for (frequency, phase), place in zip(waves, places.tolist(), strict=True):
            wave = np.multiply(log, frequency)
            np.cos(np.add(wave, phase, out=wave), out=wave)
            np.multiply(wave, root, out=wave)
            sums = self.sums[part]
            head = min(wide, sums.shape[1] - place)
            sums[:, place : place + head] += wave[:, :head]
            sums[:, : wide - head] += wave[:, head:]

    def result(self, rows: int) -> NDArray[np.float64]:
        """The mean over so many rows of the divergence of each pair [heads, heads]."""
        gram = self.sums @ self.sums.T
        own = np.diag(gram)
        found = np.clip(((own[:, None] + own) / 2 - gram) * (2 / (_SAMPLES * rows)), 0.0, 1.0)
        np.fill_diagonal(found, 0.0)
        return np.asarray((found + found.T) / 2)


class Pairs:
    """Some pairs in full, to measure what a sketch gets wrong."""

    def __init__(self, heads: int, count: int, seed: int) -> None:
        first, second = np.triu_indices(heads, 1)
        chosen = np.random.default_rng(seed).choice(len(first), size=min(count, len(first)), replace=False)
        self.first, self.second = first[chosen], second[chosen]
        self.totals = np.zeros(len(chosen))

    def add(self, table: Table) -> None:
        """Add the next numbers of every head."""
        for n, (one, other) in enumerate(zip(self.first, self.second, strict=True)):
            a, b = table[one].astype(np.float64), table[other].astype(np.float64)
            self.totals[n] += _minus_entropy(a) / 2 + _minus_entropy(b) / 2 - _minus_entropy((a + b) / 2)

    def result(self, rows: int) -> NDArray[np.float64]:
        """The mean over so many rows of the divergence of each chosen pair."""
        return self.totals / rows


def _minus_entropy(share: NDArray[np.float64]) -> float:
    return float((share * np.log2(share)).sum())


def _threads() -> int:
    return max(1, min(8, os.cpu_count() or 1))
