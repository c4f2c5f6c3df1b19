"""Attention as it was: any layer, head or row, made when asked for, so that no more than one layer is in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearhead.errors import UsageError, suggest
from clearhead.maps import SCHEMA, Recipe
from clearhead.units import Unit

Table = NDArray[np.float64]
Block = tuple[NDArray[np.int64], NDArray[Any]]  # places of queries [b], their weights [heads, b, keys]

WHAT_IT_IS = (
    "Attention says where a layer looked, not what the answer came from: values, the residual path and the layers "
    "after it decide what becomes of a look."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class TopK:
    """The largest weights of each row: which keys [heads, queries, k], their weights, and the mass held [heads]."""

    keys: NDArray[np.int64]
    weights: NDArray[np.float64]
    kept: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerMap:
    """The attention of one layer: weights [heads, queries, keys] that are computed again at every call.

    `label` is the path of its module. Rows add up to 1, or to less where a model has sinks that are no units.
    """

    label: str
    heads: int
    queries: tuple[Unit, ...]
    keys: tuple[Unit, ...]
    blocks: Callable[[Sequence[int] | None], Iterator[Block]] = field(repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Heads, queries, keys."""
        return self.heads, len(self.queries), len(self.keys)

    def matrix(self) -> NDArray[np.float64]:
        """All weights of the layer [heads, queries, keys]."""
        whole = np.zeros(self.shape)
        for rows, weights in self.blocks(None):
            whole[:, rows] = weights
        return whole

    def head(self, number: int) -> Table:
        """The weights of one head [queries, keys]. Raises UsageError if there is none of that number."""
        at = _number(number, self.heads, "head")
        whole = np.zeros(self.shape[1:])
        for rows, weights in self.blocks(None):
            whole[rows] = weights[at]
        return whole

    def row(self, query: int) -> Table:
        """What one query looks at [heads, keys]. Raises UsageError if there is none of that number."""
        at = _number(query, len(self.queries), "query")
        ((_, weights),) = self.blocks([at])
        return np.asarray(weights[:, 0], dtype=np.float64)

    def mean(self) -> Table:
        """The mean over heads [queries, keys]."""
        whole = np.zeros(self.shape[1:])
        for rows, weights in self.blocks(None):
            whole[rows] = weights.mean(0)
        return whole

    def thumbnails(self, side: int = 64) -> NDArray[np.float64]:
        """Every head at most `side` by `side`, each point the mean of the weights it stands for [heads, side, side]."""
        if side < 1:
            raise UsageError(f"`side` must be 1 or larger; found {side}.")
        tall, wide = min(side, len(self.queries)), min(side, len(self.keys))
        across, size = _bins(len(self.keys), wide)
        down, count = _bins(len(self.queries), tall)
        found = np.zeros((self.heads, tall, wide))
        for rows, weights in self.blocks(None):
            narrow = np.add.reduceat(weights, across, axis=2) / size
            places = np.searchsorted(down, rows, side="right") - 1
            for place, row in zip(places, narrow.swapaxes(0, 1), strict=True):
                found[:, place] += row
        return found / count[:, None]

    def top_k(self, k: int = 8) -> TopK:
        """The `k` largest weights of each row, and the share of all mass that they hold, per head."""
        if k < 1:
            raise UsageError(f"`k` must be 1 or larger; found {k}.")
        k = min(k, len(self.keys))
        keys, held = np.zeros((*self.shape[:2], k), dtype=np.int64), np.zeros((*self.shape[:2], k))
        mass = np.zeros(self.heads)
        for rows, weights in self.blocks(None):
            order = np.argsort(-weights, axis=-1, kind="stable")[..., :k]
            keys[:, rows], held[:, rows] = order, np.take_along_axis(weights, order, axis=-1)
            mass += weights.sum((1, 2))
        return TopK(keys=keys, weights=held, kept=held.sum((1, 2)) / np.where(mass == 0, 1, mass))

    def entropy(self) -> NDArray[np.float64]:
        r"""The mean over queries of $-\sum_k p_k \log_2 p_k$ of their rows, scaled to add up to 1, in bits [heads]."""
        total = np.zeros(self.heads)
        for _, weights in self.blocks(None):
            mass = weights.sum(-1, keepdims=True)
            share = weights / np.where(mass == 0, 1, mass)
            total -= (share * np.log2(np.where(share == 0, 1, share))).sum((1, 2))
        return total / max(1, len(self.queries))

    def narrowed(self, query: int) -> LayerMap:
        """The same with one query."""

        def blocks(_: Sequence[int] | None) -> Iterator[Block]:
            for _rows, weights in self.blocks([query]):
                yield np.array([0]), weights

        return replace(self, queries=(self.queries[query],), blocks=blocks)


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamMaps:
    """The layers of one stream: an encoder, a decoder, what a decoder sees of an encoder, a tower of a model."""

    name: str
    layers: tuple[LayerMap, ...]
    roll: Callable[..., NDArray[np.float64]] | None = field(default=None, repr=False)

    def layer(self, number: int) -> LayerMap:
        """A layer by its number, from the end below 0. Raises UsageError if there is none."""
        return self.layers[_number(number, len(self.layers), "layer")]

    def rollout(self, *, residual: float = 0.5, fusion: str = "mean", discard: float = 0.0) -> Table:
        r"""$\hat A_L \cdots \hat A_1$ [queries, keys], one layer in memory at a time. Raises UsageError for `cross`.

        Abnar & Zuidema 2020, section 3; options as in `explain(method="rollout")`.
        """
        if self.roll is None:
            raise UsageError(
                f"A rollout is of a stream that looks at itself; {self.name!r} does not. "
                "Use explain(method='rollout'), which follows all streams together."
            )
        return self.roll(residual=residual, fusion=fusion, discard=discard)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[LayerMap]:
        return iter(self.layers)

    def __getitem__(self, number: int) -> LayerMap:
        return self.layer(number)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMaps:
    """The attention of one input, by stream: `maps["encoder"].layer(3).head(5)`.

    Streams have their own numbers of layers, heads, queries and keys. `produced` are the tokens that a model wrote, and
    `reads` the units that each was read from; `step(t)` is what the model looked at while it wrote token t.
    """

    model: str
    task: str
    maps: Mapping[str, StreamMaps]
    units: tuple[Unit, ...]
    produced: tuple[str, ...] = ()
    reads: tuple[int, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of the streams, in the order in which they were computed."""
        return tuple(self.maps)

    def __getitem__(self, stream: str) -> StreamMaps:
        if stream not in self.maps:
            raise UsageError(f"The streams are {', '.join(self.maps)}; found {stream!r}.{suggest(stream, self.maps)}")
        return self.maps[stream]

    def __iter__(self) -> Iterator[StreamMaps]:
        return iter(self.maps.values())

    def __len__(self) -> int:
        return len(self.maps)

    def layer(self, number: int) -> LayerMap:
        """A layer of the only stream. Raises UsageError where there are several."""
        if len(self.maps) != 1:
            raise UsageError(f"There are several streams: choose one of {', '.join(self.maps)}, as in maps['encoder'].")
        return next(iter(self.maps.values())).layer(number)

    def step(self, number: int) -> AttentionMaps:
        """What each layer looked at while token `number` was produced: one query per layer of the decoder."""
        at = _number(number, len(self.produced), "step")
        unit = self.reads[at]
        narrowed = {}
        for name, stream in self.maps.items():
            layers = tuple(
                layer.narrowed(place)
                for layer in stream
                if (place := next((n for n, each in enumerate(layer.queries) if each.index == unit), None)) is not None
            )
            if layers:
                narrowed[name] = StreamMaps(name=name, layers=layers)
        return replace(self, maps=narrowed, produced=(self.produced[at],), reads=(unit,))

    @property
    def steps(self) -> tuple[AttentionMaps, ...]:
        """One for each produced token."""
        return tuple(self.step(t) for t in range(len(self.produced)))

    # ---- leaving -----------------------------------------------------------------------------------------------

    def to_dict(self, *, top: int = 8) -> dict[str, Any]:
        """The largest weights of each row as plain data, with the mass that they hold, entropies and labels."""
        return {
            "schema": SCHEMA,
            "kind": "attention",
            "model": self.model,
            "task": self.task,
            "what_it_is": WHAT_IT_IS,
            "texts": dict(self.texts),
            "produced": list(self.produced),
            "streams": [{"name": s.name, "layers": [_layer(each, top) for each in s]} for s in self],
            "warnings": list(self.warnings),
            "recipe": json.loads(json.dumps(asdict(self.recipe), default=list)),
        }

    def save(self, path: str | Path) -> Path:
        """Write `.json` (the largest weights of each row), `.html`, `.png` or `.svg`; nothing is left half-written."""
        from clearhead import render

        return render.save([self], path)

    def show(self) -> None:
        """Print the layers to the terminal."""
        from clearhead import render

        render.show([self])

    def _repr_html_(self) -> str:
        from clearhead import render

        return render.fragment([self])

    def __repr__(self) -> str:
        said = ", ".join(
            f"{s.name} {len(s)} layers of {s.layers[0].heads} heads, {s.layers[0].shape[1]} x {s.layers[0].shape[2]}"
            for s in self
        )
        return f"<AttentionMaps {said}>"


def _layer(each: LayerMap, top: int) -> dict[str, Any]:
    found = each.top_k(top)
    return {
        "label": each.label,
        "heads": each.heads,
        "queries": [unit.text for unit in each.queries],
        "keys": [unit.text for unit in each.keys],
        "entropy": each.entropy().round(6).tolist(),
        "kept": found.kept.round(6).tolist(),
        "top_keys": found.keys.tolist(),
        "top_weights": found.weights.round(6).tolist(),
    }


def _number(number: int, count: int, what: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not -count <= number < count:
        listed = f"from 0 to {count - 1}, or below 0 from the end" if count else "of which there are none"
        raise UsageError(f"A {what} is a number {listed}; found {number!r}.")
    return number % count


def _bins(length: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The beginnings of so many stretches of about the same length, and their lengths."""
    begins = np.array([math.floor(n * length / count) for n in range(count)])
    return begins, np.diff(begins, append=length)
