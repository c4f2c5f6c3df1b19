"""Other targets against the numbers read off plain forward passes, and against questions that ask for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer
from clearhead.config import Settings
from clearhead.probing import explained
from clearhead.question import Question
from clearhead.sanity import targets
from clearhead.subjects import Wanted
from tasks.gallery import exact
from tasks.plainly import exact_door

SECANT = Settings(method="secant")


def posed(name: str, n: int = 0, **wanted: Any) -> Question:
    return exact_door(name)._subject.question(exact(name).inputs[n], Wanted(**wanted), SECANT)


def outputs(question: Question) -> Any:
    with torch.no_grad():
        return question.model(**question.passes[0].tensors)


def value(question: Question) -> float:
    (item,) = question.items
    return float(item.aims[0].ask([outputs(question)], 0)[1])


def test_of_two_classes_the_other_one_is_the_negative() -> None:
    question = posed("text-classification/bert")
    (other,) = targets(question).values()
    assert list(targets(question)) == ["other class"]
    for method in ("lrp", "secant", "integrated-gradients", "input-x-gradient"):
        settings = Settings(method=method)
        mine, theirs = (explained(each, settings).relevance for each in (question, other))
        assert np.allclose(mine, -theirs, atol=1e-9), method


@pytest.mark.parametrize("name", ["image-classification/vit", "text-classification/roberta"])
@pytest.mark.parametrize("method", ["lrp", "secant", "gradient-attention", "gradcam", "input-x-gradient", "occlusion"])
def test_the_runner_up_is_what_asking_for_it_explains(name: str, method: str) -> None:
    question, settings = posed(name), Settings(method=method, cross_check=False)
    ranked = outputs(question).logits[0].argsort(descending=True).tolist()
    asked = posed(name, target=ranked[1])
    found = targets(question)
    assert list(found) == ["runner-up", "random target 1"]
    mine, theirs = (explained(each, settings) for each in (found["runner-up"], asked))
    assert mine.value == pytest.approx(theirs.value, abs=1e-12)
    assert np.allclose(mine.relevance, theirs.relevance, atol=1e-12)


def test_a_contrast_stays_and_is_not_taken_for_the_target() -> None:
    question = posed("image-classification/vit", contrast="grey")
    logits = outputs(question).logits[0]
    free = [k for k in logits.argsort(descending=True).tolist() if k not in (3, int(logits.argmax()))]
    found = {name: value(each) for name, each in targets(question, 3).items()}
    assert found["runner-up"] == pytest.approx(float(logits[free[0]] - logits[3]))
    assert found["random target 1"] == pytest.approx(float(logits[free[1]] - logits[3]))
    assert len(found) == 2  # there are no more


def test_the_mean_of_all_others_goes_with_the_target() -> None:
    question = posed("image-classification/vit", contrast="others")
    logits = outputs(question).logits[0]
    k = int(logits.argsort(descending=True)[1])
    rest = (logits.sum() - logits[k]) / (len(logits) - 1)
    assert value(targets(question)["runner-up"]) == pytest.approx(float(logits[k] - rest))


def test_the_place_of_a_token_that_is_classified_stays() -> None:
    question = posed("token-classification/bert-tagger", position=3)
    logits = outputs(question).logits[0, 3]
    assert value(targets(question)["runner-up"]) == pytest.approx(float(logits.sort(descending=True)[0][1]))


@pytest.mark.parametrize("name", ["causal-lm/gpt2", "encoder-decoder/bart"])
def test_each_token_that_was_written_has_others(name: str) -> None:
    """Nothing is written again: the runner-up at the place that is read off."""
    question = posed(name, generate=4, position=2)
    logits = outputs(question).logits[0]
    before = question.passes[0].tensors["input_ids"].shape[1] - 4 if name.startswith("causal") else 0
    second = logits[before + 2].sort(descending=True)[0][1]
    found = targets(question)
    assert value(found["runner-up"]) == pytest.approx(float(second))
    assert found["runner-up"].passes == question.passes


def test_a_sequence_gets_tokens_at_random() -> None:
    question = posed("causal-lm/gpt2", generate=4, target="sequence")
    found = targets(question, 3)
    assert list(found) == ["random tokens 0", "random tokens 1", "random tokens 2"]
    assert len({round(value(each), 6) for each in [question, *found.values()]}) == 4
    assert all(value(each) < 0 for each in found.values())  # log-probabilities still


def test_an_answer_gets_other_places() -> None:
    question = posed("question-answering/bert-reader")
    output = outputs(question)
    sums = (output.start_logits[0][:, None] + output.end_logits[0][None, :]).flatten()
    for each in targets(question).values():
        assert float((sums - value(each)).abs().min()) < 1e-9
        assert value(each) != value(question)


def test_what_has_no_other_target_has_none() -> None:
    assert targets(posed("sentence-similarity/bert-embedder")) == {}
    question = AttentionVisualizer(nn.Linear(3, 2))._subject.question(
        {"input": torch.randn(1, 3)}, Wanted(target=lambda output: output[0, 0]), SECANT
    )
    assert targets(question) == {}


def test_bare_logits_have_other_targets_too() -> None:
    model, x = nn.Linear(3, 4), torch.randn(1, 3)
    question = AttentionVisualizer(model)._subject.question({"input": x}, Wanted(), SECANT)
    ranked = model(x)[0].detach().sort(descending=True)[0]
    assert float(ranked[1]) == pytest.approx(value(targets(question)["runner-up"]), abs=1e-6)
