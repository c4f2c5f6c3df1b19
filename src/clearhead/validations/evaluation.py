"""How far to trust methods over a data set: means with intervals, paired tests, what was skipped, verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clearhead.maps import Recipe
from clearhead.validations.figures import Agreements, Figure
from clearhead.validations.plain import columns, document, load, number, read, write
from clearhead.validations.removals import Faithfulness
from clearhead.validations.validation import Conservation, overview, verdict_on
from clearhead.validations.verdicts import Sanity, Thresholds, Verdict

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """How far to trust methods over a data set: every figure a mean over inputs with its 95 % bootstrap interval.

    `inputs` were measured; `skipped` says how many were not, by reason. `contests` are paired tests between methods,
    `seconds` how long each took in the median.
    """

    model: str
    task: str
    inputs: int
    methods: tuple[str, ...]
    agreement: Agreements
    skipped: Mapping[str, int] = field(default_factory=dict)
    faithfulness: tuple[Faithfulness, ...] = ()
    contests: tuple[Contest, ...] = ()
    conservation: Mapping[str, Conservation] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    sanity: tuple[Sanity, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    against: str | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    notes: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)

    def verdict(self, method: str) -> Verdict:
        """The verdict on a method; raises UsageError if there is none."""
        return verdict_on(self.verdicts, method)

    def paragraph(self) -> str:
        """The verdicts, what was skipped, and notes as sentences, a line each."""
        skipped = [f"{count} inputs skipped: {reason}." for reason, count in self.skipped.items()]
        return "\n".join([f"{self.inputs} inputs.", *map(str, self.verdicts), *skipped, *self.notes])

    def table(self) -> str:
        """A row per method and reference: agreement, dA by each removal, the books, the verdict."""
        return overview(self)

    def contests_table(self) -> str:
        """A row per paired test: the mean difference with its interval, p, and p after Holm's correction."""
        rows = [["methods", "metric", "removal", "difference", "p", "p (Holm)", "test"]]
        for each in self.contests:
            names, shown = f"{each.first} – {each.second}", str(each.difference)
            chance = [number(value, 4) for value in (each.p, each.adjusted)]
            rows.append([names, each.metric, each.removal, shown, *chance, each.test])
        return columns(rows)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; `from_dict` gives the same back."""
        return document("evaluation", self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """What `to_dict` wrote; raises UsageError for another kind or schema."""
        return read("evaluation", cls, data)

    def save(self, path: str | Path) -> Path:
        """Write `.json` (lossless); raises UsageError for another suffix, OutputError if it cannot be written."""
        return write(self.to_dict(), path)

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what `save` wrote; raises OutputError if it cannot be read."""
        return load("evaluation", cls, path)

    def __repr__(self) -> str:
        words = ", ".join(f"{each.method} {each.word}" for each in self.verdicts)
        return f"<Evaluation of {self.inputs} inputs: {words}>"
