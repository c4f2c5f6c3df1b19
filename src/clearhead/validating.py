"""From one input, or many, to how far the methods that explain it can be trusted: questions, maps, removals, checks."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clearhead import methods
from clearhead.checks import Choices, Scores, evaluation, validation
from clearhead.config import Settings, thresholds
from clearhead.errors import ClearheadError, UsageError, choice
from clearhead.inventory import offloaded
from clearhead.maps import RelevanceMap
from clearhead.probing import explained, steady, tested
from clearhead.question import Question
from clearhead.removal import WORDS, Removal
from clearhead.subjects import Subject, Wanted, reads_images
from clearhead.subjects.documents import read
from clearhead.validations import Evaluation, Thresholds, Validation

DEFAULT = ("lrp", "secant", "integrated-gradients", "gradient-attention", "rollout")
PICTURE, OTHER = ("blur", "zero"), ("attention-mask", "zero", "mean")  # what else removes, the first that differs
WAYS = 2  # how many ways to remove there are where none is named
OFFLOADED = (
    "Methods were not tested with random weights, nor with vectors moved: weights are offloaded. Load the model whole "
    "to have them tested."
)
TESTED = 5  # inputs of a data set that methods are tested on
WRITES = "encoder-decoder"
REFERENCE = ("integrated-gradients", "secant", "lrp")  # what agreement is quoted with is the first that is judged
SCALES = {"similarity": "cosine similarity", "sequence": "log-probability", "callable": "value"}  # else logits
WANTED = ("target", "contrast", "position", "generate", "continuation", "first_piece", "baseline")
HOW = ("removals", "against", "choices", "thresholds", "sanity")
Methods = Sequence[str] | Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What is judged and how: the settings of each method by name, ways to remove, and where verdicts turn.

    `firm` methods were asked for by name and must work; others are left out where they do not, with a note. Without
    `removals` there are two, that of the baseline and one that differs. `against` names the method that agreement is
    quoted with. The first `sanity` inputs are also changed, in their weights, target and content, as a test.
    """

    methods: Mapping[str, Settings]
    firm: bool = True
    removals: tuple[str, ...] | None = None
    against: str | None = None
    sanity: int = 0
    choices: Choices = field(default_factory=Choices)
    thresholds: Thresholds = field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        for word in self.removals or ():
            if word not in WORDS:
                raise choice("removal", word, WORDS)
        if self.against is not None and self.against not in self.methods:
            raise choice("method", self.against, self.methods)


def judging(
    named: Methods | None,
    asked: Mapping[str, Any],
    resolve: Callable[[dict[str, Any]], Settings],
    *,
    file: Any = None,
    tests: int = 1,
) -> tuple[Wanted, Judging]:
    """What is explained and how methods are judged, out of all that was asked; thresholds of a file stand behind.

    Raises UsageError for a word or a number that means nothing here.
    """
    wanted, settings = parted({name: value for name, value in asked.items() if name not in HOW})
    if "method" in settings:
        raise UsageError(f"Several methods are judged; found method={settings['method']!r}. Name them in `methods`.")
    removals = asked.get("removals")
    return wanted, Judging(
        methods=_chosen(named, lambda own: resolve({**settings, **own})),
        firm=named is not None,
        removals=None if removals is None else _words(removals),
        against=asked.get("against"),
        sanity=_tests(asked.get("sanity"), tests),
        choices=asked.get("choices") or Choices(),
        thresholds=Thresholds.named({**(thresholds(file) if file else {}), **(asked.get("thresholds") or {})}),
    )


def parted(asked: Mapping[str, Any]) -> tuple[Wanted, dict[str, Any]]:
    """What is asked of the target, and settings."""
    wanted = Wanted(**{name: asked[name] for name in WANTED if name in asked})
    return wanted, {name: value for name, value in asked.items() if name not in WANTED}


