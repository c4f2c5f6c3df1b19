"""Validations of real predictions: every figure again by plain forward passes, ranks and sums."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from clearhead import AttentionVisualizer
from clearhead.checks import Choices
from clearhead.errors import ClearheadError, UsageError
from clearhead.validations import Evaluation, Validation
from tasks.gallery import exact, gallery, names, picture
from tasks.plainly import door

TEXT = "a gripping , beautiful film that is a bad one"
POINTS = 5
QUICK = {"choices": Choices(points=POINTS, orders=3, steps=0, sets=16), "sanity": False}
TESTED = {"choices": Choices(points=POINTS, orders=3, steps=0, sets=16, near=2)}
METHODS = ["lrp", "secant", "rollout"]
BERT = "text-classification/bert"


@cache
def found() -> tuple[AttentionVisualizer, Validation]:
    one = exact(BERT)
    av = AttentionVisualizer(one.model, one.processor)
    return av, av.validate(TEXT, METHODS, removals=["mask", "attention-mask"], **QUICK)


def curve(relevance: NDArray[np.float64], value: Any, *, most: bool) -> float:
    """The area under the value as units go, recomputed from the definition."""
    order = np.argsort(-relevance if most else relevance, kind="stable")
    counts = [round(share * len(order)) for share in np.linspace(0, 1, POINTS)]
    values = [value(set(order[:count].tolist())) for count in counts]
    return float(np.trapezoid(values, np.array(counts) / len(order)))


@pytest.mark.parametrize(("number", "removal"), [(0, "mask"), (1, "attention-mask")])
@pytest.mark.parametrize("method", METHODS)
def test_faithfulness_is_that_of_plain_forward_passes(method: str, number: int, removal: str) -> None:
    av, judged = found()
    one = exact(BERT)
    encoded = dict(one.tokenizer(TEXT, return_tensors="pt"))
    target = judged.target.index

    def value(gone: set[int]) -> float:
        tensors = {name: each.clone() for name, each in encoded.items()}
        for unit in gone:
            if removal == "mask":
                tensors["input_ids"][0, 1 + unit] = one.tokenizer.mask_token_id
            else:
                tensors["attention_mask"][0, 1 + unit] = 0
        with torch.no_grad():
            logits = one.model(**tensors).logits[0]
        return float(logits[target] - logits[1 - target])

    relevance = av.explain(TEXT, method=method, cross_check=False).relevance[1:-1]  # no [CLS], no [SEP]
    row = next(row for row in judged.faithfulness[number].rows if row.method == method)
    expected = curve(relevance, value, most=False) - curve(relevance, value, most=True)
    assert row.figures["dA"].value == pytest.approx(expected, abs=1e-6)
    assert judged.faithfulness[number].full == pytest.approx(value(set()), abs=1e-6)


def test_agreement_is_that_of_the_maps() -> None:
    av, judged = found()
    maps = {name: av.explain(TEXT, method=name, cross_check=False).relevance[1:-1] for name in METHODS}
    pair = judged.agreement.pair("lrp", "secant")
    assert pair.figures["spearman"].value == pytest.approx(stats.spearmanr(maps["lrp"], maps["secant"])[0])
    assert "sign" not in judged.agreement.pair("rollout", "lrp").figures
    assert judged.against == "secant"


def test_the_default_judges_five_methods_and_removes_in_two_ways() -> None:
    judged = door(BERT).validate(TEXT, **QUICK)
    assert judged.methods == ("lrp", "secant", "integrated-gradients", "gradient-attention", "rollout")
    assert [each.removal for each in judged.faithfulness] == [
        "every token [MASK]",
        "every token hidden by the attention mask",
    ]
    assert {each.method for each in judged.verdicts} == set(judged.methods)
    assert "integrated-gradients" in str(judged.verdict("lrp"))


@pytest.mark.parametrize("name", names())
def test_every_kind_of_model_is_judged(name: str) -> None:
    one = gallery(name)
    given = {"generate": 3} if one.task == "causal-lm" else {}
    judged = door(name).validate(one.inputs[0], ["lrp", "secant"], **TESTED, **given)
    assert judged.units >= 1
    assert len(judged.verdicts) == 2
    if judged.units >= 5:
        assert len(judged.faithfulness) == 2
        assert all(np.isfinite(row.figures["dA"].value or 0) for each in judged.faithfulness for row in each.rows)
    assert Validation.from_dict(judged.to_dict()).paragraph() == judged.paragraph()


def test_presets_and_names_of_ones_own_are_judged_side_by_side() -> None:
    judged = door(BERT).validate(TEXT, ["lrp", "lrp:attnlrp"], **QUICK)
    named = {"mine": {"method": "lrp"}, "theirs": {"method": "lrp", "preset": "attnlrp"}}
    other = door(BERT).validate(TEXT, named, **QUICK)
    for one, same in (("lrp", "mine"), ("lrp:attnlrp", "theirs")):
        mine, theirs = (
            [row.figures["dA"].value for each in v.faithfulness for row in each.rows if row.method == name]
            for v, name in ((judged, one), (other, same))
        )
        assert mine == theirs
    assert judged.agreement.pair("lrp", "lrp:attnlrp").figures["spearman"].value != 1.0


def test_a_reversed_explanation_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that gives every unit the opposite of its secant is not to be used."""
    from dataclasses import replace

    from clearhead import methods

    row = methods.METHODS["secant"]

    def reversed_(question: Any, settings: Any) -> Any:
        for i, each in row.function(question, settings):
            yield i, replace(each, relevance=-each.relevance)

    monkeypatch.setitem(methods.METHODS, "deeplift", replace(row, function=reversed_))
    av = AttentionVisualizer.from_pretrained("clearhead/sentiment")
    judged = av.validate(
        "a gripping , beautiful film that never loses its sense of fun .", ["secant", "deeplift"], removals=["mask"]
    )
    assert judged.verdict("secant").word != "reject"
    assert judged.verdict("deeplift").word == "reject"
    agreed = judged.agreement.pair("secant", "deeplift").figures["spearman"].value
    assert agreed == pytest.approx(-1.0)


