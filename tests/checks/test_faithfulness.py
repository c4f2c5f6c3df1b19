"""Faithfulness: by hand on tiny cases, by the formulas of the papers, and with planted explainers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from checks.made import curved, linear
from clearhead.checks.faithfulness import (
    deletion,
    eraser,
    infidelity,
    insertion,
    leave_one_out,
    max_sensitivity,
    spread,
)
from clearhead.checks.measuring import Choices, contests, faithfulness, mean_faithfulness
from clearhead.checks.removing import Scored, among, counted, curve, kept_after, ordered
from clearhead.checks.samples import holm
from clearhead.errors import NonFiniteError, UsageError
from clearhead.validations import METRICS

WEIGHTS = np.array([4.0, -2.0, 1.0])  # removing all leaves 0, nothing 3


def kept(*rows: str) -> np.ndarray:
    return np.array([[letter == "1" for letter in row] for row in rows])


# ---- curves --------------------------------------------------------------------------------------------------------


def test_curves_by_hand():
    most, least = (curve(WEIGHTS, linear(WEIGHTS), order) for order in ("most", "least"))
    assert most.removed == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert most.value == pytest.approx([3, -1, -2, 0])
    assert least.value == pytest.approx([3, 5, 4, 0])
    assert most.area == pytest.approx((3 / 2 - 1 - 2 + 0) / 3)
    assert least.area == pytest.approx((3 / 2 + 5 + 4 + 0) / 3)
    assert spread(WEIGHTS, linear(WEIGHTS)) == pytest.approx(12 / 3)


def test_size_or_sign_goes_first_as_asked():
    assert ordered(WEIGHTS).tolist() == [0, 2, 1]
    assert ordered(WEIGHTS, by="size").tolist() == [0, 1, 2]
    assert ordered(WEIGHTS, "least").tolist() == [1, 2, 0]
    sized = curve(WEIGHTS, linear(WEIGHTS), "most", by="size")
    assert sized.value == pytest.approx([3, -1, 1, 0])


def test_a_path_takes_more_and_more():
    assert kept_after(np.array([2, 0, 1]), [0, 1, 3]).tolist() == kept("111", "110", "000").tolist()


@pytest.mark.parametrize("units", [1, 3, 9, 10, 15, 20, 197])
def test_points_are_the_nearest_counts_to_even_shares(units):
    found = counted(units, 11)
    assert found[0] == 0
    assert found[-1] == units
    assert all(min(abs(units * n / 10 - count) for count in found) <= 0.5 for n in range(11))
    if units < 10:
        assert found == list(range(units + 1))


@examples(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 99), st.sampled_from(["signed", "size"]), st.integers(2, 15))
def test_spread_by_its_definition(units, seed, by, points):
    relevance, scores = np.random.default_rng(seed).normal(size=units), curved(seed, units)
    key = np.abs(relevance) if by == "size" else relevance
    areas = []
    for order in (np.argsort(key), np.argsort(-key)):
        counts = sorted({round(units * n / (points - 1)) for n in range(points)})
        values = []
        for count in counts:
            row = np.ones((1, units), dtype=bool)
            row[0, order[:count]] = False
            values.append(scores(row)[0])
        areas.append(trapezoid(values, np.array(counts) / units))
    assert spread(relevance, scores, by=by, points=points) == pytest.approx(areas[0] - areas[1], abs=1e-12)


@examples(max_examples=40, deadline=None)
@given(st.integers(1, 25), st.integers(0, 99))
def test_what_orders_units_alike_is_as_faithful_and_the_reverse_is_its_opposite(units, seed):
    relevance, scores = np.random.default_rng(seed).permutation(units) - units / 3, curved(seed, units)
    found = spread(relevance, scores)
    assert spread(np.exp(relevance / units), scores) == pytest.approx(found, abs=1e-12)
    assert spread(-relevance, scores) == pytest.approx(-found, abs=1e-12)
    assert eraser(5 * relevance, scores) == eraser(relevance, scores)


def test_ties_give_no_place_an_advantage():
    falling = linear(np.arange(20.0, 0, -1))  # the first units matter most
    assert spread(np.ones(20), falling) == 0
    assert ordered(np.ones(20)).tolist() != list(range(20))
    assert ordered(np.ones(20)).tolist() == ordered(np.ones(20), "least").tolist()
    draws = [curve(np.ones(20), falling, seed=seed).area for seed in range(300)]
    assert np.mean(draws) == pytest.approx(105, abs=3 * np.std(draws) / math.sqrt(300))


# ---- the other metrics ---------------------------------------------------------------------------------------------


def test_comprehensiveness_and_sufficiency_by_hand():
    weights = np.array([5.0, 4, 3, 2, 1, 0, -1, -2, -3, -4])  # sum 5
    whole, enough = eraser(weights, linear(weights))  # 1, 1, 1, 2 and 5 units
    assert whole == pytest.approx((5 + 5 + 5 + 9 + 15) / 5)
    assert enough == pytest.approx((0 + 0 + 0 - 4 - 10) / 5)


@pytest.mark.parametrize(
    ("share", "units", "gone"), [(0.05, 20, 1), (0.1, 30, 3), (0.07, 100, 7), (0.01, 5, 1), (0.5, 7, 4), (1, 4, 4)]
)
def test_a_share_is_rounded_up(share, units, gone):
    assert eraser(np.arange(units), linear(np.ones(units)), bins=[share])[0] == pytest.approx(gone)


@examples(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(0, 99))
def test_deletion_and_insertion_step_by_step(units, seed):
    relevance, scores = np.random.default_rng(seed).normal(size=units), curved(seed, units)
    order = np.argsort(-relevance)
    gone, come = np.ones((units + 1, units), dtype=bool), np.zeros((units + 1, units), dtype=bool)
    for step, unit in enumerate(order):
        gone[step + 1 :, unit] = False
        come[step + 1 :, unit] = True
    assert deletion(relevance, scores) == pytest.approx(trapezoid(scores(gone), dx=1 / units), abs=1e-12)
    assert insertion(relevance, scores) == pytest.approx(trapezoid(scores(come), dx=1 / units), abs=1e-12)
    # They are the areas of the two curves with a point for every unit.
    areas = {o: curve(relevance, scores, o, points=units + 1).area for o in ("most", "least")}
    assert (areas["most"], areas["least"]) == pytest.approx((deletion(relevance, scores), insertion(relevance, scores)))


def test_many_units_go_several_at_once():
    asked = []

    def scores(rows):
        asked.append(len(rows))
        return rows.sum(1).astype(float)

    assert deletion(np.arange(500), scores) == pytest.approx(250)
    assert asked == [101]


@pytest.mark.parametrize("scaled", [True, False])
def test_infidelity_by_its_formula(scaled):
    relevance, scores = np.array([-1.0, 2, -0.5, -3]), curved(1, 4)
    full = scores(np.ones((1, 4), dtype=bool))[0]
    said, falls = [], []
    for gone in itertools.product((0, 1), repeat=4):
        said.append(np.dot(gone, relevance))
        falls.append(full - scores(1 - np.array([gone]) == 1)[0])
    said, falls = np.array(said), np.array(falls)
    factor = (said @ falls) / (said @ said) if scaled else 1.0
    assert factor > 0
    expected = np.mean((factor * said - falls) ** 2)
    assert infidelity(relevance, scores, scaled=scaled) == pytest.approx(expected)
    assert expected > 0.01


def test_infidelity_of_many_units_is_that_of_a_sample_of_sets():
    relevance, scores = np.random.default_rng(0).normal(size=9), curved(1, 9)
    whole = infidelity(relevance, scores, sets=512)
    drawn = [infidelity(relevance, scores, sets=100, seed=seed) for seed in range(40)]
    assert np.std(drawn) > 0
    assert np.mean(drawn) == pytest.approx(whole, abs=4 * np.std(drawn) / np.sqrt(40) + 0.03 * whole)


def test_relevance_turned_round_is_no_better_than_none():
    weights = np.array([1.0, 2, 4])
    none, turned = (infidelity(each, linear(weights)) for each in (np.zeros(3), -weights))
    assert turned == pytest.approx(none)
    assert none > 1


@examples(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.floats(0.1, 9))
def test_infidelity_of_what_adds_up_is_zero_at_its_best_scale(weights, scale):
    weights = np.array(weights)
    assert infidelity(scale * weights, linear(weights)) == pytest.approx(0, abs=1e-20 + 1e-12 * (weights**2).sum())
    assert infidelity(weights, linear(weights), scaled=False) == pytest.approx(0, abs=1e-12)


def test_infidelity_of_nothing_said_is_the_mean_squared_fall():
    weights = np.array([1.0, 2, 4])
    falls = [np.dot(gone, weights) for gone in itertools.product((0, 1), repeat=3)]
    for scaled in (True, False):
        assert infidelity(np.zeros(3), linear(weights), scaled=scaled) == pytest.approx(np.mean(np.square(falls)))


def test_max_sensitivity_is_the_largest():
    moves = np.array([[0.0, 0], [0.6, 0.8], [-3, 0], [1, 1]])
    relevance = np.array([6.0, 8])
    assert max_sensitivity(relevance, lambda n: relevance + moves[n], near=4) == pytest.approx(0.3)
    assert max_sensitivity(relevance, lambda n: relevance + moves[n], near=2) == pytest.approx(0.1)
    assert max_sensitivity(np.zeros(2), lambda n: moves[n], near=2) is None
    with pytest.raises(UsageError, match="same units"):
        max_sensitivity(relevance, lambda _: np.zeros(3))
    with pytest.raises(NonFiniteError):
        max_sensitivity(relevance, lambda _: np.array([1, np.nan]))


def test_leave_one_out_one_at_a_time():
    scores = curved(3, 5)
    full = scores(np.ones((1, 5), dtype=bool))[0]
    for i, found in enumerate(leave_one_out(scores, 5)):
        row = np.ones((1, 5), dtype=bool)
        row[0, i] = False
        assert found == pytest.approx(full - scores(row)[0])


# ---- scores --------------------------------------------------------------------------------------------------------


def test_a_set_is_scored_once_for_all_methods():
    seen: list[bytes] = []

    def scores(rows):
        seen.extend(row.tobytes() for row in rows)
        return rows.sum(1).astype(float)

    draw = np.random.default_rng(0)
    faithfulness({name: draw.normal(size=12) for name in "abc"}, scores, removal="mask")
    assert len(seen) == len(set(seen)) > 100


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((2, 1)), 1.0])
def test_scores_of_another_shape_are_refused(bad):
    with pytest.raises(UsageError, match="one number per row"):
        Scored(lambda _: bad, 3)(kept("111", "101"))


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(NonFiniteError, match="Scores of units kept"):
        faithfulness({"lrp": np.arange(5.0)}, lambda rows: np.where(rows.sum(1) == 3, np.nan, 1.0), removal="mask")


def test_units_that_are_not_judged_stay():
    asked = []
    few = among(lambda rows: (asked.append(rows.copy()), rows.sum(1).astype(float))[1], np.array([False, True, True]))
    assert few(kept("00", "10")).tolist() == [1, 2]
    assert asked[0].tolist() == kept("100", "110").tolist()


# ---- all together --------------------------------------------------------------------------------------------------


def planted(seed: int, units: int = 15, noise: float = 0.1):
    """A model that nearly adds up, with a perfect explainer, its reverse, a blurred one, and one that knows nothing."""
    draw = np.random.default_rng(seed)
    weights = draw.normal(size=units)
    pairs = noise * draw.normal(size=(units, units))
    relevances = {
        "perfect": weights,
        "reversed": -weights,
        "blurred": weights + draw.normal(size=units),
        "blind": draw.normal(size=units),
        "constant": np.ones(units),
    }
    return relevances, lambda rows: rows @ weights + ((rows @ pairs) * rows).sum(1)


def test_a_perfect_explainer_is_best_and_its_reverse_is_caught():
    relevances, scores = planted(0)
    found = faithfulness(relevances, scores, removal="mask")
    figures = {row.method: row.figures for row in found.rows}
    assert found.best("dA").method in ("perfect", "leave-one-out")
    assert figures["perfect"]["dA"].beats_chance
    assert figures["reversed"]["dA"].value < figures["reversed"]["dA"].chance_low
    assert figures["constant"]["dA"].value == 0
    for name in ("dA", "morf", "lerf", "comprehensiveness", "sufficiency", "deletion", "insertion"):
        sign = 1 if METRICS[name].better == "higher" else -1
        good, bad, random = (figures[each][name].value for each in ("perfect", "reversed", "random order"))
        assert sign * good > sign * random > sign * bad, name
    errors = [figures[each]["infidelity"].value for each in ("perfect", "blurred", "reversed")]
    assert errors == sorted(errors)
    assert errors[0] < errors[2] / 5
    assert found.notes == ("constant gives every unit the same relevance, so it orders nothing and its dA is 0.",)


def test_the_chance_of_dA_is_that_of_all_orders():
    scores = curved(7, 6)
    found = faithfulness({"a": np.arange(6.0)}, scores, removal="mask", choices=Choices(orders=400))
    every = [spread(np.array(order, dtype=float), scores) for order in itertools.permutations(range(6))]
    assert np.mean(every) == pytest.approx(0, abs=1e-12)  # as is claimed
    figure = found.row("a").figures["dA"]
    assert figure.chance == 0
    assert figure.spread == pytest.approx(np.std(every), rel=0.1)
    figures = found.row("random order").figures
    assert (figures["deletion"], figures["insertion"]) == (figures["morf"], figures["lerf"])
    assert figures["morf"] != figures["lerf"]
    other = found.row("a").figures["morf"]
    means = [curve(np.array(order, dtype=float), scores).area for order in itertools.permutations(range(6))]
    assert other.chance == pytest.approx(np.mean(means), abs=4 * np.std(means) / 20)


def test_what_is_left_out_costs_nothing():
    sizes = {}
    for name, choices in (("all", Choices()), ("few", Choices(steps=0, sets=0, orders=2))):
        seen: list[int] = []
        found = faithfulness(
            {"a": np.arange(40.0)},
            lambda rows, seen=seen: (seen.append(len(rows)), rows.sum(1) * 1.0)[1],
            removal="mask",
            choices=choices,
        )
        sizes[name] = sum(seen)
        left_out = {"deletion", "insertion", "infidelity"} - set(found.row("a").figures)
        assert left_out == (set() if name == "all" else {"deletion", "insertion", "infidelity"})
    assert sizes["few"] <= 3 * 2 * 9 + 40 + 4 * 2 * 5 + 2
    assert sizes["all"] > sizes["few"] + 128


def test_the_best_row_by_each_metric_is_no_random_order():
    found = faithfulness({"reversed": -np.arange(8.0), "equal": np.ones(8)}, linear(np.arange(8.0)), removal="mask")
    for name in ("dA", "morf", "infidelity"):
        assert found.best(name).method == "leave-one-out"
    bad = replace(found, rows=tuple(row for row in found.rows if row.method in ("reversed", "random order")))
    assert {bad.best(name).method for name in ("dA", "morf", "lerf")} == {"reversed"}
    assert bad.best("max-sensitivity") is None
    with pytest.raises(UsageError, match="`metric` must be one of"):
        bad.best("accuracy")


def test_max_sensitivity_is_measured_where_it_is_asked_for():
    relevances, scores = planted(1)
    near = {"perfect": lambda n: relevances["perfect"] * (1 + 0.01 * n)}
    found = faithfulness(relevances, scores, removal="mask", perturbed=near, choices=Choices(near=6))
    assert found.row("perfect").figures["max-sensitivity"].value == pytest.approx(0.05)
    assert "max-sensitivity" not in found.row("reversed").figures


@pytest.mark.parametrize(
    ("relevances", "told"),
    [
        ({}, "no method"),
        ({"a": np.ones(5), "b": np.ones(6)}, "same units"),
        ({"a": np.ones((5, 1))}, "one relevance each"),
        ({"leave-one-out": np.ones(5)}, "Rename it"),
        ({"a": np.ones(0)}, "at least one"),
    ],
)
def test_what_cannot_be_measured_is_refused(relevances, told):
    with pytest.raises(UsageError, match=told):
        faithfulness(relevances, linear(np.ones(5)), removal="mask")


def test_choices_out_of_range_are_refused():
    for given_name, value in (("points", 1), ("orders", 1), ("steps", -1), ("sets", -1), ("near", 0), ("points", 2.5)):
        with pytest.raises(UsageError, match=f"`{given_name}` must be a whole number"):
            Choices(**{given_name: value})
    with pytest.raises(UsageError, match="Did you mean 'signed'"):
        ordered(np.ones(3), by="sign")
    with pytest.raises(UsageError, match="`bins` are shares"):
        eraser(np.ones(3), linear(np.ones(3)), bins=[0])
    with pytest.raises(NonFiniteError):
        faithfulness({"a": np.array([1, np.nan, 2, 3, 4])}, linear(np.ones(5)), removal="mask")


# ---- over inputs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many():
    return [faithfulness(*planted(seed, units=8 + seed % 6), removal="mask") for seed in range(30)]


def test_means_over_inputs(many):
    found = mean_faithfulness(many)
    figure = found.row("perfect").figures["dA"]
    own = [each.row("perfect").figures["dA"] for each in many]
    assert figure.value == pytest.approx(np.mean([each.value for each in own]))
    assert figure.spread == pytest.approx(np.sqrt(np.sum([each.spread**2 for each in own])) / 30)
    error = np.std([each.value for each in own]) / np.sqrt(30)
    assert figure.high - figure.low == pytest.approx(2 * 1.96 * error, rel=0.2)
    assert (figure.inputs, found.inputs, found.units) == (
        30,
        30,
        pytest.approx(np.mean([8 + n % 6 for n in range(30)])),
    )
    assert [row.method for row in found.rows][-2:] == ["leave-one-out", "random order"]
    assert figure.beats_chance
    assert not found.row("blind").figures["dA"].beats_chance
    mean_curve = found.row("perfect").curves[0]
    assert mean_curve.value[0] == pytest.approx(found.full)
    assert mean_curve.value[-1] == pytest.approx(found.empty)
    with pytest.raises(UsageError, match="in one way"):
        mean_faithfulness([many[0], faithfulness(*planted(0), removal="zero")])
    with pytest.raises(UsageError, match="no input"):
        mean_faithfulness([])


@pytest.mark.parametrize("test", ["wilcoxon", "bootstrap"])
def test_paired_tests_tell_methods_apart(many, test):
    found = {(each.first, each.second): each for each in contests(many, test=test)}
    assert len(found) == 7 * 6 / 2
    better = found["perfect", "blurred"]
    assert better.difference.low > 0
    assert better.adjusted < 0.05
    assert {each.test for each in found.values()} == {test}
    assert found["blind", "constant"].adjusted > 0.2
    chance = [each.p for each in found.values()]
    assert [each.adjusted for each in found.values()] == holm(chance) != chance
    mean = np.mean([e.row("perfect").figures["dA"].value - e.row("blurred").figures["dA"].value for e in many])
    assert better.difference.value == pytest.approx(mean)
    with pytest.raises(UsageError, match="`metric` must be one of"):
        contests(many, "accuracy")
    with pytest.raises(UsageError, match="`test` must be one of"):
        contests(many, test="t")


# ---- what is kept beside the figures -------------------------------------------------------------------------------


def test_random_orders_have_a_mean_curve_and_a_spread():
    asked = Choices(orders=7, sets=0, steps=0, seed=4)
    scores = curved(3, 8)
    found = faithfulness({"a": np.arange(8.0)}, scores, removal="zero", choices=asked)
    (middle,) = found.row("random order").curves
    draw = np.random.default_rng(4)
    values = []
    for _ in range(7):
        order = draw.permutation(8).astype(float)
        gone = np.argsort(-order)
        for sequence in (gone, gone[::-1]):
            left = np.ones(8, dtype=bool)
            line = [scores(left[None])[0]]
            for unit in sequence:
                left = left & (np.arange(8) != unit)
                line.append(scores(left[None])[0])
            values.append(line)
    at = np.round(middle.removed * 8).astype(int)
    assert middle.value == pytest.approx(np.mean(values, axis=0)[at])
    assert middle.spread == pytest.approx(np.std(values, axis=0, ddof=1)[at])
    assert (middle.spread[0], middle.spread[-1]) == pytest.approx((0, 0), abs=1e-12)


def test_means_keep_the_values_they_are_of_and_the_spread_of_a_mean_is_smaller():
    asked = Choices(orders=4, sets=16, steps=0)
    draw = np.random.default_rng(0)
    singles = [
        faithfulness(
            {"a": draw.normal(size=6), **({"b": draw.normal(size=6)} if n else {})},
            curved(n, 6),
            removal="zero",
            choices=asked,
        )
        for n in range(3)
    ]
    found = mean_faithfulness(singles)
    for name in ("dA", "infidelity"):
        assert found.row("a").values[name].tolist() == [each.row("a").figures[name].value for each in singles]
    assert np.isnan(found.row("b").values["dA"]).tolist() == [True, False, False]
    assert np.nanmean(found.row("b").values["dA"]) == pytest.approx(found.row("b").figures["dA"].value)
    apart = [each.row("random order").curves[0].spread for each in singles]
    middle = found.row("random order").curves[0]
    shares = singles[0].row("random order").curves[0].removed
    expected = np.sqrt(sum(np.interp(middle.removed, shares, each) ** 2 for each in apart)) / 3
    assert middle.spread == pytest.approx(expected)
