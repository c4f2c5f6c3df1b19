"""Every target that can be asked for is the scalar its name says, taken from a plain forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clearhead import AttentionVisualizer, RelevanceMap
from clearhead.errors import UsageError
from clearhead.generations import GenerationMap
from tasks.gallery import CORPUS, Entry, cautious, gallery, made, names, wordpiece
from tasks.plainly import (
    answered,
    asked,
    balanced,
    door,
    encoded,
    forced,
    greedy,
    near,
    output,
    rows_of,
    same,
    tagged,
    text_of,
)

CLASSIFIERS = names("text-classification", "image-classification")
WRITERS = names("causal-lm", "encoder-decoder")
CONTINUED = {
    "causal-lm/gpt2": " walking in the park",
    "causal-lm/llama-writer": " walking in the park",
    "causal-lm/qwen-writer": " walking in the park",
    "encoder-decoder/bart": "Zwei junge Leute",
    "encoder-decoder/t5": "Zwei junge Leute",
    "encoder-decoder/marian": "Zwei junge Leute",
}


def against_others(row: torch.Tensor, chosen: int) -> float:
    """A logit against the mean of all others, by a loop."""
    others = [float(value) for n, value in enumerate(row) if n != chosen]
    return float(row[chosen]) - sum(others) / len(others)


# ---- classes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_class_by_label_or_index(name: str) -> None:
    one = gallery(name)
    row, labels = output(one, one.inputs[0]).logits[0], one.model.config.id2label
    for index, label in labels.items():
        number = float(row[index]) if len(row) > 2 else float(row[index] - row[1 - index])
        for target in (index, label, label.upper(), str(index)):
            found = door(name).explain(one.inputs[0], target=target)
            assert found.value == near(number)
            assert (found.target.index, found.target.label) == (index, label)
        balanced(found)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_class_against_another(name: str) -> None:
    one = gallery(name)
    row, labels = output(one, one.inputs[0]).logits[0], one.model.config.id2label
    for contrast in (0, labels[0]):
        found = door(name).explain(one.inputs[0], target=1, contrast=contrast)
        assert found.value == near(float(row[1] - row[0]))
        assert (found.target.kind, found.target.index, found.target.contrast) == ("difference", 1, labels[0])
    balanced(found)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("target", [None, 0])
def test_a_class_against_the_mean_of_all_others(name: str, target: int | None) -> None:
    one = gallery(name)
    row = output(one, one.inputs[0]).logits[0]
    chosen = int(row.argmax()) if target is None else target
    found = door(name).explain(one.inputs[0], target=target, contrast="others")
    assert found.value == near(against_others(row, chosen))
    assert (found.target.kind, found.target.index, found.target.contrast) == ("difference", chosen, "others")
    balanced(found)


def test_a_class_that_is_a_number_is_called_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else a report reads `2 = 0.53`; the label that is read out may be given back."""
    one = gallery("image-classification/vit")
    monkeypatch.setattr(one.model.config, "id2label", {n: str(n + 5) for n in range(4)})
    found = door(one.name).explain(one.inputs[0], target=2, contrast=3)
    assert (found.target.index, str(found.target)) == (2, "class 7 against class 8")
    for target in ("class 7", "7", 2):
        same(door(one.name).explain(one.inputs[0], target=target, contrast="class 8"), found)
    with pytest.raises(UsageError, match="found 'class x'"):
        door(one.name).explain(one.inputs[0], target="class x")


def test_a_class_without_a_name_is_called_by_its_number() -> None:
    av = AttentionVisualizer(torch.nn.Linear(3, 4))
    inputs = {"input": torch.tensor([[1.0, 2.0, 3.0]])}
    assert av.explain(inputs, target=1).target.label == "class 1"
    assert av.explain(inputs, target="class 3", contrast=2).target.contrast == "class 2"
    with pytest.raises(UsageError, match="0 to 3; found 7"):
        av.explain(inputs, target="class 7")


