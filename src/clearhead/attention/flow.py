"""Attention flow: how much can reach a target from each unit, through all layers at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clearhead.attention.making import BLIND, Looked, Shares, each, made
from clearhead.attention.mixing import Mixing
from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.maps import RelevanceMap
from clearhead.question import Question
from clearhead.sight.capture import Layer, Row, Sight
from clearhead.sight.reading import Starts, towers

STEPS = 2**20  # capacities are whole numbers of this many parts of a whole
PATIENCE = 120.0  # seconds that a flow may take without being asked twice
EDGES_A_SECOND = 2e7  # what the solver gets through for one pair, measured on short inputs
MOST_EDGES = 3e7  # beyond, the graph alone takes gigabytes


def flow(question: Question, settings: Settings) -> Iterator[tuple[int, RelevanceMap]]:
    r"""Maximum flow from a target to each position of the input, edges of layer l having the capacities $\hat A_l$.

    $\hat A$ is that of `rollout`. A target that is read from n positions takes 1 from each, and the flow is divided by
    n. One flow is solved per position, with capacities in whole parts of $2^{-20}$ (an
    error of at most $2^{-20}$ per edge of a cut). Flows to several units overlap, so they do not add up to 1. Raises
    UsageError for what would take longer than two minutes, with the estimate, unless `force`. Abnar & Zuidema 2020,
    "Quantifying Attention Flow in Transformers", section 3; the solver is scipy's (Dinic).
    """
    mixing = Mixing.of(settings)
    for i, looked, notes in each(question):
        yield i, made(looked, _flows(looked, mixing, force=settings.force), "flow", notes)


def _flows(looked: Looked, mixing: Mixing, *, force: bool) -> Shares:
    edges = sum(layer.site.queries * (layer.site.keys + 1) for layer in looked.sight.layers)
    count = sum(layer.site.keys for layer in _first_of_each(looked.sight))
    if not force and edges > MOST_EDGES:
        raise _too_long(count, edges, count * (edges / EDGES_A_SECOND) ** 1.4)
    graph = Graph()
    graph.build(looked.sight, mixing)
    source = graph.source(looked.begin)
    matrix = graph.matrix()
    found, started = {}, time.perf_counter()
    shares = _shares_of(looked)
    for row, nodes in graph.inputs.items():
        amounts = np.zeros(len(nodes))
        for k, node in enumerate(nodes):
            amounts[k] = shares.get(row, 0.0) * _maximum(matrix, source, int(node)) / STEPS
            taken = time.perf_counter() - started
            if not force and taken > 1 and taken / (k + 1) * count > PATIENCE:
                raise _too_long(count, edges, taken / (k + 1) * count)
        found[row] = torch.from_numpy(amounts)
    note = "Flows to several units share the same paths: they are not parts of a whole and do not add up to 1."
    return Shares(amounts=found, notes=(BLIND, note))


def _shares_of(looked: Looked) -> dict[Row, float]:
    """For each sequence the share of one position that the target is read from, in its group of sequences."""
    numbers = towers(looked.sight.layers)
    share = {numbers[row]: float(reads.max()) for row, reads in looked.begin.items()}
    return {row: share[number] for row, number in numbers.items() if number in share}


def _first_of_each(sight: Sight) -> list[Layer]:
    found: dict[Row, Layer] = {}
    for layer in sight.layers:
        found.setdefault(layer.key, layer)
    return list(found.values())


def _too_long(count: int, edges: float, seconds: float) -> UsageError:
    return UsageError(
        f"A flow is solved for each position; for {count} of them over {edges:,.0f} edges that would take about "
        f"{max(1, seconds / 60):.0f} minutes. Shorten the input, choose method='rollout', which takes one pass, or say "
        "force=True (--force)."
    )


def _maximum(matrix: Any, source: int, sink: int) -> int:
    from scipy.sparse.csgraph import maximum_flow

    return int(maximum_flow(matrix, source, sink).flow_value)


@dataclass
class Graph:
    """Nodes for the positions of each layer, from the input up; edges lead down, from who looks to what is seen."""

    inputs: dict[Row, NDArray[np.int32]] = field(default_factory=dict)
    now: dict[Row, NDArray[np.int32]] = field(default_factory=dict)
    nodes: int = 0
    edges: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]] = field(default_factory=list)

    def build(self, sight: Sight, mixing: Mixing) -> None:
        """Add every layer."""
        for layer in sight.layers:
            below = self._present(sight, layer.query, layer.site.queries) if layer.query.name else None
            seen = self._present(sight, layer.key, layer.site.keys)
            above = self._fresh(layer.site.queries)
            for rows, table in mixing.tables(layer):
                self._layer(mixing, layer, rows.numpy(), table.double().numpy(), above, below, seen)
            self.now[layer.query] = above

    def _layer(
        self,
        mixing: Mixing,
        layer: Layer,
        rows: NDArray[np.int64],
        table: NDArray[np.float64],
        above: NDArray[np.int32],
        below: NDArray[np.int32] | None,
        seen: NDArray[np.int32],
    ) -> None:
        """The edges of some rows of a layer."""
        kept = mixing.kept(layer)
        total = kept + (1 - kept) * table.sum(-1, keepdims=True)
        total[total == 0] = 1
        capacity = (1 - kept) * table / total
        asks, looks = np.nonzero(capacity)
        self._join(above[rows[asks]], seen[looks], capacity[asks, looks])
        if below is not None:
            self._join(above[rows], below[rows], (kept / total)[:, 0])

    def _join(self, top: NDArray[np.int32], bottom: NDArray[np.int32], capacity: NDArray[np.float64]) -> None:
        self.edges.append((top, bottom, np.rint(capacity * STEPS).astype(np.int32)))

    def _fresh(self, count: int) -> NDArray[np.int32]:
        made = np.arange(self.nodes, self.nodes + count, dtype=np.int32)
        self.nodes += count
        return made

    def _present(self, sight: Sight, row: Row, length: int) -> NDArray[np.int32]:
        """The nodes of a sequence as it is now; of a sequence whose positions were merged, new ones over them."""
        known = self.now.get(row)
        if known is None:
            self.inputs[row] = self.now[row] = self._fresh(length)
        elif len(known) != length:
            merged = self._fresh(length)
            for top, covers in zip(merged, _parts(sight, row, len(known), length), strict=True):
                for k in covers:
                    self._join(np.array([top]), known[[k]], np.array([1 / len(covers)]))
            self.now[row] = merged
        return self.now[row]

    def source(self, begin: Starts) -> int:
        """A node above the positions that a target is read from, each of which takes as much as one position can."""
        (top,) = self._fresh(1)
        for row, reads in begin.items():
            at = reads.nonzero().flatten().numpy()
            self._join(np.full(len(at), top), self.now[row][at], np.ones(len(at)))
        return int(top)

    def matrix(self) -> Any:
        """The capacities as scipy's solver takes them, entries of the same edge added up."""
        from scipy.sparse import csr_matrix

        tops, bottoms, capacities = (np.concatenate(part) for part in zip(*self.edges, strict=True))
        whole = csr_matrix((capacities, (tops, bottoms)), shape=(self.nodes, self.nodes), dtype=np.int32)
        whole.sum_duplicates()
        return whole


def _parts(sight: Sight, row: Row, before: int, after: int) -> list[list[int]]:
    """Which positions each merged one was made of."""
    old, new = sight.covered(row, before), sight.covered(row, after)
    at = {each: k for k, covers in enumerate(old) for each in ([covers] if isinstance(covers, str) else covers)}
    return [sorted({at[each] for each in ([covers] if isinstance(covers, str) else covers)}) for covers in new]
