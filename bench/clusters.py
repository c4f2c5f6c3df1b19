"""What comparing a thousand heads takes, and what the sketch that stands in for all pairs gets wrong.

    python -m bench.clusters                       # 32 layers of 32 heads, 256 tokens, 8 documents
    python -m bench.clusters --causal              # the same, looking back
    python -m bench.clusters --error               # the sketch against all pairs in full, where that can be waited for

Tables are synthetic: heads look at an offset, at a key or all over, with noise, and are made again for every request,
as those of a model are; the time of making them once is printed apart. Memory is the highest of the process (Linux).
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import spearmanr

from clearhead.attentions import AttentionMaps, Block, LayerMap, StreamMaps
from clearhead.heads import clusters
from clearhead.units import Unit


def layer(number: int, heads: int, units: tuple[Unit, ...], document: int, causal: bool) -> LayerMap:
    """A layer of random heads of five kinds; rows are made when asked for."""
    length = len(units)
    noise = np.random.default_rng([number, document]).normal(size=(heads, 2 * length)).astype(np.float32)
    kinds = np.random.default_rng(number)
    kind, strength, offset = kinds.integers(5, size=heads), kinds.uniform(2, 8, heads), kinds.integers(1, 4, heads)
    places = np.arange(length)

    def blocks(wanted: Sequence[int] | None) -> Iterator[Block]:
        rows = places if wanted is None else np.array(wanted)
        weights = np.stack([noise[:, row : row + length] for row in rows.tolist()], 1)
        for head in range(heads):
            aims = [rows - offset[head], rows, rows * 0, rows * 0 + 7 * offset[head], None][kind[head]]
            if aims is not None:
                weights[head, np.arange(len(rows)), aims % length] += strength[head]
        np.exp(weights, out=weights)
        if causal:
            weights *= places <= rows[:, None]
        weights /= weights.sum(-1, keepdims=True)
        yield rows, weights

    return LayerMap(label=f"layer {number}", heads=heads, queries=units, keys=units, blocks=blocks)


def documents(layers: int, heads: int, length: int, count: int, causal: bool) -> list[AttentionMaps]:
    """So many documents of one synthetic model."""
    found = []
    for n in range(count):
        units = tuple(Unit(index=k, text=f"{n} {k}") for k in range(length))
        made = tuple(layer(number, heads, units, n, causal) for number in range(layers))
        maps = {"it": StreamMaps(name="it", layers=made)}
        found.append(AttentionMaps(model="synthetic", task="none", maps=maps, units=units))
    return found


def measure(layers: int, heads: int, length: int, count: int, causal: bool) -> None:
    """Print seconds, memory, and what the result says of itself."""
    maps = documents(layers, heads, length, count, causal)
    start = time.perf_counter()
    for each in maps:
        for one in each.layer(0), each.layer(1):
            for _ in one.blocks(None):
                pass
    making = (time.perf_counter() - start) * layers / 2
    start = time.perf_counter()
    (found,) = clusters.of(maps)
    taken = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{layers} x {heads} heads, {length} tokens, {count} documents{', causal' if causal else ''}")
    print(f"{taken:.1f} s in all, of which making the tables once takes {making:.1f} s; {peak:.2f} GiB at most")
    print(f"{len(found.medoids)} groups, silhouette {found.silhouette:.2f}; {found.reduced or 'all pairs in full'}")


def error() -> None:
    """Print how far the sketch is from all pairs in full."""
    from sklearn.metrics import adjusted_rand_score

    print("| heads | tokens | documents | mean bits | mean error | largest error | it says | rank | Rand |")
    print("|---|---|---|---|---|---|---|---|---|")
    for layers, heads, length, count in ((6, 12, 128, 2), (6, 12, 128, 8), (12, 12, 64, 8), (16, 16, 128, 2)):
        maps = documents(layers, heads, length, count, False)
        (full,), (some,) = clusters.of(maps, exact=np.inf), clusters.of(maps, exact=0)
        upper = np.triu_indices(layers * heads, 1)
        a, b = full.distances[upper], some.distances[upper]
        print(
            f"| {layers * heads} | {length} | {count} | {a.mean():.3f} | {abs(a - b).mean():.4f} "
            f"| {abs(a - b).max():.4f} | {some.error:.4f} | {spearmanr(a, b).statistic:.4f} "
            f"| {adjusted_rand_score(full.labels, some.labels):.3f} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--error", action="store_true")
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--documents", type=int, default=8)
    given = parser.parse_args()
    if given.error:
        error()
    else:
        measure(given.layers, given.heads, given.length, given.documents, given.causal)