def _chosen(named: Methods | None, resolve: Callable[[dict[str, Any]], Settings]) -> dict[str, Settings]:
    """The settings of each method: of its name, of `method:preset`, or as a mapping has them under names of its own."""
    if isinstance(named, Mapping):
        pairs = [(str(name), dict(given)) for name, given in named.items()]
    else:
        words = [named] if isinstance(named, str) else DEFAULT if named is None else named
        pairs = [(str(each), _named(each)) for each in words]
    twice = next((name for name, count in Counter(name for name, _ in pairs).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"Each method is judged once; {twice!r} is named twice. Leave one out.")
    if not pairs:
        raise UsageError("At least one method is judged; found none. Leave `methods` out for the default.")
    found = {name: resolve({"cross_check": False, **given}) for name, given in pairs}
    for each in found.values():
        methods.method(each)
    return found


def _named(name: Any) -> dict[str, Any]:
    if not isinstance(name, str):
        raise UsageError(f"Methods are named by words, such as 'lrp' or 'lrp:attnlrp'; found {name!r}.")
    method, _, preset = name.partition(":")
    return {"method": method, "preset": preset} if preset else {"method": method}


def _tests(asked: Any, usual: int) -> int:
    """On how many inputs methods are tested: true is the usual number."""
    if asked is None or isinstance(asked, bool):
        return usual if asked is not False else 0
    if not isinstance(asked, int) or asked < 0:
        raise UsageError(f"`sanity` is true, false, or a number of inputs from 0 on; found {asked!r}.")
    return asked


def _words(removals: Any) -> tuple[str, ...]:
    """Ways to remove, by their names."""
    found = (removals,) if isinstance(removals, str) else tuple(removals)
    if not found:
        raise UsageError("At least one way to remove units is needed; found none. Leave `removals` out for two.")
    return found


# ---- one prediction ------------------------------------------------------------------------------------------------


def validate(subject: Subject, given: Any, wanted: Wanted, judging: Judging) -> Validation:
    """How far to trust the methods that explain one prediction. Raises UsageError, and what a method raises."""
    whole, own = posed(subject, given, wanted, judging)
    question = replace(whole, baselines=whole.baselines[:own])
    maps, seconds, notes = _maps(question, judging)
    removals, first = _removals(whole, own, judging), next(iter(maps.values()))
    named, judged = {name: judging.methods[name] for name in maps}, _judged(question, removals.values())
    tests = judging.sanity > 0 and judged.sum() >= judging.thresholds.fewest_units
    if tests and offloaded(subject.model):
        tests, notes = False, [*notes, OFFLOADED]
    scores: dict[str, Scores] = {name: each.scores for name, each in removals.items()}
    found = validation(
        maps,
        scores,
        units=question.items[0].units,
        judged=judged,
        scale=SCALES.get(first.target.kind, "logit"),
        tolerances={name: methods.METHODS[each.method].tolerance for name, each in named.items()},
        perturbed={name: steady(question, each, judged) for name, each in named.items()} if tests else None,
        sanity=tested(question, named, maps, judging.thresholds, subject.tokenizer) if tests else (),
        against=judging.against or next((name for name in REFERENCE if name in maps), None),
        choices=judging.choices,
        thresholds=judging.thresholds,
    )
    return replace(found, notes=(*found.notes, *notes), seconds=seconds)


def posed(subject: Subject, given: Any, wanted: Wanted, judging: Judging) -> tuple[Question, int]:
    """The question about one prediction, and how many of its baselines methods compare with; the others remove."""
    own = wanted.baseline if isinstance(wanted.baseline, list) else [wanted.baseline]
    whole = wanted.target is None and wanted.position is None
    if whole and (subject.task == WRITES or wanted.generate or wanted.continuation):
        wanted = replace(wanted, target="sequence")
    image = reads_images(subject.task) and not isinstance(given, Mapping)
    further = judging.removals or (PICTURE if image else OTHER)
    settings = replace(next(iter(judging.methods.values())), method="secant")
    question = subject.question(given, replace(wanted, baseline=[*own, *further]), settings)
    rows = [len(item.aims) for item in question.items]
    if rows != [1]:
        raise UsageError(
            f"One prediction is judged at a time; found {sum(rows)}. Of a text that the model wrote, choose a token "
            "with `position`, or target='sequence'; of many inputs, evaluate() gives means."
        )
    return question, len(own)


def _maps(question: Question, judging: Judging) -> tuple[dict[str, RelevanceMap], dict[str, float], list[str]]:
    """A map by each method, the seconds that it took, and why some are missing."""
    found, seconds, notes = dict[str, RelevanceMap](), dict[str, float](), list[str]()
    for name, settings in judging.methods.items():
        start = perf_counter()
        try:
            found[name] = explained(question, settings)
            seconds[name] = perf_counter() - start
        except ClearheadError as error:
            if judging.firm:
                able = ", ".join(other for other in DEFAULT if other != name)
                raise type(error)(f"{name} cannot explain this: {error} Other methods are {able}.") from error
            notes.append(f"{name} was left out: {error}")
    if not found:
        raise UsageError(f"No method can explain this. {' '.join(notes)}")
    return found, seconds, notes


def _removals(question: Question, own: int, judging: Judging) -> dict[str, Removal]:
    """Ways to remove units, by what is in their place."""
    bare, first = replace(question, baselines=()), question.baselines[0]
    if judging.removals:
        return {each.label: Removal(bare, each) for each in question.baselines[own:]}
    found = {first.label: Removal(bare, first)}
    for each in question.baselines[own:]:
        if each.label not in found and len(found) < WAYS:
            with suppress(ClearheadError):  # not of every model
                removal = Removal(bare, each)
                removal.scores(np.zeros((1, len(removal.units)), dtype=bool))
                found[each.label] = removal
    return found


def _judged(question: Question, removals: Iterable[Removal]) -> NDArray[np.bool_]:
    """The units that all ways can remove."""
    own = np.array([not unit.special for unit in question.items[0].units], dtype=bool)
    return np.asarray(np.logical_and.reduce([own, *(each.removable for each in removals)]))


# ---- a data set ----------------------------------------------------------------------------------------------------


def evaluate(subject: Subject, data: Any, wanted: Wanted, judging: Judging, *, limit: int | None = None) -> Evaluation:
    """Means over the inputs of a list or a file, what was skipped and why, and verdicts. Raises UsageError."""
    inputs, _ = read(data, None, images=reads_images(subject.task), judged="Methods are judged")
    if limit is not None and limit < 1:
        raise UsageError(f"`limit` must be 1 or larger; found {limit}. Leave it out for all inputs.")
    return measured(subject, inputs[:limit], wanted, judging)[0]


def measured(
    subject: Subject, inputs: Sequence[Any], wanted: Wanted, judging: Judging, *, seconds: float = math.inf
) -> tuple[Evaluation, list[Validation]]:
    """The means over inputs, of as many as can be judged in so many seconds, and what was found of each of these."""
    skipped, found, end = Counter[str](), list[Validation](), perf_counter() + seconds
    for given in tqdm(inputs, desc="evaluating", unit="input", leave=False, disable=None):
        try:
            found.append(validate(subject, given, wanted, replace(judging, sanity=judging.sanity - len(found))))
        except ClearheadError as error:
            skipped[_reason(error)] += 1
        else:
            judging = replace(judging, methods={name: judging.methods[name] for name in found[-1].methods}, firm=True)
        if perf_counter() > end:
            break
    made = evaluation(found, skipped=skipped, seed=judging.choices.seed, thresholds=judging.thresholds)
    notes = (*made.notes, *(found[0].notes if found else ()))
    return replace(made, notes=notes), [each for each in found if each.units >= judging.thresholds.fewest_units]


def _reason(error: ClearheadError) -> str:
    """Why an input was skipped, the same for inputs that differ in numbers only."""
    first = re.split(r"(?<=[.:;]) ", str(error), maxsplit=1)[0]
    return re.sub(r"\d+", "…", first).rstrip(".:;")
