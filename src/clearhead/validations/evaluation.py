"""How far to trust methods over a data set: means with intervals, paired tests, what was skipped, verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from clearhead.validations.figures import Figure
from clearhead.validations.judged import Judged
from clearhead.validations.plain import columns, number

Test = Literal["wilcoxon", "bootstrap"]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Two methods on the same inputs: the mean difference `first` less `second` of a metric, and whether it is chance.

    `p` is that of the two-sided paired `test` (Wilcoxon's signed ranks, or a paired bootstrap of the mean), `adjusted`
    the same after Holm's correction over all pairs of methods for this metric and removal.
    """

    first: str
    second: str
    metric: str
    removal: str
    difference: Figure
    p: float
    adjusted: float
    test: Test


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A method to choose: its dA as a `share` of the largest, and the seconds it takes.

    `level` says whether it is as good as the best: what differs from it by little, or by what may be chance.
    """

    method: str
    share: float
    seconds: float
    level: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation(Judged):
    """How far to trust methods over a data set: every figure a mean over inputs with its 95 % bootstrap interval.

    `inputs` were measured; `skipped` says how many were not, by reason. `contests` are paired tests between methods,
    `seconds` how long each took in the median. Where a method was to be chosen, `candidates` are ranked by how faithful
    they are, and `chosen` is the cheapest of the best.
    """

    kind: ClassVar[str] = "evaluation"

    inputs: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    contests: tuple[Contest, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    chosen: str | None = None

    def paragraph(self) -> str:
        """The verdicts, what was skipped, and notes as sentences, a line each."""
        skipped = [f"{count} inputs skipped: {reason}." for reason, count in self.skipped.items()]
        chosen = [f"Chosen: {self.choice()}"] if self.chosen else []
        return "\n".join([f"{self.inputs} inputs.", *chosen, *map(str, self.verdicts), *skipped, *self.notes])

    def choice(self) -> str:
        """What was chosen and why, in a sentence; empty if nothing was to be chosen."""
        if self.chosen is None:
            return ""
        own = next(each for each in self.candidates if each.method == self.chosen)
        level = [each.method for each in self.candidates if each.level]
        others = f"; as good: {', '.join(name for name in level if name != self.chosen)}" if len(level) > 1 else ""
        return (
            f"{self.chosen} of {len(self.candidates)} methods on {self.inputs} inputs: {own.share:.0%} of the largest "
            f"dA in {1000 * own.seconds:.0f} ms{others}."
        )

    def contests_table(self) -> str:
        """A row per paired test: the mean difference with its interval, p, and p after Holm's correction."""
        rows = [["methods", "metric", "removal", "difference", "p", "p (Holm)", "test"]]
        for each in self.contests:
            names, shown = f"{each.first} – {each.second}", str(each.difference)
            chance = [number(value, 4) for value in (each.p, each.adjusted)]
            rows.append([names, each.metric, each.removal, shown, *chance, each.test])
        return columns(rows)

    def __repr__(self) -> str:
        words = ", ".join(f"{each.method} {each.word}" for each in self.verdicts)
        return f"<Evaluation of {self.inputs} inputs: {words}>"
