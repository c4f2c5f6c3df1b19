"""What every map of an attribution is: its books, its units on every task, and the same alone as in a list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer, FeatureAttributor, GenerationMap, Settings
from clearhead.attribution import MEANINGS, gradients
from clearhead.errors import ModelError, NonFiniteError, UsageError
from clearhead.methods import METHODS
from clearhead.subjects import COMPARING, REMOVING
from tasks.gallery import gallery, names
from tasks.plainly import asked, door, options, rows_of
from weighted import Weighted

BERT, GPT2, VIT, BART = "text-classification/bert", "causal-lm/gpt2", "image-classification/vit", "encoder-decoder/bart"
EACH_TASK = [
    BERT,
    GPT2,
    VIT,
    BART,
    "masked-lm/bert-filler",
    "sentence-similarity/bert-embedder",
    "image-text-similarity/clip",
    *names("token-classification")[:1],
    *names("question-answering")[:1],
]
APPLY = [name for name in MEANINGS if name != "deeplift"]
SUMS = [name for name in APPLY if name not in ("saliency", "input-x-gradient", "lime", "occlusion")]
FEW = {"gradient-shap": 10, "kernel-shap": 40, "shapley-sampling": 2, "lime": 40, "partition-shap": 40}


def explained(name: str, method: str, inputs: Any = None, **wanted: Any) -> Any:
    one = gallery(name)
    few = {"samples": FEW[method]} if method in FEW else {}
    given = one.inputs[0] if inputs is None else inputs
    return FeatureAttributor(door(name)).attribute(given, method, **{**few, **options(one.task), **wanted})


# ---- every task ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", APPLY)
@pytest.mark.parametrize("name", EACH_TASK)
def test_every_method_answers_every_task(name: str, method: str) -> None:
    """The value, target and units of lrp, learned vectors left out; the books close; special tokens have nothing."""
    found, others = rows_of(explained(name, method)), rows_of(asked(name))
    assert isinstance(explained(name, "occlusion"), GenerationMap) == isinstance(asked(name), GenerationMap)
    assert len(found) == len(others)
    for row, other in zip(found, others, strict=True):
        assert (row.method, row.target, row.task) == (method, other.target, other.task)
        assert row.value == pytest.approx(other.value, rel=1e-4, abs=2e-5)
        assert row.units == other.units[: len(row.units)]
        assert all(unit.special for unit in other.units[len(row.units) :])
        assert np.isfinite(row.relevance).all()
        assert row.relevance.any()
        assert row.notes
        assert row.additive == (method in SUMS)
        assert row.recipe.settings["method"] == method
        assert ("shap" if method == "partition-shap" else "captum") in row.recipe.versions
        if row.additive:
            assert row.residual < 1e-6 / min(1.0, abs(row.value))
            assert {entry.cause for entry in row.ledger} <= {"completeness"}
        if method in COMPARING:
            special = [i for i, unit in enumerate(row.units) if unit.special]
            assert not row.relevance[special].any()
            assert any(note.startswith("Compared with ") for note in row.notes)


@pytest.mark.parametrize("name", names())
def test_integrated_gradients_are_complete_or_say_so_and_begin_where_secants_do(name: str) -> None:
    mine = rows_of(explained(name, "integrated-gradients", baseline="zero"))
    theirs = rows_of(
        door(name).explain(gallery(name).inputs[0], method="secant", baseline="zero", **options(gallery(name).task))
    )
    for row, other in zip(mine, theirs, strict=True):
        difference = row.value - row.base_value
        assert row.base_value == pytest.approx(other.base_value, rel=1e-4, abs=1e-4)
        gap = abs(difference - row.relevance.sum())
        complete = gap <= max(0.01 * abs(difference), 1e-6 * np.abs(row.relevance).sum())
        assert complete != any("leave" in warning and "method='secant'" in warning for warning in row.warnings)
        assert complete or name == "causal-lm/qwen-writer"  # its norms jump at the zero vector


@pytest.mark.parametrize("method", SUMS)
def test_what_was_not_there_yet_has_no_part(method: str) -> None:
    found = explained(GPT2, method, "Two young people are", generate=3)
    assert isinstance(found, GenerationMap)
    lengths = [len(row.units) for row in found]
    assert lengths == [lengths[0], lengths[0] + 1, lengths[0] + 2]


@pytest.mark.parametrize("method", APPLY)
@pytest.mark.parametrize("name", [BERT, GPT2, VIT, BART])
def test_a_list_gives_what_each_input_gives_alone(name: str, method: str) -> None:
    inputs = list(gallery(name).inputs[: 2 if name == BART else 3])
    few = {"steps": 8} if method == "integrated-gradients" else {}
    for one, found in zip(inputs, explained(name, method, inputs, **few), strict=True):
        for row, alone in zip(rows_of(found), rows_of(explained(name, method, one, **few)), strict=True):
            np.testing.assert_allclose(row.relevance, alone.relevance, rtol=1e-5, atol=1e-6)
            assert (row.units, row.notes, row.warnings) == (alone.units, alone.notes, alone.warnings)


@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion", "kernel-shap"])
def test_rows_of_tensors_are_explained_one_by_one(method: str) -> None:
    ids = torch.tensor([[2, 9, 11, 12, 3], [2, 13, 9, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    av = AttentionVisualizer(gallery(BERT).model)
    both = av.explain({"input_ids": ids, "attention_mask": mask}, method=method, baseline="zero")
    alone = av.explain({"input_ids": ids[1:, :4], "attention_mask": mask[1:, :4]}, method=method, baseline="zero")
    assert len(both[1].units) == 4
    np.testing.assert_allclose(both[1].relevance, alone.relevance, rtol=1e-4, atol=1e-5)


def test_several_baselines_are_averaged() -> None:
    for method in ("integrated-gradients", "occlusion", "kernel-shap"):
        both = explained(BERT, method, baseline=["mask", "zero"])
        each = [explained(BERT, method, baseline=word) for word in ("mask", "zero")]
        np.testing.assert_allclose(both.relevance, np.mean([r.relevance for r in each], 0), atol=1e-6)
        assert both.base_value == pytest.approx(np.mean([r.base_value for r in each]), abs=1e-6)
        assert "The mean of 2 comparisons: with every token [MASK]; the zero vector for every token." in both.notes


# ---- the models in the box -----------------------------------------------------------------------------------------


def test_on_real_sentences_twenty_steps_are_complete_or_more_are_taken(sst2: list[str]) -> None:
    av = AttentionVisualizer.from_pretrained("clearhead/sentiment")
    found = av.explain(sst2[:6], method="integrated-gradients")
    for r in found:
        assert abs(r.sinks) <= 0.01 * abs(r.value - r.base_value)
    assert len({next(note for note in r.notes if "steps" in note) for r in found}) > 1, "some needed more than others"


@pytest.mark.parametrize("method", ["integrated-gradients", "shapley-sampling", "partition-shap"])
def test_digits_and_translations_add_up(method: str) -> None:
    from bench.tasks import held_out

    digits = FeatureAttributor(AttentionVisualizer.from_pretrained("clearhead/digits"))
    few = {"samples": 60 if method == "partition-shap" else 2} if method in FEW else {}
    r = digits.attribute(held_out()[0][0], method, **few)
    assert len(r.units) == len([unit for unit in r.units if unit.box])
    assert r.base_value + r.relevance.sum() == pytest.approx(r.value, abs=0.01 * abs(r.value - r.base_value) + 1e-5)
    translate = FeatureAttributor(AttentionVisualizer.from_pretrained("clearhead/translate"))
    found = translate.attribute("Two dogs play.", method, continuation="Zwei", **few)
    for row in found:
        difference = row.value - row.base_value
        assert row.base_value + row.relevance.sum() == pytest.approx(row.value, abs=0.01 * abs(difference) + 1e-5)
    streams = {unit.stream for unit, r in zip(row.units, row.relevance, strict=True) if r}
    assert streams == {"encoder", "decoder"}


# ---- steps, draws and memory ---------------------------------------------------------------------------------------


class Steep(Weighted):
    """A step that few points on the way see."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(60 * (x.sum(1, keepdim=True) - 1.45))


