"""What the numbers of a map claim: relevance has books that balance or not; shares and scores have none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from clearhead.render.texts import ratio, relative

if TYPE_CHECKING:
    from clearhead.maps import RelevanceMap

THRESHOLD = 1e-4  # what passes where the recipe does not say
RESIDUAL_LIMIT = 1e-5  # above it, the books are open
WHOLE = 1e-3  # how far from 1 the sum of shares may be

State = Literal["conserves", "booked", "open", "unclaimed"]
Measure = Literal["relevance", "shares", "scores"]

WORDS: dict[State, str] = {
    "conserves": "The books balance",
    "booked": "The books balance only with what leaked",
    "open": "The books do not balance",
}
_REASONS: dict[State, str] = {
    "conserves": "The units add up to the explained value.",
    "booked": "The units alone do not add up to the explained value; with the leaks that were recorded they do.",
    "open": "Part of the explained value is unaccounted for, even with every leak that was recorded.",
}
SHARES, SCORES = "Shares of attention", "Scores"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the books balance, in words and in figures; for shares and scores, which have none, what they are."""

    state: State
    words: str
    reason: str
    passes: bool = True
    threshold: str = ""
    conservation_error: str = ""
    residual: str = ""
    cancellation: str = ""

    @property
    def claimed(self) -> bool:
        """Whether the numbers claim to add up at all."""
        return self.state != "unclaimed"

    @property
    def joint(self) -> str:
        """What stands between words and reason."""
        return "." if self.claimed else ":"

    @property
    def sentence(self) -> str:
        """Words and reason."""
        return f"{self.words}{self.joint} {self.reason}"


def measure(found: RelevanceMap) -> Measure:
    """What the numbers are: relevance, shares (none negative, 1 in all), or scores."""
    if found.additive:
        return "relevance"
    return "shares" if positive(found) and abs(float(found.relevance.sum()) - 1) <= WHOLE else "scores"


def positive(found: RelevanceMap) -> bool:
    """Whether the numbers are shares or scores of which none is negative, so that they need one colour only."""
    return not found.additive and bool(np.all(found.relevance >= 0))


def verdict(found: RelevanceMap) -> Verdict:
    """Whether the books of a map balance, or what its numbers are where it has none."""
    if not found.additive:
        return _unclaimed(found)
    asked = found.recipe.settings.get("threshold", THRESHOLD)
    threshold = float(asked) if isinstance(asked, (int, float)) else THRESHOLD
    passes = found.conserves(threshold)
    unaccounted = abs(found.value - found.base_value - float(found.relevance.sum()) - found.sinks)
    balanced = unaccounted <= max(RESIDUAL_LIMIT * abs(found.value), found.rounding_floor)
    state: State = "conserves" if passes else "booked" if balanced else "open"
    return Verdict(
        state=state,
        words=WORDS[state],
        reason=_REASONS[state],
        passes=passes,
        threshold=f"{threshold:g}",
        conservation_error=relative(found.conservation_error),
        residual=relative(found.residual),
        cancellation=ratio(found.cancellation),
    )


def _unclaimed(found: RelevanceMap) -> Verdict:
    if measure(found) == "shares":
        whole = math.fsum(found.relevance)
        return Verdict(
            state="unclaimed", words=SHARES, reason=f"they add up to {whole:.3f}, not to the explained value."
        )
    return Verdict(state="unclaimed", words=SCORES, reason="they rank units and add up to nothing in particular.")
