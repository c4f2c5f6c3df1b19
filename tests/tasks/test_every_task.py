"""Every task, on models of different families: the books balance, and the number is the model's own."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clearhead import AttentionVisualizer, RelevanceMap
from clearhead.generations import GenerationMap
from tasks.gallery import INPUTS, SIDE, gallery, names, picture
from tasks.plainly import (
    STEPS,
    answered,
    asked,
    balanced,
    door,
    expected,
    greedy,
    near,
    options,
    rows_of,
    same,
    tagged,
    text_of,
)

EVERY = [(name, n) for name in names() for n in range(len(INPUTS[name.split("/")[0]]))]
TEXTS = names("text-classification", "token-classification", "masked-lm", "causal-lm")
STREAMS = {
    "text-classification": ("input",),
    "token-classification": ("input",),
    "question-answering": ("question", "context"),
    "masked-lm": ("input",),
    "causal-lm": ("input",),
    "encoder-decoder": ("encoder", "decoder"),
    "image-classification": ("image",),
    "image-text-similarity": ("image", "text"),
    "sentence-similarity": ("text", "text_pair"),
}
LEARNED = {"vit": 1, "dinov2-registers": 3, "beit": 1, "swin": 0, "convnext": 0, "clip": 1, "siglip": 0}


def test_every_task_has_two_families() -> None:
    assert set(STREAMS) == {name.split("/")[0] for name in names()}
    for task in STREAMS:
        assert len({type(gallery(name).model) for name in names(task)}) >= 2, task


@pytest.mark.parametrize(("name", "n"), EVERY)
def test_the_books_balance(name: str, n: int) -> None:
    balanced(asked(name, n))


@pytest.mark.parametrize(("name", "n"), EVERY)
def test_the_value_is_the_models_own(name: str, n: int) -> None:
    one = gallery(name)
    rows, numbers = rows_of(asked(name, n)), expected(one, one.inputs[n])
    assert len(rows) == len(numbers)
    for row, number in zip(rows, numbers, strict=True):
        assert row.value == near(number.value)
        assert row.target.kind == number.kind
        if number.index is not None:
            assert row.target.index == number.index
        if number.label is not None:
            assert row.target.label == number.label
        elif number.index is not None:
            assert row.target.label.strip() in text_of(one, number.index)
        if number.kind != "similarity":
            assert row.target.contrast == number.contrast


@pytest.mark.parametrize("name", names())
def test_the_map_says_what_it_is_of(name: str) -> None:
    one, found = gallery(name), asked(name)
    assert isinstance(found, GenerationMap if one.task == "encoder-decoder" else RelevanceMap)
    assert found.task == one.task
    assert found.method == "lrp"
    assert found.streams == STREAMS[one.task]
    assert not found.warnings
    assert [unit.index for unit in found.units] == list(range(len(found.units)))


@pytest.mark.parametrize("name", names())
def test_the_task_may_be_named(name: str) -> None:
    one = gallery(name)
    named = AttentionVisualizer(one.model, one.processor, task=one.task, method="lrp").explain(
        one.inputs[0], **options(one.task)
    )
    for row, other in zip(rows_of(named), rows_of(asked(name)), strict=True):
        same(row, other)


# ---- units of texts -------------------------------------------------------------------------------------------------


def read(task: str, given: Any) -> dict[str, str]:
    """The texts of an input, by stream."""
    if task == "image-text-similarity":
        return {"text": given[1]}
    if task == "encoder-decoder":
        return {"encoder": given}
    if isinstance(given, tuple):
        both = ("question", "context") if task == "question-answering" else ("text", "text_pair")
        return dict(zip(both, given, strict=True))
    return {"input": given}


@pytest.mark.parametrize(("name", "n"), [each for each in EVERY if not each[0].startswith("image-class")])
def test_the_units_are_the_text(name: str, n: int) -> None:
    one = gallery(name)
    for stream, text in read(one.task, one.inputs[n]).items():
        row = rows_of(asked(name, n))[-1]
        assert row.texts[stream] == text
        covered: set[int] = set()
        for unit in row.units:
            if unit.stream != stream or unit.special:
                continue
            covered.update(range(unit.start, unit.end))
            assert unit.text.strip()
            if text[unit.start : unit.end].strip():
                assert unit.text == text[unit.start : unit.end]
        missed = {i for i, letter in enumerate(text) if not letter.isspace()} - covered
        masked = text.find(one.tokenizer.mask_token or "\0")
        missed -= set(range(masked, masked + len(one.tokenizer.mask_token or ""))) if masked >= 0 else set()
        assert not missed, [text[i] for i in sorted(missed)]


@pytest.mark.parametrize("name", names("text-classification", "token-classification", "masked-lm", "causal-lm"))
def test_there_is_a_unit_per_token(name: str) -> None:
    one, found = gallery(name), asked(name)
    read = one.tokenizer(one.inputs[0], return_special_tokens_mask=True)
    assert len(found.units) == len(read.input_ids)
    special = [bool(each) for each in read.special_tokens_mask]
    assert [unit.special for unit in found.units] == special


@pytest.mark.parametrize("name", names("token-classification"))
def test_a_token_is_named_by_its_unit(name: str) -> None:
    one = gallery(name)
    for n, given in enumerate(one.inputs):
        place, _, _ = tagged(one, given)
        assert asked(name, n).target.position == place


@pytest.mark.parametrize("name", names("question-answering"))
def test_an_answer_lies_in_the_context(name: str) -> None:
    one = gallery(name)
    for n, given in enumerate(one.inputs):
        found = asked(name, n)
        assert found.target.label == answered(one, given)[2]
        assert found.target.label in given[1]
        sides = one.tokenizer(*given).sequence_ids()
        assert [unit.stream for unit in found.units if not unit.special] == [
            ("question", "context")[side] for side in sides if side is not None
        ]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("units", ["word", "sentence", "token"])
def test_units_may_be_words_or_sentences(name: str, units: str) -> None:
    one, whole = gallery(name), asked(name)
    found = door(name).explain(one.inputs[0], units=units)
    grouped = {"word": whole.words, "sentence": whole.sentences, "token": lambda: whole}[units]()
    assert [(u.text, u.stream, u.special) for u in found.units] == [
        (u.text, u.stream, u.special) for u in grouped.units
    ]
    np.testing.assert_allclose(found.relevance, grouped.relevance, rtol=1e-5, atol=1e-6)
    balanced(found)


@pytest.mark.parametrize("name", names("text-classification", "token-classification", "causal-lm"))
def test_words_are_what_white_space_parts(name: str) -> None:
    one = gallery(name)
    found = door(name).explain(one.inputs[0], units="word")
    joined = one.inputs[0].split()
    assert [unit.text for unit in found.units if not unit.special] == joined


@pytest.mark.parametrize("name", names("text-classification", "causal-lm"))
def test_units_may_be_spans(name: str) -> None:
    one = gallery(name)
    text = one.inputs[0]
    cut = text.index(" ", len(text) // 2)
    found = door(name).explain(text, units=[(0, cut), (cut, len(text))])
    whole = asked(name)
    words = [unit for unit in found.units if not unit.special]
    assert [unit.text.strip() for unit in words] == [text[:cut].strip(), text[cut:].strip()]
    for unit, (first, last) in zip(words, [(0, cut), (cut, len(text))], strict=True):
        held = [not u.special and first <= (u.start + u.end - 1) // 2 < last for u in whole.units]
        assert found.relevance[unit.index] == pytest.approx(float(whole.relevance[held].sum()), rel=1e-4, abs=1e-5)


# ---- what models produce --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("causal-lm", "encoder-decoder"))
def test_a_generation_has_a_row_per_produced_token(name: str) -> None:
    one = gallery(name)
    found = door(name).explain(one.inputs[0], generate=STEPS)
    start, produced, scores = greedy(one, one.inputs[0], STEPS)
    assert isinstance(found, GenerationMap)
    balanced(found)
    assert [row.target.index for row in found] == produced
    assert [row.target.position for row in found] == list(range(len(produced)))
    assert [row.target.kind for row in found] == ["token"] * len(produced)
    np.testing.assert_allclose(found.value, [float(s[i]) for s, i in zip(scores, produced, strict=True)], rtol=1e-4)
    read = len(one.tokenizer(one.inputs[0]).input_ids)
    there = read + (len(start) if one.task == "encoder-decoder" else 0)
    assert [len(row.units) for row in found] == [there + t for t in range(len(produced))]
    assert found.streams == (("encoder", "decoder") if one.task == "encoder-decoder" else ("input", "generated"))
    assert np.isnan(found.relevance[0, there:]).all()


@pytest.mark.parametrize("name", names("causal-lm", "encoder-decoder"))
def test_the_streams_of_a_generation_add_up_to_it(name: str) -> None:
    found = door(name).explain(gallery(name).inputs[0], generate=STEPS)
    total = sum(found.stream(stream) for stream in found.streams)
    scale = np.nansum(np.abs(found.relevance), axis=1)
    assert (np.abs(total - found.value) <= 1e-4 * np.abs(found.value) + 1e-5 * scale).all()
    assert (np.abs(found.stream(found.streams[0])) > 0).all()


@pytest.mark.parametrize("name", names("causal-lm"))
def test_the_first_row_of_a_generation_is_the_next_token(name: str) -> None:
    first, alone = door(name).explain(gallery(name).inputs[0], generate=2)[0], asked(name)
    assert first.target.index == alone.target.index
    assert [(u.text, u.special, u.start) for u in first.units] == [(u.text, u.special, u.start) for u in alone.units]
    np.testing.assert_allclose(first.relevance, alone.relevance, atol=1e-5 * np.abs(alone.relevance).sum())


@pytest.mark.parametrize("name", names("encoder-decoder"))
def test_what_decoding_starts_with_is_a_special_unit(name: str) -> None:
    found = asked(name)
    began = [unit for unit in found[0].units if unit.stream == "decoder"]
    assert [unit.special for unit in began] == [True]
    later = [unit for unit in found[-1].units if unit.stream == "decoder"][1:]
    assert len(later) == len(found) - 1


@pytest.mark.parametrize("name", names("encoder-decoder"))
def test_without_a_number_a_translation_goes_on_to_its_end_or_to_64_tokens(name: str) -> None:
    one = gallery(name)
    _, produced, _ = greedy(one, "A man", 64)
    found = door(name).explain("A man")
    assert [row.target.index for row in found] == produced
    balanced(found)


@pytest.mark.parametrize("name", names("causal-lm", "encoder-decoder"))
def test_generation_ends_at_the_end_token(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that the model produces second is made its end token."""
    one = gallery(name)
    _, produced, _ = greedy(one, one.inputs[0], STEPS)
    ends = produced[1]
    monkeypatch.setattr(one.model.config, "eos_token_id", ends)
    monkeypatch.setattr(one.model.generation_config, "eos_token_id", ends)
    found = AttentionVisualizer(one.model, one.processor).explain(one.inputs[0], generate=STEPS)
    assert [row.target.index for row in found] == produced[: produced.index(ends) + 1]


