"""From two inputs to what changed between them: one question, one method, one comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from clearhead import batches
from clearhead.comparisons import ALIGNMENT, Comparison, Slot
from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.maps import LedgerEntry, RelevanceMap
from clearhead.relevance.secant import secant
from clearhead.subjects import Compared, Subject, Wanted, kind, reads_images

METHOD: Literal["secant"] = "secant"
WANTED = ("contrast", "position", "continuation", "first_piece")
INSTEAD = {
    "generate": "Two inputs are compared by one scalar: give the text with continuation=..., or leave it out",
    "baseline": "The second input is what the first is compared with: leave `baseline` out",
    "units": "A comparison has a slot per token, and .words() sums them: leave `units` out",
}


def parted(asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is asked of the scalar, and settings. Raises UsageError for what a comparison has none of."""
    for name, instead in INSTEAD.items():
        if name in asked:
            raise UsageError(f"A comparison takes no `{name}`. {instead}.")
    if asked.get("method", METHOD) != METHOD:
        raise UsageError(
            f"A comparison shares a difference out exactly, which only the method {METHOD} does; found "
            f"{asked['method']!r}. Leave `method` out."
        )
    wanted = {name: value for name, value in asked.items() if name in WANTED}
    return wanted, {name: value for name, value in asked.items() if name not in (*WANTED, "method")}


def compare(
    subject: Subject, a: Any, b: Any, wanted: Wanted, settings: Settings, *, by_position: bool = False
) -> Comparison:
    r"""What changed between two inputs: $f(a) - f(b)$ shared over the slots in which they differ.

    Raises UsageError for inputs that cannot be put beside each other, and what `explain` raises.
    """
    _check(subject, a, b, wanted)
    chosen = replace(settings, method=METHOD)
    found = subject.compared(a, b, wanted, chosen, by_position=by_position)
    if found.alike:
        return _made(found, _nothing(found, found.values[0] if found.aligned.identical else found.in_slots()))
    (shared,) = batches.one(found.question, secant, chosen)
    return _judged(_made(found, shared), chosen.threshold)


def _check(subject: Subject, a: Any, b: Any, wanted: Wanted) -> None:
    """Raise UsageError for inputs that are not two of one kind, and for a list of targets."""
    if isinstance(a, list) or isinstance(b, list):
        raise UsageError("A comparison is of one input with one other; found a list. Compare them one by one.")
    if isinstance(wanted.target, list):
        raise UsageError("A comparison has one target; found a list. Give one target.")
    kinds = [kind(each) or type(each).__name__ for each in (a, b)]
    if reads_images(subject.task):
        kinds = ["image" if each == "text" else each for each in kinds]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"Two inputs of one kind are compared; found {kinds[0]} first and {kinds[1]} second. Give the second as "
            "the first."
        )


def _nothing(found: Compared, value: float) -> RelevanceMap:
    """The map of two inputs that the model reads alike in their slots: every share is 0."""
    question, (item,) = found.question, found.question.items
    return RelevanceMap(
        method=METHOD,
        model=question.name,
        task=question.task,
        target=found.target,
        value=value,
        base_value=value,
        units=item.units,
        relevance=np.zeros(len(item.units)),
        texts=item.texts,
        pictures=item.pictures,
        warnings=item.warnings,
        notes=(),
        recipe=question.recipe,
    )


def _made(found: Compared, shared: RelevanceMap) -> Comparison:
    """The comparison that a map of slots stands for; learned vectors beside these are the same in both."""
    aligned, other = found.aligned, found.others.items[0]
    more = tuple(Slot(kind="same", a=unit, b=unit) for unit in shared.units[len(aligned.slots) :])
    warnings = tuple(dict.fromkeys((*shared.warnings, *other.warnings)))
    notes = ("Nothing differs: both inputs are the same to the model.",) if aligned.identical else ()
    whole = replace(shared, target=found.target, warnings=warnings, notes=(*notes, *found.notes))
    return Comparison(
        map=_with_gaps(whole, found.values) if aligned.gaps else whole,
        slots=(*aligned.slots, *more),
        other_texts=other.texts,
        other_pictures=other.pictures,
    )


def _with_gaps(shared: RelevanceMap, values: tuple[float, float]) -> RelevanceMap:
    """The map with the values of the inputs as they are, and what the gaps did to each in the ledger."""
    moved = (values[0] - shared.value, shared.base_value - values[1])
    entries = tuple(
        LedgerEntry(cause=ALIGNMENT, module="", operation=f"gaps in {name}", relevance=amount, returned=False)
        for name, amount in zip("AB", moved, strict=True)
    )
    return replace(shared, value=values[0], base_value=values[1], ledger=(*shared.ledger, *entries))


def _judged(found: Comparison, threshold: float) -> Comparison:
    """The comparison, with a warning if its shares do not add up to the difference."""
    if found.conserves(threshold):
        return found
    note = (
        f"The shares do not add up to the difference: conservation error {found.conservation_error:.1e}, threshold "
        f"{threshold:.0e}."
    )
    leaks = ", ".join(f"{amount:+.4g} in {layer}" for layer, amount in _largest(found))
    note += f" Largest leaks: {leaks}." if leaks else ""
    return replace(found, map=replace(found.map, warnings=(*found.warnings, note)))


def _largest(found: Comparison) -> list[tuple[str, float]]:
    return sorted(found.layers, key=lambda pair: -abs(pair[1]))[:3]