def test_of_two_classes_the_other_is_all_others() -> None:
    name = "text-classification/bert"
    text = gallery(name).inputs[0]
    others, plain = door(name).explain(text, contrast="others"), asked(name)
    assert others.value == near(plain.value)
    np.testing.assert_allclose(others.relevance, plain.relevance, atol=1e-5 * np.abs(plain.relevance).sum())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_difference_turns_its_sign_with_its_sides(name: str) -> None:
    given = gallery(name).inputs[0]
    one = door(name).explain(given, target=0, contrast=1)
    other = door(name).explain(given, target=1, contrast=0)
    assert one.value == near(-other.value)
    np.testing.assert_allclose(one.relevance, -other.relevance, atol=1e-5 * np.abs(one.relevance).sum())


@pytest.mark.parametrize("name", names("text-classification", "image-classification", "masked-lm", "causal-lm"))
def test_a_function_takes_the_models_output(name: str) -> None:
    """The same scalar by a function and by name."""
    one, plain = gallery(name), asked(name)
    place = [] if one.task.endswith("classification") else [plain.target.position if one.task == "masked-lm" else -1]

    def score(found: Any) -> torch.Tensor:
        row = found.logits[(0, *place)]
        return row[plain.target.index] - (row[1 - plain.target.index] if len(row) == 2 else 0)

    found = door(name).explain(one.inputs[0], target=score)
    assert (found.target.kind, found.target.label) == ("callable", "score")
    assert found.value == near(plain.value)
    np.testing.assert_allclose(found.relevance, plain.relevance, atol=1e-5 * np.abs(plain.relevance).sum())
    assert found.units == plain.units


# ---- tokens with classes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("token-classification"))
def test_a_token_by_its_place(name: str) -> None:
    one = gallery(name)
    scores = output(one, one.inputs[0]).logits[0]
    for place in range(1, len(scores) - 1):
        found = door(name).explain(one.inputs[0], position=place)
        assert found.value == near(float(scores[place].max()))
        assert found.target.index == int(scores[place].argmax())
        assert found.target.position == place
        assert found.target.kind == "class"
    balanced(found)


@pytest.mark.parametrize("name", names("token-classification"))
def test_a_token_by_its_text(name: str) -> None:
    one = gallery(name)
    units = asked(name).units
    place = next(n for n, unit in enumerate(units) if unit.text.strip() == "in")
    found = door(name).explain(one.inputs[0], position=units[place].text)
    same(found, door(name).explain(one.inputs[0], position=place))


@pytest.mark.parametrize("name", names("token-classification"))
def test_a_text_that_stands_twice_is_no_place(name: str) -> None:
    text = "a man and a man and a man"
    assert len(door(name).explain(text, position=2).units) >= 10
    with pytest.raises(UsageError, match=r"(?s)position.*'man'"):
        door(name).explain(text, position="man")


@pytest.mark.parametrize("name", names("token-classification"))
def test_a_class_at_a_token(name: str) -> None:
    one = gallery(name)
    scores = output(one, one.inputs[0]).logits[0]
    for label, index in one.model.config.label2id.items():
        found = door(name).explain(one.inputs[0], target=label, position=2)
        assert found.value == near(float(scores[2, index]))
        assert (found.target.label, found.target.index, found.target.position) == (label, index, 2)
    against = door(name).explain(one.inputs[0], target="PLACE", contrast="O", position=2)
    assert against.value == near(float(scores[2, 2] - scores[2, 0]))
    assert against.target.kind == "difference"
    others = door(name).explain(one.inputs[0], target="PLACE", contrast="others", position=2)
    assert others.value == near(against_others(scores[2], 2))
    balanced(others)


def test_where_every_token_is_nothing_the_surest_is_explained() -> None:
    one = gallery("token-classification/bert-tagger")
    config = one.model.config.to_dict()
    keep = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "id2label")
    model = made("Bert", "ForTokenClassification", **{key: config[key] for key in keep}, initializer_range=0.2)
    nothing = replace(one, model=cautious(model, 50.0), processor=wordpiece())
    place, best, scores = tagged(nothing, one.inputs[0])
    assert best == 0
    found = AttentionVisualizer(nothing.model, nothing.processor).explain(one.inputs[0])
    assert (found.target.label, found.target.position) == ("O", place)
    assert found.value == near(float(scores[place, 0]))


