"""How far another method agrees with a map: a verdict in words, two figures with their chance level, one sentence.

A mapping of any other form is no such cross-check, and is drawn as names and values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from clearhead.render.books import Axis
from clearhead.render.texts import visible

Agreement = Literal["agree", "weak", "chance", "unknown"]

VERDICTS: dict[str, Agreement] = {
    "agrees": "agree",
    "weakly related": "weak",
    "no better than chance": "chance",
    "too few units to say": "unknown",
}
MARKS: dict[Agreement, str] = {"agree": "●", "weak": "◐", "chance": "○", "unknown": "–"}
_HEADINGS: dict[Agreement, str] = {
    "agree": "Agrees with {}",
    "weak": "Weakly related to {}",
    "chance": "Agrees with {} no better than chance",
    "unknown": "Too few units to say whether it agrees with {}",
}
_FIGURES = ("spearman", "spearman_chance", "top_k", "top_k_overlap", "chance", "units")
_TEXTS = ("against", "verdict", "sentence")
_RANKS, _SHARES = Axis(-1.0, 1.0), Axis(0.0, 1.0)
MOST = 3  # different sentences of the rows of a generation


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """A figure on its axis, and what chance gives: from `low` to `high`. No `value`: it was not computed."""

    name: str
    shown: str
    value: float | None
    chance: str
    low: float | None
    high: float | None
    axis: Axis
    note: str


@dataclass(frozen=True, kw_only=True)
class CrossCheck:
    """The comparison of one map with another method's."""

    state: Agreement
    verdict: str
    against: str
    heading: str
    units: int | None
    gauges: tuple[Gauge, Gauge]
    sentence: str

    @property
    def mark(self) -> str:
        """A disk, full for agreement and empty for none."""
        return MARKS[self.state]

    @property
    def rank(self) -> Gauge:
        """The rank agreement."""
        return self.gauges[0]

    @property
    def figures(self) -> str:
        """Both figures in a line."""
        known = [each for each in self.gauges if each.value is not None]
        return ", ".join(
            f"{each.name.lower()} {each.shown}" + (f" (chance: {each.chance})" if each.chance else "") for each in known
        )

    @property
    def line(self) -> str:
        """Verdict and figures in a line."""
        return f"{self.heading}: {self.figures}" if self.figures else self.heading


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How often the rows of a generation agree: verdicts and how many rows each has, the best first."""

    against: str
    rows: int
    counts: tuple[tuple[Agreement, str, int], ...]
    ranks: str
    sentences: tuple[str, ...]

    @property
    def state(self) -> Agreement:
        """The verdict of most rows."""
        return max(self.counts, key=lambda each: each[2])[0]

    @property
    def heading(self) -> str:
        """The best verdict, and how many rows have it."""
        _, verdict, count = self.counts[0]
        return f"{verdict.capitalize()} in {count} of {self.rows} row{'' if self.rows == 1 else 's'}"

    @property
    def words(self) -> str:
        """All verdicts, counted."""
        others = (f"{verdict} in {count}" for _, verdict, count in self.counts[1:])
        return ", ".join((self.heading[0].lower() + self.heading[1:], *others))


def cross_check(data: Mapping[str, Any] | None) -> CrossCheck | None:
    """The comparison that a map carries; None without one, or with a mapping of another form."""
    if not isinstance(data, Mapping) or not _is_one(data):
        return None
    state = VERDICTS[data["verdict"]]
    against = visible(data["against"])
    return CrossCheck(
        state=state,
        verdict=data["verdict"],
        against=against,
        heading=_HEADINGS[state].format(against),
        units=None if data.get("units") is None else int(data["units"]),
        gauges=(_rank(data), _top(data)),
        sentence=visible(data["sentence"]) if data.get("sentence") else "",
    )


def others(data: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What a cross-check has beside what is drawn: all of it where it is of another form."""
    if not isinstance(data, Mapping):
        return {}
    return {key: value for key, value in data.items() if key not in (*_FIGURES, *_TEXTS)} if _is_one(data) else data


def tally(found: Sequence[CrossCheck | None]) -> Tally | None:
    """The verdicts of the rows, counted; None where no row has one."""
    known = [each for each in found if each]
    if not known:
        return None
    held = Counter(each.verdict for each in known)
    return Tally(
        against=" and ".join(dict.fromkeys(each.against for each in known)),
        rows=len(found),
        counts=tuple((state, verdict, held[verdict]) for verdict, state in VERDICTS.items() if held[verdict]),
        ranks=_ranks(each.rank.value for each in known),
        sentences=tuple(dict.fromkeys(each.sentence for each in known if each.sentence))[:MOST],
    )


def _ranks(values: Iterable[float | None]) -> str:
    ranks = [each for each in values if each is not None]
    if len(ranks) < 2:
        return ""
    return f"Rank agreement from {min(ranks):.2f} to {max(ranks):.2f}, median {median(ranks):.2f}."


def _is_one(data: Mapping[str, Any]) -> bool:
    """Whether a mapping has the form of a comparison: a file may hold anything."""
    texts = all(isinstance(data.get(key), str) for key in ("against", "verdict")) and data["verdict"] in VERDICTS
    sentence = isinstance(data.get("sentence", ""), (str, type(None)))
    return texts and sentence and all(_is_figure(data.get(key)) for key in _FIGURES)


def _is_figure(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _rank(data: Mapping[str, Any]) -> Gauge:
    """Spearman's rank correlation, -1 to 1."""
    value, bound = data.get("spearman"), data.get("spearman_chance")
    within = f"within ±{bound:.2f}" if bound is not None else ""
    return Gauge(
        name="Rank agreement",
        shown="–" if value is None else _number(value),
        value=value,
        chance=within,
        low=None if bound is None else -abs(bound),
        high=None if bound is None else abs(bound),
        axis=_RANKS,
        note="Spearman, −1 to 1" + (f"; shaded: what chance gives, 19 times in 20 {within}" if within else ""),
    )


def _top(data: Mapping[str, Any]) -> Gauge:
    """How many of the largest units both methods have among their largest."""
    value, expected, count = data.get("top_k_overlap"), data.get("chance"), data.get("top_k")
    by_chance = "" if expected is None else _of(expected, count, decimals=1)
    return Gauge(
        name=f"Top {count:g} in common" if count else "Largest in common",
        shown="–" if value is None else f"{_of(value, count)} of {count:g}" if count else _of(value, None),
        value=value,
        chance=by_chance,
        low=expected,
        high=expected,
        axis=_SHARES,
        note=f"of the largest units of both; the line: {by_chance} by chance" if by_chance else "of the largest units",
    )


def _of(share: float, count: float | None, *, decimals: int = 0) -> str:
    """A share of so many units as a number of units, where that is whole or may be a fraction; else the share."""
    if not count:
        return f"{share:.2f}"
    units = share * count
    return f"{units:.{decimals}f}" if decimals or abs(units - round(units)) < 1e-6 else f"{units:.1f}"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.005 else "0.00"
