"""Where memory runs out, heads are asked about half as many documents at a time, and the numbers stay the same."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from clearhead import AttentionVisualizer
from clearhead.errors import ModelError
from clearhead.memory import halved
from tasks.gallery import gallery

TEXTS = ["a film", "a good film .", "this was not a good one", "it is a bad film", "people are walking", "a man"] * 2
LABELS = [1, 0, 1, 1, 0, 0] * 2
FAILURES = [
    torch.OutOfMemoryError("no memory"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
]


def watched(monkeypatch: pytest.MonkeyPatch, room: int, failure: Exception) -> tuple[AttentionVisualizer, list[int]]:
    """A model for which memory runs out with more than `room` rows, and the rows of every forward pass."""
    entry = gallery("text-classification/bert")
    av, rows = AttentionVisualizer(copy.deepcopy(entry.model), entry.processor), list[int]()
    forward = av.model.forward

    def limited(*args: Any, **given: Any) -> Any:
        rows.append(len(given["input_ids"]))
        if rows[-1] > room:
            raise failure
        return forward(*args, **given)

    monkeypatch.setattr(av.model, "forward", limited)
    return av, rows


@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: type(each).__name__)
def test_importance_is_measured_with_half_as_many(monkeypatch, failure):
    roomy, _ = watched(monkeypatch, 100, failure)
    expected = roomy.heads(TEXTS, LABELS, of="loss")
    av, rows = watched(monkeypatch, 3, failure)
    found = av.heads(TEXTS, LABELS, of="loss")
    np.testing.assert_allclose(found.importance, expected.importance, rtol=1e-5)
    np.testing.assert_allclose(found.error, expected.error, rtol=1e-5)
    together = [each for each in rows if each > 1]
    assert together == [12, 6, 3, 3, 3, 3]


def test_points_of_a_curve_are_measured_with_half_as_many(monkeypatch):
    roomy, _ = watched(monkeypatch, 100, FAILURES[0])
    expected = roomy.pruning_curve(TEXTS, LABELS, steps=2, iterative=False)
    av, rows = watched(monkeypatch, 6, FAILURES[0])
    found = av.pruning_curve(TEXTS, LABELS, steps=2, iterative=False)
    for mine, other in zip(found.curves, expected.curves, strict=True):
        np.testing.assert_array_equal(mine.metric, other.metric)
    assert set(rows) == {1, 12, 6}
    assert rows.count(6) == 2 * rows.count(12)


def test_what_was_done_before_memory_ran_out_is_not_done_again(monkeypatch, tmp_path):
    av, rows = watched(monkeypatch, 3, FAILURES[0])
    whole = av.heads(TEXTS, resume=tmp_path).to_dict()
    rows.clear()
    assert av.heads(TEXTS, resume=tmp_path).to_dict() == whole
    assert max(rows) == 1  # only what heads look at is seen again


def test_memory_that_does_not_suffice_for_one_is_told(monkeypatch):
    av, _ = watched(monkeypatch, 100, FAILURES[0])
    av.heads(TEXTS)  # so that the heads are known
    monkeypatch.setattr(av.model, "forward", lambda **_: (_ for _ in ()).throw(FAILURES[0]))
    with pytest.raises(ModelError, match=r"Memory ran out for one input of 4 units\. Shorten it"):
        av.heads(TEXTS)


def test_other_failures_are_not_taken_for_it():
    def make(_: Any) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        list(halved([1, 2], len, make, lambda _: 1))


def test_batches_stay_small_once_memory_ran_out_and_all_is_made_in_order():
    tried: list[list[int]] = []

    def make(batch: list[int]) -> list[int]:
        tried.append(batch)
        if len(batch) > 2:
            raise MemoryError
        return [10 * n for n in batch]

    found = list(halved(list(range(7)), lambda left: min(5, len(left)), make, lambda _: 1))
    assert tried == [[0, 1, 2, 3, 4], [0, 1], [2, 3], [4, 5], [6]]
    assert [made for _, made, _ in found] == [[0, 10], [20, 30], [40, 50], [60]]
    assert {note for _, _, note in found} == {
        "Memory ran out with 5 inputs at a time; they were explained 2 at a time."
    }