# ---- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("question-answering"))
@pytest.mark.parametrize("target", ["start", "end", "both", None])
def test_where_an_answer_starts_and_ends(name: str, target: str | None) -> None:
    one = gallery(name)
    for given in one.inputs:
        first, last, text, plain = answered(one, given)
        start, end = float(plain.start_logits[0, first]), float(plain.end_logits[0, last])
        found = door(name).explain(given, target=target)
        assert found.value == near({"start": start, "end": end}.get(str(target), start + end))
        assert (found.target.kind, found.target.label) == (target or "both", text)
        balanced(found)


@pytest.mark.parametrize("name", names("question-answering"))
def test_start_and_end_add_up_to_both(name: str) -> None:
    given = gallery(name).inputs[0]
    start, end, both = (door(name).explain(given, target=target) for target in ("start", "end", "both"))
    scale = np.abs(start.relevance).sum() + np.abs(end.relevance).sum()
    np.testing.assert_allclose(start.relevance + end.relevance, both.relevance, atol=0.05 * scale)
    assert start.value + end.value == near(both.value)


# ---- masked tokens --------------------------------------------------------------------------------------------------


def mask_places(one: Entry, text: str) -> list[int]:
    return [n for n, i in enumerate(one.tokenizer(text).input_ids) if i == one.tokenizer.mask_token_id]


@pytest.mark.parametrize("name", names("masked-lm"))
def test_a_token_in_place_of_the_mask(name: str) -> None:
    one = gallery(name)
    text = one.inputs[0]
    (place,) = mask_places(one, text)
    row = output(one, text).logits[0, place]
    word = "people" if one.tokenizer.convert_tokens_to_ids("people") != one.tokenizer.unk_token_id else " people"
    (index,) = one.tokenizer(word, add_special_tokens=False).input_ids
    for target in (word, index):
        found = door(name).explain(text, target=target)
        assert found.value == near(float(row[index]))
        assert (found.target.kind, found.target.index, found.target.position) == ("token", index, place)
        assert found.target.label.strip() in text_of(one, index)
    (other,) = one.tokenizer(word.replace("people", "man"), add_special_tokens=False).input_ids
    for contrast in (other, word.replace("people", "man")):
        against = door(name).explain(text, target=word, contrast=contrast)
        assert against.value == near(float(row[index] - row[other]))
        assert against.target.kind == "difference"
        assert against.target.contrast.strip() in text_of(one, other)
    others = door(name).explain(text, target=word, contrast="others")
    assert others.value == near(against_others(row, index))
    assert (others.target.kind, others.target.contrast) == ("difference", "others")
    for each in (found, against, others):
        balanced(each)


@pytest.mark.parametrize("name", names("masked-lm"))
def test_one_of_several_masks_by_its_place(name: str) -> None:
    one = gallery(name)
    mask = one.tokenizer.mask_token
    text = f"people are {mask} on the {mask}"
    scores = output(one, text).logits[0]
    for place in mask_places(one, text):
        found = door(name).explain(text, position=place)
        assert found.value == near(float(scores[place].max()))
        assert (found.target.index, found.target.position) == (int(scores[place].argmax()), place)
        balanced(found)


# ---- next tokens ----------------------------------------------------------------------------------------------------


def whole_words(one: Entry) -> list[tuple[str, int]]:
    """Words with their space that are one token, and its id."""
    found = []
    for word in sorted({word for line in CORPUS for word in line.split() if word.isalpha()}):
        ids = one.tokenizer(f" {word}", add_special_tokens=False).input_ids
        visible = [i for i in ids if one.tokenizer.decode([i]).strip()]
        if len(visible) == 1 and one.tokenizer.decode(visible).strip() == word:
            found.append((f" {word}", visible[0]))
    return found


