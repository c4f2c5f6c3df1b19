"""What the heads of a model do and how much they matter: one row per head, frozen, numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clearhead.errors import UsageError
from clearhead.maps import Recipe


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
class HeadReport:
    r"""The heads of a model over a data set: $I_h = E_x|\partial L/\partial\xi_h|$, what they look at, which are alike.

    Arrays have one entry for each of `heads`. `importance` is that of Michel et al. 2019 with its standard `error`,
    `weighted` is $E\,\mathrm{mean}(A \odot \partial f/\partial A)^+$, `relevance` the mean absolute relevance that lrp
    sends through a head; those that were not asked for are None.
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
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        for name in ("importance", "error", "weighted", "relevance"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != (len(self.heads),):
                raise UsageError(f"A report has one {name} per head; found {np.shape(value)} for {len(self.heads)}.")