@pytest.mark.parametrize("name", names("causal-lm"))
def test_columns_of_a_generation_may_be_words(name: str) -> None:
    one = gallery(name)
    found = door(name).explain(one.inputs[0], generate=3, units="word")
    whole = door(name).explain(one.inputs[0], generate=3).words()
    np.testing.assert_allclose(found.relevance, whole.relevance, rtol=1e-5, atol=1e-6)
    assert [u.text for u in found.units if u.stream == "input" and not u.special] == one.inputs[0].split()


# ---- units of pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("image-classification", "image-text-similarity"))
def test_patches_tile_the_picture(name: str) -> None:
    found = asked(name)
    boxes = [unit.box for unit in found.units if unit.stream == "image" and not unit.special]
    painted = np.zeros((SIDE, SIDE), dtype=int)
    for left, top, right, bottom in boxes:
        painted[top:bottom, left:right] += 1
    assert (painted == 1).all()
    assert len({(right - left, bottom - top) for left, top, right, bottom in boxes}) == 1
    assert boxes == sorted(boxes, key=lambda box: (box[1], box[0]))
    learned = [unit for unit in found.units if unit.stream == "image" and unit.special]
    assert [unit.box for unit in learned] == [None] * LEARNED[name.split("/")[1]]


@pytest.mark.parametrize("name", names("image-classification", "image-text-similarity"))
def test_the_picture_is_the_one_that_the_model_saw(name: str) -> None:
    one, found = gallery(name), asked(name)
    address = found.pictures["image"]
    assert address.startswith("data:image/png;base64,")
    shown = Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1])))
    assert shown.size == (SIDE, SIDE)
    image = one.inputs[0] if one.task == "image-classification" else one.inputs[0][0]
    processor = getattr(one.processor, "image_processor", one.processor)
    tensor = processor(image, return_tensors="pt").pixel_values[0].numpy()
    mean, std = (np.array(each)[:, None, None] for each in (processor.image_mean, processor.image_std))
    pixels = ((tensor * std + mean) * 255).round().clip(0, 255)
    difference = np.abs(np.asarray(shown.convert("RGB"), dtype=float).transpose(2, 0, 1) - pixels)
    assert difference.max() <= 2


