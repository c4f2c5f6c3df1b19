"""Which heads of a stream look alike: Jensen-Shannon distances over documents, groups, and a map of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clearhead.attentions import AttentionMaps, LayerMap
from clearhead.errors import UsageError
from clearhead.headreports import Clusters
from clearhead.heads.divergence import Full, Pairs, Sketch
from clearhead.heads.listing import heads_of, looks_back

SMOOTHING = 0.001  # Clark et al. 2019
MOST = 16  # groups that silhouettes choose among: more are no summary
EXACT = 1e10  # logarithms that are taken for all pairs in full: some ten seconds on two cores
WIDTH = 16384  # numbers of a sketch: about 2 % of a distance for one document; four times as many gain nothing
CHECKED = 64  # pairs that are computed in full where a sketch is used
_NUMBERS = 2**25  # numbers in memory at a time: 128 MB
_NOTHING = np.float32(1e-30)  # in place of a key that is not seen: adds nothing, and has a logarithm
_SAME = 1e-5  # bits: below this heads are one
_FIXED = 2.0**40  # distances are added as integers, so that the order of documents cannot matter


@dataclass(frozen=True, kw_only=True, eq=False)
class Grouping(Clusters):
    """Clusters with the distances [members, members] in bits that they were read from.

    `reduced` says in words what was done instead of all pairs in full, and is empty where nothing was; `error` is
    then the largest difference, in bits, found for the pairs that were computed both ways.
    """

    distances: NDArray[np.float64] = field(repr=False)
    reduced: str = ""
    error: float = 0.0


def of(
    maps: Sequence[AttentionMaps], *, number: int | None = None, seed: int = 0, exact: float = EXACT
) -> tuple[Grouping, ...]:
    r"""Group the heads of each stream over several documents.

    The distance of heads a and b is the mean over documents, and in a document over queries, of
    $JS(a,b) = H(\frac{a+b}{2}) - \frac{H(a)+H(b)}{2}$ in bits, where rows are smoothed over the K keys that a query
    sees, $a' = (1 - s)a + s/K$, $s = 0.001$ (Clark et al. 2019, section 5.1; they add up, so that long documents weigh
    more). Groups by average linkage, `number` of them or as many, up to 16, as have the largest silhouette; the map is
    classical scaling of $\sqrt{JS}$, a Euclidean metric (Endres & Schindelin 2003). Layers of other lengths
    in a stream are kept apart. Beyond `exact` logarithms a sketch stands in, and the result says what it costs.

    Raises UsageError for fewer than two documents and for a `number` that cannot be.
    """
    if len(maps) < 2:
        raise UsageError(
            f"Heads are compared over at least two documents, so that no single text decides; found {len(maps)}. "
            "Pass more texts or images."
        )
    heads_of(maps)  # raises
    parts = list(_parts(maps))
    _check(number, min(len(members) for _, _, members in parts))
    found = []
    with tqdm(total=len(maps) * len(parts), desc="comparing heads", unit="document", leave=False, disable=None) as bar:
        for stream, layers, members in parts:
            measured = _distances(maps, stream, layers, len(members), seed, exact, bar)
            found.append(_grouped(stream, members, *measured, number=number))
    return tuple(found)


def _check(number: int | None, fewest: int) -> None:
    whole = isinstance(number, int) and not isinstance(number, bool)
    if number is not None and not (whole and 1 <= number <= fewest):
        raise UsageError(
            f"`number` of clusters must be from 1 to the {fewest} heads of the smallest stream; found {number!r}. "
            "Leave it out to have it chosen by silhouette."
        )


def _parts(maps: Sequence[AttentionMaps]) -> Iterator[tuple[str, list[int], tuple[int, ...]]]:
    """Streams, the layers of one length in each, and the numbers of their heads among all."""
    at = 0
    for stream in maps[0]:
        lengths: dict[tuple[tuple[int, int], ...], tuple[list[int], list[int]]] = {}
        for n, layer in enumerate(stream):
            shapes = tuple(each[stream.name].layer(n).shape[1:] for each in maps)
            layers, members = lengths.setdefault(shapes, ([], []))
            layers.append(n)
            members.extend(range(at, at + layer.heads))
            at += layer.heads
        for layers, members in lengths.values():
            yield stream.name, layers, tuple(members)


# ---- distances -----------------------------------------------------------------------------------------------------


def _distances(
    maps: Sequence[AttentionMaps], stream: str, chosen: list[int], heads: int, seed: int, exact: float, bar: tqdm
) -> tuple[NDArray[np.float64], str, float]:
    """The mean divergence of each pair, what was done instead of computing it in full, and the error of that."""
    documents = [[each[stream].layer(n) for n in chosen] for each in maps]
    cost = heads * (heads + 1) / 2 * sum(len(d[0].queries) * len(d[0].keys) for d in documents)
    full = cost <= exact
    pairs = Pairs(heads, 0 if full else CHECKED, seed)
    total, some = np.zeros((heads, heads), dtype=np.int64), np.zeros(len(pairs.first), dtype=np.int64)
    for each, layers in zip(maps, documents, strict=True):
        measure = Full(heads) if full else Sketch(heads, WIDTH, _seed(seed, layers[0]))
        pairs = Pairs(heads, 0 if full else CHECKED, seed)
        for table in _tables(layers, looks_back(each[stream])):
            measure.add(table)
            pairs.add(table)
        rows = len(layers[0].queries)
        total += np.rint(measure.result(rows) * _FIXED).astype(np.int64)
        some += np.rint(pairs.result(rows) * _FIXED).astype(np.int64)
        bar.update()
    mean = total / (_FIXED * len(maps))
    if full:
        return mean, "", 0.0
    off = np.abs(mean[pairs.first, pairs.second] - some / (_FIXED * len(maps)))
    said = (
        f"reduced to {WIDTH} numbers per head and document instead of {cost:.1e} logarithms; of {len(off)} pairs "
        f"computed in full, the distances differ by {off.mean():.4f} bits on average and {off.max():.4f} at most"
    )
    return mean, said, float(off.max())


def _seed(seed: int, layer: LayerMap) -> int:
    """One seed per document, whatever its place among them."""
    return zlib.crc32("\0".join(unit.text for unit in layer.keys).encode(), seed)


def _tables(layers: Sequence[LayerMap], back: bool) -> Iterator[NDArray[np.float32]]:
    """The rows of all heads, smoothed, some queries at a time [heads, queries x keys]; one layer is made at a time."""
    heads, (queries, keys) = sum(layer.heads for layer in layers), layers[0].shape[1:]
    step = max(1, min(_NUMBERS // (heads * keys), max(1, WIDTH // keys)))
    for first in range(0, queries, step):
        rows = np.arange(first, min(first + step, queries))
        table, at = np.zeros((heads, len(rows), keys), dtype=np.float32), 0
        for layer in layers:
            for found, weights in layer.blocks(rows.tolist()):
                table[at : at + layer.heads, found - first] = weights
            at += layer.heads
        _smooth(table, rows, back)
        yield table.reshape(heads, -1)


def _smooth(table: NDArray[np.float32], rows: NDArray[np.int64], back: bool) -> None:
    """Rows that add up to 1 over what they see, with a thousandth spread evenly; in place."""
    seen = np.arange(table.shape[-1]) <= rows[:, None] if back else np.ones(table.shape[1:], dtype=bool)
    even = (seen / seen.sum(-1, keepdims=True)).astype(np.float32)
    table *= seen
    mass = table.sum(-1, keepdims=True)
    table /= np.where(mass > 0, mass, 1) / np.float32(1 - SMOOTHING)
    table += np.where(mass > 0, np.float32(SMOOTHING), np.float32(1)) * even
    np.maximum(table, _NOTHING, out=table)


# ---- groups --------------------------------------------------------------------------------------------------------


def _grouped(
    stream: str,
    members: tuple[int, ...],
    distances: NDArray[np.float64],
    reduced: str,
    error: float,
    *,
    number: int | None,
) -> Grouping:
    labels, silhouette = _labels(distances, number)
    medoids = []
    for label in range(labels.max() + 1):
        (inside,) = np.nonzero(labels == label)
        sums = distances[np.ix_(inside, inside)].sum(1).round(9)
        medoids.append(members[int(inside[np.argmin(sums)])])
    return Grouping(
        stream=stream,
        members=members,
        labels=labels,
        medoids=tuple(medoids),
        places=_places(distances),
        silhouette=silhouette,
        distances=distances,
        reduced=reduced,
        error=error,
    )


def _labels(distances: NDArray[np.float64], number: int | None) -> tuple[NDArray[np.int64], float]:
    """The group of each head, counted in the order in which they appear, and the silhouette."""
    from sklearn.metrics import silhouette_score

    count = len(distances)
    alike = distances.max(initial=0.0) < _SAME
    choices = [number] if number is not None else [1] if alike or count < 3 else range(2, min(MOST, count - 1) + 1)
    best, score = np.zeros(count, dtype=np.int64), -np.inf
    for k in choices:
        labels = _cut(distances, k)
        apart = 1 < labels.max() + 1 < count and not alike
        found = float(silhouette_score(distances, labels, metric="precomputed")) if apart else 0.0
        if found > score + 1e-9:
            best, score = labels, found
    return best, score


def _cut(distances: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    from sklearn.cluster import AgglomerativeClustering

    if k == 1:
        return np.zeros(len(distances), dtype=np.int64)
    labels = AgglomerativeClustering(n_clusters=k, metric="precomputed", linkage="average").fit_predict(distances)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], dtype=np.int64)


def _places(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Classical scaling in two dimensions [heads, 2]: eigenvectors of $-\frac12 C D C$, D the squared distances.

    The place of the largest size on each axis is positive. Torgerson 1952.
    """
    centred = squares - squares.mean(0)
    inner = -(centred - centred.mean(1, keepdims=True)) / 2
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    places = np.zeros((len(squares), 2))
    for axis in range(min(2, len(squares))):
        along = vectors[:, -1 - axis] * np.sqrt(max(0.0, values[-1 - axis]))
        places[:, axis] = along * (1.0 if along[np.argmax(np.abs(along).round(9))] >= 0 else -1.0)
    return places
