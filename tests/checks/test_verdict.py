"""The rules of a verdict, each at its edge, and what it says in words."""

from __future__ import annotations

import math

import pytest

from clearhead.checks.verdict import Evidence, Removed, judge
from clearhead.errors import UsageError
from clearhead.validations import Conservation, Figure, Finding, Thresholds


def spread(value, *, best=4.0, low=None, removal="[MASK]") -> Removed:
    figure = Figure(value=value, chance=0.0, spread=0.5 / Thresholds().random, low=low)
    return Removed(removal=removal, spread=figure, best=best)


def agrees(value, high=0.4) -> Figure:
    return Figure(value=value, chance=0.0, spread=high / 2, chance_low=-high, chance_high=high)


def evidence(**given) -> Evidence:
    return Evidence(**{"method": "lrp", "units": 20, "removed": (spread(4.0),), "against": "IG", **given})


def word(**given) -> str:
    return judge(evidence(**given)).word


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "trust"),
        ({"removed": ()}, "unknown"),
        ({"removed": (spread(None),)}, "unknown"),
        # units
        ({"units": 5}, "trust"),
        ({"units": 4}, "unknown"),
        # share of the best
        ({"removed": (spread(2.0),)}, "trust"),
        ({"removed": (spread(1.999),)}, "care"),
        ({"removed": (spread(1.0),)}, "care"),
        ({"removed": (spread(0.999),)}, "reject"),
        ({"removed": (spread(4.0), spread(1.9, removal="zero"))}, "care"),
        ({"removed": (spread(4.0), spread(0.9, removal="zero"))}, "reject"),
        ({"removed": (spread(4.0), spread(None, removal="zero"))}, "trust"),
        # random orders
        ({"removed": (spread(0.0, best=None),)}, "reject"),
        ({"removed": (spread(-1.0, best=-0.5),)}, "reject"),
        ({"removed": (spread(0.5, best=0.6),)}, "care"),
        ({"removed": (spread(0.501, best=0.6),)}, "trust"),
        ({"removed": (spread(3.5, low=0.4),)}, "care"),
        ({"removed": (Removed(removal="zero", spread=Figure(value=3.5), best=4.0),)}, "trust"),
        ({"removed": (spread(3.5, low=0.6),)}, "trust"),
        # books
        ({"conservation": Conservation(additive=True, error=1e-7, balanced=1)}, "trust"),
        ({"conservation": Conservation(additive=True, error=0.1, balanced=0)}, "care"),
        ({"conservation": Conservation(additive=True, error=0.1, balanced=8, inputs=9)}, "care"),
        ({"conservation": Conservation(additive=False, error=None, balanced=0)}, "trust"),
        # agreement
        ({"agreement": agrees(0.5)}, "trust"),
        ({"agreement": agrees(0.499)}, "care"),
        ({"agreement": agrees(0.6, high=0.6)}, "care"),
        ({"agreement": Figure(value=None)}, "trust"),
        # steadiness
        ({"sensitivity": 0.999}, "trust"),
        ({"sensitivity": 1.0}, "care"),
        # sanity
        ({"findings": (Finding(question="class", similarity=0.1, bound=0.9, depends=True),)}, "trust"),
        ({"findings": (Finding(question="class", similarity=None, bound=None, depends=None),)}, "trust"),
        *(
            ({"findings": (Finding(question=question, similarity=1.0, bound=0.9, depends=False),)}, "reject")
            for question in ("weights", "class", "input")
        ),
        # the worst counts
        ({"agreement": agrees(0.1), "removed": (spread(0.1),)}, "reject"),
        ({"agreement": agrees(0.1), "removed": ()}, "unknown"),
        ({"removed": (), "findings": (Finding(question="class", similarity=1.0, bound=0.9, depends=False),)}, "reject"),
    ],
)
def test_every_rule_at_its_edge(given, expected):
    assert word(**given) == expected


@pytest.mark.parametrize(
    ("threshold", "given"),
    [
        ({"fewest_units": 21}, {}),
        ({"faithful": 0.9}, {"removed": (spread(3.5),)}),
        ({"unfaithful": 0.5}, {"removed": (spread(1.5),)}),
        ({"agrees": 0.8}, {"agreement": agrees(0.7)}),
        ({"steady": 0.1}, {"sensitivity": 0.2}),
        ({"random": 2.0}, {"removed": (spread(0.6, best=0.7),)}),
    ],
)
def test_every_threshold_moves_its_rule(threshold, given):
    assert judge(evidence(**given), Thresholds(**threshold)).word != judge(evidence(**given)).word


def test_the_paragraph_of_the_issue():
    blind = Finding(question="class", similarity=1.0, bound=0.9, depends=False)
    found = judge(
        Evidence(
            method="rollout",
            units=20,
            agreement=Figure(value=0.16, chance=0.0, chance_low=-0.05, chance_high=0.05),
            against="integrated gradients",
            removed=(spread(1.94, best=5.84),),
            findings=(blind,),
        )
    )
    assert str(found) == (
        "rollout: rank agreement 0.16 with integrated gradients (chance 0.00 ± 0.05), dA 1.9 of 5.8, does not depend "
        "on the class: do not use it as an explanation of this prediction"
    )


def test_what_is_trusted_says_what_was_not_checked():
    books = Conservation(additive=True, error=2.1e-7, balanced=1)
    seen = Finding(question="weights", similarity=0.1, bound=0.5, depends=True)
    found = judge(evidence(conservation=books, findings=(seen,)))
    assert str(found) == (
        "lrp: conserves to 2e-7, dA 4.0 of 4.0, depends on the weights: trust (not checked: dependence on the class "
        "and the input)"
    )
    broken = judge(evidence(conservation=Conservation(additive=True, error=None, balanced=3, inputs=9)))
    assert "does not conserve (an infinite error) on 6 of 9 inputs" in broken.evidence
    assert broken.reasons == ("its relevance does not add up to the explained value within 1e-4",)


def test_reasons_are_told_for_each_way_of_removing():
    found = judge(evidence(removed=(spread(-0.1), spread(0.45, best=0.5, removal="zero"))))
    assert found.reasons == (
        "removed by [MASK], its order of units is no better than a random one",
        "removed by zero, its dA is within what random orders reach",
    )
    assert found.evidence == (
        "dA -0.10 of 4.0 ([MASK]; no better than a random order)",
        "dA 0.45 of 0.50 (zero; within what random orders reach)",
    )


@pytest.mark.parametrize("bad", [math.nan, -0.1, "0.5", None, True])
def test_thresholds_out_of_range_are_refused(bad):
    with pytest.raises(UsageError, match=r"`agrees` must be a number from 0 on.*rank correlation"):
        Thresholds(agrees=bad)


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(UsageError, match="Swap them"):
        Thresholds(faithful=0.2, unfaithful=0.3)
    assert set(Thresholds.meanings()) == set(vars(Thresholds()))
