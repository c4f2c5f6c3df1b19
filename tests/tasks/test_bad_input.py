"""What cannot be explained is told in a sentence: the rule, the finding, the next step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clearhead import AttentionVisualizer
from clearhead.errors import ModelError, UsageError
from tasks.gallery import LIMIT, gallery, names, picture
from tasks.plainly import door

BERT, TAGGER, READER = "text-classification/bert", "token-classification/bert-tagger", "question-answering/bert-reader"
FILLER, GPT2, BART = "masked-lm/bert-filler", "causal-lm/gpt2", "encoder-decoder/bart"
VIT, CLIP, EMBEDDER = "image-classification/vit", "image-text-similarity/clip", "sentence-similarity/bert-embedder"
PAIR = ("What is the capital?", "The capital of France is Paris.")


@pytest.mark.parametrize(
    ("name", "given", "asking", "told"),
    [
        # targets that a task does not have
        (BERT, "a film", {"target": "funny"}, "negative, positive; found 'funny'"),
        (BERT, "a film", {"target": 5}, "0 to 1; found 5"),
        (BERT, "a film", {"target": "positve"}, "Did you mean 'positive'"),
        (BERT, "a film", {"target": 2.5}, "found 2.5"),
        (BERT, "a film", {"target": "sequence"}, "found 'sequence'"),
        (BERT, "a film", {"target": 0, "contrast": 0}, "differ"),
        (BERT, "a film", {"target": lambda output: output.logits[0, 0], "contrast": 0}, "contrast"),
        (VIT, picture(), {"target": "purple"}, "red, green, blue, grey; found 'purple'"),
        (TAGGER, "Anna", {"target": "ANIMAL"}, "O, PERSON, PLACE; found 'ANIMAL'"),
        (READER, PAIR, {"target": "middle"}, "start, end, both; found 'middle'"),
        (READER, PAIR, {"target": 3}, "start, end, both"),
        (READER, PAIR, {"contrast": "others"}, "contrast"),
        (CLIP, (picture(), "a film"), {"target": 0}, "target"),
        (EMBEDDER, ("a film", "a man"), {"target": 0}, "target"),
        (EMBEDDER, ("a film", "a man"), {"contrast": "others"}, "contrast"),
        (GPT2, "A man", {"target": "sequence"}, "(?i)continuation.*generate|generate.*continuation"),
        (GPT2, "A man", {"target": 10_000}, "found 10000"),
        (GPT2, "A man", {"target": -1}, "found -1"),
        (GPT2, "A man", {"target": ""}, "empty"),
        (GPT2, "A man", {"target": " people", "contrast": " people"}, "differ"),
        (GPT2, "A man", {"target": " people", "generate": 3}, "target"),
        # tokens that are none
        (GPT2, "A man", {"target": " unwalkable"}, "(?s)unwalkable.*first_piece"),
        (GPT2, "A man", {"target": " people", "contrast": " unwalkable"}, "contrast.*unwalkable.*first_piece"),
        (FILLER, "a [MASK] film", {"target": "zebra"}, "know.*'zebra'"),
        (FILLER, "a [MASK] film", {"target": "zebra", "first_piece": True}, "know.*'zebra'"),
        (FILLER, "a [MASK] film", {"target": "unwalkable"}, r"'un'.*'##walk'.*'##able'.*first_piece"),
        # places
        (FILLER, "a [MASK] film in a [MASK]", {}, "(?s)2.*position"),
        (FILLER, "a good film", {}, r"(?s)\[MASK\]"),
        (FILLER, "a [MASK] film", {"position": 99}, "0 to 4; found 99"),
        (TAGGER, "Anna lives", {"position": 4}, "0 to 3; found 4"),
        (TAGGER, "Anna lives", {"position": -9}, "found -9"),
        (TAGGER, "Anna lives", {"position": "Berlin"}, "'Berlin'"),
        (TAGGER, "a man and a man", {"position": "man"}, "(?s)'man'.*2 and 5"),
        (TAGGER, "Anna lives", {"position": 1.5}, "1.5"),
        (READER, PAIR, {"position": (1, 2)}, "position"),
        (BERT, "a film", {"position": 1}, "position"),
        (GPT2, "A man", {"generate": 3, "position": 3}, "0 to 2; found 3"),
        (GPT2, "A man", {"position": 0}, "(?i)generate|continuation"),
        # what is to be produced
        (GPT2, "A man", {"generate": 0}, "generate.*1.*found 0"),
        (GPT2, "A man", {"generate": -3}, "generate.*found -3"),
        (GPT2, "A man", {"generate": 2.5}, "generate.*found 2.5"),
        (GPT2, "A man", {"generate": True}, "generate.*found True"),
        (BART, "A man", {"generate": 0}, "generate.*1.*found 0"),
        (GPT2, "A man", {"generate": 3, "continuation": " is"}, "(?i)generated or given"),
        (GPT2, "A man", {"continuation": ""}, "(?i)continuation.*at least one"),
        (BART, "A man", {"continuation": " "}, "(?i)continuation.*at least one"),
        (GPT2, "A man", {"continuation": 7}, "continuation.*int"),
        (GPT2, "A man", {"continuation": " man" * LIMIT}, f"at most {LIMIT} tokens"),
        (GPT2, "A man", {"generate": LIMIT}, f"at most {LIMIT} tokens"),
        (BART, "A man", {"continuation": "ein Haus " * LIMIT}, f"at most {LIMIT} tokens"),
        (BART, "A man", {"generate": 5000}, f"at most {LIMIT} tokens.*5000.*At most {LIMIT} fit"),
        (BERT, "a film", {"generate": 3}, "generate"),
        (VIT, picture(), {"continuation": " and"}, "continuation"),
        (BERT, "a film", {"first_piece": True}, "first_piece"),
        # units
        (BERT, "a film", {"units": "letter"}, "(?s)units.*word.*sentence.*'letter'"),
        (BERT, "a film", {"units": "pixel"}, "(?i)pixel"),
        (BERT, "a film", {"units": "patch"}, "(?i)patch"),
        (VIT, picture(), {"units": "word"}, "(?i)word"),
        (VIT, picture(), {"units": [(0, 3)]}, "(?i)span|text"),
        (BERT, "a film", {"units": [(0, 3), (2, 6)]}, "one span"),
        (BERT, "a film", {"units": [(50, 60)]}, r"\(50, 60\)"),
        (BERT, "a film", {"units": [(0, 1, 2)]}, "(?i)span"),
        (BERT, "a film", {"units": [3]}, "(?i)span"),
        # inputs of another task
        (BERT, picture(), {}, "(?i)text"),
        (GPT2, ("A man", "a film"), {}, "(?i)one text"),
        (BART, ("A man", "a film"), {}, "(?i)one text"),
        (FILLER, ("a [MASK]", "a film"), {}, "(?i)one text"),
        (TAGGER, 7, {}, "int"),
        (READER, "What is the capital?", {}, r"\(question, context\)"),
        (READER, (*PAIR, "more"), {}, r"\(question, context\)"),
        (EMBEDDER, "a film", {}, "(?i)two"),
        (CLIP, picture(), {}, r"\(image, text\)"),
        (CLIP, ("a film", picture()), {}, "(?i)image|text"),
        (VIT, 7, {}, "int"),
        (VIT, (picture(), picture()), {}, "one image; found an image and an image.*Pass one"),
        (VIT, (picture(), "a film"), {}, r"one image; found an image and a text\. Leave out the text \(--text\)"),
        (BERT, (picture(), "a film"), {}, r"found an image and a text\. Leave out the image \(--image\)"),
        (READER, (picture(), "a film"), {}, r"found an image and a text\. Leave out the image \(--image\)"),
        (EMBEDDER, (picture(), "a film"), {}, r"found an image and a text\. Leave out the image \(--image\)"),
        (GPT2, (picture(), "a film"), {}, r"found an image and a text\. Leave out the image \(--image\)"),
        (BART, picture(), {}, r"found an image\. Leave out the image \(--image\)"),
        (BERT, b"a film", {}, "bytes"),
        (BERT, None, {}, "NoneType"),
        # texts that say nothing, or too much
        (GPT2, "", {}, "visible character"),
        (READER, ("", "The capital is Paris."), {}, "visible character"),
        (READER, ("What?", "  "), {}, "visible character"),
        (CLIP, (picture(), "\n"), {}, "visible character"),
        (BART, "a film " * LIMIT, {}, f"at most {LIMIT} tokens"),
    ],
)  # fmt: skip
def test_wrong_use_is_told(name: str, given: Any, asking: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        door(name).explain(given, **asking)
    said = str(caught.value)
    assert said[0].isupper() or said.startswith("`")
    assert said.rstrip().endswith((".", "?", ")"))
    assert len(said) < 600


@pytest.mark.parametrize("name", names("causal-lm"))
def test_a_split_token_is_told_with_its_pieces(name: str) -> None:
    one = gallery(name)
    pieces = one.tokenizer.convert_ids_to_tokens(one.tokenizer(" unwalkable", add_special_tokens=False).input_ids)
    with pytest.raises(UsageError) as caught:
        door(name).explain("A man", target=" unwalkable")
    assert all(piece in str(caught.value) for piece in pieces if piece.strip("▁Ġ "))


# ---- lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given"),
    [
        (BERT, ["a film", picture()]),
        (BERT, ["a film", {"input_ids": torch.tensor([[1, 2]])}]),
        (VIT, [picture(), {"pixel_values": torch.zeros(1, 3, 32, 32)}]),
        (BERT, ["a film", 7]),
        (BERT, ["a film", None]),
        (BERT, ["a film", ["another film"]]),
    ],
)
def test_a_list_holds_one_kind(name: str, given: list[Any]) -> None:
    with pytest.raises(UsageError):
        door(name).explain(given)


@pytest.mark.parametrize(
    ("given", "told"),
    [(["a film", picture()], "text first and image in"), ([picture(), "a"], "image first and text in")],
)
def test_a_list_says_which_kinds_it_found(given: list[Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        door(BERT).explain(given)


def test_an_error_in_a_list_says_which() -> None:
    with pytest.raises(UsageError, match=r"(?s)visible character"):
        door(BERT).explain(["a film", "", "a man"])


# ---- doors ----------------------------------------------------------------------------------------------------------


def test_an_unknown_task_is_told() -> None:
    one = gallery(BERT)
    with pytest.raises(UsageError, match="Did you mean 'masked-lm'"):
        AttentionVisualizer(one.model, one.processor, task="maskedlm")


def test_a_task_that_the_model_has_no_head_for_is_told(tiny_classifier: str) -> None:
    with pytest.raises(ModelError) as caught:
        AttentionVisualizer.from_pretrained(tiny_classifier, task="image-classification")
    assert str(caught.value) == (
        f"The model {tiny_classifier!r} (BertForSequenceClassification) has no head for image-classification; its task "
        "is text-classification. Leave out the task, or choose another model."
    )


def test_without_room_nothing_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery(BART).model, "generate", lambda **_: pytest.fail("generated"))
    with pytest.raises(UsageError, match=f"at most {LIMIT} tokens"):
        door(BART).explain("A man", generate=LIMIT + 1)


@pytest.mark.parametrize("name", [BERT, GPT2, VIT])
def test_without_a_processor_only_tensors_can_be_explained(name: str) -> None:
    with pytest.raises(UsageError, match="Without a processor"):
        AttentionVisualizer(gallery(name).model).explain(gallery(name).inputs[0])


def test_the_model_is_left_as_found_by_every_error() -> None:
    model = gallery(GPT2).model
    for asking in ({"generate": 0}, {"target": " unwalkable"}, {"continuation": " man" * LIMIT}):
        with pytest.raises(UsageError):
            door(GPT2).explain("A man", **asking)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert "forward" not in vars(model)