def test_steps_are_doubled_until_it_is_complete() -> None:
    attributor = FeatureAttributor(AttentionVisualizer(Steep()))
    x = {"x": torch.tensor([[1.0, 2.0]])}
    r = attributor.attribute(x, "integrated-gradients", baseline="zero", target=0)
    steps = int(next(note for note in r.notes if "steps" in note).split()[0])
    assert steps in (40, 80, 160, 320)
    assert abs(r.sinks) <= 0.01 * abs(r.value - r.base_value)
    half = attributor.attribute(x, "integrated-gradients", baseline="zero", target=0, steps=steps // 2)
    assert abs(half.sinks) > 0.01 * abs(r.value - r.base_value)
    assert any("leave" in warning and "Take more of them" in warning for warning in half.warnings)
    assert half.residual < 1e-6, "what is missing stands in the ledger"


def test_where_no_steps_suffice_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "MOST", 20)
    attributor = FeatureAttributor(AttentionVisualizer(Steep()))
    r = attributor.attribute({"x": torch.tensor([[1.0, 2.0]])}, "integrated-gradients", baseline="zero", target=0)
    assert any("after 20 steps. method='secant' leaves nothing over." in warning for warning in r.warnings)


def test_memory_that_does_not_suffice_takes_fewer_points_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = nn.Linear(3, 2), []

    class Small(Weighted):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            if len(x) > 5:
                raise RuntimeError("not enough memory: you tried to allocate 1 byte")
            return model(x) ** 3

    usual = FeatureAttributor(AttentionVisualizer(Cube(model)))
    small = FeatureAttributor(AttentionVisualizer(Small()))
    for method in ("integrated-gradients", "kernel-shap"):
        found, expected = (
            each.attribute({"x": torch.tensor([[1.0, 2.0, 3.0]])}, method, baseline="zero", target=0)
            for each in (small, usual)
        )
        np.testing.assert_allclose(found.relevance, expected.relevance, rtol=1e-5)
        assert max(sizes) > 5
        sizes.clear()
        if method == "integrated-gradients":
            assert any("Memory ran out with 16 rows at a time; 4 were taken." in warning for warning in found.warnings)


