"""What a validation and an evaluation share: the evidence, the verdicts, a table, files and drawings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from clearhead.errors import choice
from clearhead.maps import Recipe
from clearhead.validations.figures import Agreements, Figure
from clearhead.validations.plain import columns, document, load, number, read
from clearhead.validations.removals import Faithfulness
from clearhead.validations.verdicts import SENTENCES, Sanity, Thresholds, Verdict

Made = TypeVar("Made", bound="Judged")


@dataclass(frozen=True, kw_only=True)
class Conservation:
    """Whether the books of a method balance: the largest error over `inputs`, and how many of them balance.

    `error` is None where it is not finite, or where the method claims no sum (`additive` is False).
    """

    additive: bool
    error: float | None
    balanced: int
    inputs: int = 1

    @property
    def holds(self) -> bool | None:
        """Whether all inputs balance; None for a method that claims no sum."""
        return self.balanced == self.inputs if self.additive else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Methods with the evidence on each and a verdict, of one prediction or over many.

    `against` is the method that agreement is quoted with in the verdicts, `seconds` how long each took.
    """

    kind: ClassVar[str]

    model: str
    task: str
    methods: tuple[str, ...]
    agreement: Agreements
    faithfulness: tuple[Faithfulness, ...] = ()
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
        for each in self.verdicts:
            if each.method == method:
                return each
        raise choice("method", method, [each.method for each in self.verdicts])

    def table(self) -> str:
        """A row per method and reference: agreement, dA by each removal, the books, the verdict."""
        named = f"agrees with {self.against}" if self.against else None
        heads = ["method", *([named] if named else []), *(f"dA ({each.removal})" for each in self.faithfulness)]
        rows = [[*heads, "conservation error", *(["ms"] if self.seconds else []), "verdict"]]
        references = {row.method: None for each in self.faithfulness for row in each.rows if row.reference}
        for method in (*self.methods, *references):
            cells = [self._agreed(method)] if named else []
            cells += [_spread(each, method) for each in self.faithfulness]
            cells.append(_books(self.conservation.get(method)))
            cells += [_milliseconds(self.seconds.get(method))] if self.seconds else []
            rows.append([method, *cells, self._said(method)])
        return columns(rows)

    def _agreed(self, method: str) -> str:
        if self.against is None or method not in self.methods or method == self.against:
            return number(None)
        return str(self.agreement.pair(method, self.against).figures.get("spearman", Figure(value=None)))

    def _said(self, method: str) -> str:
        words = (SENTENCES[each.word].format(each.what) for each in self.verdicts if each.method == method)
        return next(words, number(None))

    # ---- leaving -------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """As plain data; `from_dict` gives the same back."""
        return document(self.kind, self)

    @classmethod
    def from_dict(cls: type[Made], data: Mapping[str, Any]) -> Made:
        """What `to_dict` wrote; raises UsageError for another kind or schema."""
        return read(cls.kind, cls, data)

    def save(self, path: str | Path) -> Path:
        """Write `.json` (lossless), `.html`, `.png`, `.svg` or `.pdf`, or every figure as `.csv` or `.parquet`.

        Raises UsageError for another suffix, OutputError if it cannot be written; nothing is left half-written.
        """
        from clearhead import render

        return render.save([self], path)

    @classmethod
    def load(cls: type[Made], path: str | Path) -> Made:
        """Read what `save` wrote as `.json`; raises OutputError if it cannot be read."""
        return load(cls.kind, cls, path)

    def show(self) -> None:
        """Print the verdicts and their evidence to the terminal."""
        from clearhead import render

        render.show([self])

    def _repr_html_(self) -> str:
        from clearhead import render

        return render.fragment([self])


def _spread(found: Faithfulness, method: str) -> str:
    figures = {row.method: row.figures for row in found.rows}.get(method, {})
    return str(figures.get("dA", Figure(value=None)))


def _milliseconds(seconds: float | None) -> str:
    return number(None if seconds is None else 1000 * seconds, 0)


def _books(found: Conservation | None) -> str:
    if found is None or not found.additive:
        return number(None)
    return "infinite" if found.error is None else f"{found.error:.1e}"
