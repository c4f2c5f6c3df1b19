"""Pruning curves as a drawing needs them: lines, the band of random orders, and what they say, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from clearhead.render.texts import visible

if TYPE_CHECKING:
    from clearhead.headreports import Curve
    from clearhead.headreports import Pruning as Tested

HALF = 0.5  # of the heads: the part over which orders are compared
BEATEN = 0.9  # of the random orders, for an order to beat them
TOLERANCE = 0.01  # of the whole model's metric that may be lost
TICKS = 5
CAVEAT = (
    "How important a head is says little about whether it can go: random orders often prune as well "
    "(Budhraja et al. 2020)."
)
UNTRIED = "Not tried. " + CAVEAT.replace(": random", ", as random")
NO_BAND = f"{CAVEAT} No random orders were removed here, so the curves have nothing to be compared with."
_LOW = ("loss", "perplexity", "error", "nll", "entropy")  # metrics of which less is better

Style = Literal["first", "second", "third", "worst", "middle"]
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One order: points in [0, 1] from left and from top, the same in numbers, and how it is drawn."""

    name: str
    style: Style
    points: Points
    values: tuple[float, ...]
    removed: tuple[float, ...]

    @property
    def path(self) -> str:
        """The line as an SVG path in a square of 100."""
        return "M" + "L".join(f"{100 * x:.2f} {100 * y:.2f}" for x, y in self.points) if self.points else ""


@dataclass(frozen=True, kw_only=True)
class Band:
    """Random orders from the lowest to the highest metric; `upper` and `lower` are points like those of a line."""

    name: str
    orders: int
    upper: Points
    lower: Points
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def path(self) -> str:
        """The area as an SVG path in a square of 100."""
        if not self.upper:
            return ""
        return "M" + "L".join(f"{100 * x:.2f} {100 * y:.2f}" for x, y in (*self.upper, *reversed(self.lower))) + "Z"


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """The curves of a report over one pair of axes; `goes` is the largest share that can go, by which order."""

    metric: str
    more: bool  # is more of the metric better?
    lines: tuple[Line, ...]
    bands: tuple[Band, ...]
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    goes: float | None
    goes_said: str
    findings: tuple[str, ...]
    caveat: str

    @property
    def columns(self) -> tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]:
        """Every number drawn, as columns: a name, the shares removed, the metric there."""
        found = [(line.name, line.removed, line.values) for line in self.lines]
        for band in self.bands:
            shares = tuple(x for x, _ in band.upper)
            found += [(f"{band.name}, lowest", shares, band.low), (f"{band.name}, highest", shares, band.high)]
        return tuple(found)

    @property
    def rows(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The same as rows: the share removed in percent, and a number or nothing per column."""
        shares = sorted({round(x, 6) for _, removed, _ in self.columns for x in removed})
        held = [dict(zip((round(x, 6) for x in removed), values, strict=True)) for _, removed, values in self.columns]
        return tuple((f"{100 * x:.3g}", tuple(figure(each[x]) if x in each else "" for each in held)) for x in shares)

    def down(self, value: float) -> float:
        """Where a metric lies, from 0 at the top to 1 at the bottom."""
        return (self.high - value) / (self.high - self.low)


def pruning(curves: Sequence[Curve], tested: Tested | None = None) -> Pruning:
    """The scene of some curves. Points that are no numbers are left out.

    The largest share that can go is that of a significance test, if one was made; else a hundredth may be lost.
    """
    metric = curves[0].metric_name
    better = -1.0 if any(word in metric.lower() for word in _LOW) else 1.0
    known = np.concatenate([np.ravel(each.metric) for each in curves])
    low, high, ticks = rounded_axis(known[np.isfinite(known)])
    lines = [each for each in curves if np.ndim(each.metric) == 1]
    many = [each for each in curves if np.ndim(each.metric) == 2]
    ours = [each for each in lines if not _is_worst(each)]
    goes, said = _found_free(tested) if tested else _goes(ours, better, metric)
    return Pruning(
        metric=visible(metric),
        more=better > 0,
        lines=(*_lines(lines, low, high), *(_median(each, low, high) for each in many)),
        bands=tuple(_band(each, low, high) for each in many),
        low=low,
        high=high,
        ticks=ticks,
        goes=goes,
        goes_said=said,
        findings=tuple(_finding(each, other, better) for each in ours for other in many),
        caveat=CAVEAT if many else NO_BAND,
    )


def figure(value: float) -> str:
    """A metric with three digits behind the point, or four that count."""
    if not isfinite(value):
        return "?"
    return f"{value:.3f}" if 0.1 <= abs(value) < 100 or value == 0 else f"{value:.4g}"


def _is_worst(curve: Curve) -> bool:
    return any(word in curve.order.lower() for word in ("worst", "reverse", "least"))


# ---- geometry -------------------------------------------------------------------------------------------------------


def rounded_axis(values: NDArray[np.float64], count: int = TICKS) -> tuple[float, float, tuple[tuple[float, str], ...]]:
    """Ends at round numbers, and about so many ticks at others."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    rough = (high - low) / count
    power = 10.0 ** floor(log10(rough))
    step = next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= rough * (1 - 1e-9))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    decimals = max(0, -floor(log10(step) + 1e-9) + (1 if f"{step / power:.1f}" == "2.5" else 0))
    ticks = tuple((n * step, f"{n * step:.{decimals}f}") for n in range(first, last + 1))
    return first * step, last * step, ticks


