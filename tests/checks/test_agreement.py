"""Agreement of two maps: figures against scipy's and counting by hand, chance levels against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.stats import spearmanr

from clearhead import RelevanceMap, Target, Unit
from clearhead.checks import agreement


def made(values, *, special=(), method="rollout", streams=None) -> RelevanceMap:
    units = tuple(
        Unit(index=i, text=str(i), special=i in special, stream=streams[i] if streams else "input")
        for i in range(len(values))
    )
    return RelevanceMap(
        method=method,
        model="toy",
        task="text-classification",
        target=Target(kind="class", label="fine"),
        value=1.0,
        units=units,
        relevance=values,
    )


@examples(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=5, max_size=30))
def test_rank_correlation_is_scipys(pairs):
    first, second = (np.round([pair[n] for pair in pairs], 3) for n in (0, 1))
    found = agreement(made(first), made(second, method="lrp"))
    theirs = second if (first < 0).any() else np.abs(second)
    with np.errstate(all="ignore"), pytest.warns() if len(set(first)) == 1 or len(set(theirs)) == 1 else _quiet():
        expected = spearmanr(first, theirs).statistic
    assert found["spearman"] == (None if np.isnan(expected) else pytest.approx(expected, abs=1e-12))


class _quiet:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def test_a_map_without_sign_is_compared_with_the_size_of_the_other():
    first, second = [5.0, 4, 3, 2, 1, 0], [-5.0, 4, -3, 2, -1, 0]
    assert agreement(made(first), made(second))["spearman"] == pytest.approx(1)
    assert agreement(made([-5.0, 4, 3, 2, 1, 0]), made(second))["spearman"] < 1


def test_special_tokens_do_not_count():
    found = agreement(made([9.0, 1, 2, 3, 4, 5], special=(0,)), made([-9.0, 1, 2, 3, 4, 5], special=(0,)))
    assert (found["spearman"], found["units"]) == (pytest.approx(1), 5)


def test_units_that_only_one_map_has_do_not_count():
    streams = ["input"] * 6 + ["decoder"]
    found = agreement(made(range(6)), made(range(7), streams=streams))
    assert found["units"] == 6


def test_overlap_counts_the_common_top():
    first, second = np.arange(10.0, 0, -1), np.array([10.0, 9, 8, 1, 1, 1, 1, 1, 7, 6])
    found = agreement(made(first), made(second))
    assert (found["top_k"], found["top_k_overlap"], found["chance"]) == (5, pytest.approx(3 / 5), pytest.approx(0.5))


def test_chance_is_what_random_maps_reach():
    draw, rhos, overlaps = np.random.default_rng(0), [], []
    for _ in range(600):
        found = agreement(made(draw.random(20)), made(draw.random(20)))
        rhos.append(found["spearman"])
        overlaps.append(found["top_k_overlap"])
    assert np.mean(np.abs(rhos) > found["spearman_chance"]) == pytest.approx(0.05, abs=0.03)
    assert np.mean(overlaps) == pytest.approx(found["chance"], abs=0.02)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (np.arange(20.0), "agrees"),
        (np.arange(20.0)[::-1], "no better than chance"),
        (np.where(np.arange(20) % 2, np.arange(20), 10.0), "agrees"),
        (np.ones(20), "no better than chance"),
        ([1.0, 2, 3], "too few units to say"),
    ],
)
def test_the_verdict_in_words(values, verdict):
    other = np.arange(float(len(values)))
    assert agreement(made(values), made(other), "Mind.")["verdict"] == verdict


def test_weakly_related_lies_between_chance_and_agreement():
    draw = np.random.default_rng(3)
    other = np.arange(60.0)
    found = agreement(made(other + draw.normal(0, 40, 60) + 100), made(other), "Mind.")
    assert found["spearman_chance"] < found["spearman"] < 0.5
    assert (found["verdict"], found["sentence"], found["against"]) == ("weakly related", "Mind.", "rollout")
