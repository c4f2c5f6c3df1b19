"""Methods that do not depend on what they should are called out, and those that do are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clearhead import AttentionVisualizer, methods
from clearhead.checks import Choices
from tasks.plainly import door

TEXT = "a gripping , beautiful film that is a bad one and not a good one"
QUICK = Choices(points=3, orders=2, steps=0, sets=0, near=2)
SENTIMENT = "a gripping , beautiful film that never quite loses its sense of fun ."


def planted(monkeypatch: pytest.MonkeyPatch, make: Callable[[Any, Any], Any]) -> None:
    """A method in the place of `saliency`, whose relevance is a function of the secant's map and the question."""
    row = methods.METHODS["secant"]

    def run(question: Any, settings: Any) -> Iterator[Any]:
        asked = replace(settings, method="secant")
        for i, each in row.function(question, asked):
            yield i, replace(each, relevance=make(each, question), additive=False)

    monkeypatch.setitem(methods.METHODS, "saliency", methods.Row(function=run))
    monkeypatch.setattr("clearhead.probing.COMPARING", (*methods.COMPARING, "saliency"))


def findings(av: AttentionVisualizer, text: Any, method: str = "saliency") -> dict[str, bool | None]:
    found = av.validate(text, [method], choices=QUICK, removals=["mask"])
    return {each.question: each.depends for one in found.sanity for each in one.findings}


def places(found: Any, _: Any) -> Any:
    return np.arange(len(found.units), dtype=float)


def tokens(found: Any, question: Any) -> Any:
    return question.passes[0].tensors["input_ids"][0, : len(found.units)].double().numpy() % 97


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda found, _: found.relevance, {"weights": True, "class": True, "input": True}),
        (places, {"weights": False, "class": False, "input": False}),
        (tokens, {"weights": False, "class": False, "input": True}),
        (lambda found, _: np.abs(found.relevance), {"weights": True, "class": False, "input": True}),
    ],
    ids=["secant", "places", "tokens", "blind to the class"],
)
def test_planted_methods_are_called_out(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[Any, Any], Any], said: dict[str, bool]
) -> None:
    planted(monkeypatch, make)
    av = AttentionVisualizer.from_pretrained("clearhead/sentiment")
    assert findings(av, SENTIMENT) == said
    if not all(said.values()):
        assert (
            av.validate(SENTIMENT, ["saliency"], choices=QUICK, removals=["mask"]).verdict("saliency").word == "reject"
        )


def test_attention_is_blind_to_the_class_and_relevance_is_not() -> None:
    av = AttentionVisualizer.from_pretrained("clearhead/sentiment")
    assert findings(av, SENTIMENT, "rollout")["class"] is False
    assert findings(av, SENTIMENT, "lrp") == {"weights": True, "class": True, "input": True}


def test_the_tests_can_be_left_out_and_counted() -> None:
    av = door("text-classification/bert")
    assert av.validate(TEXT, ["lrp"], choices=QUICK, sanity=False).sanity == ()
    texts = [TEXT, f"{TEXT} !", f"so {TEXT}"]
    found = av.evaluate(texts, ["lrp"], choices=QUICK, sanity=2)
    assert [each.inputs for each in found.sanity] == [2]
    assert av.evaluate(texts, ["lrp"], choices=QUICK, sanity=0).sanity == ()


def noise(value: float, count: int) -> Any:
    return np.random.default_rng(int(1e9 * abs(value)) % 2**31).normal(size=count)


def test_a_steep_method_is_unsteady_and_a_constant_one_is_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    av = AttentionVisualizer.from_pretrained("clearhead/sentiment")

    def sensitivity(make: Callable[[Any, Any], Any]) -> float:
        planted(monkeypatch, make)
        found = av.validate(SENTIMENT, ["saliency"], choices=QUICK, removals=["mask"])
        value = found.faithfulness[0].rows[0].figures["max-sensitivity"].value
        assert value is not None
        return value

    assert sensitivity(places) == 0
    calm = sensitivity(lambda found, _: found.relevance)
    wild = sensitivity(
        lambda found, _: np.random.default_rng(int(1e9 * abs(found.value)) % 2**31).normal(size=len(found.units))
    )
    assert 0 < calm < 0.5 < wild
