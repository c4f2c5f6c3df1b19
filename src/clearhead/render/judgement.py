"""A validation or an evaluation as a drawing needs it: verdicts first, then what they rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from clearhead.render.judged_pairs import Matrix, agreement, contests
from clearhead.render.judged_removals import Trial, trial
from clearhead.render.scene import beginning, pairs
from clearhead.render.texts import Amount, Digits, visible
from clearhead.render.verdicts import Verdict
from clearhead.validations import SENTENCES, Evaluation, Thresholds, Validation
from clearhead.validations.plain import number, plain

if TYPE_CHECKING:
    from clearhead.validations import Finding, Sanity, Word
    from clearhead.validations import Verdict as Judgment
    from clearhead.validations.judged import Judged

ORDER: tuple[Word, ...] = ("trust", "care", "reject", "unknown")
BADGES: dict[Word, str] = {"trust": "trust", "care": "care", "reject": "do not use", "unknown": "cannot say"}
MARKS: dict[Word, str] = {"trust": "✓", "care": "!", "reject": "✕", "unknown": "?"}
_COUNTED: dict[Word, str] = {
    "trust": "{} to trust",
    "care": "{} to use with care",
    "reject": "{} not to use",
    "unknown": "{} unknown",
}
UNTESTED = "Whether the explanations depend on the weights, the class and the input was not tested here."


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """The verdict on a method: a word that is seen at once, the evidence, the sentence, and the reasons."""

    method: str
    word: Word
    evidence: str
    sentence: str
    reasons: tuple[str, ...]
    unchecked: str
    milliseconds: str

    @property
    def badge(self) -> str:
        """The word as it is shown."""
        return BADGES[self.word]

    @property
    def mark(self) -> str:
        """A sign beside it."""
        return MARKS[self.word]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Whether a method depends on something: the similarity after it changed, and from which on it does not."""

    question: str
    shown: str
    bound: str
    depends: bool | None

    @property
    def word(self) -> str:
        """The answer in a word or two."""
        return {True: "depends", False: "does not depend", None: "unknown"}[self.depends]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The sanity tests of one method: an answer for each question, and every step: what changed, signed, size."""

    method: str
    answers: tuple[Answer | None, ...]
    steps: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Everything there is to draw about a validation or an evaluation."""

    kind: ClassVar[str] = "judgement"

    method: str
    task: str
    model: str
    heading: str
    value: Amount | None
    about: str
    texts: tuple[tuple[str, str], ...]
    rulings: tuple[Ruling, ...]
    choice: str
    candidates: tuple[tuple[str, str, str, bool], ...]
    against: str
    trials: tuple[Trial, ...]
    agreement: tuple[Matrix, ...]
    checked: tuple[Checked, ...]
    contests: tuple[Matrix, ...]
    skipped: tuple[str, ...]
    verdict: Verdict
    notes: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    thresholds: tuple[tuple[str, str, str], ...]
    versions: tuple[tuple[str, str], ...]
    fingerprint: str
    warnings: ClassVar[tuple[str, ...]] = ()
    cross_check: ClassVar[tuple[tuple[str, str], ...]] = ()

    @property
    def figure(self) -> str:
        """How many methods were judged."""
        return f"{len(self.rulings)} method{'' if len(self.rulings) == 1 else 's'}"

    @property
    def excerpt(self) -> str:
        """The beginning of what was read, or of how many inputs it is."""
        return " / ".join(beginning(text) for _, text in self.texts) or self.about

    @property
    def summary(self) -> str:
        """How many methods got which word."""
        return self.verdict.words

    @property
    def unchecked(self) -> str:
        """What was tested of no method that is said to be of use."""
        found = {each.unchecked for each in self.rulings if each.unchecked}
        return found.pop() if len(found) == 1 else ""