@pytest.mark.parametrize("name", names("causal-lm"))
def test_a_next_token_by_text_or_id(name: str) -> None:
    one = gallery(name)
    text, row = one.inputs[0], output(one, one.inputs[0]).logits[0, -1]
    (word, index), (counter, other) = whole_words(one)[-1], whole_words(one)[0]
    assert index != other
    for target in (word, index):
        found = door(name).explain(text, target=target)
        assert found.value == near(float(row[index]))
        assert (found.target.kind, found.target.index) == ("token", index)
        assert found.target.label.strip() == word.strip()
    for contrast in (counter, other):
        against = door(name).explain(text, target=word, contrast=contrast)
        assert against.value == near(float(row[index] - row[other]))
        assert (against.target.kind, against.target.contrast.strip()) == ("difference", counter.strip())
    others = door(name).explain(text, target=word, contrast="others")
    assert others.value == near(against_others(row, index))
    assert others.target.contrast == "others"
    for each in (found, against, others):
        balanced(each)


@pytest.mark.parametrize("name", names("causal-lm"))
def test_the_first_piece_of_a_split_token(name: str) -> None:
    one = gallery(name)
    pieces = one.tokenizer(" unwalkable", add_special_tokens=False).input_ids
    first = next(i for i in pieces if one.tokenizer.decode([i]).strip())
    assert len(pieces) > 1
    found = door(name).explain(one.inputs[0], target=" unwalkable", first_piece=True)
    assert found.target.index == first
    assert found.value == near(float(output(one, one.inputs[0]).logits[0, -1, first]))


# ---- sequences ------------------------------------------------------------------------------------------------------


def continued(one: Entry, text: str) -> list[int]:
    """The ids of a given continuation."""
    if one.task == "encoder-decoder":
        return one.tokenizer(text_target=text).input_ids
    before = one.tokenizer(one.inputs[0]).input_ids
    whole = one.tokenizer(one.inputs[0] + text).input_ids
    assert whole[: len(before)] == before
    return whole[len(before) :]


@pytest.mark.parametrize("name", WRITERS)
def test_each_token_of_a_given_continuation(name: str) -> None:
    one = gallery(name)
    ids = continued(one, CONTINUED[name])
    scores = forced(one, one.inputs[0], ids)
    found = door(name).explain(one.inputs[0], continuation=CONTINUED[name])
    assert isinstance(found, GenerationMap)
    balanced(found)
    assert [row.target.index for row in found] == ids
    assert [row.target.position for row in found] == list(range(len(ids)))
    np.testing.assert_allclose(
        found.value, [float(s[i]) for s, i in zip(scores, ids, strict=True)], rtol=1e-4, atol=1e-5
    )
    stream = "decoder" if one.task == "encoder-decoder" else "continuation"
    assert found.streams == ("encoder" if one.task == "encoder-decoder" else "input", stream)
    assert found.texts[stream].strip() == CONTINUED[name].strip()
    for unit in found.units:
        if unit.stream == stream and not unit.special:
            assert found.texts[stream][unit.start : unit.end] == unit.text


@pytest.mark.parametrize("name", WRITERS)
def test_the_log_probability_of_a_sequence(name: str) -> None:
    one = gallery(name)
    ids = continued(one, CONTINUED[name])
    scores = forced(one, one.inputs[0], ids)
    expected = sum(float(s[i] - torch.logsumexp(s, -1)) for s, i in zip(scores, ids, strict=True))
    found = door(name).explain(one.inputs[0], continuation=CONTINUED[name], target="sequence")
    assert isinstance(found, RelevanceMap)
    assert found.value == near(expected)
    assert found.value < 0
    assert found.target.kind == "sequence"
    assert found.target.label.strip() == CONTINUED[name].strip()
    balanced(found)
    assert found.units == door(name).explain(one.inputs[0], continuation=CONTINUED[name]).units


@pytest.mark.parametrize("name", WRITERS)
def test_the_log_probability_of_what_is_generated(name: str) -> None:
    one = gallery(name)
    _, produced, scores = greedy(one, one.inputs[0], 3)
    found = door(name).explain(one.inputs[0], generate=3, target="sequence")
    assert found.value == near(sum(float(s.log_softmax(-1)[i]) for s, i in zip(scores, produced, strict=True)))
    assert found.target.kind == "sequence"
    balanced(found)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("how", ["generate", "continuation"])