# ---- a data set ----------------------------------------------------------------------------------------------------


def test_an_evaluation_is_the_mean_of_validations() -> None:
    texts = [TEXT, "this was not a good film , and it is a bad one !", "the capital of france is paris"]
    av = door(BERT)
    whole = av.evaluate([*texts, "film"], METHODS, removals=["mask"], **QUICK)
    each = [av.validate(text, METHODS, removals=["mask"], **QUICK) for text in texts]
    assert whole.inputs == 3
    assert sum(whole.skipped.values()) == 1
    for row in whole.faithfulness[0].rows:
        values = [
            next(r for r in one.faithfulness[0].rows if r.method == row.method).figures["dA"].value for one in each
        ]
        assert row.figures["dA"].value == pytest.approx(np.mean(values))
    assert Evaluation.from_dict(whole.to_dict()).paragraph() == whole.paragraph()
    assert av.evaluate(texts, METHODS, removals=["mask"], **QUICK, limit=1).inputs == 1


def test_a_bad_input_is_skipped_and_counted() -> None:
    found = door(BERT).evaluate([TEXT, "", " ".join(["film"] * 100)], ["lrp"], removals=["mask"], **QUICK)
    assert found.inputs == 1
    assert sum(found.skipped.values()) == 2


def test_evaluation_reads_files(tmp_path: Any) -> None:
    file = tmp_path / "texts.txt"
    file.write_text(f"{TEXT}\n{TEXT} !\n", encoding="utf-8")
    assert door(BERT).evaluate(file, ["lrp"], removals=["mask"], **QUICK).inputs == 2


# ---- wrong input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"methods": ["lrpp"]}, "Did you mean 'lrp'"),
        ({"methods": []}, "found none"),
        ({"methods": ["lrp", "lrp"]}, "named twice"),
        ({"methods": ["lrp:nonsense"]}, "preset"),
        ({"methods": [3]}, "named by words"),
        ({"method": "lrp"}, "Name them in `methods`"),
        ({"removals": ["maskk"]}, "Did you mean 'mask'"),
        ({"removals": []}, "found none"),
        ({"removals": ["blur"]}, "mask, pad, zero, mean"),
        ({"against": "secannt", "methods": METHODS}, "Did you mean 'secant'"),
        ({"thresholds": {"agree": 1}}, "Did you mean 'agrees'"),
        ({"thresholds": {"agrees": -1}}, "from 0 on"),
        ({"colour": "red"}, "no setting"),
    ],
)
def test_what_means_nothing_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        door(BERT).validate(TEXT, **asked)
    assert said in str(error.value)


def test_a_method_that_cannot_do_it_is_named_with_others() -> None:
    one = AttentionVisualizer(torch.nn.Linear(6, 2))
    given = {"input": torch.randn(1, 6)}
    with pytest.raises(ClearheadError, match=r"rollout cannot explain this.*Other methods are lrp, secant"):
        one.validate(given, ["lrp", "rollout"], **QUICK, target=0)
    judged = one.validate(given, **QUICK, target=0)
    assert judged.methods == ("lrp", "secant", "integrated-gradients")
    assert any("rollout was left out" in note for note in judged.notes)


def test_a_removal_that_cannot_be_is_named_with_others() -> None:
    one = gallery("image-classification/vit")
    with pytest.raises(UsageError, match="blur"):
        door(one.name).validate(picture(), ["lrp"], removals=["attention-mask"], **QUICK)


def test_few_units_say_little() -> None:
    judged = door(BERT).validate("a film", ["lrp", "secant"], **QUICK)
    assert {each.word for each in judged.verdicts} == {"unknown"}
    assert "below 5" in judged.paragraph()


def test_one_prediction_at_a_time() -> None:
    one = AttentionVisualizer(torch.nn.Linear(6, 2))
    with pytest.raises(UsageError, match="evaluate"):
        one.validate({"input": torch.randn(2, 6)}, ["lrp"], target=0)


def test_thresholds_of_a_file_turn_verdicts(tmp_path: Any) -> None:
    file = tmp_path / "clearhead.toml"
    file.write_text("[clearhead]\nepsilon = 0.02\n[clearhead.thresholds]\nfewest_units = 40\n", encoding="utf-8")
    judged = door(BERT).validate(TEXT, ["lrp"], **QUICK, config=file)
    assert judged.thresholds.fewest_units == 40
    assert judged.verdict("lrp").word == "unknown"
    assert door(BERT).validate(TEXT, ["lrp"], **QUICK, thresholds={"fewest_units": 2}).thresholds.fewest_units == 2
