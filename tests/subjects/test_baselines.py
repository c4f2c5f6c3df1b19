"""Baselines: the same places, exactly the units differ, and whatever does not fit is refused with the next step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer, Settings, methods
from clearhead.errors import UsageError
from clearhead.question import NOTHING, Question
from clearhead.subjects import COMPARING, Subject, Wanted, repeated, shape
from clearhead.subjects.filling import blurred
from clearhead.subjects.loading import Loaded
from tasks.gallery import gallery, names, picture
from tasks.plainly import door

SETTINGS = Settings(method="secant")
BERT, GPT2, VIT, CLIP = (
    "text-classification/bert",
    "causal-lm/gpt2",
    "image-classification/vit",
    "image-text-similarity/clip",
)
TEXTS = [name for name in names() if not name.startswith("image")]
WITH_MASK = [name for name in TEXTS if gallery(name).tokenizer.mask_token_id is not None]


def subject(name: str) -> Subject:
    return door(name)._subject


def posed(name: str, given: Any = None, **wanted: Any) -> Question:
    """The question about the first input of an entry, or about another one."""
    one = gallery(name)
    more = {"generate": 4} if one.task == "encoder-decoder" and "continuation" not in wanted else {}
    if given is None:
        given = one.inputs[0]
    return subject(name).question(given, Wanted(**more, **wanted), SETTINGS)


def differing(question: Question, n: int = 0, item: int = 0) -> set[int]:
    """The units whose ids the n-th baseline replaces, found by looking at every unit's id."""
    found, before = set(), 0
    for part, layout, tensors in zip(
        question.passes, question.items[item].layouts, question.baselines[n].tensors, strict=True
    ):
        for span in layout.spans:
            for i in range(span.first, span.last):
                place = span.offset + i - span.first
                if part.tensors[span.ids][item, place] != tensors[span.ids][item, place]:
                    found.add(before + i)
        before += len(layout.units)
    return found


def plain(question: Question, item: int = 0) -> set[int]:
    """The units that are tokens of a text and not special."""
    return {i for i, unit in enumerate(question.items[item].units) if not unit.special and unit.box is None}


# ---- every task ----------------------------------------------------------------------------------------------------


def words(name: str) -> list[str | None]:
    """The words that an entry knows; what becomes of the others is tested below."""
    picture_only = name.startswith("image-classification")
    return [
        None,
        "zero",
        "mean",
        *(["blur"] if name.startswith("image") else []),
        *([] if picture_only else ["pad"]),
        *(["mask"] if not picture_only and gallery(name).tokenizer.mask_token_id is not None else []),
    ]


@pytest.mark.parametrize(("name", "baseline"), [(name, word) for name in names() for word in words(name)])
def test_a_baseline_has_the_tensors_of_its_question(name: str, baseline: str | None) -> None:
    question = posed(name, baseline=baseline)
    (one,) = question.baselines
    assert len(one.tensors) == len(question.passes)
    replaced = {span.ids for layout in question.items[0].layouts for span in layout.spans}
    for part, tensors in zip(question.passes, one.tensors, strict=True):
        assert list(tensors) == list(part.tensors)
        for key, value in part.tensors.items():
            assert (tensors[key].shape, tensors[key].dtype) == (value.shape, value.dtype)
            assert torch.equal(tensors[key], value) == (key not in {*replaced, *part.explained})


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_without_any_token_all_but_special_ones_are_nothing(name: str, baseline: str) -> None:
    question = posed(name, baseline=baseline)
    ids = question.passes[0].tensors["input_ids"][0].tolist()
    stay = {ids.index(gallery(name).tokenizer.mask_token_id)} if "masked-lm" in name else set()
    assert differing(question) == plain(question) - stay
    assert question.baselines[0].vector == baseline
    for tensors in question.baselines[0].tensors:
        for key, value in tensors.items():
            assert (int(value.min()) == NOTHING) == key.endswith("input_ids")


