"""Sanity tests: similarities against scipy's, findings at their edges, planted explainers that depend on nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from checks.made import relevance_map
from clearhead.checks.sanity import alike, findings, mean_sanity, other_inputs, other_targets, randomised, sanity
from clearhead.errors import NonFiniteError, UsageError
from clearhead.validations import Step, Thresholds

DRAW = np.random.default_rng(0)
BEFORE = DRAW.normal(size=20)


def step(kind="class", *, name="other", signed=None, size=None, units=20) -> Step:
    return Step(kind=kind, name=name, signed=signed, size=size, units=units)


def depends(steps, **given) -> dict[str, bool | None]:
    return {each.question: each.depends for each in findings(steps, **given)}


def test_similarity_of_relevance_and_of_sizes():
    after = DRAW.normal(size=20)
    found = alike(BEFORE, after, kind="all", name="all")
    assert found.signed == pytest.approx(spearmanr(BEFORE, after).statistic)
    assert found.size == pytest.approx(spearmanr(np.abs(BEFORE), np.abs(after)).statistic)
    unsigned = alike(np.abs(BEFORE), np.abs(after), kind="all", name="all", signed=False)
    assert (unsigned.signed, unsigned.size) == (None, pytest.approx(found.size))


def test_what_ranks_nothing_has_no_similarity():
    assert alike(np.ones(9), np.arange(9.0), kind="all", name="all").signed is None
    assert alike(np.arange(4.0), np.arange(4.0), kind="all", name="all").size is None
    with pytest.raises(NonFiniteError, match="after"):
        alike(np.arange(5.0), np.full(5, np.nan), kind="all", name="all")
    with pytest.raises(UsageError, match="same units"):
        alike(np.arange(5.0), np.arange(6.0), kind="all", name="all")


def test_special_units_and_the_order_of_steps():
    maps = [relevance_map([9, *DRAW.normal(size=8)], special=(0,)) for _ in range(4)]
    found = randomised(maps[0], {"head": maps[0], "layer 1": maps[1]}, maps[2:])
    assert [each.name for each in found] == ["head", "layer 1", "all, draw 0", "all, draw 1"]
    assert [each.kind for each in found] == ["cascade", "cascade", "all", "all"]
    assert found[0].signed == pytest.approx(1)
    assert found[1].signed == pytest.approx(spearmanr(maps[0].relevance[1:], maps[1].relevance[1:]).statistic)
    assert {each.units for each in found} == {8}


def test_another_input_has_as_many_units():
    found = other_inputs(relevance_map(BEFORE), {"random": relevance_map(BEFORE[::-1])})
    assert found[0].kind == "input"
    with pytest.raises(UsageError, match="the same length"):
        other_inputs(relevance_map(BEFORE), {"short": relevance_map(BEFORE[:9])})


# ---- findings ------------------------------------------------------------------------------------------------------


def test_only_a_model_random_altogether_counts_for_the_weights():
    steps = [step("cascade", name="head", signed=1.0, size=1.0), step("cascade", name="first", signed=0.0, size=0.1)]
    assert depends(steps) == {"weights": True}
    assert depends(steps[::-1]) == {"weights": False}
    assert depends([*steps, step("all", signed=0.1, size=1.0)]) == {"weights": False}  # the mean of 0.1 and 1.0


def test_sizes_that_stay_are_enough_for_the_weights_and_not_for_the_class():
    turned = {"signed": -1.0, "size": 1.0}
    assert depends([step("all", **turned)]) == {"weights": False}
    assert depends([step("class", **turned)]) == {"class": True}
    assert depends([step("class", size=1.0)]) == {"class": False}
    assert depends([step("input", **turned), step("class", signed=1.0, size=1.0)]) == {"input": True, "class": False}


@pytest.mark.parametrize(
    ("kind", "question", "name"),
    [("all", "weights", "weights"), ("class", "class", "classes"), ("input", "input", "inputs")],
)
def test_thresholds_at_their_edges(kind, question, name):
    bar = getattr(Thresholds(), name)
    assert depends([step(kind, size=bar, units=500)]) == {question: False}
    assert depends([step(kind, size=bar - 1e-9, units=500)]) == {question: True}
    moved = Thresholds(**{name: 0.3})
    assert depends([step(kind, size=0.3, units=500)], thresholds=moved) == {question: False}


def test_few_units_need_more_than_the_threshold():
    # Of 9 units chance alone reaches 0.69 once in 40.
    assert depends([step("all", size=0.6, units=9)]) == {"weights": True}
    assert depends([step("all", size=0.7, units=9)]) == {"weights": False}
    assert depends([step("all", size=0.6, units=9)], inputs=4) == {"weights": False}
    assert findings([step("all", size=0.6, units=9)])[0].bound == pytest.approx(1.96 / np.sqrt(8), rel=1e-4)


def test_nothing_known_is_nothing_said():
    assert depends([step("class")]) == {"class": None}
    assert findings([]) == ()
    assert str(findings([step("class")])[0]) == "dependence on the class unknown"


def test_planted_explainers_are_told_apart():
    """One that reads the weights, one that only reads the input, one that only counts positions."""
    draw, units, tests = np.random.default_rng(3), 12, {"honest": [], "input": [], "position": []}
    explain = {
        "honest": lambda x, w: x * w,
        "input": lambda x, w: x + 0 * w,
        "position": lambda x, w: np.arange(len(x)) + 0 * x * w,
    }
    for _ in range(30):
        x, other, w, random, label = (draw.normal(size=units) for _ in range(5))
        for name, function in explain.items():
            first = relevance_map(function(x, w))
            steps = randomised(first, {}, [relevance_map(function(x, random))])
            steps += other_targets(first, {"other": relevance_map(function(x, label))})
            steps += other_inputs(first, {"random": relevance_map(function(other, w))})
            tests[name].append(sanity(name, steps))
    found = {name: mean_sanity(each) for name, each in tests.items()}
    said = {name: {f.question: f.depends for f in each.findings} for name, each in found.items()}
    assert said["honest"] == {"weights": True, "class": True, "input": True}
    assert said["input"] == {"weights": False, "class": False, "input": True}
    assert said["position"] == {"weights": False, "class": False, "input": False}
    assert [each.sane for each in found.values()] == [True, False, False]
    assert found["honest"].inputs == 30
    assert [str(f) for f in found["position"].findings][2] == "does not depend on the input"


def test_a_mean_is_of_steps_of_one_name_and_of_one_method():
    first = sanity("lrp", [step(signed=0.2, size=0.4), step("all", signed=None, size=0.5)])
    second = sanity("lrp", [step(signed=0.4, size=0.8, units=10), step("all", signed=None, size=None)])
    found = mean_sanity([first, second])
    assert [(each.signed, each.size, each.units) for each in found.steps] == [
        (pytest.approx(0.3), pytest.approx(0.6), 15),
        (None, 0.5, 20),
    ]
    likely = [sanity("lrp", [step("all", size=0.6, units=9)]) for _ in range(4)]
    assert [mean_sanity(likely[:n]).sane for n in (1, 4)] == [True, False]  # chance reaches less in the mean
    with pytest.raises(UsageError, match="one method"):
        mean_sanity([first, replace(second, method="ig")])
    assert sanity("lrp", [step(units=4)]).notes[0].startswith("Fewer than 5")
