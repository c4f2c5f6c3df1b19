"""Methods against methods as a drawing needs it: how far each two agree, and whether one is better than another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clearhead.render.texts import visible
from clearhead.validations import MEASURES, Figure
from clearhead.validations.plain import number

if TYPE_CHECKING:
    from clearhead.validations import Agreements, Contest, Pair

SURE = 0.05  # of chance, below which a difference counts

_NAMES = {
    "spearman": "Rank correlation (Spearman)",
    "kendall": "Rank correlation (Kendall)",
    "feature": "Largest units in common",
    "rank": "Largest units in common, at the same rank",
    "sign": "Largest units in common, with the same sign",
    "signed-rank": "Largest units in common, at the same rank with the same sign",
}


@dataclass(frozen=True, kw_only=True)
class Square:
    """A figure of two methods: `intensity` from -1 to 1, `chance` where it may be chance, `said` all of it in words."""

    shown: str
    intensity: float
    chance: bool
    said: str


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A square for each two methods, None where there is none.

    `level` says what chance gives, `missing` why a figure may be.
    """

    name: str
    meaning: str
    methods: tuple[str, ...]
    rows: tuple[tuple[Square | None, ...], ...]
    level: str
    missing: str = ""

    @property
    def known(self) -> list[Square]:
        """The squares that hold a figure."""
        return [each for row in self.rows for each in row if each]


# ---- agreement -----------------------------------------------------------------------------------------------------


def agreement(found: Agreements) -> tuple[Matrix, ...]:
    """A matrix for each measure of agreement that any pair has, rank correlation first."""
    held = [name for name in MEASURES if any(_value(each, name) is not None for each in found.pairs)]
    return tuple(_measured(found, name) for name in held)


def _measured(found: Agreements, name: str) -> Matrix:
    pairs = {frozenset((each.first, each.second)): each for each in found.pairs}

    def square(first: str, second: str) -> Square | None:
        pair = pairs.get(frozenset((first, second)))
        if first == second or pair is None or _value(pair, name) is None:
            return None
        return _agreed(pair, name)

    signed = any(name not in each.figures for each in found.pairs)
    return Matrix(
        name=_NAMES.get(name, name),
        meaning=MEASURES[name].replace("the k largest", f"the {_largest(found)} largest"),
        methods=tuple(map(visible, found.methods)),
        rows=_rows(found.methods, square),
        level=_level(found, name),
        missing="–: one of the two has no sign." if signed else "",
    )


def _rows(methods: Sequence[str], square: Callable[[str, str], Square | None]) -> tuple[tuple[Square | None, ...], ...]:
    return tuple(tuple(square(first, second) for second in methods) for first in methods)


def _value(pair: Pair, name: str) -> float | None:
    return pair.figures[name].value if name in pair.figures else None


def _agreed(pair: Pair, name: str) -> Square:
    figure = pair.figures[name]
    by = " (by size: one of the two has no sign)" if pair.by == "size" and name in ("spearman", "kendall") else ""
    parts = [f"{pair.first} – {pair.second}: {spanned(figure)}", _by_chance(figure), f"{pair.units:.3g} units{by}"]
    return Square(
        shown=number(figure.value),
        intensity=max(-1.0, min(1.0, figure.value or 0.0)),
        chance=within_chance(figure),
        said=visible(", ".join(part for part in parts if part)),
    )


def within_chance(figure: Figure) -> bool:
    """Whether a figure, of a mean its interval, meets the central 95 % of chance; False where that is unknown."""
    if figure.value is None or figure.chance_low is None or figure.chance_high is None:
        return False
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return low <= figure.chance_high and high >= figure.chance_low


def spanned(figure: Figure, digits: int = 2) -> str:
    """A figure with its interval."""
    shown = number(figure.value, digits)
    if figure.low is None or figure.high is None:
        return shown
    return f"{shown} ({number(figure.low, digits)} to {number(figure.high, digits)})"


def _by_chance(figure: Figure) -> str:
    if figure.chance_low is None or figure.chance_high is None:
        return ""
    p = f", p {figure.p:.2g}" if figure.p is not None else ""
    return f"chance {number(figure.chance_low)} to {number(figure.chance_high)}{p}"


def _largest(found: Agreements) -> str:
    tops = sorted({round(each.top, 1) for each in found.pairs})
    return f"{tops[0]:g}" if len(tops) == 1 else f"{tops[0]:g} to {tops[-1]:g}"


def _level(found: Agreements, name: str) -> str:
    """What chance gives: one stretch for all pairs, or the widest."""
    known = [each.figures[name] for each in found.pairs if name in each.figures]
    lows = [each.chance_low for each in known if each.chance_low is not None]
    highs = [each.chance_high for each in known if each.chance_high is not None]
    if not lows or not highs:
        return ""
    means = [each.chance for each in known if each.chance is not None]
    middle = number(sum(means) / len(means)) if means else "–"
    of = "the mean of as many random maps" if found.inputs > 1 else "two random maps"
    return (
        f"By chance {middle}; 19 times in 20, {of} lie between {number(min(lows))} and {number(max(highs))}"
        f"{'' if len({round(each, 2) for each in highs}) == 1 else ' at most'}."
    )


# ---- paired tests --------------------------------------------------------------------------------------------------


def contests(found: Sequence[Contest], scale: Mapping[str, str]) -> tuple[Matrix, ...]:
    """For each way to remove and metric, by how much the method of a row is ahead of that of a column."""
    groups: dict[tuple[str, str], list[Contest]] = {}
    for each in found:
        groups.setdefault((each.removal, each.metric), []).append(each)
    return tuple(_tested(key, held, scale.get(key[0], "")) for key, held in groups.items())


def _tested(key: tuple[str, str], held: Sequence[Contest], scale: str) -> Matrix:
    removal, metric = key
    largest = max((abs(each.difference.value or 0.0) for each in held), default=0.0)
    by_pair = {(each.first, each.second): each for each in held}
    methods = list(dict.fromkeys(name for each in held for name in (each.first, each.second)))

    def square(first: str, second: str) -> Square | None:
        if (first, second) in by_pair:
            return _ahead(by_pair[first, second], largest, 1)
        return _ahead(by_pair[second, first], largest, -1) if (second, first) in by_pair else None

    tests = {"wilcoxon": "Wilcoxon's signed ranks", "bootstrap": "paired bootstrap of the mean"}
    return Matrix(
        name=visible(f"{metric}, removed: {removal}" if removal else metric),
        meaning=f"mean difference of {metric}, row less column{f', on the scale of a {scale}' if scale else ''}",
        methods=tuple(map(visible, methods)),
        rows=_rows(methods, square),
        level=f"{tests.get(held[0].test, held[0].test)}, p after Holm's correction over {len(held)} pairs.",
    )


def _ahead(each: Contest, largest: float, turn: int) -> Square:
    value = turn * (each.difference.value or 0.0)
    names = (each.first, each.second)[::turn]
    ends = [turn * end for end in (each.difference.low, each.difference.high) if end is not None]
    span = f" ({number(min(ends))} to {number(max(ends))})" if ends else ""
    p = f"p {_small(each.p)}, {_small(each.adjusted)} after Holm's correction, {each.difference.inputs} inputs"
    return Square(
        shown=number(value),
        intensity=value / largest if largest else 0.0,
        chance=each.adjusted >= SURE,
        said=visible(f"{names[0]} less {names[1]}: {number(value)}{span}, {p}"),
    )


def _small(p: float) -> str:
    return "below 0.0001" if p < 1e-4 else f"{p:.2g}"
