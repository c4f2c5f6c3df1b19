"""A report on heads as a drawing needs it: layers by heads, the first ten, patterns counted, pruning and clusters.

Shares are of the importance of all heads of the report together, so that streams can be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from clearhead.render.clusterings import Constellation, constellation
from clearhead.render.prunings import UNTRIED, Pruning, pruning
from clearhead.render.scene import pairs
from clearhead.render.texts import Amount, Digits, visible
from clearhead.render.verdicts import Verdict

if TYPE_CHECKING:
    from clearhead.headreports import Head, HeadReport

TOP = 10  # heads, or groups of them, in a table
CELLS = 2_048  # heads in all up to which each has a cell with its numbers; more are one image per stream
NAMED = 8  # heads named beside a pattern

_WHOM = {
    "loss": "how much the loss changes, to first order, with a gate on the head's output",
    "target": "how much the target changes, to first order, with a gate on the head's output",
}
_MEANINGS = {
    "previous token": "looks at the token before",
    "next token": "looks at the token after",
    "same token": "looks at the token itself",
    "first token": "looks at the first token, where a head rests",
    "delimiter": "looks at delimiters, where a head rests",
    "diagonal band": "looks at the tokens around",
    "block": "looks within its own segment",
    "vertical": "all tokens look at the same one or few",
    "broad": "looks at nearly everything alike",
    "duplicate token": "looks at earlier copies of the token",
    "induction": "looks at what followed an earlier copy of the token",
    "mixed": "no single pattern",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One head in the table of its stream; `intensity` is 1 for the most important head of the report."""

    number: int
    share: str
    rank: int
    intensity: float
    said: str


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The heads of one stream: a row per layer, None where a layer has fewer heads; `cells` are drawn one by one."""

    stream: str
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    rows: tuple[tuple[Cell | None, ...], ...]
    held: str
    largest: str
    grouped: bool
    cells: bool

    @property
    def size(self) -> str:
        """Layers and heads, in words."""
        count = sum(cell is not None for row in self.rows for cell in row)
        return f"{plural(len(self.layers), 'layer')}, {plural(count, 'head')}"

    @property
    def depth(self) -> NDArray[np.float64]:
        """The intensities [layers, heads], 0 where there is no head."""
        return np.array([[cell.intensity if cell else 0.0 for cell in row] for row in self.rows])

    @property
    def dots(self) -> NDArray[np.uint8]:
        """The same as opacities of an image."""
        made: NDArray[np.uint8] = np.round(255 * self.depth).astype(np.uint8)
        return made


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A row of the table of the most important heads; what was not asked for is empty."""

    rank: int
    name: str
    where: str
    importance: Amount
    error: str
    share: str
    weighted: str
    relevance: str
    pattern: str
    confidence: str


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A pattern: its name, what it means, how many heads have it, in which streams, and the surest of them."""

    name: str
    meaning: str
    count: int
    counts: tuple[str, ...]
    share: float
    surest: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Everything there is to draw about the heads of a model."""

    kind: ClassVar[str] = "heads"
    method: ClassVar[str] = "heads"
    heading: ClassVar[str] = "Which heads matter"
    cross_check: ClassVar[tuple[tuple[str, str], ...]] = ()
    untried: ClassVar[str] = UNTRIED

    model: str
    task: str
    measured: str
    sign: str
    documents: str
    uncertainty: str
    top: tuple[Ranked, ...]
    top_share: str
    groups: tuple[tuple[str, str, str], ...]
    grids: tuple[Grid, ...]
    kinds: tuple[Kind, ...]
    pruning: Pruning | None
    constellations: tuple[Constellation, ...]
    count: int
    weighted: bool
    relevance: bool
    verdict: Verdict
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    fingerprint: str

    @property
    def figure(self) -> str:
        """How many heads there are."""
        return plural(self.count, "head")

    @property
    def excerpt(self) -> str:
        """The streams."""
        return " / ".join(f"{grid.stream}, {grid.size}" for grid in self.grids)