class Cube(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x) ** 3


@pytest.mark.parametrize("method", APPLY)
def test_inference_mode_of_the_caller_does_not_matter(method: str) -> None:
    usual = explained(BERT, method).relevance
    with torch.inference_mode():
        np.testing.assert_array_equal(explained(BERT, method).relevance, usual)


@pytest.mark.parametrize("method", ["integrated-gradients", "gradient-shap", "kernel-shap", "saliency"])
def test_a_target_function_takes_one_output_at_a_time(method: str) -> None:
    def second(output: Any) -> torch.Tensor:
        assert len(output.logits) == 1
        return output.logits[0, 1]

    r = explained(BERT, method, target=second)
    assert r.target.kind == "callable"
    assert r.relevance.any()


# ---- removing in other ways ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", ["attention-mask", "delete"])
@pytest.mark.parametrize("method", REMOVING)
def test_units_are_hidden_or_left_out(method: str, baseline: str) -> None:
    r = explained(BERT, method, baseline=baseline)
    removal = FeatureAttributor(door(BERT)).removal(gallery(BERT).inputs[0], baseline)
    assert r.base_value == pytest.approx(removal.base_value, abs=1e-6)
    said = {"attention-mask": "hidden by the attention mask", "delete": "left out"}[baseline]
    assert f"Compared with every token {said}." in r.notes
    if method == "occlusion":
        keep = ~np.eye(len(r.units), dtype=bool)
        np.testing.assert_allclose(r.relevance, removal.value - removal.scores(keep), atol=1e-5)


# ---- the door ------------------------------------------------------------------------------------------------------


def test_the_methods_are_those_of_the_table() -> None:
    methods = FeatureAttributor(door(BERT)).methods
    assert set(methods) < set(METHODS)
    assert set(METHODS) - set(methods) == {
        "lrp", "secant", "attention", "rollout", "flow", "gradient-attention", "value-zeroing", "gradcam",
    }  # fmt: skip
    assert all(methods.values())


def test_integrated_gradients_are_the_default() -> None:
    found = FeatureAttributor(door(BERT)).attribute("a film")
    np.testing.assert_array_equal(
        found.relevance, door(BERT).explain("a film", method="integrated-gradients").relevance
    )


def test_a_removal_knows_the_target_and_produced_tokens() -> None:
    attributor = FeatureAttributor(door(BART))
    row = rows_of(asked(BART))[2]
    removal = attributor.removal(gallery(BART).inputs[0], "mask", aim=2, **options("encoder-decoder"))
    assert removal.value == pytest.approx(row.value, abs=1e-5)


# ---- what cannot be ------------------------------------------------------------------------------------------------


def refused(match: str, method: str, inputs: Any = "a film", name: str = BERT, **wanted: Any) -> None:
    with pytest.raises(UsageError, match=match):
        FeatureAttributor(door(name)).attribute(inputs, method, **wanted)


def test_another_method_is_no_attribution() -> None:
    refused(r"`method` must be one of integrated-gradients, .*; found 'rollout'", "rollout")
    refused(r"found 'kernelshap'\. Did you mean 'kernel-shap'\?", "kernelshap")