def test_one_produced_token_by_its_place(name: str, how: str) -> None:
    one = gallery(name)
    asking: dict[str, Any] = {"generate": 3} if how == "generate" else {"continuation": CONTINUED[name]}
    whole = door(name).explain(one.inputs[0], **asking)
    for place in range(len(whole)):
        found = door(name).explain(one.inputs[0], position=place, **asking)
        assert isinstance(found, RelevanceMap)
        same(found, whole[place])


@pytest.mark.parametrize("name", WRITERS)
def test_what_comes_later_has_no_part_in_a_row(name: str) -> None:
    """The same first tokens with another end: their rows are the same but for the text that follows."""
    one = gallery(name)
    text = CONTINUED[name]
    short = door(name).explain(one.inputs[0], continuation=text)
    long = door(name).explain(one.inputs[0], continuation=f"{text} und ein Haus")
    shared = [a == b for a, b in zip(continued(one, text), continued(one, f"{text} und ein Haus"), strict=False)]
    count = shared.index(False) if False in shared else len(shared)
    assert count >= 3
    for t in range(count):
        assert short[t].units == long[t].units
        scale = max(np.abs(short[t].relevance).sum(), 0.05)
        np.testing.assert_allclose(short[t].relevance, long[t].relevance, atol=1e-5 * scale)


@pytest.mark.parametrize("name", WRITERS)
def test_a_generation_is_its_own_text_given(name: str) -> None:
    """What a model writes and the same tokens read back have the same rows, wherever they are the same tokens."""
    one = gallery(name)
    found = door(name).explain(one.inputs[0], generate=4)
    text = found.texts[found.streams[-1]]
    try:
        ids = continued(one, text)
    except AssertionError:
        pytest.skip("the tokenizer joins the first word written to the last one read")
    produced = [row.target.index for row in found]
    count = next((n for n, (a, b) in enumerate(zip(ids, produced, strict=False)) if a != b), min(len(ids), 4))
    given = door(name).explain(one.inputs[0], continuation=text)
    for t in range(count):
        assert given[t].value == near(found[t].value)
        np.testing.assert_allclose(given[t].relevance, found[t].relevance, atol=1e-5 * np.abs(found[t].relevance).sum())


@pytest.mark.parametrize("name", WRITERS)
def test_produced_tokens_against_others(name: str) -> None:
    one = gallery(name)
    _, produced, scores = greedy(one, one.inputs[0], 3)
    found = door(name).explain(one.inputs[0], generate=3, contrast="others")
    expected = [against_others(s, i) for s, i in zip(scores, produced, strict=True)]
    np.testing.assert_allclose(found.value, expected, rtol=1e-4)
    assert {row.target.contrast for row in found} == {"others"}
    balanced(found)


# ---- similarities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("sentence-similarity"))
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_similarity_of_either_pooling(name: str, pooling: str) -> None:
    one = gallery(name)
    pool: Callable[[torch.Tensor], torch.Tensor] = (lambda x: x.mean(0)) if pooling == "mean" else (lambda x: x[0])
    with torch.no_grad():
        u, v = (pool(one.model(**encoded(one, text))[0][0]) for text in one.inputs[0])
    found = AttentionVisualizer(one.model, one.processor, pooling=pooling).explain(one.inputs[0])
    assert found.value == near(float(u @ v / u.norm() / v.norm()))
    balanced(found)


@pytest.mark.parametrize("name", names("image-text-similarity", "sentence-similarity"))
def test_each_side_of_a_similarity_gets_half(name: str) -> None:
    """With each side's vector a product of two, its relevance is half of the whole."""
    found = asked(name)
    for stream in found.streams:
        mine = found.relevance[[unit.stream == stream for unit in found.units]].sum()
        assert mine == pytest.approx(found.value / 2, rel=1e-3, abs=1e-5 * np.abs(found.relevance).sum())


@pytest.mark.parametrize("name", names("sentence-similarity"))
def test_similarity_to_itself_is_one(name: str) -> None:
    one = gallery(name)
    found = door(name).explain((one.inputs[0][0], one.inputs[0][0]))
    assert found.value == near(1.0)
    assert all(row.conserves() for row in rows_of(found))