@pytest.mark.parametrize("name", WITH_MASK)
def test_the_mask_stands_in_for_every_token_by_default(name: str) -> None:
    tokenizer = gallery(name).tokenizer
    question = posed(name)
    (one,) = question.baselines
    if name != "image-text-similarity/siglip":
        assert one.label == f"every token {tokenizer.mask_token}"
    for number, layout in enumerate(question.items[0].layouts):
        for span in layout.spans:
            units = layout.units[span.first : span.last]
            before = question.passes[number].tensors[span.ids][0].tolist()
            expected = [
                old if unit.special else tokenizer.mask_token_id for old, unit in zip(before, units, strict=True)
            ]
            assert one.tensors[number][span.ids][0].tolist() == expected


def test_without_a_mask_token_the_mean_is_the_default_and_says_why() -> None:
    (one,) = posed(GPT2).baselines
    assert one.vector == "mean"
    assert one.label == "the mean embedding for every token (the tokenizer has no mask token)"


def test_padding_stands_in_for_every_token() -> None:
    question = posed(BERT, baseline="pad")
    assert question.baselines[0].label == "every token [PAD]"
    assert question.baselines[0].tensors[0]["input_ids"][0].tolist() == [2, *[0] * 6, 3]


def test_what_a_model_wrote_is_replaced_like_what_it_was_given() -> None:
    question = posed(GPT2, generate=4, baseline="zero")
    (tensors,) = question.baselines[0].tensors
    assert {unit.stream for unit in question.items[0].units} == {"input", "generated"}
    assert tensors["input_ids"].tolist() == [[NOTHING] * len(question.items[0].units)]
    (tensors,) = posed("encoder-decoder/bart", baseline="zero").baselines[0].tensors
    assert tensors["decoder_input_ids"].tolist() == [[2, *[NOTHING] * 3]]


def test_of_two_masks_the_one_that_is_guessed_stays() -> None:
    given = "a [MASK] film and a [MASK] one"
    question = posed("masked-lm/bert-filler", given, position=6, baseline="mean")
    ids = question.baselines[0].tensors[0]["input_ids"][0].tolist()
    assert ids == [2, *[NOTHING] * 5, 4, NOTHING, 3]
    question = posed("masked-lm/bert-filler", given, position=3, baseline="mean")
    assert question.baselines[0].tensors[0]["input_ids"][0].tolist() == [2, *[NOTHING] * 7, 3]


# ---- images --------------------------------------------------------------------------------------------------------


def test_images_are_compared_with_their_mean_colour_by_default() -> None:
    for baseline in (None, "mean"):
        question = posed(VIT, baseline=baseline)
        (tensors,) = question.baselines[0].tensors
        seen = question.passes[0].tensors["pixel_values"][0].double().numpy()
        for channel in range(3):
            np.testing.assert_allclose(tensors["pixel_values"][0, channel].numpy(), seen[channel].mean(), rtol=1e-5)
        assert question.baselines[0].label == "the mean colour of the image"


def test_zero_is_zero_after_normalisation() -> None:
    (one,) = posed(VIT, baseline="zero").baselines
    assert not one.tensors[0]["pixel_values"].any()
    assert one.label == "the mean colour that the processor normalises by"


def by_matrices(image: np.ndarray, sigma: float) -> np.ndarray:
    """The blur as a matrix for each axis, filled entry by entry with mirrored indices."""

    def matrix(count: int) -> np.ndarray:
        reach = min(int(np.ceil(3 * sigma)), count - 1)
        weights = {k: np.exp(-(k**2) / (2 * sigma**2)) for k in range(-reach, reach + 1)}
        found = np.zeros((count, count))
        for i in range(count):
            for k, weight in weights.items():
                j = abs(i + k)
                found[i, j if j < count else 2 * (count - 1) - j] += weight / sum(weights.values())
        return found

    return matrix(image.shape[-2]) @ image @ matrix(image.shape[-1]).T


