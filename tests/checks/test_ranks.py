"""Measures of agreement: values by definition and from scipy, chance levels from every permutation there is."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from checks.made import relevance_map
from clearhead.checks.agreement import agreements, mean_agreements, pair
from clearhead.checks.ranks import kendall, overlap, permutations, places, spearman
from clearhead.errors import NonFiniteError, UsageError
from clearhead.validations import MEASURES

NONE = np.random.default_rng(0)
KINDS = [(False, False), (True, False), (False, True), (True, True)]
NAMES = {(False, False): "feature", (True, False): "rank", (False, True): "sign", (True, True): "signed-rank"}
lists = st.integers(2, 6).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(-3, 3), min_size=n, max_size=n) for _ in range(2)))
)


def orders(values) -> list[tuple[int, ...]]:
    """Every order of units, the largest size first, that a way to break ties gives."""
    sizes = np.abs(values)
    return [o for o in itertools.permutations(range(len(values))) if (np.diff(sizes[list(o)]) <= 0).all()]


def by_definition(a, b, top, ranked, signed) -> float:
    """Krishna et al. 2022, equations 1 to 4, the mean over all ways to break the ties of both."""
    found = []
    for first, second in itertools.product(orders(a), orders(b)):
        if ranked:
            same = [i for i, j in zip(first[:top], second[:top], strict=True) if i == j]
        else:
            same = sorted(set(first[:top]) & set(second[:top]))
        found.append(sum(not signed or np.sign(a[i]) == np.sign(b[i]) for i in same) / top)
    return float(np.mean(found))


# ---- values --------------------------------------------------------------------------------------------------------


@examples(max_examples=150, deadline=None)
@given(lists)
def test_correlations_are_scipys(both):
    a, b = (np.array(each, dtype=float) for each in both)
    constant = not (np.ptp(a) and np.ptp(b))
    for own, theirs in ((spearman, spearmanr), (kendall, kendalltau)):
        found = own(a, b)
        assert (found is None) == constant
        if not constant:
            assert found.value == pytest.approx(theirs(a, b).statistic, abs=1e-12)


@examples(max_examples=150, deadline=None)
@given(lists)
def test_tau_b_counts_pairs(both):
    a, b = (np.array(each, dtype=float) for each in both)
    assume(np.ptp(a) and np.ptp(b))
    pairs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in itertools.combinations(range(len(a)), 2)]
    untied = [sum(each[n] != 0 for each in pairs) for n in (0, 1)]
    expected = sum(x * y for x, y in pairs) / math.sqrt(untied[0] * untied[1])
    assert kendall(a, b).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@examples(max_examples=60, deadline=None)
@given(
    st.integers(2, 5).flatmap(
        lambda n: st.tuples(
            *(st.lists(st.integers(-2, 2), min_size=n, max_size=n) for _ in range(2)), st.integers(1, n)
        )
    )
)
def test_overlap_is_the_mean_over_all_ways_to_break_ties(kind, given_lists):
    a, b = (np.array(each, dtype=float) for each in given_lists[:2])
    top, (ranked, signed) = given_lists[2], kind
    found = overlap(a, b, top, ranked=ranked, signed=signed)
    assert found.value == pytest.approx(by_definition(a, b, top, ranked, signed), abs=1e-12)


def test_places_are_probabilities():
    found = places(np.array([1.0, -1, 2, 1, 0]), 3)
    assert found.sum(0) == pytest.approx(np.ones(3))
    assert found.sum(1) == pytest.approx([2 / 3, 2 / 3, 1, 2 / 3, 0])


# ---- chance --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["spearman", "kendall", *KINDS])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([5.0, 4, 3, 2, 1, 0], [3.0, -1, 4, -2, 5, -9]),
        ([2.0, 2, 1, 1, 0, 0], [3.0, -1, 1, -1, 0, 0]),
        ([1.0, 1, 1, 1, 1, 0], [-4.0, 4, 4, 2, 2, 1]),
        ([0.0, 0, 0, 0, 0, -1], [1.0, 0, 0, 0, 0, 0]),
        ([1.0, 2], [3.0, 2]),
    ],
)
def test_mean_and_spread_under_chance_are_those_of_all_permutations(measure, a, b):
    a, b, top = np.array(a), np.array(b), 2 if len(a) == 2 else 3

    def figure(values, orders=None):
        if measure == "spearman":
            return spearman(a, values, orders)
        if measure == "kendall":
            return kendall(a, values, orders)
        return overlap(a, values, top, orders, ranked=measure[0], signed=measure[1])

    everything, whole = permutations(len(a), math.factorial(len(a)), seed=0)
    assert (whole, len({tuple(row) for row in everything})) == (True, math.factorial(len(a)))
    one_by_one = np.array([figure(b[order]).value for order in everything])
    found = figure(b, everything)
    assert found.drawn == pytest.approx(one_by_one, abs=1e-12)
    assert found.mean == pytest.approx(one_by_one.mean(), abs=1e-12)
    assert found.spread == pytest.approx(one_by_one.std(), abs=1e-12)


@pytest.mark.parametrize(("count", "top"), [(6, 3), (20, 5), (200, 5)])
def test_chance_without_ties_is_k_of_n_and_one_of_n(count, top):
    a, b = (NONE.permutation(count) + 1.0 for _ in range(2))
    assert overlap(a, b, top).mean == pytest.approx(top / count)
    assert overlap(a, b, top, ranked=True).mean == pytest.approx(1 / count)
    # Of hypergeometric counts, and of partial matches.
    hypergeometric = top * top / count * (1 - top / count) * (count - top) / (count - 1)
    assert overlap(a, b, top).spread == pytest.approx(math.sqrt(hypergeometric) / top)
    matches = top * (top - 1) / (count * (count - 1)) + top / count - (top / count) ** 2
    assert overlap(a, b, top, ranked=True).spread == pytest.approx(math.sqrt(matches) / top)


def test_p_and_interval_of_few_units_are_exact():
    a, b = np.array([5.0, 4, 3, 2, 1]), np.array([5.0, 3, 4, 2, 1])
    found = pair(a, b).figures["spearman"]
    everything = [spearmanr(a, order).statistic for order in itertools.permutations(b)]
    assert found.p == pytest.approx(np.mean(np.array(everything) >= found.value - 1e-9))
    assert (found.chance_low, found.chance_high) == pytest.approx(tuple(np.quantile(everything, (0.025, 0.975))))


@pytest.mark.parametrize("count", [30, 120])
def test_random_relevance_is_within_chance_nineteen_times_of_twenty(count):
    draw, outside, reached = np.random.default_rng(5), [], []
    for n in range(120):
        figures = pair(draw.normal(size=count), draw.normal(size=count), draws=200, seed=n).figures
        for name in ("spearman", "kendall"):
            outside.append(not figures[name].chance_low <= figures[name].value <= figures[name].chance_high)
            reached.append(figures[name].p)
    assert np.mean(outside) == pytest.approx(0.05, abs=0.04)
    assert np.mean(reached) == pytest.approx(0.5, abs=0.07)
    assert np.mean(np.array(reached) <= 0.1) == pytest.approx(0.1, abs=0.06)


def test_draws_are_seeded():
    a, b = NONE.normal(size=12), NONE.normal(size=12)
    assert pair(a, b, seed=3) == pair(a, b, seed=3)
    one, other = (pair(a, b, seed=seed).figures["spearman"].chance_high for seed in (3, 4))
    assert one != other


# ---- properties ----------------------------------------------------------------------------------------------------

relevances = st.integers(5, 12).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(-6, 6), min_size=n, max_size=n) for _ in range(2)))
)


def values(found) -> dict[str, float | None]:
    return {name: figure.value for name, figure in found.figures.items()}


@examples(max_examples=60, deadline=None)
@given(relevances, st.integers(0, 1000))
def test_symmetric_bounded_and_blind_to_order_and_scale(both, seed):
    a, b = (np.array(each, dtype=float) for each in both)
    found = pair(a, b, draws=5)
    order = np.random.default_rng(seed).permutation(len(a))
    for other in (pair(b, a, draws=5), pair(a[order], b[order], draws=5), pair(7 * a, 0.1 * b, draws=5)):
        assert values(other) == pytest.approx(values(found), abs=1e-9)
    for name, value in values(found).items():
        if value is not None:
            assert (-1 if name in ("spearman", "kendall") else 0) - 1e-9 <= value <= 1 + 1e-9
    shares = [values(found)[name] for name in ("signed-rank", "rank", "sign", "feature")]
    if shares[0] is not None:
        assert shares[0] <= min(shares[1:3]) + 1e-9
        assert max(shares[1:3]) <= shares[3] + 1e-9


@examples(max_examples=60, deadline=None)
@given(relevances)
def test_monotone_maps_change_no_rank(both):
    a, b = (np.array(each, dtype=float) for each in both)
    found, odd = values(pair(a, b, draws=5)), values(pair(a**3 + a, np.sinh(b), draws=5))  # odd: sizes in order too
    assert odd == pytest.approx(found, abs=1e-9)
    moved = values(pair(a + 20, b, draws=5))  # increasing, but sizes change: only whole ranks stay
    assert {n: moved[n] for n in ("spearman", "kendall")} == pytest.approx(
        {n: found[n] for n in ("spearman", "kendall")}, abs=1e-9
    )


def test_a_map_agrees_with_itself_and_not_with_its_reverse():
    a = np.array([6.0, -5, 4, -3, 2, 1])
    assert values(pair(a, a)) == pytest.approx(dict.fromkeys(MEASURES, 1.0))
    reverse = values(pair(a, -a))
    assert reverse["feature"] == reverse["rank"] == 1
    assert reverse["sign"] == reverse["signed-rank"] == 0
    assert reverse["spearman"] == pytest.approx(-1)


# ---- bad input -----------------------------------------------------------------------------------------------------


def test_without_sign_sizes_are_ranked_and_sign_measures_left_out():
    a, b = np.array([5.0, 4, 3, 2, 1]), np.array([-5.0, 4, -3, 2, -1])
    found = pair(a, b, signed=False)
    assert set(found.figures) == set(MEASURES) - {"sign", "signed-rank"}
    assert (found.by, found.figures["spearman"].value) == ("size", pytest.approx(1))


@pytest.mark.parametrize("count", [0, 1, 4])
def test_fewer_than_five_units_are_told(count):
    found = pair(np.arange(count, dtype=float), np.arange(count, dtype=float))
    assert {figure.value for figure in found.figures.values()} == {None}
    assert f"there are {count}" in found.notes[0]


@pytest.mark.parametrize(
    ("first", "signed", "missing", "told"),
    [
        (np.ones(6), True, set(MEASURES), "the same relevance"),
        (np.array([1.0, -1, 1, -1, 1, 1]), True, set(MEASURES) - {"spearman", "kendall"}, "of the same size"),
        (np.array([1.0, -1, 1, -1, 1, 1]), False, {"spearman", "kendall", "feature", "rank"}, "nothing can be ranked"),
    ],
)
def test_constant_relevance_is_told(first, signed, missing, told):
    found = pair(first, np.arange(6.0), names=("rollout", "lrp"), signed=signed)
    assert {name for name, value in values(found).items() if value is None} == missing
    (note,) = found.notes
    assert note.startswith("rollout")
    assert told in note


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(NonFiniteError, match=r"Relevances of rollout.*at 2"):
        pair(np.arange(6.0), np.array([0, 1, bad, 3, 4, 5]), names=("lrp", "rollout"))


def test_other_units_and_a_wrong_top_are_refused():
    with pytest.raises(UsageError, match="same units"):
        pair(np.arange(6.0), np.arange(7.0))
    for top in (0, 7, 2.0, True):
        with pytest.raises(UsageError, match="`top` must be from 1"):
            pair(np.arange(6.0), np.arange(6.0), top=top)


# ---- several methods, several inputs -------------------------------------------------------------------------------


def test_a_matrix_of_methods():
    draw = np.random.default_rng(2)
    lrp, ig, rollout = draw.normal(size=9), draw.normal(size=9), draw.random(9)
    maps = {
        "lrp": relevance_map([9, *lrp], special=(0,)),
        "ig": relevance_map([-9, *ig], special=(0,)),
        "rollout": relevance_map([7, *rollout], special=(0,), additive=False),
    }
    found = agreements(maps)
    matrix = found.matrix("spearman")
    assert matrix == pytest.approx(matrix.T)
    assert matrix[0, 1] == pytest.approx(spearmanr(lrp, ig).statistic)
    assert matrix[2, 1] == pytest.approx(spearmanr(rollout, np.abs(ig)).statistic)
    assert found.pair("rollout", "lrp").units == 9
    assert np.isnan(found.matrix("sign")[0, 2])
    assert not np.isnan(found.matrix("sign")[0, 1])
    signed = agreements(maps, signed=["lrp", "ig", "rollout"])
    assert signed.matrix("spearman")[2, 1] == pytest.approx(spearmanr(rollout, ig).statistic)
    with pytest.raises(UsageError, match="found secant"):
        agreements(maps, signed=["secant"])
    with pytest.raises(UsageError, match="Did you mean 'rollout'"):
        found.pair("lrp", "rolout")
    with pytest.raises(UsageError, match="Did you mean 'kendall'"):
        found.matrix("kendal")


def test_the_mean_over_inputs_has_an_interval_and_its_own_chance():
    draw, singles = np.random.default_rng(4), []
    for n in range(40):
        truth = draw.normal(size=8 + n % 5)
        maps = {"a": relevance_map(truth), "b": relevance_map(truth + draw.normal(size=len(truth)))}
        singles.append(agreements(maps, draws=20))
    found = mean_agreements(singles).pair("a", "b").figures["spearman"]
    own = [each.pair("a", "b").figures["spearman"] for each in singles]
    assert found.value == pytest.approx(np.mean([each.value for each in own]))
    assert found.spread == pytest.approx(np.sqrt(sum(each.spread**2 for each in own)) / 40)
    assert found.low < found.value < found.high
    error = np.std([each.value for each in own]) / np.sqrt(40)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert (found.inputs, found.beats_chance) == (40, True)


def test_inputs_without_a_figure_are_counted():
    good = {"a": relevance_map(np.arange(6.0)), "b": relevance_map(np.arange(6.0))}
    few = {"a": relevance_map(np.arange(3.0)), "b": relevance_map(np.arange(3.0))}
    found = mean_agreements([agreements(good), agreements(few), agreements(good)])
    assert (found.inputs, found.pairs[0].figures["spearman"].inputs) == (3, 2)
    assert found.pairs[0].notes == ("1 of 3 inputs have no rank correlation.",)
    with pytest.raises(UsageError, match="at least one input"):
        mean_agreements([])
