"""A list is explained together and equals its members alone: no padding, no neighbour and no order shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clearhead import AttentionVisualizer, RelevanceMap, batches, methods
from clearhead.errors import UsageError
from clearhead.relevance.lrp import lrp
from tasks.gallery import exact, names
from tasks.plainly import balanced, encoded, exact_door, exactly_asked, near, options, rows_of, same

PADDED = [
    name
    for name in names()
    if name.split("/")[0] not in {"image-classification", "encoder-decoder"} and not name.endswith("siglip")
]


def three(name: str) -> list[Any]:
    return list(exact(name).inputs[:3])


@pytest.mark.parametrize("name", names())
def test_a_list_equals_its_members(name: str) -> None:
    found = exact_door(name).explain(three(name), **options(exact(name).task))
    assert isinstance(found, list)
    assert len(found) == 3
    for n, each in enumerate(found):
        alone = exactly_asked(name, n)
        assert type(each) is type(alone)
        for row, other in zip(rows_of(each), rows_of(alone), strict=True):
            same(row, other)
            assert row.warnings == other.warnings
        balanced(each)


@pytest.mark.parametrize("name", PADDED)
def test_the_members_are_indeed_explained_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward pass holds all three; without this the other tests could pass one by one."""
    rows = watched(name, monkeypatch)
    exact_door(name).explain(three(name))
    assert max(rows) == 3


@pytest.mark.parametrize("name", names("text-classification", "causal-lm", "image-classification"))
def test_the_order_makes_no_difference(name: str) -> None:
    backwards = exact_door(name).explain(three(name)[::-1])
    for n, each in enumerate(reversed(backwards)):
        same(each, exactly_asked(name, n))


@pytest.mark.parametrize("name", names("text-classification"))
def test_the_same_text_twice_has_the_same_map_twice(name: str) -> None:
    text = exact(name).inputs[0]
    one, _, other = exact_door(name).explain([text, exact(name).inputs[1], text])
    same(one, other, tolerance=1e-6)


@pytest.mark.parametrize("name", ["text-classification/bert", "causal-lm/gpt2"])
@pytest.mark.parametrize("preset", ["default", "attnlrp", "cp-lrp"])
def test_every_preset_keeps_members_apart(name: str, preset: str) -> None:
    """Here nothing is returned, so that the ledger of each member is its own."""
    together = exact_door(name).explain(three(name), method="lrp", preset=preset)
    for each, given in zip(together, three(name), strict=True):
        alone = exact_door(name).explain(given, method="lrp", preset=preset)
        same(each, alone)
        assert each.sinks == pytest.approx(alone.sinks, rel=1e-3, abs=1e-5)
        assert each.residual < 1e-4


def test_pairs_stand_in_one_list_but_not_with_texts() -> None:
    name = "text-classification/bert"
    one = exact(name)
    pair = one.inputs[3]
    first, second = exact_door(name).explain([pair, ("a film", "a man")])
    same(first, exactly_asked(name, 3))
    same(second, exact_door(name).explain(("a film", "a man")))
    with pytest.raises(UsageError, match=r"one kind.*place 4"):
        exact_door(name).explain(list(one.inputs))


def test_pictures_of_different_sizes_stand_in_one_list() -> None:
    name = "image-classification/vit"
    one = exact(name)
    assert len({image.size for image in one.inputs}) > 1
    for n, each in enumerate(exact_door(name).explain(list(one.inputs))):
        same(each, exactly_asked(name, n))


def test_a_list_of_one_is_a_list() -> None:
    (found,) = exact_door("causal-lm/gpt2").explain([exact("causal-lm/gpt2").inputs[0]])
    same(found, exactly_asked("causal-lm/gpt2"))


def test_nothing_gives_nothing() -> None:
    assert exact_door("causal-lm/gpt2").explain([]) == []


# ---- targets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("text-classification", "image-classification"))
def test_each_member_may_have_a_target(name: str) -> None:
    labels = exact(name).model.config.id2label
    targets: list[Any] = [0, labels[1], None]
    found = exact_door(name).explain(three(name), target=targets)
    for each, given, target in zip(found, three(name), targets, strict=True):
        same(each, exact_door(name).explain(given, target=target))
    assert [each.target.index for each in found[:2]] == [0, 1]


