"""How far to trust the explanations of one prediction: evidence and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from clearhead.maps import Target
from clearhead.validations.judged import Judged


@dataclass(frozen=True, kw_only=True, eq=False)
class Validation(Judged):
    """How far to trust the methods that explained one prediction, with the evidence.

    Agreement between methods with its chance level, faithfulness by each way of removing units, the books, sanity
    tests of those methods that were tested, and a verdict each. `texts` are what was read, by stream.

    >>> from clearhead.validations import Agreements, Verdict
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

    kind: ClassVar[str] = "validation"

    target: Target
    value: float
    units: int
    texts: Mapping[str, str] = field(default_factory=dict)

    def paragraph(self) -> str:
        """The verdicts and notes as sentences, a line each."""
        return "\n".join([*map(str, self.verdicts), *self.notes])

    def __repr__(self) -> str:
        words = ", ".join(f"{each.method} {each.word}" for each in self.verdicts)
        return f"<Validation of {self.target} = {self.value:.4f}: {words}>"
