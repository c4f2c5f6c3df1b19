"""Intervals, paired tests and Holm's correction: against scipy's, direct formulas and repeated samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm, wilcoxon

from clearhead.checks import samples
from clearhead.checks.samples import averaged, finite, holm, paired, resampled
from clearhead.errors import NonFiniteError
from clearhead.validations import Figure


def test_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).exponential(size=60)
    found = averaged([Figure(value=float(each)) for each in values], rounds=20_000)
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=0.01)


def test_the_interval_holds_the_mean_nineteen_times_of_twenty():
    draw, held = np.random.default_rng(1), []
    for n in range(300):
        found = averaged([Figure(value=float(each)) for each in draw.normal(2, 1, 50)], rounds=400, seed=n)
        held.append(found.low <= 2 <= found.high)
    assert np.mean(held) == pytest.approx(0.94, abs=0.035)


def test_parts_are_resampled_like_the_whole(monkeypatch):
    values = np.random.default_rng(2).normal(size=30)
    monkeypatch.setattr(samples, "AT_ONCE", 100)
    found = resampled(values, rounds=2000)
    assert found.shape == (2000,)
    assert found.std() == pytest.approx(values.std() / np.sqrt(30), rel=0.1)


def test_one_input_has_no_interval_and_none_no_mean():
    assert averaged([Figure(value=2.0)]).low is None
    assert averaged([Figure(value=None)]) == Figure(value=None, inputs=0)
    assert averaged([]) == Figure(value=None, inputs=0)


def test_chance_is_unknown_where_one_input_does_not_know_it():
    known = Figure(value=1.0, chance=0.5, spread=0.3)
    assert averaged([known, known]).spread == pytest.approx(0.3 / np.sqrt(2))
    assert averaged([known, Figure(value=1.0)]).chance is None


# ---- tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [6, 20, 80])
def test_signed_ranks_are_scipys(count):
    values = np.random.default_rng(count).normal(0.3, 1, count)
    assert paired(values) == pytest.approx(wilcoxon(values).pvalue)


def test_signed_ranks_of_few_by_every_way_to_turn_signs():
    values = np.array([1.5, -0.5, 2.0, 3.0, 0.7])
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    sums = [np.dot(signs, ranks) for signs in itertools.product((-1, 1), repeat=5)]
    observed = np.dot(np.sign(values), ranks)
    assert paired(values) == pytest.approx(np.mean(np.abs(sums) >= abs(observed)))


def test_no_differences_are_ranked_and_then_left_out():
    values = np.array([0.0] * 9 + [1.0, 2, 3, 4, 5, 6, -7, 8])
    ranks = np.arange(10.0, 18)  # behind the nine that are 0
    z = (ranks.sum() - 16 - ranks.sum() / 2) / np.sqrt((ranks**2).sum() / 4)
    assert paired(values) == pytest.approx(2 * norm.sf(z), rel=1e-6)
    assert paired(values) < paired(values[9:])


@pytest.mark.parametrize("test", ["wilcoxon", "bootstrap"])
def test_no_difference_is_found_once_in_twenty(test):
    draw = np.random.default_rng(8)
    found = [paired(draw.normal(size=25), test, rounds=300, seed=n) for n in range(300)]
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.06, abs=0.035)
    clear = paired(draw.normal(1, 1, 25), test, rounds=300)
    assert clear < 0.01


@pytest.mark.parametrize("test", ["wilcoxon", "bootstrap"])
@pytest.mark.parametrize("values", [[0.0, 0, 0, 0], [1.0], []])
def test_nothing_to_tell_apart_is_p_one(test, values):
    assert paired(np.array(values), test) == 1


@pytest.mark.parametrize("test", ["wilcoxon", "bootstrap"])
def test_ties_and_no_differences_are_counted(test):
    assert 0.05 < paired(np.array([1.0, 1, -1, -1, 0, 0, 2]), test) <= 1
    assert paired(np.array([1.0] * 20 + [0.0] * 3), test) < 0.01


@examples(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_by_its_definition(chance):
    found = holm(chance)
    for i, p in enumerate(chance):
        # Rejected at a level iff every smaller p passes its own step.
        smaller = sorted(chance)[: sorted(chance).index(p) + 1]
        expected = max(min(1.0, (len(chance) - n) * each) for n, each in enumerate(smaller))
        assert found[i] >= p
        assert found[i] == pytest.approx(expected)


def test_what_is_not_finite_is_told_with_its_place():
    with pytest.raises(NonFiniteError, match=r"Scores must be finite numbers; found nan at 1 \(2 of 3"):
        finite([1.0, np.nan, np.inf], "Scores")