def test_each_prompt_may_have_a_target() -> None:
    name = "causal-lm/gpt2"
    targets: list[Any] = [" people", 7, None]
    for each, given, target in zip(
        exact_door(name).explain(three(name), target=targets), three(name), targets, strict=True
    ):
        same(each, exact_door(name).explain(given, target=target))


def test_one_target_is_meant_for_all() -> None:
    found = exact_door("text-classification/roberta").explain(three("text-classification/roberta"), target="positive")
    assert [each.target.label for each in found] == ["positive"] * 3


def test_a_function_is_asked_about_each_member() -> None:
    name = "text-classification/roberta"

    def score(output: Any) -> torch.Tensor:
        assert output.logits.shape[0] == 1
        return output.logits[0, 2]

    for each, given in zip(exact_door(name).explain(three(name), target=score), three(name), strict=True):
        alone = exact_door(name).explain(given, target="positive")
        assert each.value == near(alone.value)
        np.testing.assert_allclose(each.relevance, alone.relevance, atol=1e-5 * np.abs(alone.relevance).sum())


def test_a_function_that_fits_one_member_fits_a_list() -> None:
    """Every row of the output is one number for one input, and three for three."""
    name = "text-classification/roberta"
    found = exact_door(name).explain(three(name), target=lambda output: output.logits[:, 2])
    for each, given in zip(found, three(name), strict=True):
        assert each.value == near(exact_door(name).explain(given, target="positive").value)


@pytest.mark.parametrize("targets", [[0], [0, 1, 2, 0], []])
def test_a_target_for_each_or_one_for_all(targets: list[int]) -> None:
    with pytest.raises(UsageError, match="target"):
        exact_door("text-classification/roberta").explain(three("text-classification/roberta"), target=targets)


def test_a_list_of_targets_needs_a_list_of_inputs() -> None:
    with pytest.raises(UsageError, match="target"):
        exact_door("text-classification/roberta").explain("a film", target=[0])


# ---- tensors --------------------------------------------------------------------------------------------------------


def padded(name: str, side: str) -> dict[str, torch.Tensor]:
    one = exact(name)
    texts = [given for given in one.inputs if isinstance(given, str)]
    return dict(one.tokenizer(texts, return_tensors="pt", padding=True, padding_side=side))