def drawn_points(removed: NDArray[np.float64], metric: NDArray[np.float64], low: float, high: float) -> Points:
    """Shares removed and numbers there as points in [0, 1] from left and from top; those not finite are left out."""
    return tuple(
        (float(x), (high - float(y)) / (high - low))
        for x, y in zip(removed, metric, strict=True)
        if isfinite(x) and isfinite(y)
    )


def _line(curve: Curve, metric: NDArray[np.float64], name: str, style: Style, ends: tuple[float, float]) -> Line:
    known = np.isfinite(metric) & np.isfinite(curve.removed)
    return Line(
        name=visible(name),
        style=style,
        points=drawn_points(curve.removed, metric, *ends),
        values=tuple(map(float, metric[known])),
        removed=tuple(map(float, curve.removed[known])),
    )


def _lines(curves: Sequence[Curve], low: float, high: float) -> list[Line]:
    styles: list[Style] = ["first", "second", "third"]
    made = []
    for curve in curves:
        style: Style = "worst" if _is_worst(curve) else styles.pop(0) if len(styles) > 1 else styles[0]
        made.append(_line(curve, curve.metric, curve.order, style, (low, high)))
    return made


def _median(curve: Curve, low: float, high: float) -> Line:
    return _line(curve, np.median(curve.metric, axis=0), f"{curve.order}, median", "middle", (low, high))


def _band(curve: Curve, low: float, high: float) -> Band:
    known = np.isfinite(curve.metric).all(0)
    least, most, removed = curve.metric.min(0)[known], curve.metric.max(0)[known], curve.removed[known]
    return Band(
        name=visible(curve.order),
        orders=len(curve.metric),
        upper=drawn_points(removed, most, low, high),
        lower=drawn_points(removed, least, low, high),
        low=tuple(map(float, least)),
        high=tuple(map(float, most)),
    )


# ---- what they say --------------------------------------------------------------------------------------------------


def _goes(curves: Sequence[Curve], better: float, metric: str) -> tuple[float | None, str]:
    """The largest share up to which no order of importance loses more than a hundredth of the whole model's metric."""
    best: tuple[float, str] | None = None
    for curve in curves:
        share = _spared(curve, better)
        if share is not None and (best is None or share > best[0]):
            best = share, curve.order
    if best is None:
        return None, ""
    share, order = best
    rule = f"at most {100 * TOLERANCE:.0f} % of the whole model's {visible(metric)} is lost"
    if not share:
        return None, f"No share of heads that was tried can go while {rule}."
    return share, f"{100 * share:.0f} % of heads can go ({visible(order)}) while {rule}."


def _found_free(tested: Tested) -> tuple[float | None, str]:
    rule = f"without a significant loss ({visible(tested.test)}, {tested.documents:,} documents)"
    if not tested.free:
        return None, f"No share of heads that was tried can go {rule}."
    return tested.free, f"{100 * tested.free:.0f} % of heads can go in the order of importance {rule}."


def _spared(curve: Curve, better: float) -> float | None:
    start = np.flatnonzero(curve.removed == 0)
    if not len(start):
        return None
    whole = float(curve.metric[start[0]])
    order = np.argsort(curve.removed, kind="stable")
    lost = better * (whole - curve.metric[order]) > TOLERANCE * abs(whole) + 1e-12
    bad = np.flatnonzero(lost | ~np.isfinite(curve.metric[order]))
    last = bad[0] - 1 if len(bad) else len(order) - 1
    return float(curve.removed[order][last]) if last >= 0 else None


def _finding(curve: Curve, band: Curve, better: float) -> str:
    """Whether an order beats nine in ten random ones, by its mean metric over the first half of the heads."""
    half = (curve.removed > 0) & (curve.removed <= HALF) & np.isfinite(curve.metric)
    if not half.any():
        return f"{_order(curve)} cannot be compared with random orders: nothing was tried over the first half."
    own = float(curve.metric[half].mean())
    others = np.array([float(np.interp(curve.removed[half], band.removed, each).mean()) for each in band.metric])
    beaten = int(np.sum(better * others < better * own))
    verb = "beats" if beaten >= BEATEN * len(others) else "does not beat"
    best = float(others.max() if better > 0 else others.min())
    said = f"{_order(curve)} {verb} random orders over the first half of the heads"
    middle, metric = figure(float(np.median(others))), visible(band.metric_name)
    return (
        f"{said}: better than {beaten} of {len(others)}, mean {metric} {figure(own)} against {middle} (their median) "
        f"and {figure(best)} (their best)."
    )


def _order(curve: Curve) -> str:
    """The name of an order at the beginning of a sentence."""
    name = visible(curve.order)
    return f"{name[:1].upper()}{name[1:]}"
