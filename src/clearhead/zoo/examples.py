"""One input for each model in the box, from data that it never saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Example:
    """An input to explain, by which model, and what is asked beside it."""

    model: str
    input: Any
    asked: Mapping[str, Any] = field(default_factory=dict)


EXAMPLES = (
    Example(model="clearhead/sentiment", input="It starts well and has two fine actors, but the ending is a mess."),
    Example(model="clearhead/digits", input=Path(__file__).parent / "digits" / "example.png"),
    Example(model="clearhead/translate", input="A woman in a red coat is waiting for the bus."),
    Example(model="clearhead/captions", input="Two children are playing", asked={"generate": 12}),
)