@pytest.mark.parametrize("name", ["text-classification/bert", "text-classification/roberta"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_tensors_with_a_batch_give_a_list(name: str, side: str) -> None:
    one, tensors = exact(name), padded(name, side)
    with torch.no_grad():
        logits = one.model(**tensors).logits
    found = exact_door(name).explain(tensors, target=1, contrast=0)
    assert isinstance(found, list)
    for n, each in enumerate(found):
        shown = [unit for unit in each.units if not unit.special]
        read = [unit.text for unit in each.units if unit.special]
        assert len(shown) == int(tensors["attention_mask"][n].sum())
        assert each.value == near(float(logits[n, 1] - logits[n, 0]))
        # Some of these read the first position whatever the mask says; then the padding there has its own unit.
        reads_padding = side == "left" and not bool(tensors["attention_mask"][n, 0]) and "llama" not in name
        assert read == (["padding"] if reads_padding else [])
        assert each.task == "tensors"
        balanced(each)


def test_padded_tensors_equal_texts() -> None:
    """Padding on the right moves no position, so the relevance is that of each text alone."""
    name = "text-classification/bert"
    for each, text in zip(exact_door(name).explain(padded(name, "right"), target=1), three(name), strict=True):
        alone = exact_door(name).explain(text, target=1)
        np.testing.assert_allclose(each.relevance, alone.relevance, atol=1e-5 * np.abs(alone.relevance).sum())


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_token_of_padded_tensors_is_the_last_real_one(side: str) -> None:
    """Rotary positions are relative, so that padding on either side leaves a prompt as it was."""
    name = "causal-lm/llama-writer"
    found = exact_door(name).explain(padded(name, side))
    for n, each in enumerate(found):
        alone = exactly_asked(name, n)
        assert each.target.index == alone.target.index
        assert each.value == near(alone.value)
        np.testing.assert_allclose(each.relevance, alone.relevance, atol=1e-4 * np.abs(alone.relevance).sum())


def test_without_a_mask_all_positions_are_units() -> None:
    ids = torch.tensor([[3, 14, 15, 9], [2, 6, 5, 35]])
    one = exact("causal-lm/gpt2")
    found = AttentionVisualizer(one.model).explain({"input_ids": ids}, target=7)
    with torch.no_grad():
        logits = one.model(input_ids=ids).logits[:, -1, 7]
    assert [len(each.units) for each in found] == [4, 4]
    assert [each.value for each in found] == [near(float(value)) for value in logits]


def test_pixel_tensors_with_a_batch_give_a_list() -> None:
    one = exact("image-classification/vit")
    tensors = dict(one.processor(list(one.inputs), return_tensors="pt"))
    with torch.no_grad():
        logits = one.model(**tensors).logits
    found = AttentionVisualizer(one.model).explain(tensors, target=2)
    assert [each.value for each in found] == [near(float(row[2])) for row in logits]
    for each in found:
        assert each.residual < 1e-4


def test_a_batch_of_one_is_no_list() -> None:
    one = exact("text-classification/bert")
    assert isinstance(exact_door(one.name).explain(dict(encoded(one, one.inputs[0]))), RelevanceMap)


def test_tensors_of_different_batches_are_refused() -> None:
    tensors = padded("text-classification/bert", "right")
    tensors["token_type_ids"] = tensors["token_type_ids"][:2]
    with pytest.raises(UsageError, match="batch"):
        exact_door("text-classification/bert").explain(tensors)


# ---- memory ---------------------------------------------------------------------------------------------------------


def watched(name: str, monkeypatch: pytest.MonkeyPatch, *, room: int = 100) -> list[int]:
    """The batch of every forward pass; memory runs out for one of more than `room`."""
    model, rows = exact(name).model, []
    forward = model.forward

    def limited(*args: Any, **given: Any) -> Any:
        batch = len(given.get("input_ids", given.get("pixel_values")))
        rows.append(batch)
        if batch > room:
            raise torch.OutOfMemoryError(f"no memory for {batch}")
        return forward(*args, **given)

    monkeypatch.setattr(model, "forward", limited)
    return rows


@pytest.mark.parametrize("name", ["text-classification/bert", "causal-lm/gpt2", "sentence-similarity/bert-embedder"])
def test_where_memory_runs_out_the_batch_is_halved(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = three(name) * 2
    rows = watched(name, monkeypatch, room=2)
    found = exact_door(name).explain(given)
    for n, each in enumerate(found):
        same(each, exactly_asked(name, n % 3))
    assert max(rows) > 2
    assert rows[-1] <= 2
    notes = {note for each in found for note in each.warnings}
    assert any("memory" in note.lower() and "at a time" in note for note in notes), notes


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_batch_holds_no_more_than_asked_for(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "text-classification/bert"
    rows = watched(name, monkeypatch)
    found = exact_door(name).explain(three(name) * 2, batch_size=size)
    assert max(rows) == size
    for n, each in enumerate(found):
        same(each, exactly_asked(name, n % 3))


def test_where_memory_does_not_suffice_for_one_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    watched("text-classification/bert", monkeypatch, room=0)
    with pytest.raises(Exception, match=r"(?i)memory"):
        exact_door("text-classification/bert").explain(three("text-classification/bert"))


@pytest.mark.parametrize("size", [-1, 1.5, "two", True])
def test_a_batch_size_is_a_number(size: Any) -> None:
    with pytest.raises(UsageError, match="batch_size"):
        exact_door("text-classification/bert").explain(three("text-classification/bert"), batch_size=size)


def test_how_many_fit_follows_memory_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the memory holds twice the inputs; longer inputs are fewer; one is always tried."""
    name = "text-classification/bert"
    av, texts = exact_door(name), three(name) * 8
    sizes: list[int] = []

    def note(question: Any, settings: Any) -> Any:
        sizes.append(len(question.items))
        return lrp(question, settings)

    monkeypatch.setitem(methods.METHODS, "lrp", replace(methods.METHODS["lrp"], function=note))
    longest = max(len(exact(name).tokenizer(text).input_ids) for text in texts)
    each = batches.bytes_per_position(av.model) * longest
    for memory, most in ((0, 1), (8 * each, 4), (10**12, 24)):
        monkeypatch.setattr(batches, "free_memory", lambda _, memory=memory: memory)
        sizes.clear()
        av.explain(texts)
        assert sum(sizes) == len(texts)
        assert sizes[-1] <= most <= 2 * max(sizes)
