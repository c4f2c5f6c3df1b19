"""How far to trust the explanations of one prediction: evidence and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearhead.errors import choice
from clearhead.maps import Recipe, Target
from clearhead.validations.figures import Agreements, Figure
from clearhead.validations.plain import columns, document, load, number, read, write
from clearhead.validations.removals import Faithfulness
from clearhead.validations.verdicts import SENTENCES, Sanity, Thresholds, Verdict

if TYPE_CHECKING:
    from clearhead.validations.evaluation import Evaluation


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
class Validation:
    """How far to trust the methods that explained one prediction, with the evidence.

    Agreement between methods with its chance level, faithfulness by each way of removing units, the books, sanity
    tests of those methods that were tested, and a verdict each. `against` is the method that agreement is quoted
    with in the verdicts, `seconds` how long each took.

    >>> from clearhead.validations import Agreements
    >>> v = Validation(
    ...     model="toy",
    ...     task="text-classification",
    ...     target=Target(kind="class", label="positive"),
    ...     value=2.0,
    ...     units=9,
    ...     methods=("lrp",),
    ...     agreement=Agreements(methods=("lrp",), pairs=()),
    ...     verdicts=(Verdict(method="lrp", word="trust", evidence=("dA 5.3 of 5.3",)),),
    ... )
    >>> v.paragraph()
    'lrp: dA 5.3 of 5.3: trust'
    >>> Validation.from_dict(v.to_dict()).verdict("lrp").word
    'trust'
    """

    model: str
    task: str
    target: Target
    value: float
    units: int
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
        return verdict_on(self.verdicts, method)

    def paragraph(self) -> str:
        """The verdicts and notes as sentences, a line each."""
        return "\n".join([*map(str, self.verdicts), *self.notes])

    def table(self) -> str:
        """A row per method and reference: agreement, dA by each removal, the books, the verdict."""
        return overview(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; `from_dict` gives the same back."""
        return document("validation", self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Validation:
        """What `to_dict` wrote; raises UsageError for another kind or schema."""
        return read("validation", cls, data)

    def save(self, path: str | Path) -> Path:
        """Write `.json` (lossless); raises UsageError for another suffix, OutputError if it cannot be written."""
        return write(self.to_dict(), path)

    @classmethod
    def load(cls, path: str | Path) -> Validation:
        """Read what `save` wrote; raises OutputError if it cannot be read."""
        return load("validation", cls, path)

    def __repr__(self) -> str:
        return f"<Validation of {self.target} = {self.value:.4f}: {', '.join(_word(each) for each in self.verdicts)}>"


def verdict_on(verdicts: tuple[Verdict, ...], method: str) -> Verdict:
    """The verdict on a method; raises UsageError if there is none."""
    for each in verdicts:
        if each.method == method:
            return each
    raise choice("method", method, [each.method for each in verdicts])


def overview(found: Validation | Evaluation) -> str:
    """The table of a validation or an evaluation: a row per method and reference."""
    named = f"agrees with {found.against}" if found.against else None
    heads = ["method", *([named] if named else []), *(f"dA ({each.removal})" for each in found.faithfulness)]
    rows = [[*heads, "conservation error", *(["ms"] if found.seconds else []), "verdict"]]
    references = {row.method: None for each in found.faithfulness for row in each.rows if row.reference}
    for method in (*found.methods, *references):
        cells = [_agreed(found, method)] if named else []
        cells += [_spread(each, method) for each in found.faithfulness]
        cells.append(_books(found.conservation.get(method)))
        cells += [_milliseconds(found.seconds.get(method))] if found.seconds else []
        rows.append([method, *cells, _said(found.verdicts, method)])
    return columns(rows)


def _agreed(found: Validation | Evaluation, method: str) -> str:
    if found.against is None or method not in found.methods or method == found.against:
        return "–"
    return str(found.agreement.pair(method, found.against).figures.get("spearman", Figure(value=None)))


def _spread(found: Faithfulness, method: str) -> str:
    figures = {row.method: row.figures for row in found.rows}.get(method, {})
    return str(figures.get("dA", Figure(value=None)))


def _milliseconds(seconds: float | None) -> str:
    return number(None if seconds is None else 1000 * seconds, 0)


def _books(found: Conservation | None) -> str:
    if found is None or not found.additive:
        return "–"
    return "infinite" if found.error is None else f"{found.error:.1e}"


def _said(verdicts: tuple[Verdict, ...], method: str) -> str:
    return next((SENTENCES[each.word].format(each.what) for each in verdicts if each.method == method), number(None))


def _word(verdict: Verdict) -> str:
    return f"{verdict.method} {verdict.word}"