@pytest.mark.parametrize("name", names("image-classification"))
def test_a_unit_per_pixel(name: str) -> None:
    one = gallery(name)
    found = door(name).explain(one.inputs[0], units="pixel")
    balanced(found)
    boxes = [unit.box for unit in found.units if not unit.special]
    assert boxes == [(x, y, x + 1, y + 1) for y in range(SIDE) for x in range(SIDE)]
    assert found.value == near(asked(name).value)


@pytest.mark.parametrize("name", ["image-classification/swin", "image-classification/convnext"])
def test_pixels_and_patches_agree(name: str) -> None:
    """These have no vector per place, so a patch is no more than its pixels."""
    one, patches = gallery(name), asked(name)
    pixels = door(name).explain(one.inputs[0], units="pixel")
    heat = np.zeros((SIDE, SIDE))
    for unit, relevance in zip(pixels.units, pixels.relevance, strict=True):
        heat[unit.box[1], unit.box[0]] = relevance
    summed = [heat[u.box[1] : u.box[3], u.box[0] : u.box[2]].sum() for u in patches.units]
    np.testing.assert_allclose(summed, patches.relevance, atol=1e-4 * np.abs(patches.relevance).sum())


@pytest.mark.parametrize("name", names("image-classification"))
def test_the_patch_is_the_default_unit(name: str) -> None:
    same(door(name).explain(gallery(name).inputs[0], units="patch"), asked(name))


@pytest.mark.parametrize("name", names("image-classification"))
def test_relevance_goes_where_the_picture_is_read(name: str) -> None:
    """A picture of which one patch is another's: the map is not the same."""
    other = picture(0)
    other.paste((255, 0, 0), (0, 0, 8, 8))
    found = door(name).explain(other, target=asked(name).target.index)
    first = door(name).explain(picture(0), target=asked(name).target.index)
    assert np.abs(found.relevance - first.relevance).max() > 1e-4
    assert found.value != near(first.value)
