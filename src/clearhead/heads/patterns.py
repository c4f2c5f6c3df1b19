"""What each head looks at, in a word: read from the mass of its rows against what chance would put there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clearhead.attentions import AttentionMaps, LayerMap
from clearhead.headreports import Pattern
from clearhead.heads.listing import heads_of, looks_at_itself, looks_back
from clearhead.units import Unit, sentences

PREVIOUS, NEXT, SAME, FIRST, DELIMITER = "previous token", "next token", "same token", "first token", "delimiter"
DUPLICATE, INDUCTION = "duplicate token", "induction"
BAND, BLOCK, VERTICAL, BROAD, MIXED = "diagonal band", "block", "vertical", "broad", "mixed"
EXACT = (INDUCTION, DUPLICATE, PREVIOUS, NEXT, SAME, FIRST, DELIMITER)  # one key or kind of keys per query
FOLLOWS = (INDUCTION, DUPLICATE)  # what they mean depends on the text, and may be a key that all queries look at
LOOSE = (BAND, BLOCK, VERTICAL)  # several
NAMES = (*EXACT, *LOOSE, BROAD, MIXED)

NAMED = 0.4  # a name holds from here: it explains more of what is above chance than most that is left
MARGIN = 0.3  # a looser name takes over an exact one if it explains so much more: two offsets are a band
EVEN = 0.3  # for broad: rows like exp(x), x normal with a deviation of 0.6; trained heads are hardly ever more even
BESIDE = 2  # a band reaches so many places to both sides; across texts, an eighth of the keys if that is more
FEW, FEWEST = 3, 6  # keys that make a vertical, at most a sixth of all: of ten, three are no few
FAIR = 0.25  # of all queries must repeat something before a head is named after what it does then
ROWS = 4  # rows that must have bearing on a name, over all documents: fewer are an accident
_FLAT = 1 - 1 / math.e  # how much of random rows (flat Dirichlet) lies below even weights

Table = NDArray[np.float64]
Mask = NDArray[np.bool_]


def of(maps: Sequence[AttentionMaps]) -> tuple[Pattern, ...]:
    r"""Name each head, in the order of `heads_of(maps)`.

    Every name has a set S(q) of keys, and the score $\frac{E_q\sum_{k \in S(q)} a_{qk} - c}{1 - c}$ with $c = E_q
    |S(q)|/K_q$, $K_q$ the keys that q sees: 1 if all mass is in the set, 0 by chance, whatever the length. Means
    over the queries that have such keys, then over documents. For `broad` it is the overlap with even weights, 0
    for random rows. For induction and duplicates c is at least what other queries give to the same keys, and they
    name a head only where a quarter of all queries repeat something: give repeated sequences to look for them.
    Repetition is read from the texts of units; inputs that are mere numbers have none.

    The exact name of the largest score holds, unless a looser one explains MARGIN more; then broad; else mixed.
    `confidence` is the score, and for mixed how far the best score is from 1. Entropy is in bits, `distance` the
    mean of $|q - k|$, `sink` the mass on the first key and on special ones. Across two texts no name of a position
    applies, and `diagonal band` is an alignment. Names after Clark et al. 2019, Kovaleva et al. 2019, Olsson et al.
    2022. Raises UsageError where there are no maps or where they are of several models.
    """
    heads_of(maps)  # raises
    tallies: list[list[_Tally]] = [[] for _ in maps]
    for document, each in enumerate(maps):
        for stream in each:
            back = looks_back(stream)
            for layer in stream:
                tallies[document].append(_read(layer, _Sight(layer, each.texts, back)))
    layers = list(zip(*tallies, strict=True))
    return tuple(pattern for documents in layers for pattern in _named(documents))


@dataclass(kw_only=True, eq=False)
class _Tally:
    """What the rows of one layer in one document add up to; arrays have one entry per head."""

    mass: dict[str, Table] = field(default_factory=dict)
    chance: dict[str, Table | float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    entropy: Table | float = 0.0
    distance: Table | float = 0.0
    sink: Table | float = 0.0
    all: int = 0
    inside: dict[str, Table] = field(default_factory=dict)  # mass on each key where the name means it [heads, keys]
    times: dict[str, Table] = field(default_factory=dict)  # how often the name means it [keys]

    def add(self, name: str, mass: Table, chance: float, rows: int) -> None:
        self.mass[name] = self.mass.get(name, 0.0) + mass
        self.chance[name] = self.chance.get(name, 0.0) + chance
        self.rows[name] = self.rows.get(name, 0) + rows


class _Sight:
    """What the queries of a layer see, and which of it each name means; masks are [queries, keys]."""

    def __init__(self, layer: LayerMap, texts: object, back: bool) -> None:
        self.own, self.back = looks_at_itself(layer), back
        self.queries, self.keys = layer.shape[1:]
        self.places = np.arange(self.keys)
        self.special = np.array([unit.special for unit in layer.keys], dtype=bool)
        self.words, self.segments = _words(layer.keys), _segments(layer.keys, texts)

    def seen(self, rows: NDArray[np.int64]) -> Mask:
        return self.places <= rows[:, None] if self.back else np.ones((len(rows), self.keys), dtype=bool)

    def line(self, rows: NDArray[np.int64]) -> Table:
        """Where each query stands among the keys."""
        scale = 1.0 if self.own else (self.keys - 1) / max(1, self.queries - 1)
        return np.asarray(rows * scale, dtype=np.float64)[:, None]

    def sinks(self) -> tuple[Mask, Mask]:
        return self.places == 0, self.special & (self.places > 0)

    def sets(self, rows: NDArray[np.int64]) -> Iterator[tuple[str, Mask]]:
        """Each name that applies, and the keys that it means."""
        first, delimiters = self.sinks()
        sink = np.ones((len(rows), 1), dtype=bool)
        if self.own:  # a sink that looks at itself says nothing
            sink = ~(self.special[rows] | (rows == 0))[:, None]
        yield FIRST, first & sink
        yield DELIMITER, delimiters & sink
        reach = BESIDE if self.own else max(BESIDE, self.keys / 8)
        if self.queries >= ROWS:
            yield BAND, np.abs(self.places - self.line(rows)) <= reach
        if not self.own:
            return
        offset = self.places - rows[:, None]
        yield PREVIOUS, offset == -1
        yield NEXT, offset == 1
        yield SAME, offset == 0
        word = self.words[rows][:, None]
        yield DUPLICATE, (self.words == word) & (offset < 0)
        yield INDUCTION, (np.roll(self.words, 1) == word) & (offset <= -1) & (self.places > 0)
        if len(set(self.segments.tolist()) - {-1}) > 1:
            segment = self.segments[rows][:, None]
            yield BLOCK, (self.segments == segment) & (segment >= 0)


def _words(units: Sequence[Unit]) -> NDArray[np.int64]:
    """A number for each text; special units have one of their own each."""
    known: dict[str, int] = {}
    return np.array(
        [-1 - n if u.special else known.setdefault(u.text.strip().casefold(), n) for n, u in enumerate(units)]
    )


def _segments(units: Sequence[Unit], texts: object) -> NDArray[np.int64]:
    """The number of the text and sentence of each unit; -1 for special units."""
    known: dict[tuple[str, int], int] = {}
    spans = {name: sentences(text) for name, text in texts.items()} if isinstance(texts, dict) else {}
    found = []
    for unit in units:
        at = [n for n, (_, end) in enumerate(spans.get(unit.stream, ())) if (unit.start or 0) < end]
        key = unit.stream, at[0] if at else 0
        found.append(-1 if unit.special else known.setdefault(key, len(known)))
    return np.array(found)


# ---- reading -------------------------------------------------------------------------------------------------------


def _read(layer: LayerMap, sight: _Sight) -> _Tally:
    tally = _Tally()
    above, columns = np.zeros((2, layer.heads, sight.keys))
    even, sights = np.zeros((2, sight.keys))
    for rows, block in layer.blocks(None):
        seen = sight.seen(rows)
        share = np.asarray(block, dtype=np.float64) * seen
        mass = share.sum(-1, keepdims=True)
        share /= np.where(mass > 0, mass, 1)
        count = seen.sum(-1)
        _figures(tally, share, rows, sight)
        _masses(tally, share, rows, seen, sight)
        columns, sights = columns + share.sum(1), sights + seen.sum(0)
        level = seen / count[:, None]
        wide = count >= ROWS
        if wide.any():
            overlap = np.minimum(share[:, wide], level[wide]).sum((1, 2))
            tally.add(BROAD, overlap, _FLAT * int(wide.sum()), int(wide.sum()))
            above += (share[:, wide] - level[wide]).sum(1)
            even += level[wide].sum(0)
    _columns(tally, above, even)
    _others(tally, columns, sights)
    return tally


def _figures(tally: _Tally, share: Table, rows: NDArray[np.int64], sight: _Sight) -> None:
    tally.entropy = tally.entropy - (share * np.log2(np.where(share > 0, share, 1))).sum((1, 2))
    tally.distance = tally.distance + (share * np.abs(sight.places - sight.line(rows))).sum((1, 2))
    first, delimiters = sight.sinks()
    tally.sink = tally.sink + share[..., first | delimiters].sum((1, 2))
    tally.all += len(rows)


def _masses(tally: _Tally, share: Table, rows: NDArray[np.int64], seen: Mask, sight: _Sight) -> None:
    """Add the mass in each set, over the queries that see such keys and others."""
    count = seen.sum(-1)
    for name, keys in sight.sets(rows):
        inside = keys & seen
        size = inside.sum(-1)
        with_some = (size > 0) & (size < count)
        if with_some.any():
            mass = np.einsum("hqk,qk->h", share[:, with_some], inside[with_some].astype(np.float64))
            tally.add(name, mass, float((size / count)[with_some].sum()), int(with_some.sum()))
            if name in FOLLOWS:
                meant = inside & with_some[:, None]
                tally.inside[name] = tally.inside.get(name, 0.0) + np.einsum("hqk,qk->hk", share, meant.astype(float))
                tally.times[name] = tally.times.get(name, 0.0) + meant.sum(0)


def _columns(tally: _Tally, above: Table, even: Table) -> None:
    """The few keys that get most above chance over all queries; a head that favours none gives them their number."""
    keys, rows = len(even), tally.rows.get(BROAD, 0)
    few = min(FEW, keys // FEWEST)
    if few < 1 or rows < ROWS:
        return
    best = np.argsort(-above, axis=1, kind="stable")[:, :few]
    chance = even[best].sum(1)
    tally.mass[VERTICAL] = np.take_along_axis(above, best, 1).sum(1) + chance
    tally.chance[VERTICAL], tally.rows[VERTICAL] = np.maximum(chance, rows * few / keys), rows


def _others(tally: _Tally, columns: Table, sights: Table) -> None:
    """Where a name depends on the text, chance is at least what queries that it does not join give to its keys."""
    for name, inside in tally.inside.items():
        others = sights - tally.times[name]
        usual = np.where(others > 0, (columns - inside) / np.where(others > 0, others, 1), 0)
        tally.chance[name] = np.maximum(tally.chance[name], np.clip(usual, 0, 1) @ tally.times[name])


# ---- naming --------------------------------------------------------------------------------------------------------


def _named(documents: Sequence[_Tally]) -> Iterator[Pattern]:
    scores = {name: score for name in (*EXACT, *LOOSE, BROAD) if (score := _score(documents, name)) is not None}
    entropy, distance, sink = (
        np.mean([getattr(each, what) / max(1, each.all) for each in documents], axis=0)
        for what in ("entropy", "distance", "sink")
    )
    queries = sum(each.all for each in documents)
    rare = {name for name in FOLLOWS if sum(each.rows.get(name, 0) for each in documents) < FAIR * queries}
    for head in range(len(entropy)):
        figures = {name: float(score[head]) for name, score in scores.items()}
        name, confidence = choose({name: score for name, score in figures.items() if name not in rare})
        yield Pattern(
            name=name,
            confidence=confidence,
            entropy=float(entropy[head]),
            distance=float(distance[head]),
            sink=float(sink[head]),
            figures=figures,
        )


def _score(documents: Sequence[_Tally], name: str) -> Table | None:
    having = [each for each in documents if each.rows.get(name, 0)]
    if sum(each.rows[name] for each in having) < ROWS:
        return None
    found = [(e.mass[name] - e.chance[name]) / np.maximum(e.rows[name] - e.chance[name], 1e-9) for e in having]
    return np.asarray(np.clip(np.mean(found, axis=0), 0.0, 1.0))


def choose(figures: dict[str, float]) -> tuple[str, float]:
    """The name of scores, and how sure it is: exact names first, then loose ones, broad, mixed.

    >>> choose({"previous token": 0.8, "diagonal band": 0.9}), choose({"previous token": 0.5, "diagonal band": 0.9})
    (('previous token', 0.8), ('diagonal band', 0.9))
    """
    exact = max((name for name in EXACT if name in figures), key=lambda name: figures[name], default=MIXED)
    loose = max((name for name in LOOSE if name in figures), key=lambda name: figures[name], default=MIXED)
    one, several, even = figures.get(exact, 0.0), figures.get(loose, 0.0), figures.get(BROAD, 0.0)
    if one >= NAMED and several < one + MARGIN:
        return exact, one
    if several >= NAMED and several >= even:
        return loose, several
    if even >= EVEN:
        return BROAD, even
    return MIXED, 1 - max(one, several, even)
