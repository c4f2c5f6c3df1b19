"""Findings and verdicts in words, and the thresholds they rest on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from clearhead.errors import UsageError, choice

Question = Literal["weights", "class", "input"]
Kind = Literal["cascade", "all", "class", "input"]
Word = Literal["trust", "care", "reject", "unknown"]

SENTENCES: dict[Word, str] = {
    "trust": "trust",
    "care": "use with care",
    "reject": "do not use it as an explanation of {}",
    "unknown": "cannot say",
}


# ---- thresholds ----------------------------------------------------------------------------------------------------


def _named(default: float, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where a verdict turns, each with its meaning; a value that is just reached counts as reached.

    Raises UsageError for a value out of range.

    >>> Thresholds().agrees, Thresholds.meanings()["agrees"]
    (0.5, 'rank correlation from which on two methods are said to agree')
    """

    fewest_units: int = _named(5, "units below which ranks mean little, and nothing is said")
    conservation: float = _named(1e-4, "largest conservation error with which the books of a method balance")
    agrees: float = _named(0.5, "rank correlation from which on two methods are said to agree")
    random: float = _named(1.28, "standard deviations of random orders that dA must exceed to be more than chance")
    faithful: float = _named(0.5, "share of the best method's dA from which on a method may be trusted")
    unfaithful: float = _named(0.25, "share of the best method's dA below which a method is not to be used")
    weights: float = _named(0.5, "rank correlation with a randomised model from which on weights do not matter")
    classes: float = _named(0.9, "rank correlation with another target from which on the class does not matter")
    inputs: float = _named(0.9, "rank correlation with another input from which on the input does not matter")
    steady: float = _named(1.0, "max-sensitivity from which on relevance is called unsteady")

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise UsageError(
                    f"`{each.name}` must be a number from 0 on; found {value!r}. It is: {self._said(each)}."
                )
        if self.unfaithful > self.faithful:
            raise UsageError(
                f"`unfaithful` must not be above `faithful`; found {self.unfaithful} and {self.faithful}. Swap them."
            )

    @staticmethod
    def _said(each: Any) -> str:
        return str(each.metadata["meaning"])

    @classmethod
    def named(cls, given: Mapping[str, Any]) -> Thresholds:
        """Those given by name, all others as they are by default; raises UsageError for an unknown name."""
        for name in given:
            if name not in cls.meanings():
                raise choice("threshold", name, cls.meanings())
        return cls(**given)

    @classmethod
    def meanings(cls) -> dict[str, str]:
        """What each threshold means."""
        return {each.name: cls._said(each) for each in fields(cls)}


# ---- sanity --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Step:
    r"""How alike a map is to the one made after a change: Spearman's $\rho$ of relevance (`signed`) and of its `size`.

    `kind` says what was changed, `name` what of it; `signed` is None for methods without sign, both are None where a
    map ranks nothing. Of several inputs they are means.
    """

    kind: Kind
    name: str
    signed: float | None
    size: float | None
    units: float


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Whether a method depends on what it should: the similarity after all of it changed, and where that is too much.

    `bound` is the larger of the threshold and of what chance reaches once in 40; `depends` is None where nothing can
    be said.
    """

    question: Question
    similarity: float | None
    bound: float | None
    depends: bool | None

    def __str__(self) -> str:
        what = "weights" if self.question == "weights" else self.question
        if self.depends is None:
            return f"dependence on the {what} unknown"
        return f"depends on the {what}" if self.depends else f"does not depend on the {what}"


@dataclass(frozen=True, kw_only=True)
class Sanity:
    """The randomisation tests of one method: what was measured step by step, and what it says."""

    method: str
    steps: tuple[Step, ...]
    findings: tuple[Finding, ...]
    inputs: int = 1
    notes: tuple[str, ...] = ()

    @property
    def sane(self) -> bool:
        """False if a finding says that the method does not depend on what it should."""
        return all(each.depends is not False for each in self.findings)


# ---- verdicts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How far to trust a method, with the evidence in words; `unchecked` is what no evidence was there for.

    >>> said = ("dA 1.9 of 5.8", "does not depend on the class")
    >>> print(Verdict(method="rollout", word="reject", evidence=said))
    rollout: dA 1.9 of 5.8, does not depend on the class: do not use it as an explanation of this prediction
    """

    method: str
    word: Word
    evidence: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    what: str = "this prediction"

    def __str__(self) -> str:
        shown = ", ".join(self.evidence) or "no evidence"
        missing = f" (not checked: {', '.join(self.unchecked)})" if self.unchecked else ""
        return f"{self.method}: {shown}: {SENTENCES[self.word].format(self.what)}{missing}"
