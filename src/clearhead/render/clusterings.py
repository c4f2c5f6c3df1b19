"""Clusters of heads as a drawing needs them: a map with a mark per head, and a list."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import cos, isfinite, pi, sin
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clearhead.render.texts import visible

if TYPE_CHECKING:
    from clearhead.headreports import Clusters, HeadReport

WIDE, TALL, MARGIN = 360.0, 270.0, 22.0  # units of the map, and what stays empty round it
POINTS = 2_048  # heads up to which each mark is an element of its own with a name
COLOURS = 6
SHAPES = 7  # no factor in common with the colours, so that 42 clusters look different
LISTED = 24  # members named in sight
_SIDES = {1: 4, 2: 3, 3: 4, 4: 5, 5: 6}  # corners of shapes that are polygons


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One head on the map: where, its cluster, and what pointing at it shows."""

    x: float
    y: float
    group: int
    said: str

    @property
    def colour(self) -> int:
        """Which of the colours."""
        return self.group % COLOURS


@dataclass(frozen=True, kw_only=True)
class Group:
    """One cluster: its letter, the head that stands for it and where, its members and their most common pattern."""

    number: int
    letter: str
    medoid: str
    members: tuple[str, ...]
    pattern: str
    place: tuple[float, float]

    @property
    def colour(self) -> int:
        """Which of the colours."""
        return self.number % COLOURS

    @property
    def shown(self) -> tuple[str, ...]:
        """The members named in sight."""
        return self.members[:LISTED]

    @property
    def hidden(self) -> tuple[str, ...]:
        """The rest, a click away."""
        return self.members[LISTED:]


@dataclass(frozen=True, kw_only=True)
class Constellation:
    """The clusters of one stream."""

    stream: str
    marks: tuple[Mark, ...]
    groups: tuple[Group, ...]
    silhouette: str
    width: float = WIDE
    height: float = TALL

    @property
    def each(self) -> bool:
        """Whether each mark is drawn by itself."""
        return len(self.marks) <= POINTS

    def path(self, group: Group) -> str:
        """All marks of a cluster as one SVG path."""
        return "".join(drawn(group.number, mark.x, mark.y) for mark in self.marks if mark.group == group.number)


def constellation(report: HeadReport, found: Clusters) -> Constellation:
    """The scene of the clusters of one stream."""
    xs, ys = _placed(np.asarray(found.places, dtype=np.float64))
    ids = {int(label): n for n, label in enumerate(dict.fromkeys(sorted(map(int, found.labels))))}
    groups = [ids[int(label)] for label in found.labels]
    short = [f"{report.heads[n].layer}.{report.heads[n].head}" for n in found.members]
    marks = tuple(
        Mark(x=float(x), y=float(y), group=group, said=f"{name}, cluster {letter(group)}")
        for x, y, group, name in zip(xs, ys, groups, short, strict=True)
    )
    return Constellation(
        stream=visible(found.stream),
        marks=marks,
        groups=tuple(_group(report, found, n, groups, marks, short) for n in range(len(ids))),
        silhouette=f"{found.silhouette:.2f}" if isfinite(found.silhouette) else "",
    )


def _group(
    report: HeadReport, found: Clusters, n: int, groups: list[int], marks: tuple[Mark, ...], short: list[str]
) -> Group:
    own = [at for at, group in enumerate(groups) if group == n]
    medoids = [at for at in own if found.members[at] in found.medoids]
    stands = medoids[0] if medoids else own[0]
    return Group(
        number=n,
        letter=letter(n),
        medoid=short[stands],
        members=tuple(short[at] for at in own),
        pattern=_common(report, [found.members[at] for at in own]),
        place=(marks[stands].x, marks[stands].y),
    )


def _common(report: HeadReport, heads: list[int]) -> str:
    if len(report.patterns) != len(report.heads):
        return ""
    ((name, count),) = Counter(report.patterns[n].name for n in heads).most_common(1)
    return f"{visible(name)} ({count} of {len(heads)})"


def letter(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    before, last = divmod(number, 26)
    return (letter(before - 1) if before else "") + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[last]


def _placed(places: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places moved and scaled, by one factor so that distances stay comparable, to fill the map."""
    known = np.nan_to_num(places, posinf=0.0, neginf=0.0)
    low, high = known.min(0), known.max(0)
    reach = high - low
    room = np.array([WIDE, TALL]) - 2 * MARGIN
    factor = float((room[reach > 0] / reach[reach > 0]).min()) if reach.any() else 0.0
    middle = (known - (low + high) / 2) * factor
    return middle[:, 0] + WIDE / 2, TALL / 2 - middle[:, 1]


def drawn(group: int, x: float, y: float, size: float = 5.0) -> str:
    """The mark of a cluster as an SVG path: a disk, square, triangle, diamond, star, hexagon or cross."""
    shape = group % SHAPES
    if shape == 0:
        return f"M{x - size * 0.9:.1f} {y:.1f}a{size * 0.9:.1f} {size * 0.9:.1f} 0 1 0 {size * 1.8:.1f} 0" + (
            f"a{size * 0.9:.1f} {size * 0.9:.1f} 0 1 0 {-size * 1.8:.1f} 0z"
        )
    corners = outline(shape)
    return "M" + "L".join(f"{x + size * a:.1f} {y + size * b:.1f}" for a, b in corners) + "Z"


def outline(shape: int) -> list[tuple[float, float]]:
    """The corners of a shape of about the size of a unit disk."""
    if shape == 6:
        arm = 0.36
        quarter = [(-arm, -1.05), (arm, -1.05), (arm, -arm)]
        return [p for k in range(4) for p in (_turned(a, b, k) for a, b in quarter)]
    sides = _SIDES[shape]
    turn = {1: pi / 4, 3: 0.0}.get(shape, -pi / 2)
    radii = [1.25, 0.5] if shape == 4 else [1.15]
    count = sides * len(radii)
    return [
        (radii[k % len(radii)] * cos(turn + 2 * pi * k / count), radii[k % len(radii)] * sin(turn + 2 * pi * k / count))
        for k in range(count)
    ]


def _turned(a: float, b: float, quarters: int) -> tuple[float, float]:
    for _ in range(quarters):
        a, b = -b, a
    return a, b
