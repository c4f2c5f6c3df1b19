"""Rows of what a model writes: together in a list, some at a time, or one after the other, they are the same rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer, batches
from clearhead.errors import ModelError
from clearhead.generations import GenerationMap
from clearhead.relevance import watched as method
from clearhead.relevance.engine import Recording
from tasks.gallery import Entry, exact, names
from tasks.plainly import balanced, exact_door, rows_of, same

WRITERS = names("causal-lm", "encoder-decoder")
CONTINUED = {"causal-lm": " walking in the park", "encoder-decoder": "Zwei junge Leute gehen"}
WAYS: dict[str, Callable[[Entry], dict[str, Any]]] = {
    "generated": lambda _: {"generate": 4},
    "given": lambda one: {"continuation": CONTINUED[one.task]},
    "against others": lambda _: {"generate": 3, "contrast": "others"},
    "one of them": lambda _: {"generate": 3, "position": 2},
    "their sum": lambda _: {"generate": 3, "target": "sequence"},
}


class Counting(nn.Module):
    """A model that counts what is asked of it while it is watched; generating is not."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.config, self.generation_config = model, model.config, model.generation_config
        self.batches: list[int] = []

    def generate(self, **given: Any) -> Any:
        return self.model.generate(**given)

    def forward(self, **given: Any) -> Any:
        self.batches.append(len(given["input_ids"]))
        return self.model(**given)


def counting(name: str) -> tuple[AttentionVisualizer, Counting]:
    one = exact(name)
    model = Counting(one.model)
    return AttentionVisualizer(model, one.processor, task=one.task, reference="zero"), model


@pytest.fixture
def sent_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many values each backward pass sent back."""
    found: list[int] = []
    explain = Recording.explain

    def noted(self: Recording, *values: torch.Tensor, keep: bool = False) -> Any:
        found.append(len(values))
        return explain(self, *values, keep=keep)

    monkeypatch.setattr(Recording, "explain", noted)
    return found


# ---- in a list ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", WRITERS)
def test_a_list_of_what_models_write_equals_its_members(name: str, way: str, sent_back: list[int]) -> None:
    """Prompts of different lengths, and texts too, are padded, and the n-th rows of all go back together."""
    one = exact(name)
    found = exact_door(name).explain(list(one.inputs), **WAYS[way](one))
    assert max(sent_back) == len(one.inputs)
    longest = max(len(rows_of(each)) for each in found)
    assert longest <= len(sent_back) <= longest + 2  # a row whose books close only just is looked at again, alone
    for each, given in zip(found, one.inputs, strict=True):
        alone = exact_door(name).explain(given, **WAYS[way](one))
        assert type(each) is type(alone)
        for row, other in zip(rows_of(each), rows_of(alone), strict=True):
            same(row, other)
            assert row.warnings == other.warnings
        balanced(each)


@pytest.mark.parametrize("name", WRITERS)
def test_members_of_a_list_may_have_different_numbers_of_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text ends where a token of its own is made the end, so that some members are longer than others."""
    one = exact(name)
    ends = exact_door(name).explain(one.inputs[1], generate=2)[1].target.index
    monkeypatch.setattr(one.model.config, "eos_token_id", ends)
    monkeypatch.setattr(one.model.generation_config, "eos_token_id", ends)
    av, model = counting(name)
    found = av.explain(list(one.inputs), generate=5)
    assert model.batches == [3]
    assert len({len(each) for each in found}) > 1
    for each, given in zip(found, one.inputs, strict=True):
        for row, other in zip(each, av.explain(given, generate=5), strict=True):
            same(row, other)


def test_next_tokens_and_whole_texts_are_not_mixed_up() -> None:
    """Rows come in the order of their tokens, each in the map of its prompt."""
    one = exact("causal-lm/gpt2")
    for each, prompt in zip(exact_door(one.name).explain(list(one.inputs), generate=4), one.inputs, strict=True):
        assert isinstance(each, GenerationMap)
        assert [row.target.position for row in each] == list(range(4))
        assert each.texts["input"] == prompt


# ---- some rows at a time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_the_same_however_many_are_explained_together(name: str, size: int) -> None:
    one = exact(name)
    av, model = counting(name)
    found = av.explain(one.inputs[0], generate=5, batch_size=size)
    assert model.batches == [min(size, len(found))]
    for row, other in zip(found, av.explain(one.inputs[0], generate=5, batch_size=1), strict=True):
        same(row, other)
    balanced(found)