@pytest.mark.parametrize("size", [(32, 32), (9, 20), (2, 3), (1, 4)])
def test_a_blur_equals_its_matrices(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    sigma = 0.1 * min(size)
    np.testing.assert_allclose(blurred(image, sigma).numpy(), by_matrices(image.double().numpy(), sigma), atol=1e-5)


def test_a_blurred_image_says_how_much() -> None:
    question = posed(VIT, baseline="blur")
    seen = question.passes[0].tensors["pixel_values"]
    assert torch.equal(question.baselines[0].tensors[0]["pixel_values"], blurred(seen, 3.2))
    assert question.baselines[0].label == "the image, blurred (Gaussian, sigma 3.2 pixels)"


def test_another_image_may_be_a_path_a_picture_or_an_array(tmp_path: Path) -> None:
    other = picture(7, width=50, height=41)
    other.save(tmp_path / "seven.png")
    expected = gallery(VIT).processor(images=other, return_tensors="pt")["pixel_values"]
    forms = [other, np.asarray(other), tmp_path / "seven.png", str(tmp_path / "seven.png")]
    found = posed(VIT, baseline=forms).baselines
    for each in found:
        assert torch.equal(each.tensors[0]["pixel_values"], expected)
    assert [each.label for each in found] == ["the image given"] * 2 + ["the image 'seven.png'"] * 2


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_means_and_blurs_have_the_type_of_the_image(kind: str) -> None:
    tensors = {"pixel_values": posed(VIT).passes[0].tensors["pixel_values"].to(getattr(torch, kind))}
    for word in ("zero", "mean", "blur"):
        (one,) = posed(VIT, tensors, baseline=word).baselines
        assert one.tensors[0]["pixel_values"].dtype == tensors["pixel_values"].dtype


# ---- images with texts, and other pairs ------------------------------------------------------------------------------


def test_words_of_one_side_leave_the_other_its_default() -> None:
    (one,) = posed(CLIP, baseline="blur").baselines
    assert one.label.startswith("image: the image, blurred")
    assert "; text: the mean embedding for every token (the tokenizer has no mask token)" in one.label
    (one,) = posed("image-text-similarity/siglip", baseline="mask").baselines
    assert one.label == "image: the mean colour of the image; text: every token <mask>"
    (one,) = posed(CLIP, baseline="mean").baselines
    assert one.label == "image: the mean colour of the image; text: the mean embedding for every token"


def test_each_member_of_a_pair_has_a_baseline_of_its_own() -> None:
    question = posed(CLIP, baseline=(picture(5), "a photo of a blue field"))
    (tensors,) = question.baselines[0].tensors
    count = len(question.items[0].layouts[0].spans)
    assert count == 1
    assert differing(question) <= plain(question)
    assert not torch.equal(tensors["pixel_values"], question.passes[0].tensors["pixel_values"])
    assert question.baselines[0].label == "image: the image given; text: the text 'a photo of a blue field'"
    only = posed(CLIP, baseline=("zero", "a photo of a blue field")).baselines[0].tensors[0]
    assert torch.equal(only["input_ids"], tensors["input_ids"])
    assert not only["pixel_values"].any()


@pytest.mark.parametrize("name", ["text-classification/bert", "sentence-similarity/bert-embedder"])
def test_two_texts_are_compared_with_two(name: str) -> None:
    """One pass or two: ids are those of the other pair, up to the special tokens."""
    pair, other = ("a good film .", "this is a bad film"), ("a bad film .", "people are walking in Paris")
    question, expected = posed(name, pair, baseline=other), posed(name, other)
    for tensors, part in zip(question.baselines[0].tensors, expected.passes, strict=True):
        assert torch.equal(tensors["input_ids"], part.tensors["input_ids"])
    (one,) = posed(name, pair, baseline=("mask", "people are walking in Paris")).baselines
    assert one.label == "text: every token [MASK]; text_pair: the text 'people are walking in Paris'"


# ---- texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given"),
    [
        (BERT, "a bad film"),
        ("text-classification/roberta", "a bad film"),
        ("text-classification/llama", "film good a"),
    ],
)
def test_another_text_has_its_own_ids(name: str, given: str) -> None:
    other = "a good film"
    question = posed(name, given, baseline=other)
    assert question.baselines[0].tensors[0]["input_ids"].tolist() == gallery(name).tokenizer([other])["input_ids"]
    assert question.baselines[0].label == "the text 'a good film'"


