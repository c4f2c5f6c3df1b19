"""What the heads of a model do and how much they matter: one row per head, frozen, numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clearhead.errors import UsageError
from clearhead.maps import Recipe

if TYPE_CHECKING:
    import pandas

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Head:
    """One head: its stream (`encoder`, `decoder`, `cross`, ...), its layer in that stream, its number there.

    `module` is the path of its attention, `group` the key-value group that it shares where queries are grouped.
    """

    stream: str
    layer: int
    head: int
    module: str = ""
    group: int | None = None

    def __str__(self) -> str:
        return f"{self.stream} {self.layer}.{self.head}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Clusters:
    """Groups of heads of one stream that look alike.

    `members` are numbers of heads in the report, `labels` the group of each, `medoids` the head that stands for each
    group, `places` a map in two dimensions [members, 2], `silhouette` how well the groups are apart, from -1 to 1.
    """

    stream: str
    members: tuple[int, ...]
    labels: NDArray[np.int64]
    medoids: tuple[int, ...]
    places: NDArray[np.float64]
    silhouette: float


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """What a head looks at, in a word, how sure that is, from 0 to 1, and the figures that it was read from."""

    name: str
    confidence: float
    entropy: float
    distance: float
    sink: float
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """A metric against the share of heads removed: `order` says in which order; a band has a row for each order."""

    order: str
    removed: NDArray[np.float64]
    metric: NDArray[np.float64]
    metric_name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Pruning:
    """Curves of one metric as heads are removed, and what they say.

    `free` is the largest share of heads that can go in the order of importance, all smaller ones included, without a
    loss that `test` finds significant at 5 %; `beats_random` says whether over the first half of the heads that order
    lies above nine in ten random ones.
    """

    curves: tuple[Curve, ...]
    order: tuple[int, ...]  # numbers of heads, the first to go in front
    documents: int
    free: float
    test: str
    beats_random: bool
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain data; `from_dict` gives the same back."""
        return {**_plain(self), "curves": [_plain(each) for each in self.curves]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Pruning:
        """What `to_dict` wrote."""
        known = {**data, "order": tuple(data["order"]), "notes": tuple(data["notes"])}
        return cls(**{**known, "curves": tuple(_curve(each) for each in data["curves"])})

    def table(self) -> str:
        """The curves in columns of text, a row per share removed; of a band its lowest, middle and highest."""
        names = [f"{each.order} (min, median, max)" if each.metric.ndim > 1 else each.order for each in self.curves]
        rows = [["removed", *names]]
        for n, share in enumerate(self.curves[0].removed):
            cells = []
            for curve in self.curves:
                band = np.atleast_2d(curve.metric)[:, n]
                shown = (band.min(), np.median(band), band.max()) if curve.metric.ndim > 1 else (band[0],)
                cells.append(" ".join(f"{value:.3f}" for value in shown))
            rows.append([f"{100 * share:.0f} %", *cells])
        widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
        return "\n".join("  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Heads that share keys and values, and the importance of all of them together with its standard error."""

    stream: str
    layer: int
    group: int
    importance: float
    error: float


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One head of a ranking, its score, and its share of the total."""

    head: Head
    score: float
    share: float


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadReport:
    r"""The heads of a model over a data set: $I_h = E_x|\partial L/\partial\xi_h|$, what they look at, which are alike.

    Arrays have one entry for each of `heads`. `importance` is that of Michel et al. 2019 with its standard `error`,
    `weighted` is $E\,\mathrm{mean}(A \odot \partial f/\partial A)^+$, `relevance` the mean absolute relevance that lrp
    sends through a head; those that were not asked for are None. `curves` are those of
    `pruning`, where that was measured.
    """

    model: str
    task: str
    heads: tuple[Head, ...]
    documents: int
    of: str  # "loss" or "target"
    absolute: str  # "example" or "token"
    importance: NDArray[np.float64]
    error: NDArray[np.float64]
    weighted: NDArray[np.float64] | None = None
    relevance: NDArray[np.float64] | None = None
    patterns: tuple[Pattern, ...] = ()
    clusters: tuple[Clusters, ...] = ()
    curves: tuple[Curve, ...] = ()
    pruning: Pruning | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    normalised: bool = False  # are importances divided by their layer's L2 norm?
    groups: tuple[Group, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        if self.pruning is not None:
            object.__setattr__(self, "curves", self.pruning.curves)
        for name in ("importance", "error", "weighted", "relevance"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != (len(self.heads),):
                raise UsageError(f"A report has one {name} per head; found {np.shape(value)} for {len(self.heads)}.")

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of the streams, in the order in which their heads stand."""
        return tuple(dict.fromkeys(head.stream for head in self.heads))

    def top(self, k: int = 10) -> list[Ranked]:
        """The `k` heads of largest `weighted` score (`importance`, where that was not asked for), largest first.

        Raises UsageError for more heads than there are.
        """
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= len(self.heads):
            raise UsageError(
                f"`k` must be from 1 to the number of heads, {len(self.heads)}; found {k!r}. Ask for fewer."
            )
        scores = self.importance if self.weighted is None else self.weighted
        total = float(scores.sum()) or 1.0
        order = np.argsort(-scores, kind="stable")[:k]
        return [Ranked(head=self.heads[n], score=float(scores[n]), share=float(scores[n]) / total) for n in order]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data; `from_dict` gives the same report back."""
        listed = {name: [_plain(each) for each in getattr(self, name)] for name in _ROWS}
        tested = {"pruning": self.pruning.to_dict() if self.pruning else None}
        return {"schema": SCHEMA, **_plain(self), **listed, **tested, "recipe": _plain(self.recipe)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeadReport:
        """The report that `to_dict` wrote; raises UsageError for another schema."""
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, Mapping) else type(data).__name__
            raise UsageError(f"This version reads schema {SCHEMA}; found {found!r}. Make the report again to renew it.")
        rows = {name: tuple(make(each) for each in data[name]) for name, make in _ROWS.items()}
        numbers = {name: _array(data[name]) for name in ("importance", "error", "weighted", "relevance")}
        texts = {name: tuple(data[name]) for name in ("warnings", "notes")}
        rest = {name: value for name, value in data.items() if name != "schema"}
        rest["pruning"] = Pruning.from_dict(rest["pruning"]) if rest.get("pruning") else None
        return cls(**{**rest, **rows, **numbers, **texts, "recipe": Recipe(**data["recipe"])})

    def to_frame(self) -> pandas.DataFrame:
        """One row per head as a pandas data frame (pandas is not a dependency: it must be installed)."""
        try:
            import pandas
        except ImportError as error:
            raise UsageError("`to_frame` needs pandas, which is not installed. Run: pip install pandas") from error
        frame = pandas.DataFrame([_plain(head) for head in self.heads])
        for name in ("importance", "error", "weighted", "relevance"):
            if getattr(self, name) is not None:
                frame[name] = getattr(self, name)
        if self.patterns:
            frame["pattern"] = [each.name for each in self.patterns]
            frame["confidence"] = [each.confidence for each in self.patterns]
        return frame

    def save(self, path: str | Path) -> Path:
        """Write `.json` (lossless), `.html`, `.parquet`, `.png` or `.svg`; nothing is left half-written."""
        from clearhead import render

        return render.save([self], path)

    def show(self) -> None:
        """Print the report to the terminal."""
        from clearhead import render

        render.show([self])

    def _repr_html_(self) -> str:
        from clearhead import render

        return render.fragment([self])


def _plain(row: Any) -> dict[str, Any]:
    """The fields of a row as plain data; rows within rows are left to the caller."""
    found = {each.name: getattr(row, each.name) for each in fields(row)}
    return {name: _value(value) for name, value in found.items()}


def _value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _array(values: Any) -> NDArray[np.float64] | None:
    return None if values is None else np.array(values, dtype=np.float64)


def _curve(data: Mapping[str, Any]) -> Curve:
    arrays = {name: np.array(data[name], dtype=np.float64) for name in ("removed", "metric")}
    return Curve(**{**data, **arrays})


def _clusters(data: Mapping[str, Any]) -> Clusters:
    tuples = {name: tuple(data[name]) for name in ("members", "medoids")}
    places = np.array(data["places"], dtype=np.float64).reshape(-1, 2)
    return Clusters(**{**data, **tuples, "labels": np.array(data["labels"], dtype=np.int64), "places": places})


_ROWS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "heads": lambda data: Head(**data),
    "patterns": lambda data: Pattern(**data),
    "clusters": _clusters,
    "curves": _curve,
    "groups": lambda data: Group(**data),
}