@pytest.mark.parametrize("name", WRITERS)
def test_a_generation_takes_one_forward_pass_and_few_backward_passes(name: str, sent_back: list[int]) -> None:
    av, model = counting(name)
    found = av.explain(exact(name).inputs[0], generate=10)
    assert model.batches == [min(batches.ROWS, len(found))]
    assert sum(sent_back) == len(found)
    assert len(sent_back) == -(-len(found) // batches.ROWS)


def test_long_texts_are_explained_fewer_rows_at_a_time(monkeypatch: pytest.MonkeyPatch, sent_back: list[int]) -> None:
    monkeypatch.setattr(batches, "POSITIONS", 30)
    av, _ = counting("causal-lm/gpt2")
    found = av.explain(exact("causal-lm/gpt2").inputs[0], generate=6)
    assert max(sent_back) == 30 // len(found[-1].units)


def test_where_memory_runs_out_fewer_rows_are_explained_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also half-way: rows that are known are not explained again."""
    name, rounds = "causal-lm/gpt2", []
    whole = exact_door(name).explain(exact(name).inputs[0], generate=8, batch_size=1)
    explain = Recording.explain

    def short(self: Recording, *values: torch.Tensor, keep: bool = False) -> Any:
        rounds.append(len(values))
        if len(rounds) > 1 and len(values) > 2:
            raise torch.OutOfMemoryError("no memory")
        return explain(self, *values, keep=keep)

    monkeypatch.setattr(Recording, "explain", short)
    found = exact_door(name).explain(exact(name).inputs[0], generate=8, batch_size=4)
    assert rounds == [4, 4, 2, 2]
    for row, other in zip(found, whole, strict=True):
        same(row, other)
    assert [bool(row.warnings) for row in found] == [False] * 4 + [True] * 4
    assert "4 rows at a time; they were explained 2 at a time" in found[7].warnings[0]


def test_where_memory_does_not_suffice_for_one_row_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(Recording, "explain", none)
    with pytest.raises(ModelError, match="Memory ran out for one input"):
        exact_door("causal-lm/gpt2").explain(exact("causal-lm/gpt2").inputs[0], generate=8)


def test_what_a_batch_does_not_tell_apart_is_watched_alone_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a model costs a forward pass per copy, not one per row, and its rows are the same."""
    name = "causal-lm/gpt2"
    av, model = counting(name)
    plain = av.explain(exact(name).inputs[0], generate=6, batch_size=1)
    model.batches.clear()
    monkeypatch.setattr(method, "_told_apart", lambda _: False)
    found = av.explain(exact(name).inputs[0], generate=6, batch_size=2)
    assert model.batches == [2, 1, 1]
    for row, other in zip(found, plain, strict=True):
        same(row, other)


# ---- one after the other --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_a_row_of_a_stream_comes_before_the_next_is_computed(name: str, sent_back: list[int]) -> None:
    av, model = counting(name)
    whole = av.explain(exact(name).inputs[0], generate=5)
    model.batches.clear()
    sent_back.clear()
    for n, row in enumerate(av.stream(exact(name).inputs[0], generate=5)):
        assert sent_back == [1] * (n + 1)
        same(row, whole[n])
    assert model.batches == [1]
    assert len(sent_back) == len(whole)


# ---- for a person who waits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    ("given", "asking", "unit"),
    [
        ("A man", {"generate": 3}, "row"),
        ("A man", {"continuation": " is walking"}, "row"),
        (["A man", "a film"], {}, "input"),
        ("A man", {}, None),
    ],
)
def test_there_is_a_bar_on_a_terminal_where_many_maps_come(
    given: Any,
    asking: dict[str, Any],
    unit: str | None,
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    exact_door("causal-lm/gpt2").explain(given, **asking)
    out, err = capsys.readouterr()
    assert not out
    assert ("explaining" in err) == (terminal and unit is not None)
    if terminal and unit is not None:
        assert f"{unit}/s" in err


def test_learned_vectors_of_a_generation_stand_behind_all_units():
    """Relevance that reaches positions learned as a table has a column of its own, the same in each row."""
    one = exact("encoder-decoder/t5")
    found = AttentionVisualizer(one.model, one.processor, task=one.task, preset="attnlrp").explain(
        one.inputs[0], generate=3
    )
    assert found.relevance.shape == (3, len(found.units))
    assert found.units[-1].text == "relative_attention_bias"
    assert found.relevance[:, -1].all()
    assert all(row.residual <= 1e-9 for row in found.rows)