def sheet(found: HeadReport) -> Sheet:
    """The scene of a report."""
    shares = _shares(found.importance)
    order = ranking(found.importance)
    top = tuple(_ranked(found, shares, rank, int(at)) for rank, at in enumerate(order[:TOP], 1))
    return Sheet(
        model=visible(found.model),
        task=visible(found.task),
        measured=visible(found.of),
        sign=visible(f"sign dropped per {found.absolute}") + ("; each layer at length 1" if found.normalised else ""),
        documents=f"{found.documents:,}",
        uncertainty=_uncertainty(found),
        top=top,
        top_share=percent(float(shares[order[:TOP]].sum()), 1),
        groups=_groups(found),
        grids=_grids(found, shares, order),
        kinds=_kinds(found),
        pruning=pruning(found.curves, found.pruning) if found.curves else None,
        constellations=tuple(constellation(found, each) for each in found.clusters if each.members),
        count=len(found.heads),
        weighted=found.weighted is not None,
        relevance=found.relevance is not None,
        verdict=_verdict(found),
        warnings=tuple(visible(each) for each in found.warnings),
        notes=tuple(visible(each) for each in found.notes),
        settings=(*pairs(found.recipe.settings), *pairs({"seed": found.recipe.seed, "dtype": found.recipe.dtype})),
        versions=pairs(found.recipe.versions),
        fingerprint=visible(found.recipe.model_fingerprint) if found.recipe.model_fingerprint else "",
    )


def named(head: Head) -> str:
    """A head as `encoder 3.4`, whatever the stream is called."""
    return visible(str(head))


def ranking(importance: NDArray[np.float64]) -> NDArray[np.int64]:
    """The numbers of heads from the most important; what is no number comes last."""
    known = np.where(np.isfinite(importance), importance, -np.inf)
    order: NDArray[np.int64] = np.argsort(-known, kind="stable")
    return order


def percent(share: float, decimals: int) -> str:
    """A share of 1 in percent, without the sign."""
    return f"{100 * share:.{decimals}f}" if isfinite(share) else "?"


def plural(count: int, word: str) -> str:
    """A number and what it counts."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _verdict(found: HeadReport) -> Verdict:
    whom = _WHOM.get(found.of, f"how much {visible(found.of)} changes with a gate on the head's output")
    return Verdict(
        state="unclaimed",
        words="Importance of heads",
        reason=f"{whom}, averaged over {plural(found.documents, 'document')}. It ranks heads; it does not say what "
        "happens when they go.",
    )


def _shares(importance: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.clip(np.nan_to_num(importance, posinf=0.0, neginf=0.0), 0.0, None)
    whole = float(known.sum())
    return known / whole if whole else known


def _decimals(found: HeadReport) -> int:
    """Decimals of a share in percent: of many heads each has little."""
    return 1 if len(found.heads) <= 256 else 2


def _uncertainty(found: HeadReport) -> str:
    """The median standard error as a share of the importance, in percent; nothing where none is known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = found.error / found.importance
    known = parts[np.isfinite(parts)]
    return f"{100 * float(np.median(known)):.2g}" if len(known) else ""


# ---- layers by heads ------------------------------------------------------------------------------------------------


def _grids(found: HeadReport, shares: NDArray[np.float64], order: NDArray[np.int64]) -> tuple[Grid, ...]:
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    streams = dict.fromkeys(head.stream for head in found.heads)
    return tuple(_grid(found, stream, shares, ranks) for stream in streams)


