"""The rules of a verdict, in one place: pure functions from evidence and thresholds to a word with its reasons.

A method is rejected for what no explanation may do: not depend on the weights, the class or the input, or order units
no better than chance does in the mean, or far worse than the best. It wants care where the evidence is mixed. It is
trusted only where removal was measured and nothing speaks against it. Agreement with another method alone rejects
nothing: two methods may share a fault, and a better one differs from a worse one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clearhead.validations import Conservation, Figure, Finding, Thresholds, Verdict, Word
from clearhead.validations.plain import number


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What one way of removing says of a method: its dA beside chance, and the best dA of all rows."""

    removal: str
    spread: Figure
    best: float | None

    @property
    def share(self) -> float | None:
        """The dA as a share of the best; None where either is unknown, or the best is not above 0."""
        if self.spread.value is None or self.best is None or self.best <= 0:
            return None
        return self.spread.value / self.best


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a verdict on one method rests on; what is None or empty was not measured.

    `against` names the method that `agreement` (a rank correlation) is with, `what` is explained in words.
    """

    method: str
    units: float
    agreement: Figure | None = None
    against: str = ""
    removed: tuple[Removed, ...] = ()
    conservation: Conservation | None = None
    findings: tuple[Finding, ...] = ()
    sensitivity: float | None = None
    what: str = "this prediction"


Reason = tuple[Word, str]
Rule = Callable[[Evidence, Thresholds], list[Reason]]
WORST: tuple[Word, ...] = ("reject", "unknown", "care")  # the first that a rule says is the verdict


def judge(evidence: Evidence, thresholds: Thresholds | None = None) -> Verdict:
    """The verdict on one method: the worst word that a rule says, with every reason.

    >>> blind = Finding(question="class", similarity=1.0, bound=0.9, depends=False)
    >>> dA = Removed(removal="[MASK]", spread=Figure(value=1.9, chance_high=0.4), best=5.8)
    >>> print(judge(Evidence(method="rollout", units=20, removed=(dA,), findings=(blind,))))
    rollout: dA 1.9 of 5.8, does not depend on the class: do not use it as an explanation of this prediction
    """
    bar = thresholds or Thresholds()
    reasons = _few(evidence, bar) or [reason for rule in RULES for reason in rule(evidence, bar)]
    said = {word for word, _ in reasons}
    word: Word = next((each for each in WORST if each in said), "trust")
    return Verdict(
        method=evidence.method,
        word=word,
        evidence=tuple(_told(evidence, bar)),
        reasons=tuple(reason for _, reason in reasons),
        unchecked=tuple(_unchecked(evidence)) if word in ("trust", "care") else (),
        what=evidence.what,
    )


# ---- rules ---------------------------------------------------------------------------------------------------------


def _few(found: Evidence, bar: Thresholds) -> list[Reason]:
    if found.units >= bar.fewest_units:
        return []
    return [("unknown", f"there are {found.units:g} units, and ranks mean little below {bar.fewest_units}")]


def _sane(found: Evidence, bar: Thresholds) -> list[Reason]:
    return [("reject", str(each)) for each in found.findings if each.depends is False]


def _faithful(found: Evidence, bar: Thresholds) -> list[Reason]:
    known = [each for each in found.removed if each.spread.value is not None]
    if not known:
        return [("unknown", "removing units was not measured")]
    return [reason for each in known for reason in _one(each, bar)]


def _one(found: Removed, bar: Thresholds) -> list[Reason]:
    """What one way of removing says."""
    named = f"removed by {found.removal}"
    if _no_better(found.spread):
        return [("reject", f"{named}, its order of units is no better than a random one")]
    if found.share is not None and found.share < bar.unfaithful:
        return [("reject", f"{named}, its dA is below {bar.unfaithful:.0%} of the best")]
    if _within(found.spread, bar):
        return [("care", f"{named}, its dA is within what random orders reach")]
    if found.share is not None and found.share < bar.faithful:
        return [("care", f"{named}, its dA is below {bar.faithful:.0%} of the best")]
    return []


def _within(spread: Figure, bar: Thresholds) -> bool:
    """Whether dA, of a mean the lower end of its interval, lies within what random orders reach."""
    least = spread.value if spread.low is None else spread.low
    if least is None or spread.chance is None or spread.spread is None:
        return False
    return least <= spread.chance + bar.random * spread.spread


def _no_better(spread: Figure) -> bool:
    return spread.value is not None and spread.value <= (spread.chance or 0.0)


def _balanced(found: Evidence, bar: Thresholds) -> list[Reason]:
    if found.conservation is None or found.conservation.holds is not False:
        return []
    return [("care", f"its relevance does not add up to the explained value within {_power(bar.conservation)}")]


def _agreed(found: Evidence, bar: Thresholds) -> list[Reason]:
    if found.agreement is None or found.agreement.value is None:
        return []
    if found.agreement.beats_chance is False:
        return [("care", f"it agrees with {found.against} no better than chance")]
    if found.agreement.value < bar.agrees:
        return [("care", f"it agrees with {found.against} only weakly")]
    return []


def _steady(found: Evidence, bar: Thresholds) -> list[Reason]:
    if found.sensitivity is None or found.sensitivity < bar.steady:
        return []
    return [("care", "its relevance changes as much as it is large for inputs nearby")]


RULES: tuple[Rule, ...] = (_sane, _faithful, _balanced, _agreed, _steady)


# ---- words ---------------------------------------------------------------------------------------------------------


def _told(found: Evidence, bar: Thresholds) -> list[str]:
    """The evidence in short, in the order in which it is read."""
    few = [reason for _, reason in _few(found, bar)]
    return [*few, *_books(found), *_ranks(found), *_areas(found, bar), *_dependence(found), *_motion(found, bar)]


def _books(found: Evidence) -> list[str]:
    books = found.conservation
    if books is None or not books.additive:
        return []
    error = "an infinite error" if books.error is None else _power(books.error)
    if books.holds:
        return [f"conserves to {error}"]
    count = f" on {books.inputs - books.balanced} of {books.inputs} inputs" if books.inputs > 1 else ""
    return [f"does not conserve ({error}){count}"]


def _ranks(found: Evidence) -> list[str]:
    figure = found.agreement
    if figure is None or figure.value is None:
        return []
    chance = ""
    if figure.chance is not None and figure.chance_high is not None:
        chance = f" (chance {number(figure.chance)} ± {number(figure.chance_high - figure.chance)})"
    return [f"rank agreement {number(figure.value)} with {found.against}{chance}"]


def _areas(found: Evidence, bar: Thresholds) -> list[str]:
    known = [each for each in found.removed if each.spread.value is not None]
    told = []
    for each in known:
        best = f" of {_digits(each.best)}" if each.best is not None else ""
        beside = [each.removal] if len(known) > 1 else []
        if _no_better(each.spread):
            beside.append("no better than a random order")
        elif _within(each.spread, bar):
            beside.append("within what random orders reach")
        told.append(f"dA {_digits(each.spread.value)}{best}" + (f" ({'; '.join(beside)})" if beside else ""))
    return told


def _digits(value: float | None) -> str:
    """One decimal for logits, more for what is smaller, such as probabilities."""
    size = abs(value or 0.0)
    return number(value, 1 if size >= 1 else 2 if size >= 0.1 or not size else 3)


def _power(value: float) -> str:
    """One digit and its power of ten, such as 2e-7."""
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e+") if value else "0"


def _dependence(found: Evidence) -> list[str]:
    blind = [str(each) for each in found.findings if each.depends is False]
    seeing = [each.question for each in found.findings if each.depends]
    return blind + ([f"depends on the {' and the '.join(seeing)}"] if seeing else [])


def _motion(found: Evidence, bar: Thresholds) -> list[str]:
    if found.sensitivity is None or found.sensitivity < bar.steady:
        return []
    return [f"max-sensitivity {number(found.sensitivity)}"]


def _unchecked(found: Evidence) -> list[str]:
    missing = [] if any(each.spread.value is not None for each in found.removed) else ["faithfulness"]
    asked = {each.question for each in found.findings if each.depends is not None}
    gaps = [each for each in ("weights", "class", "input") if each not in asked]
    return [*missing, *([f"dependence on the {' and the '.join(gaps)}"] if gaps else [])]
