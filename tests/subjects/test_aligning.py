"""Two texts in slots: nothing lost, nothing crossed, the same the other way round; what cannot be is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearhead import AttentionVisualizer
from clearhead.comparisons import Comparison
from clearhead.errors import UsageError
from clearhead.question import NOTHING
from clearhead.subjects import Subject, Wanted
from clearhead.subjects.aligning import slots
from tasks.gallery import LIMIT, gallery, picture
from tasks.plainly import door

BERT, READER, FILLER = "text-classification/bert", "question-answering/bert-reader", "masked-lm/bert-filler"
TAGGER, GPT2, T5 = "token-classification/bert-tagger", "causal-lm/llama-writer", "encoder-decoder/t5"
VIT, CLIP, EMBEDDER = "image-classification/vit", "image-text-similarity/clip", "sentence-similarity/bert-embedder"

ids = st.lists(st.integers(0, 6), max_size=14)


# ---- slots -----------------------------------------------------------------------------------------------------------


@given(ids, ids, st.booleans())
def test_every_unit_has_one_slot_in_order(a, b, by_position):
    found = list(slots(a, b, by_position=by_position))
    assert [i for i, _ in found if i is not None] == list(range(len(a)))
    assert [j for _, j in found if j is not None] == list(range(len(b)))
    assert (None, None) not in found


@given(ids, ids, st.booleans())
def test_slots_are_the_same_the_other_way_round(a, b, by_position):
    found = list(slots(a, b, by_position=by_position))
    assert [(i, j) for j, i in slots(b, a, by_position=by_position)] == found


@given(ids)
def test_equal_texts_share_every_slot(a):
    assert list(slots(a, list(a))) == [(i, i) for i in range(len(a))]


@given(ids, ids)
def test_texts_that_share_a_token_meet_in_one(a, b):
    same = sum(i is not None and j is not None and a[i] == b[j] for i, j in slots(a, b))
    assert (same > 0) == bool(set(a) & set(b))


@given(ids, ids, st.data(), st.booleans())
def test_pairs_that_must_meet_do(a, b, data, by_position):
    if not a or not b:
        return
    pair = data.draw(st.tuples(st.integers(0, len(a) - 1), st.integers(0, len(b) - 1)))
    found = list(slots(a, b, [pair], by_position=by_position))
    assert pair in found
    assert [i for i, _ in found if i is not None] == list(range(len(a)))
    assert [j for _, j in found if j is not None] == list(range(len(b)))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("abc", "axc", [(0, 0), (1, 1), (2, 2)]),
        ("abc", "ac", [(0, 0), (1, None), (2, 1)]),
        ("ac", "abc", [(0, 0), (None, 1), (1, 2)]),
        ("axyd", "abd", [(0, 0), (1, 1), (2, None), (3, 2)]),
        ("ab", "ba", None),
        ("", "a", [(None, 0)]),
    ],
)
def test_slots_as_they_are_written_out(a, b, expected):
    found = list(slots([*map(ord, a)], [*map(ord, b)]))
    if expected is None:  # one of both meets itself, whichever it is
        assert sum(i is not None and j is not None and a[i] == b[j] for i, j in found) == 1
    else:
        assert found == expected


def test_by_position_pairs_by_place_whatever_the_tokens():
    assert list(slots([1, 2, 3], [2, 3], by_position=True)) == [(0, 0), (1, 1), (2, None)]


# ---- the question in slots -------------------------------------------------------------------------------------------


def compared(name: str, a: Any, b: Any, by_position: bool = False, **asking: Any) -> Any:
    av = door(name)
    subject: Subject = av._subject
    return subject.compared(a, b, Wanted(**asking), av.settings, by_position=by_position)


def test_both_sides_are_read_in_the_same_places_with_a_mask_in_gaps():
    tokenizer = gallery(BERT).tokenizer
    found = compared(BERT, "this was a good film", "this was a film , and it is bad")
    mine = found.question.passes[0].tensors
    theirs = found.question.baselines[0].tensors[0]
    mask = tokenizer.mask_token_id
    assert mine["input_ids"].shape == theirs["input_ids"].shape == (1, len(found.aligned.slots))
    for tensors, text, side in ((mine, "this was a good film", "a"), (theirs, "this was a film , and it is bad", "b")):
        read = tensors["input_ids"][0].tolist()
        assert [number for number in read if number != mask] == tokenizer(text)["input_ids"]
        gaps = [n for n, slot in enumerate(found.aligned.slots) if getattr(slot, side) is None]
        assert [n for n, number in enumerate(read) if number == mask] == gaps != []
    assert bool(mine["attention_mask"].all())
    assert torch.equal(mine["attention_mask"], theirs["attention_mask"])


def test_without_a_mask_token_a_gap_is_no_token_with_the_mean_embedding():
    name = "causal-lm/gpt2"
    assert getattr(gallery(name).tokenizer, "mask_token_id", None) is None
    found = compared(name, "A man is walking", "A young man is walking")
    read = found.question.passes[0].tensors["input_ids"][0].tolist()
    assert read.count(NOTHING) == found.aligned.gaps > 0
    assert found.question.baselines[0].vector == "mean"


def test_segments_stay_with_their_units_and_special_tokens_meet_special_tokens():
    a = ("What is the capital?", "The capital of France is Paris.")
    b = ("Who is walking?", "The capital of Germany is Berlin, and a man is walking.")
    found = compared(READER, a, b, target=lambda output: output.start_logits[0, 1])
    segments = found.question.passes[0].tensors["token_type_ids"]
    assert torch.equal(segments, found.question.baselines[0].tensors[0]["token_type_ids"])
    for slot, segment in zip(found.aligned.slots, segments[0].tolist(), strict=True):
        units = [unit for unit in (slot.a, slot.b) if unit is not None]
        assert len({unit.special for unit in units}) == 1
        assert len({unit.stream for unit in units}) == 1
        if units[0].stream == "question" and not units[0].special:
            assert segment == 0
    assert [slot.kind for slot in found.aligned.slots if slot.a and slot.a.special] == ["same"] * 3


@pytest.mark.parametrize("by_position", [True, False])
def test_special_tokens_meet_whatever_stands_between_them(by_position):
    found = compared(BERT, "this was a good film", "this was", by_position=by_position)
    kinds = [slot.kind for slot in found.aligned.slots]
    assert kinds == ["same", "same", "same", "removed", "removed", "removed", "same"]


def test_units_of_gaps_stand_where_they_would_in_the_text_of_a():
    text = "this was a film"
    found = compared(BERT, text, "this was a good film")
    units = found.question.items[0].units
    assert [unit.index for unit in units] == list(range(len(units)))
    (gap,) = [unit for unit, slot in zip(units, found.aligned.slots, strict=True) if slot.a is None]
    assert (gap.text, gap.start, gap.end, gap.word) == ("good", len("this was a"), len("this was a"), None)
    for unit, slot in zip(units, found.aligned.slots, strict=True):
        if slot.a is not None and not unit.special:
            assert text[unit.start : unit.end] == unit.text


def test_the_masks_that_are_guessed_share_a_slot():
    mask = gallery(FILLER).tokenizer.mask_token
    a, b = f"people are {mask} on the street", f"{mask} people are talking"
    found = compared(FILLER, a, b)
    together = [n for n, s in enumerate(found.aligned.slots) if s.a and s.b and s.a.text == s.b.text == mask]
    assert len(together) == 1


def test_prompts_meet_where_their_next_token_is_read():
    found = compared("causal-lm/gpt2", "A man is walking", "A man in the park")
    last = found.aligned.slots[-1]
    assert last.a is not None
    assert last.b is not None
    assert found.aligned.pairs[-1] == (
        len(door("causal-lm/gpt2").explain("A man is walking").units) - 1,
        len(door("causal-lm/gpt2").explain("A man in the park").units) - 1,
    )


def test_what_follows_is_the_same_on_both_sides():
    found = compared(GPT2, "A man is", "A young man is", continuation=" walking in the park")
    after = [slot for slot in found.aligned.slots if slot.a and slot.a.stream == "continuation"]
    assert after
    assert all(slot.kind == "same" for slot in after)


# ---- bad input -------------------------------------------------------------------------------------------------------

PAIR = ("What is the capital?", "The capital of France is Paris.")
TENSORS = {"input_ids": torch.tensor([[2, 5, 6, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}


def changed(**tensors: Any) -> dict[str, Any]:
    return {**TENSORS, **tensors}


@pytest.mark.parametrize(
    ("name", "a", "b", "asking", "told"),
    [
        # texts
        (BERT, "a good film", "this was bad", {}, r"none in common \('input'\).*by_position=True \(--by-position\)"),
        (EMBEDDER, ("a film", "a man"), ("a film", "people"), {}, r"none in common \('text_pair'\)"),
        (BERT, "a film", "", {}, "^The second input: A text needs at least one visible character"),
        (BERT, " ", "a film", {}, "^The first input: A text needs"),
        (BERT, "a film", 7, {}, "one kind are compared; found text first and int second"),
        (BERT, 7, 7, {}, "^The first input: An input must be a text"),
        (BERT, "a film", ("a film", "a man"), {}, "found text first and pair second"),
        (BERT, "a film", TENSORS, {}, "found text first and tensors second"),
        (READER, PAIR, "The capital of France", {}, "found pair first and text second"),
        (VIT, picture(0), "no-such.png", {}, "^The second input: An image is a file"),
        (BERT, "a " * 30 + "film " * 30, "film " * 30 + "a " * 30, {}, f"{LIMIT} tokens; aligned, these texts need 9"),
        (BERT, "a film " * LIMIT, "a film", {}, f"^The first input: The model takes at most {LIMIT} tokens"),
        # lists, targets, places
        (BERT, ["a film"], "a film", {}, "found a list. Compare them one by one"),
        (BERT, "a film", ["a film"], {}, "found a list"),
        (BERT, "a film", "a man", {"target": ["positive"]}, "one target; found a list"),
        (BERT, "a film", "a man", {"target": "funny"}, "negative, positive; found 'funny'"),
        (BERT, "a film", "a man", {"position": 1}, "^The first input: .*position"),
        (BERT, "a film", "a man", {"continuation": "is"}, "^The first input: .*continuation"),
        (TAGGER, "Anna lives", "Anna works", {"position": 9}, "0 to 3; found 9"),
        (TAGGER, "Anna lives", "Anna works", {"position": "Berlin"}, "'Berlin' is none"),
        (TAGGER, "Anna lives in Berlin", "Anna lives", {"position": "Berlin"}, "'Berlin' of the first has no"),
        (TAGGER, "Anna lives", "Anna lives in Berlin", {"position": "Berlin"}, "'Berlin' of the second has no"),
        (FILLER, "a good film", "a [MASK] film", {}, r"^The first input: A masked text has a token to guess"),
        (FILLER, "a [MASK] film", "a [MASK] [MASK]", {}, "^The second input: One masked token is explained at a time"),
        (GPT2, "A man", "A woman", {"target": " unwalkable"}, "unwalkable.*first_piece"),
        (GPT2, "A man", "A young man", {"continuation": " is", "contrast": "others"}, "as a whole; leave out `contr"),
        (GPT2, "A man", "A young man", {"continuation": " is", "position": 99}, "found 99"),
        (T5, "A man", "A young man", {"continuation": " "}, "at least one visible character"),
        (GPT2, "A man is walk", "A man is talk", {"continuation": "ing in"}, "into .* behind the first"),
        (GPT2, "A man is walk", "A man is st", {"continuation": "ing"}, "cuts the continuation into"),
        # what belongs to explain
        (BERT, "a film", "a man", {"generate": 3}, "takes no `generate`.*continuation="),
        (BERT, "a film", "a man", {"baseline": "mask"}, "takes no `baseline`. The second input is what"),
        (BERT, "a film", "a man", {"units": "word"}, r"takes no `units`.*\.words\(\)"),
        (BERT, "a film", "a man", {"method": "lrp"}, "only the method secant does; found 'lrp'"),
        (BERT, "a film", "a man", {"colour": 1}, "no setting 'colour'"),
        # tensors
        (BERT, TENSORS, "a film", {}, "found tensors first and text second"),
        (BERT, TENSORS, changed(input_ids=torch.tensor([[2, 5, 3]])), {}, r"place by place; `input_ids` is \(1, 4\)"),
        (BERT, TENSORS, changed(input_ids=torch.ones(1, 4)), {}, "float32 in the second"),
        (BERT, TENSORS, {"input_ids": TENSORS["input_ids"]}, {}, "only one has 'attention_mask'"),
        (BERT, TENSORS, changed(attention_mask=torch.tensor([[1, 1, 1, 0]])), {}, "`attention_mask` does"),
        (BERT, {"input_ids": torch.ones(2, 4, dtype=torch.long)}, {"input_ids": torch.ones(2, 4, dtype=torch.long)}, {},
         "these tensors hold 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_told(name, a, b, asking, told):
    with pytest.raises(UsageError, match=f"(?s){told}"):
        door(name).compare(a, b, **asking)


def test_pictures_of_two_sizes_are_refused():
    from tasks.gallery import image_processor

    one = gallery(VIT)
    processor = image_processor()
    processor.do_resize = False
    with pytest.raises(UsageError, match=r"one size as the model sees them; `pixel_values` is \(1, 3, 32, 32\) of the"):
        AttentionVisualizer(one.model, processor).compare(picture(0), picture(1, width=48, height=40))


def test_texts_that_share_nothing_are_paired_by_place_when_asked():
    found = door(BERT).compare("a good film", "this was bad", by_position=True)
    assert isinstance(found, Comparison)
    assert [str(found.slots[n]) for n in found.differing] == ["a → this", "good → was", "film → bad"]
