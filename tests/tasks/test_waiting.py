"""Where a bar shows how far the work is, nothing else moves on the same line."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from clearhead.cli import explaining


class Waiting:
    """Stands in for a model: it takes what is asked and gives two maps."""

    def __init__(self, task: str) -> None:
        self.task = task

    def explain(self, given: Any, **_: Any) -> Any:
        return [f"{each}!" for each in given] if isinstance(given, list) else f"{given}!"

    def stream(self, given: Any, **_: Any) -> Any:
        return iter([f"{given}!"])


@pytest.mark.parametrize(
    ("task", "given", "asking", "spins"),
    [
        ("causal-lm", ["a"], {}, True),
        ("causal-lm", ["a"], {"generate": 3}, False),
        ("causal-lm", ["a"], {"continuation": " b"}, False),
        ("encoder-decoder", ["a"], {}, False),
        ("text-classification", ["a", "b"], {}, False),
    ],
)
@pytest.mark.parametrize("rows", [True, False])
def test_nothing_spins_where_there_is_a_bar(
    task: str, given: list[str], asking: dict[str, Any], spins: bool, rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(explaining, "status", lambda message: said.append(message) or contextlib.nullcontext())
    found = list(explaining.explained(Waiting(task), given, asking, rows=rows))
    assert found == [f"{each}!" for each in given]
    assert any(said) == spins