def judgement(found: Judged) -> Judgement:
    """The scene of a validation or of an evaluation."""
    one = found if isinstance(found, Validation) else None
    many = found if isinstance(found, Evaluation) else None
    rulings = sorted((_ruling(found, each) for each in found.verdicts), key=lambda each: ORDER.index(each.word))
    count = f"{len(found.methods)} method{'' if len(found.methods) == 1 else 's'}"
    scales = {each.removal: visible(each.scale) for each in found.faithfulness}
    return Judgement(
        method=found.kind,
        task=visible(found.task),
        model=visible(found.model),
        heading=visible(str(one.target)) if one else f"{count} on {many.inputs if many else 0:,} inputs",
        value=Digits.of([one.value]).amount(one.value).unsigned if one else None,
        about=f"{count} on {one.units} units" if one else f"{count} on {many.inputs if many else 0:,} inputs",
        texts=tuple(
            (visible(name), visible(text)) for name, text in (one.texts if one else {}).items() if text.strip()
        ),
        rulings=tuple(rulings),
        choice=visible(many.choice()) if many and many.chosen else "",
        candidates=_candidates(many) if many else (),
        against=visible(found.against or ""),
        trials=tuple(trial(each, dict(found.seconds)) for each in found.faithfulness),
        agreement=agreement(found.agreement),
        checked=tuple(map(_checked, found.sanity)),
        contests=contests(many.contests, scales) if many else (),
        skipped=_skipped(many) if many else (),
        verdict=Verdict(state="unclaimed", words=_summary(rulings), reason=""),
        notes=tuple(map(visible, dict.fromkeys((*found.notes, *found.agreement.notes)))),
        settings=(*pairs(plain(found.recipe.settings)), *pairs({"dtype": found.recipe.dtype})),
        thresholds=_thresholds(found.thresholds),
        versions=pairs(found.recipe.versions),
        fingerprint=visible(found.recipe.model_fingerprint) if found.recipe.model_fingerprint else "",
    )


# ---- verdicts ------------------------------------------------------------------------------------------------------


def _ruling(found: Judged, each: Judgment) -> Ruling:
    seconds = found.seconds.get(each.method)
    return Ruling(
        method=visible(each.method),
        word=each.word,
        evidence=visible(", ".join(each.evidence)) if each.evidence else "no evidence",
        sentence=visible(SENTENCES[each.word].format(each.what)),
        reasons=tuple(visible(reason) for reason in each.reasons),
        unchecked=visible(", ".join(each.unchecked)) if each.unchecked else "",
        milliseconds=number(1000 * seconds, 0) if seconds is not None else "",
    )


def _summary(rulings: Sequence[Ruling]) -> str:
    counts = Counter(each.word for each in rulings)
    words = ", ".join(_COUNTED[word].format(counts[word]) for word in ORDER if counts[word])
    return words or "No method was judged"


def _skipped(found: Evaluation) -> tuple[str, ...]:
    return tuple(
        visible(f"{count:,} input{'' if count == 1 else 's'}: {reason}") for reason, count in found.skipped.items()
    )


def _candidates(found: Evaluation) -> tuple[tuple[str, str, str, bool], ...]:
    """What was chosen from: the method, its dA as a share of the largest, milliseconds, and whether it is level."""
    return tuple(
        (visible(each.method), f"{100 * each.share:.0f} %", number(1000 * each.seconds, 0), each.level)
        for each in found.candidates
    )


def _thresholds(found: Thresholds) -> tuple[tuple[str, str, str], ...]:
    meanings = found.meanings()
    return tuple((each.name, f"{getattr(found, each.name):g}", meanings[each.name]) for each in fields(found))


# ---- sanity --------------------------------------------------------------------------------------------------------


def _checked(found: Sanity) -> Checked:
    answers = {each.question: _answer(each) for each in found.findings}
    return Checked(
        method=visible(found.method),
        answers=tuple(answers.get(question) for question in ("weights", "class", "input")),
        steps=tuple((visible(step.name), number(step.signed), number(step.size)) for step in found.steps),
    )


def _answer(found: Finding) -> Answer:
    return Answer(
        question=found.question,
        shown=number(found.similarity),
        bound=number(found.bound),
        depends=found.depends,
    )