@pytest.mark.parametrize("method", [name for name in APPLY if name not in REMOVING])
@pytest.mark.parametrize("baseline", ["attention-mask", "delete"])
def test_without_a_baseline_there_is_no_path(method: str, baseline: str) -> None:
    said = "compares with nothing" if method not in COMPARING else f"'{baseline}' puts nothing in the place of a token"
    refused(rf"{said}.*kernel-shap", method, baseline=baseline)


def test_the_secant_needs_a_baseline_too() -> None:
    with pytest.raises(UsageError, match="'delete' puts nothing in the place of a token"):
        door(BERT).explain("a film", method="secant", baseline=["mask", "delete"])


@pytest.mark.parametrize("method", ["saliency", "input-x-gradient"])
def test_gradients_at_the_input_take_no_baseline(method: str) -> None:
    refused(rf"The method {method} compares with nothing, and `baseline` was given", method, baseline="zero")


@pytest.mark.parametrize("name", ["steps", "samples", "seed"])
def test_numbers_below_nothing_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"`{name}` must be 0 or larger; found -3\. The default is 0"):
        Settings(**{name: -3})
    with pytest.raises(UsageError, match=rf"`{name}` must be a whole number; found 2\.5"):
        Settings(**{name: 2.5})


def test_settings_of_other_methods_are_refused() -> None:
    refused("The method occlusion does not take `samples`; gradient-shap, kernel-shap", "occlusion", samples=5)
    refused("The method lime does not take `steps`; integrated-gradients do", "lime", steps=5)


@pytest.mark.parametrize("method", ["kernel-shap", "occlusion"])
def test_a_unit_must_be_removable(method: str) -> None:
    refused("A unit must be removable: neither special, nor the same", method, baseline={"input_ids": encoded()})


def encoded() -> torch.Tensor:
    return gallery(BERT).tokenizer("a film", return_tensors="pt").input_ids


def test_a_path_needs_two_ends() -> None:
    same = {"input_ids": encoded()}
    refused("Something must be there to explain.*method='occlusion'", "integrated-gradients", baseline=same)


@pytest.mark.parametrize("method", ["kernel-shap", "shapley-sampling", "partition-shap", "occlusion"])
def test_one_unit_has_all_of_it(method: str) -> None:
    r = explained(BERT, method, "film", baseline="mask")
    assert r.relevance[1] == pytest.approx(r.value - r.base_value, abs=1e-6)


def test_deeplift_names_the_secant_where_it_does_not_apply() -> None:
    refused("DeepLIFT has rules for modules such as nn.ReLU.*is left over. Choose method='secant'", "deeplift")

    class Twice(Weighted):
        def __init__(self) -> None:
            super().__init__()
            self.bend = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bend(self.bend(x) - 1)

    model = Twice()
    with pytest.raises(UsageError, match=r"used once each; here it fails .*used more than once"):
        AttentionVisualizer(model).explain({"x": torch.tensor([[3.0, 2.0]])}, method="deeplift", target=0)
    assert sorted(vars(model.bend)) == sorted(vars(nn.ReLU()))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "shap", None)
    refused(r"needs the package shap, which is not installed\. Run: pip install 'clearhead\[shap\]'", "partition-shap")


def test_without_a_gradient_methods_that_need_none_are_named() -> None:
    class Hard(Weighted):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x > 1).float()

    attributor = FeatureAttributor(AttentionVisualizer(Hard()))
    given = {"x": torch.tensor([[3.0, 2.0]])}
    with pytest.raises(ModelError, match=r"no gradient reaches any input or embedding. Choose a method that"):
        attributor.attribute(given, "integrated-gradients", target=0)
    assert attributor.attribute(given, "occlusion", target=0).relevance.tolist() == [1, -1], "of two classes"


@pytest.mark.parametrize("method", ["integrated-gradients", "saliency", "occlusion"])
def test_what_is_not_finite_is_said(method: str) -> None:
    class Log(Weighted):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.log().sum(1, keepdim=True)

    with pytest.raises(NonFiniteError, match="explained value must be finite"):
        AttentionVisualizer(Log()).explain({"x": torch.tensor([[3.0, -2.0]])}, method=method, target=0)


def test_a_model_that_fails_is_named() -> None:
    class Fails(Weighted):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise KeyError("no")

    with pytest.raises(ModelError, match=r"The model failed on this input .*KeyError"):
        AttentionVisualizer(Fails()).explain({"x": torch.ones(1, 2)}, method="occlusion", target=0)
