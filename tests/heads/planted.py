"""Attention that is made by hand: heads of known kinds, with noise, seen by all or by later queries only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from clearhead.attentions import AttentionMaps, LayerMap, StreamMaps
from clearhead.units import Unit

WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()


def layer(table: np.ndarray, queries: Sequence[Unit], keys: Sequence[Unit], step: int = 5) -> LayerMap:
    """A layer of weights [heads, queries, keys], given out a few rows at a time."""

    def blocks(wanted):
        rows = np.arange(len(queries)) if wanted is None else np.array(list(wanted))
        for first in range(0, len(rows), step):
            yield rows[first : first + step], table[:, rows[first : first + step]]

    heads = len(table)
    return LayerMap(label="by hand", heads=heads, queries=tuple(queries), keys=tuple(keys), blocks=blocks)


def document(streams: Mapping[str, Sequence[LayerMap]], text: str = "") -> AttentionMaps:
    """Maps of one document."""
    return AttentionMaps(
        model="planted",
        task="none",
        maps={name: StreamMaps(name=name, layers=tuple(layers)) for name, layers in streams.items()},
        units=next(iter(streams.values()))[0].keys,
        texts={"input": text},
    )


def written(words: Sequence[str], ends: str = "[SEP]") -> tuple[str, list[Unit]]:
    """A text of words, and its units with a special one at both ends."""
    units, at = [Unit(index=0, text="[CLS]", special=True, start=0, end=0)], 0
    for n, word in enumerate(words):
        units.append(Unit(index=n + 1, text=word, start=at, end=at + len(word), word=n))
        at += len(word) + 1
    units.append(Unit(index=len(units), text=ends, special=True, start=0, end=0))
    return " ".join(words), units


def sentences_of(length: int) -> list[str]:
    """So many words, no two alike, in two sentences."""
    words = [f"{WORDS[n % 16]}{n}" for n in range(length)]
    words[length // 2 - 1] += "."
    return words


def repeated(vocabulary: int, period: int, times: int = 2, seed: int = 0) -> list[int]:
    """A random sequence of different tokens, several times over."""
    return np.random.default_rng(seed).permutation(vocabulary)[:period].tolist() * times


def noisy(aim: Callable[[int], Sequence[int]], length: int, noise: float, causal: bool) -> np.ndarray:
    """Even weights on the keys of `aim(query)` that are seen, on all where there are none, and some noise."""
    whole = np.zeros((length, length))
    for query in range(length):
        seen = list(range(query + 1 if causal else length))
        keys = [key for key in aim(query) if key in seen] or seen
        whole[query, keys] = (1 - noise) / len(keys)
        whole[query, seen] += noise / len(seen)
    return whole
