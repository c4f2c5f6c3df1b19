"""Units as a user wants them: the words for them, and maps whose relevance is summed to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from clearhead.errors import UsageError, choice
from clearhead.question import Question

Units = Literal["token", "word", "sentence", "patch", "pixel"] | Sequence[tuple[int, int]]
UNITS: dict[str, Callable[[Any], Any]] = {
    "token": lambda found: found,
    "word": lambda found: found.words(),
    "sentence": lambda found: found.sentences(),
    "patch": lambda found: found,
    "pixel": lambda found: found,
}


def regrouping(units: Units | None) -> Callable[[Any], Any]:
    """From what was found to the same in other units. Raises UsageError for an unknown word."""
    if units is None:
        return UNITS["token"]
    if isinstance(units, str):
        if units not in UNITS:
            raise choice("units", units, UNITS)
        change = UNITS[units]
    else:

        def change(found: Any) -> Any:
            return found.spans(units)

    return lambda found: [change(each) for each in found] if isinstance(found, list) else change(found)


def check_units(question: Question, units: Units | None) -> None:
    """Raise UsageError for units that the input does not have."""
    item = question.items[0]
    if units in ("patch", "pixel") and not item.pictures:
        raise UsageError(f"Only an image has units of the kind {units!r}; this input has none. Leave out `units`.")
    if units is not None and units not in ("token", "patch", "pixel") and not item.texts:
        raise UsageError("Only a text has words, sentences and spans; this input has none. Leave out `units`.")
