"""From maps and a model made up for the purpose to verdicts, tables and files: planted explainers, good and bad."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from checks.made import curved, relevance_map
from clearhead.checks import Choices, evaluation, validation
from clearhead.checks.sanity import other_targets, sanity
from clearhead.errors import NonFiniteError, OutputError, UsageError
from clearhead.validations import Agreements, Evaluation, Thresholds, Validation
from clearhead.validations.plain import built, plain

QUICK = Choices(orders=10, sets=32)


def case(seed: int, units: int = 14):
    """Maps of a model that nearly adds up, the first unit special: perfect, reversed, another way, shares, nothing."""
    draw = np.random.default_rng(seed)
    weights = draw.normal(size=units)
    pairs = 0.05 * draw.normal(size=(units, units))

    def with_special(values, **given):
        return relevance_map([3.0, *values], special=(0,), value=3.0 + float(np.sum(values)), **given)

    def scores(kept):
        assert kept[:, 0].all()  # what is special stays
        return kept[:, 1:] @ weights + ((kept[:, 1:] @ pairs) * kept[:, 1:]).sum(1)

    maps = {
        "perfect": with_special(weights),
        "reversed": with_special(-weights),
        "ig": with_special(weights + draw.normal(0, 0.2, units)),
        "rollout": with_special(draw.random(units), additive=False),
        "constant": with_special(np.ones(units), additive=False),
    }
    return maps, {"mask": scores, "zero": lambda kept: 0.5 * scores(kept)}


def judged(seed: int = 0, units: int = 14, **given) -> Validation:
    maps, scores = case(seed, units)
    blind = sanity("rollout", other_targets(maps["rollout"], {"negative": maps["rollout"]}))
    seeing = sanity("perfect", other_targets(maps["perfect"], {"negative": maps["reversed"]}))
    return validation(maps, scores, against="ig", sanity=[blind, seeing], choices=QUICK, **given)


@pytest.fixture(scope="module")
def one() -> Validation:
    return judged()


@pytest.fixture(scope="module")
def many() -> Evaluation:
    return evaluation([judged(seed, 8 + seed % 5) for seed in range(12)] + [judged(99, 4)], skipped={"too long": 2})


# ---- one prediction ------------------------------------------------------------------------------------------------


def test_planted_explainers_get_what_they_deserve(one):
    assert {each.method: each.word for each in one.verdicts} == {
        "perfect": "trust",
        "reversed": "reject",
        "ig": "trust",
        "rollout": "reject",
        "constant": "reject",
    }
    assert "does not depend on the class" in one.verdict("rollout").evidence
    assert "depends on the class" in one.verdict("perfect").evidence
    assert "no better than a random order" in " ".join(one.verdict("reversed").evidence)
    with pytest.raises(UsageError, match="Did you mean 'rollout'"):
        one.verdict("rolout")


def test_the_same_maps_deserve_less_of_a_model_that_does_not_follow_them():
    maps, _ = case(0)
    whole = curved(5, 15)
    found = validation(maps, {"mask": whole}, choices=QUICK)
    assert found.verdict("perfect").word != "trust"


def test_the_paragraph_and_the_table(one):
    lines = one.paragraph().splitlines()
    assert lines[0].startswith("perfect: conserves to 1e-15, rank agreement 0.96 with ig (chance 0.00 ± ")
    assert lines[3].endswith("do not use it as an explanation of this prediction")
    table = one.table().splitlines()
    assert table[0].split("  ")[0] == "method"
    assert ["dA (mask)" in table[0], "dA (zero)" in table[0], "agrees with ig" in table[0]] == [True] * 3
    assert [line.split("  ")[0] for line in table[1:]] == [*one.methods, "leave-one-out", "random order"]
    cells = [cell for cell in table[1].split("  ") if cell]
    figure = one.faithfulness[0].row("perfect").figures["dA"].value
    assert [each.strip() for each in cells][2] == f"{figure:.2f}"
    detail = one.faithfulness[0].table()
    assert "dA ↑" in detail
    assert "sufficiency ↓" in detail
    assert repr(one).startswith("<Validation of fine = ")


def test_both_ways_of_removing_count(one):
    assert [each.removal for each in one.faithfulness] == ["mask", "zero"]
    full, half = (each.row("perfect").figures["dA"].value for each in one.faithfulness)
    assert half == pytest.approx(full / 2)
    maps, scores = case(0)
    unfair = {"mask": scores["mask"], "zero": lambda kept: -scores["mask"](kept)}
    found = validation(maps, unfair, choices=QUICK)
    assert found.verdict("perfect").word == "reject"


def test_units_may_be_judged_in_part():
    maps, scores = case(0)
    chosen = np.array([False] + [True] * 6 + [False] * 8)
    found = validation(maps, {"mask": scores["mask"]}, judged=chosen, choices=QUICK)
    assert (found.units, found.faithfulness[0].units) == (6, 6)
    with pytest.raises(UsageError, match="a truth for each of 15 units"):
        validation(maps, scores, judged=chosen[1:])


def test_few_units_are_told_and_not_judged():
    found = judged(units=4)
    assert {each.word for each in found.verdicts} == {"unknown"}
    assert (found.faithfulness, found.notes) == ((), ("There are 4 units to judge; below 5 little can be said.",))
    assert "ranks mean little below 5" in " ".join(found.verdict("perfect").reasons)


def test_steadiness_is_in_the_verdict():
    maps, scores = case(0)
    shaking = {"perfect": lambda n: maps["perfect"].relevance[1:] * (-1) ** n}
    found = validation(maps, scores, perturbed=shaking, choices=QUICK)
    assert found.verdict("perfect").word == "care"
    assert "max-sensitivity 2.00" in found.verdict("perfect").evidence
    assert "max-sensitivity" not in found.faithfulness[1].row("perfect").figures


def test_books_that_do_not_balance_are_told():
    maps, scores = case(0)
    maps["perfect"] = replace(maps["perfect"], value=maps["perfect"].value + 1)
    found = validation(maps, scores, choices=QUICK)
    assert found.conservation["perfect"].holds is False
    assert found.verdict("perfect").word == "care"
    assert (
        validation(maps, scores, choices=QUICK, thresholds=Thresholds(conservation=9)).verdict("perfect").word
        == "trust"
    )


def test_what_cannot_be_judged_is_refused():
    maps, scores = case(0)
    with pytest.raises(UsageError, match="found none"):
        validation({})
    with pytest.raises(UsageError, match="Did you mean 'ig'"):
        validation(maps, scores, against="igg")
    with pytest.raises(UsageError, match="same input"):
        validation({**maps, "short": relevance_map(np.ones(9))}, scores)
    broken = replace(maps["ig"], relevance=np.full(15, np.nan))
    with pytest.raises(NonFiniteError, match="Relevances of broken"):
        validation({**maps, "broken": broken}, scores)


# ---- a data set ----------------------------------------------------------------------------------------------------


def test_over_a_data_set(many):
    assert (many.inputs, many.skipped) == (12, {"too long": 2, "fewer than 5 units": 1})
    words = {each.method: each.word for each in many.verdicts}
    assert words == {"perfect": "trust", "reversed": "reject", "ig": "trust", "rollout": "reject", "constant": "reject"}
    said = many.paragraph().splitlines()
    assert said[0] == "12 inputs."
    assert said[4].endswith("do not use it as an explanation of this model's predictions")
    assert said[-2:] == ["2 inputs skipped: too long.", "1 inputs skipped: fewer than 5 units."]
    figure = many.faithfulness[0].row("perfect").figures["dA"]
    assert f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})" in many.table()
    assert (many.conservation["perfect"].balanced, many.conservation["perfect"].inputs) == (12, 12)
    assert {each.method: each.inputs for each in many.sanity} == {"rollout": 12, "perfect": 12}


def test_paired_tests_are_part_of_it(many):
    assert len(many.contests) == 2 * 7 * 6 / 2  # ways of removing, pairs of rows
    found = next(each for each in many.contests if (each.first, each.second) == ("perfect", "rollout"))
    assert (found.removal, found.test) == ("mask", "wilcoxon")
    assert found.adjusted < 0.05
    assert "perfect – rollout" in many.contests_table()


def test_the_books_of_many_are_the_worst_of_them(one):
    worse = replace(one, conservation={"perfect": replace(one.conservation["perfect"], error=0.3, balanced=0)})
    found = evaluation([one, worse, one])
    books = found.conservation["perfect"]
    assert (books.error, books.balanced, books.inputs, books.holds) == (0.3, 2, 3, False)
    assert "does not conserve (3e-1) on 1 of 3 inputs" in found.verdict("perfect").evidence


def test_an_evaluation_of_nothing_is_refused(one):
    with pytest.raises(UsageError, match="1 skipped: fewer than 5 units"):
        evaluation([judged(units=3)])
    with pytest.raises(UsageError, match="`metric` must be one of"):
        evaluation([one], metrics=["accuracy"])


def test_methods_that_some_inputs_lack_count_where_they_are():
    first, second = judged(0), judged(1)
    maps, scores = case(2)
    third = validation({"perfect": maps["perfect"]}, scores, choices=QUICK)
    found = evaluation([first, second, third])
    row = {name: found.faithfulness[0].row(name).figures["dA"].inputs for name in ("perfect", "rollout")}
    assert row == {"perfect": 3, "rollout": 2}


# ---- leaving and coming back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["one", "many"])
def test_saved_and_read_they_are_the_same(which, request, tmp_path):
    found = request.getfixturevalue(which)
    back = type(found).load(found.save(tmp_path / "found.json"))
    assert json.dumps(back.to_dict()) == json.dumps(found.to_dict())
    assert back.table() == found.table()
    assert back.verdicts == found.verdicts
    assert back.agreement == found.agreement
    assert back.faithfulness[0].rows[0].curves[0].area == found.faithfulness[0].rows[0].curves[0].area
    assert [each.name for each in tmp_path.iterdir()] == ["found.json"]


def test_other_files_are_refused(one, many, tmp_path):
    with pytest.raises(UsageError, match="must end in one of"):
        one.save(tmp_path / "found.txt")
    with pytest.raises(OutputError, match="Make it first"):
        one.save(tmp_path / "missing" / "found.json")
    with pytest.raises(UsageError, match="kind 'validation'; found 'evaluation'"):
        Validation.from_dict(many.to_dict())
    with pytest.raises(UsageError, match="reads schema 1; found 2"):
        Validation.from_dict({**one.to_dict(), "schema": 2})
    with pytest.raises(OutputError, match="cannot be read"):
        Evaluation.load(tmp_path / "nothing.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(OutputError, match="not a saved evaluation"):
        Evaluation.load(tmp_path / "list.json")


def _spoilt(data, path, value):
    at = data
    for key in path[:-1]:
        at = at[key]
    if value is _spoilt:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("methods",), "lrp"),
        (("verdicts", 0, "word"), "believe"),
        (("verdicts", 0), 3),
        (("faithfulness", 0, "rows", 0, "figures", "dA", "value"), "much"),
        (("units",), "many"),
        (("units",), _spoilt),
        (("extra",), 1),
    ],
)
def test_damaged_files_are_refused(one, tmp_path, path, value):
    file = tmp_path / "found.json"
    file.write_text(json.dumps(_spoilt(one.to_dict(), path, value)))
    with pytest.raises(OutputError, match="is not a saved validation"):
        Validation.load(file)


def test_what_is_not_finite_is_null():
    found = plain(np.array([1.0, np.inf, np.nan]))
    assert found == [1.0, None, None]
    assert json.loads(json.dumps(plain({"a": (np.float64(1.5), np.int64(2), float("nan"))}))) == {"a": [1.5, 2, None]}
    with pytest.raises(TypeError, match="a list was expected"):
        built(Agreements, {"methods": "lrp", "pairs": []})


def test_results_are_frozen(one):
    with pytest.raises(AttributeError):
        one.value = 2.0