def test_another_prompt_or_source_leaves_what_was_produced() -> None:
    question = posed(GPT2, "A man", generate=3, baseline="A man")
    assert differing(question) == set()
    assert question.baselines[0].label == "the text 'A man'; what was produced stays"
    question = posed("encoder-decoder/t5", "A man", continuation="ein Haus", baseline="A man")
    (tensors,) = question.baselines[0].tensors
    assert torch.equal(tensors["decoder_input_ids"], question.passes[0].tensors["decoder_input_ids"])


def test_a_long_text_is_cut_in_its_label() -> None:
    text = " ".join(["film"] * 30)
    (one,) = posed(BERT, " ".join(["man"] * 30), baseline=text).baselines
    assert one.label == f"the text {text[:60] + '...'!r}"


def test_a_word_that_is_near_a_reserved_one_may_be_a_text() -> None:
    (one,) = posed(BERT, "film", baseline="bad").baselines  # as near to 'pad' as a typing error
    assert one.label == "the text 'bad'"


def test_several_baselines_come_in_their_order() -> None:
    found = posed(BERT, "a bad film", baseline=["mask", "zero", "a good film"]).baselines
    assert [each.label for each in found] == [
        "every token [MASK]",
        "the zero vector for every token",
        "the text 'a good film'",
    ]


# ---- tensors -------------------------------------------------------------------------------------------------------


def padded(side: str) -> dict[str, Any]:
    tokenizer = gallery(BERT).tokenizer
    return dict(
        tokenizer(["a good film", "a bad film , and a man"], padding=True, padding_side=side, return_tensors="pt")
    )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("baseline", [None, "zero", "mean", "pad"])
def test_padding_of_tensors_stays(side: str, baseline: str | None) -> None:
    given = padded(side)
    given["input_ids"][given["attention_mask"] == 0] = 17  # so that it would show
    question = posed(BERT, given, target=1, baseline=baseline)
    (tensors,) = question.baselines[0].tensors
    shown = given["attention_mask"].bool()
    assert torch.equal(tensors["input_ids"][~shown], given["input_ids"][~shown])
    assert set(tensors["input_ids"][shown].tolist()) == ({0} if baseline == "pad" else {NOTHING})
    assert all(torch.equal(tensors[key], given[key]) for key in ("attention_mask", "token_type_ids"))


def test_the_order_of_tensors_makes_no_difference() -> None:
    given = padded("right")
    question = posed(BERT, dict(reversed(given.items())), target=1, baseline="zero")
    assert int(question.baselines[0].tensors[0]["input_ids"].min()) == NOTHING
    assert torch.equal(question.baselines[0].tensors[0]["token_type_ids"], given["token_type_ids"])


def test_vectors_are_compared_with_zero_or_their_mean() -> None:
    x, mask = torch.randn(2, 4, 3), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    av = AttentionVisualizer(nn.Linear(3, 2))
    given = {"input": x, "attention_mask": mask}
    question = av._subject.question(given, Wanted(target=0), SETTINGS)
    (tensors,) = question.baselines[0].tensors
    assert question.baselines[0].label == "the mean of all units for every unit"
    torch.testing.assert_close(tensors["input"][0], x[0].mean(0).expand(4, 3))
    torch.testing.assert_close(tensors["input"][1, :2], x[1, :2].mean(0).expand(2, 3))
    assert torch.equal(tensors["input"][1, 2:], x[1, 2:])
    question = av._subject.question(given, Wanted(target=0, baseline="zero"), SETTINGS)
    assert not question.baselines[0].tensors[0]["input"][0].any()
    question = av._subject.question({"input": x[:, 0]}, Wanted(target=0), SETTINGS)
    assert question.baselines[0].label == "0 for every unit"