def _grid(found: HeadReport, stream: str, shares: NDArray[np.float64], ranks: NDArray[np.int64]) -> Grid:
    members = {(head.layer, head.head): n for n, head in enumerate(found.heads) if head.stream == stream}
    layers, heads = (tuple(sorted({place[axis] for place in members})) for axis in (0, 1))
    largest, decimals = float(shares.max()), _decimals(found)

    def cell(n: int) -> Cell:
        share = percent(float(shares[n]), decimals)
        return Cell(
            number=n,
            share=share if isfinite(found.importance[n]) else "?",
            rank=int(ranks[n]),
            intensity=float(shares[n]) / largest if largest else 0.0,
            said=_said(found, n, share, int(ranks[n])),
        )

    own = [members[place] for place in sorted(members)]
    return Grid(
        stream=visible(stream),
        layers=layers,
        heads=heads,
        rows=tuple(
            tuple(cell(members[layer, head]) if (layer, head) in members else None for head in heads)
            for layer in layers
        ),
        held=percent(float(shares[own].sum()), 1),
        largest=percent(largest, decimals),
        grouped=any(found.heads[n].group is not None for n in own),
        cells=len(found.heads) <= CELLS,
    )


def _said(found: HeadReport, n: int, share: str, rank: int) -> str:
    """What pointing at a cell shows."""
    head = found.heads[n]
    group = f", key-value group {head.group}" if head.group is not None else ""
    pattern = f"; {visible(found.patterns[n].name)}" if _has_patterns(found) else ""
    return f"{named(head)}{group}: {share} % of all importance, rank {rank} of {len(found.heads)}{pattern}"


# ---- the first ten --------------------------------------------------------------------------------------------------


def _ranked(found: HeadReport, shares: NDArray[np.float64], rank: int, n: int) -> Ranked:
    digits = _digits(found.importance)
    head, pattern = found.heads[n], found.patterns[n] if _has_patterns(found) else None
    return Ranked(
        rank=rank,
        name=named(head),
        where=visible(head.module) if head.module else "",
        importance=digits.amount(float(found.importance[n])),
        error=digits.amount(float(found.error[n])).shown if isfinite(found.error[n]) else "",
        share=percent(float(shares[n]), _decimals(found)),
        weighted=_written(found.weighted, n),
        relevance=_written(found.relevance, n),
        pattern=visible(pattern.name) if pattern else "",
        confidence=f"{pattern.confidence:.2f}" if pattern else "",
    )


def _digits(values: NDArray[np.float64]) -> Digits:
    return Digits(Digits.of([float(each) for each in values]).decimals, signed=False)


def _written(values: NDArray[np.float64] | None, n: int) -> str:
    return "" if values is None else _digits(values).amount(float(values[n])).shown


def _groups(found: HeadReport) -> tuple[tuple[str, str, str], ...]:
    """The most important groups of heads that share keys and values: name, importance, error."""
    digits = _digits(np.array([each.importance for each in found.groups]))
    first = sorted(found.groups, key=lambda each: -each.importance)[:TOP]
    return tuple(
        (
            visible(f"{each.stream} {each.layer}, group {each.group}"),
            digits.amount(each.importance).shown,
            digits.amount(each.error).shown if isfinite(each.error) else "",
        )
        for each in first
    )


# ---- patterns -------------------------------------------------------------------------------------------------------


def _has_patterns(found: HeadReport) -> bool:
    return len(found.patterns) == len(found.heads)


def _kinds(found: HeadReport) -> tuple[Kind, ...]:
    """The patterns from the most frequent, each with its surest heads."""
    if not _has_patterns(found):
        return ()
    streams = tuple(dict.fromkeys(head.stream for head in found.heads))
    counts = Counter(pattern.name for pattern in found.patterns)
    return tuple(_kind(found, name, count, streams) for name, count in counts.most_common())


def _kind(found: HeadReport, name: str, count: int, streams: Sequence[str]) -> Kind:
    own = [n for n, pattern in enumerate(found.patterns) if pattern.name == name]
    surest = sorted(own, key=lambda n: -found.patterns[n].confidence)[:NAMED]
    by_stream = Counter(found.heads[n].stream for n in own)
    return Kind(
        name=visible(name),
        meaning=_MEANINGS.get(name, ""),
        count=count,
        counts=tuple(f"{visible(stream)} {by_stream[stream]}" for stream in streams),
        share=count / len(found.heads),
        surest=tuple(named(found.heads[n]) for n in surest),
    )