def test_a_tensor_of_the_same_shape_or_of_one_row_is_a_baseline() -> None:
    given = padded("right")
    ids = torch.full((2, given["input_ids"].shape[1]), 9)
    wanted = torch.where(given["attention_mask"].bool(), ids, given["input_ids"])
    for baseline in (ids, ids[:1], ids.int(), {"input_ids": ids}, {**given, "input_ids": ids}):
        question = posed(BERT, given, target=1, baseline=baseline)
        assert torch.equal(question.baselines[0].tensors[0]["input_ids"], wanted)
        assert question.baselines[0].label == "the tensor given"
    text = posed(BERT, "a bad film", baseline=torch.full((1, 5), 9)).baselines[0]
    assert text.tensors[0]["input_ids"].tolist() == [[2, 9, 9, 9, 3]]
    pixels = torch.randn(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    image = posed(VIT, baseline=pixels).baselines[0].tensors[0]["pixel_values"]
    assert torch.equal(image, pixels.detach().float())
    assert not image.requires_grad


def test_tensors_may_replace_one_side_of_a_pair() -> None:
    pixels = torch.zeros(1, 3, 32, 32)
    question = posed(CLIP, baseline={"pixel_values": pixels})
    (tensors,) = question.baselines[0].tensors
    assert torch.equal(tensors["pixel_values"], pixels)
    assert torch.equal(tensors["input_ids"], question.passes[0].tensors["input_ids"])


# ---- joined --------------------------------------------------------------------------------------------------------

JOINED = [name for name in names() if not name.startswith("encoder-decoder") and not name.endswith("siglip")]


@pytest.mark.parametrize("baseline", [None, ["zero", "mean"]])
@pytest.mark.parametrize("name", JOINED)
def test_joined_questions_have_joined_baselines(name: str, baseline: Any) -> None:
    """Each row is that of the question alone, padded exactly as its input is."""
    questions = [posed(name, given, baseline=baseline) for given in gallery(name).inputs[:3]]
    assert len({shape(question) for question in questions}) == 1
    whole = subject(name).joined(questions)
    assert len(whole.baselines) == len(questions[0].baselines)
    for n, one in enumerate(whole.baselines):
        assert (one.label, one.vector) == (questions[0].baselines[n].label, questions[0].baselines[n].vector)
        for number, (part, tensors) in enumerate(zip(whole.passes, one.tensors, strict=True)):
            assert list(part.tensors) == list(tensors)
            for key, value in tensors.items():
                assert value.shape == part.tensors[key].shape
                for row, question in enumerate(questions):
                    alone = question.baselines[n].tensors[number][key]
                    size = alone.shape[1]
                    assert torch.equal(value[row : row + 1, :size], alone)
                    assert torch.equal(value[row, size:], part.tensors[key][row, size:])
                    assert torch.equal(whole.alone(row).baselines[n].tensors[number][key], alone)


def test_questions_with_other_baselines_stay_apart() -> None:
    one = posed(BERT, "a bad film")
    for other in ("zero", ["mask", "mask"], "a good film"):
        assert shape(posed(BERT, "a bad film", baseline=other)) != shape(one)
    assert shape(posed(BERT, "a man", baseline="zero")) != shape(posed(BERT, "a man", baseline="mean"))
    assert shape(posed(BERT, "a man")) == shape(one)


def test_rows_of_a_batch_and_copies_carry_their_baselines() -> None:
    question = posed(BERT, padded("right"), target=1, baseline="zero")
    for row in (0, 1):
        alone = question.alone(row).baselines[0].tensors[0]["input_ids"]
        assert torch.equal(alone, question.baselines[0].tensors[0]["input_ids"][row : row + 1])
    question = posed(GPT2, generate=4, baseline="zero")
    copies = repeated(question, 3)
    assert copies.baselines[0].tensors[0]["input_ids"].shape == copies.passes[0].tensors["input_ids"].shape


# ---- at the door ---------------------------------------------------------------------------------------------------


def test_only_methods_that_compare_have_baselines() -> None:
    assert not subject(BERT).question("a film", Wanted(), Settings(method="lrp")).baselines
    for method in set(methods.METHODS) - set(COMPARING):
        with pytest.raises(UsageError, match=rf"{method} compares with nothing.*method='secant'"):
            door(BERT).explain("a film", method=method, baseline="mask")


@pytest.mark.parametrize("several", [False, True])
def test_what_is_passed_to_the_door_arrives(monkeypatch: pytest.MonkeyPatch, several: bool) -> None:
    seen: list[str] = []

    def method(question: Question, settings: Settings) -> Any:
        seen.extend(each.label for each in question.baselines)
        return methods.lrp(question, replace(settings, method="lrp"))

    monkeypatch.setitem(methods.METHODS, "secant", methods.Row(function=method))
    av = door(BERT)
    av.explain(["a film", "a man"] if several else "a film", method="secant", baseline=["zero", "mask"])
    list(av.stream("a film", method="secant", baseline="pad"))
    assert seen == ["the zero vector for every token", "every token [MASK]", "every token [PAD]"]


def test_a_target_function_goes_with_a_baseline() -> None:
    question = posed(BERT, "a film", target=lambda output: output.logits[0, 0], baseline="zero")
    assert question.baselines[0].vector == "zero"


# ---- what is refused -----------------------------------------------------------------------------------------------

PIXELS = torch.zeros(1, 3, 32, 32)
REFUSED: list[tuple[str, Any, Any, str]] = [
    # words
    (GPT2, None, "mask", r"'mask' needs a mask token, and the tokenizer has none. Choose one of pad, zero, mean"),
    (CLIP, None, "mask", r"'mask' needs a mask token, and the tokenizer has none"),
    (BERT, None, "maks", r"one of mask, pad, zero, mean; found 'maks'. Did you mean 'mask'"),
    (BERT, None, "zeros", r"Did you mean 'zero'"),
    (VIT, None, "blurr", r"one of zero, mean, blur; found 'blurr'. Did you mean 'blur'"),
    (VIT, None, "nothing", r"cannot be read: .*no folder; 'nothing' is none.*one of zero, mean, blur"),
    (VIT, {"pixel_values": PIXELS}, "mask", r"must be one of zero, mean, blur; found 'mask'"),
    (BERT, padded("right"), "mask", r"must be one of pad, zero, mean; found 'mask'"),
    (BERT, padded("right"), "a good film", r"must be one of pad, zero, mean; found 'a good film'"),
    (GPT2, {"input_ids": torch.ones(1, 4, dtype=torch.long)}, "mask", r"one of pad, zero, mean; found 'mask'"),
    # texts
    (BERT, "a bad film", "a film", r"as many tokens as the input, 3 without special ones; 'a film' has 2. av.compare"),
    (BERT, "a film", "blur", r"must be one of mask, pad, zero, mean; found 'blur'"),
    (BERT, "a film", "ladder", r"2 without special ones; 'ladder' has 1.*one of mask, pad, zero, mean"),
    (VIT, None, "pad", r"must be one of zero, mean, blur; found 'pad'"),
    (BERT, "a film", "", r"cannot be read: A text needs at least one visible character"),
    (BERT, "a film", " ".join(["film"] * 100), r"cannot be read: .*at most 64 tokens"),
    (GPT2, "A man", "A man is", r"as many tokens as the input, 2 without special ones"),
    # pairs
    (BERT, ("a film", "a man"), "a film", r"pair \(text, text_pair\) whose members may be words; found a text"),
    (BERT, ("a film", "a man"), ("a film",), r"found a tuple of 1"),
    (BERT, ("a film", "a man"), ("zero", "mean"), r"both 'mean'; found one of each"),
    (BERT, "a film", ("zero", "mean"), r"no tuple; found a tuple of 2. Several baselines are a list"),
    (CLIP, None, picture(3), r"pair \(image, text\) whose members may be words; found an image"),
    (CLIP, None, "a photo", r"pair \(image, text\) whose members may be words; found a text"),
    (CLIP, None, ("zero", picture(3)), r"What a text is compared with is a text too.*found an image"),
    (CLIP, None, ("zero", "a film"), r"as many tokens as the input"),
    ("sentence-similarity/bert-embedder", None, {"input_ids": torch.ones(1, 4)}, r"pair of mappings"),
    # kinds
    (BERT, "a film", picture(3), r"What a text is compared with is a text too.*found an image"),
    (BERT, "a film", Path("a.png"), r"found an image"),
    (BERT, "a film", 3, r"found int"),
    (BERT, "a film", True, r"found bool"),
    (VIT, None, 3, r"What an image is compared with is an image too.*found int"),
    (VIT, None, Path("missing.png"), r"cannot be read: .*'missing.png' is none"),
    (VIT, None, np.zeros((4, 4)), r"cannot be read: An image array must hold bytes"),
    (BERT, padded("right"), picture(3), r"What a tensor is compared with is a tensor too.*found an image"),
    (BERT, "a film", [], r"at least one; found none"),
    (BERT, "a film", [["mask"]], r"found list"),
    # tensors
    (
        BERT,
        "a film",
        torch.ones(1, 3, dtype=torch.long),
        r"shape \(1, 4\).*whole numbers; found \(1, 3\) of torch.int64",
    ),
    (BERT, "a film", torch.ones(1, 4), r"found \(1, 4\) of torch.float32"),
    (BERT, "a film", torch.ones(1, 4, dtype=torch.bool), r"of torch.bool"),
    (BERT, "a film", torch.full((1, 4), -1), r"from 0 to \d+; found -1 to -1. For no token at all, choose 'zero'"),
    (BERT, "a film", torch.full((1, 4), 9999), r"found 9999 to 9999"),
    (BERT, "a film", {}, r"replaces 'input_ids'; found none"),
    (BERT, "a film", {"ids": torch.ones(1, 4)}, r"replaces 'input_ids'; found 'ids'"),
    (BERT, "a film", {"input_ids": torch.ones(1, 4).long(), "attention_mask": torch.zeros(1, 4)}, r"'attention_mask'"),
    (BERT, "a film", {"input_ids": [1, 2, 3, 4]}, r"must be a tensor; found list"),
    (VIT, None, PIXELS.long(), r"floats; found \(1, 3, 32, 32\) of torch.int64"),
    (VIT, None, PIXELS[:, :, :16], r"shape \(1, 3, 32, 32\).*found \(1, 3, 16, 32\)"),
    (VIT, None, PIXELS * float("nan"), r"finite numbers; found NaN"),
    (CLIP, None, PIXELS, r"One tensor.*`pixel_values`, `input_ids`. Give a mapping"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_does_not_fit_is_refused(case: int) -> None:
    name, given, baseline, message = REFUSED[case]
    wanted = {"target": 1} if isinstance(given, dict) else {}
    with pytest.raises(UsageError, match=message):
        posed(name, given, baseline=baseline, **wanted)


def test_an_image_of_another_size_as_the_model_sees_it_is_refused() -> None:
    class Processor:
        def __call__(self, images: Any, return_tensors: str) -> Any:
            return {"pixel_values": torch.from_numpy(np.array(images)).permute(2, 0, 1)[None].float()}

    loaded = Loaded(
        model=gallery(VIT).model, processor=Processor(), name="v", task="image-classification", pooling="mean"
    )
    with pytest.raises(
        UsageError, match=r"size of the input as the model sees it, \(1, 3, 32, 32\); found \(1, 3, 8, 32\)"
    ):
        Subject(loaded).question(picture(0), Wanted(baseline=picture(0, height=8)), SETTINGS)


def test_without_a_padding_token_there_is_no_padding() -> None:
    config = replace_config(gallery(BERT).model, pad_token_id=None)
    given = {"input_ids": torch.ones(1, 4, dtype=torch.long)}
    av = AttentionVisualizer(config)
    with pytest.raises(UsageError, match=r"padding token, and the model's config names none. Choose one of zero, mean"):
        av._subject.question(given, Wanted(target=0, baseline="pad"), SETTINGS)


def replace_config(model: nn.Module, **changes: Any) -> nn.Module:
    """The same weights with a config that says something else."""
    import copy

    other = copy.deepcopy(model)
    for key, value in changes.items():
        setattr(other.config, key, value)
    return other
