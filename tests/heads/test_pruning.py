"""A copy without heads gives what the gates give; curves say what removal costs, and go on where they were stopped."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from attention import plainly
from clearhead import AttentionVisualizer
from clearhead.errors import ModelError, UsageError
from clearhead.headreports import Pruning
from clearhead.heads import pruning
from heads.headless import READERS, fingerprint, handed_zeros
from sight import families
from tasks.gallery import gallery

MODELS = {
    "text-classification/bert": ["encoder 0.1", "encoder 1.3"],
    "causal-lm/gpt2": ["decoder 0.0", "decoder 1.2"],
    "causal-lm/llama-writer": ["decoder 0.3", "decoder 1.0"],
    "encoder-decoder/bart": ["encoder 0.1", "decoder 1.0", "cross 0.1"],
    "image-classification/vit": ["encoder 0.2", "encoder 1.1"],
    "text-classification/deberta": ["encoder 0.2", "encoder 1.1"],
}
TEXTS = ["a gripping , beautiful film !", "this was not a good one", "a film", "a good film .", "it is a bad film"]
LABELS = [1, 0, 1, 1, 0]


def opened(name: str) -> AttentionVisualizer:
    entry = gallery(name)
    return AttentionVisualizer(copy.deepcopy(entry.model), entry.processor, task=entry.task)


def tensors_of(av: AttentionVisualizer, name: str) -> dict[str, torch.Tensor]:
    wanted = {"continuation": "ein Ziel"} if "encoder-decoder" in name else {}
    given = gallery(name).inputs[0]
    return dict(families.question(av.model, given, gallery(name).processor, **wanted).passes[0].tensors)


@pytest.mark.parametrize("name", MODELS)
def test_a_pruned_copy_gives_what_the_gates_give(name, tmp_path):
    av, heads = opened(name), MODELS[name]
    tensors, before = tensors_of(av, name), fingerprint(av.model)
    pruned = av.pruned(heads)
    with torch.no_grad():
        with av.without(heads):
            gates = av.model(**tensors).logits
        torch.testing.assert_close(pruned(**tensors).logits, gates, rtol=1e-6, atol=1e-6 * float(gates.abs().max()))
        assert not torch.allclose(av.model(**tensors).logits, gates, atol=1e-4)
    assert fingerprint(av.model) == before
    pruned.save_pretrained(tmp_path)
    again = type(av.model).from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(**tensors).logits, pruned(**tensors).logits)
    mine, other = dict(av.model.named_parameters()), dict(pruned.named_parameters())
    assert all(mine[key].data_ptr() != other[key].data_ptr() for key in mine)


def test_a_copy_may_lose_a_whole_layer_and_it_is_said():
    av = opened("text-classification/bert")
    with pytest.warns(UserWarning, match=r"All 4 heads of encoder layer 1 are removed") as said:
        pruned = av.pruned([("encoder", 1, head) for head in range(4)])
    assert [each.filename for each in said] == [__file__]
    assert not pruned.get_submodule(READERS["bert"].format(layer=1)).weight.any()


def test_a_model_of_tensors_needs_an_example():
    av = AttentionVisualizer(plainly.Model(layers=2, width=8, heads=2))
    given = {"input_ids": torch.arange(6).unsqueeze(0)}
    with pytest.raises(UsageError, match="example"):
        av.pruned("encoder 0.1")
    pruned = av.pruned("encoder 0.1", example=given)
    assert not pruned.blocks[0].maps["o"][4:].any()
    assert pruned.blocks[0].maps["o"][:4].all()


def test_layers_that_share_weights_lose_a_head_together():
    family = families.text("Albert")
    av = AttentionVisualizer(copy.deepcopy(family.model))
    given, score = dict(family.tensors), (lambda out: out.last_hidden_state[0, 0, 0])
    av._heads.learn(av._subject.question(given, families.Wanted(target=score), av.settings))
    with pytest.raises(ModelError, match="share weights"):
        av.pruned("encoder 0.1")
    pruned = av.pruned([f"encoder {layer}.1" for layer in range(3)])
    with av.without([(layer, 1) for layer in range(3)]), torch.no_grad():
        torch.testing.assert_close(pruned(**given).last_hidden_state, av.model(**given).last_hidden_state)


# ---- curves --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def curve() -> tuple[AttentionVisualizer, Pruning]:
    av = opened("text-classification/bert")
    return av, av.pruning_curve(TEXTS, LABELS, steps=4)


def test_points_of_a_curve_are_the_accuracy_of_the_model_without_those_heads(curve):
    av, found = curve
    tokenizer = gallery("text-classification/bert").processor
    by_name = {each.order: each for each in found.curves}
    assert list(by_name) == ["importance", "iterative", "random", "worst"]
    assert by_name["random"].metric.shape == (10, 5)
    assert [each.metric_name for each in found.curves] == ["accuracy"] * 4
    heads = [(n // 4, n % 4) for n in found.order]
    for name, order in (("importance", heads), ("worst", heads[::-1])):
        for share, metric in zip(by_name[name].removed, by_name[name].metric, strict=True):
            gone = [(READERS["bert"].format(layer=a), b) for a, b in order[: round(8 * share)]]
            with handed_zeros(av.model, gone, 4), torch.no_grad():
                right = [
                    int(av.model(**tokenizer(text, return_tensors="pt")).logits.argmax()) == label
                    for text, label in zip(TEXTS, LABELS, strict=True)
                ]
            assert metric == pytest.approx(np.mean(right))
    assert len({each.metric[..., 0].ravel()[0] for each in found.curves}) == 1
    assert "beat" in found.notes[0]
    assert found.table().count("\n") == 5
    assert Pruning.from_dict(json.loads(json.dumps(found.to_dict()))).to_dict() == found.to_dict()


def test_the_order_is_that_of_importance(curve):
    av, found = curve
    report = av._heads.report(TEXTS, LABELS, av.settings, of="loss", normalise=True, weighted=False, relevance=False)
    assert list(found.order) == np.argsort(report.importance, kind="stable").tolist()


def test_an_interrupted_curve_goes_on(tmp_path, monkeypatch):
    av, real, count = opened("text-classification/bert"), pruning.Scores._measured, [0]

    def counted(self, removed):
        count[0] += 1
        if count[0] == limit:
            raise KeyboardInterrupt
        return real(self, removed)

    monkeypatch.setattr(pruning.Scores, "_measured", counted)
    limit = 8
    with pytest.raises(KeyboardInterrupt):
        av.pruning_curve(TEXTS, LABELS, steps=4, resume=tmp_path)
    limit, count[0] = 0, 0
    found = av.pruning_curve(TEXTS, LABELS, steps=4, resume=tmp_path)
    rest = count[0]
    again = opened("text-classification/bert").pruning_curve(TEXTS, LABELS, steps=4, resume=tmp_path)
    assert count[0] == rest
    assert again.to_dict() == found.to_dict()
    count[0] = 0
    whole = av.pruning_curve(TEXTS, LABELS, steps=4)
    assert count[0] == rest + 7
    assert whole.to_dict() == found.to_dict()
    (kept,) = tmp_path.iterdir()
    lines = kept.read_bytes()
    cut = lines.rindex(b'["accuracy') + 20  # the last points are lost, the first of them in its middle
    kept.write_bytes(lines[:cut])
    count[0] = 0
    assert av.pruning_curve(TEXTS, LABELS, steps=4, resume=tmp_path).to_dict() == found.to_dict()
    assert count[0] == 1
    av.pruning_curve(TEXTS, LABELS[::-1], steps=4, resume=tmp_path)
    assert count[0] >= rest  # other labels, other points


def test_other_metrics():
    av = opened("causal-lm/gpt2")
    texts = ["Two young people are walking", "Anna Smith lives in Berlin", "A man in a blue shirt"]
    loss = av.pruning_curve(texts, of="loss", steps=2, iterative=False)
    assert {each.metric_name for each in loss.curves} == {"loss"}
    target = av.pruning_curve(texts, steps=2, iterative=False, normalise=False)
    tokenizer = gallery("causal-lm/gpt2").processor
    values = []
    with torch.no_grad():
        for text in texts:
            given = tokenizer(text, return_tensors="pt")
            k = int(av.model(**given).logits[0, -1].argmax())
            with handed_zeros(av.model, [(READERS["gpt2"].format(layer=n), h) for n in (0, 1) for h in range(4)], 4):
                values.append(float(av.model(**given).logits[0, -1, k]))
    assert target.curves[0].metric[-1] == pytest.approx(np.mean(values), rel=1e-5)
    assert "bootstrap" in target.test


@pytest.mark.parametrize(("lost", "won"), [(5, 0), (4, 0), (9, 2), (8, 3), (0, 6), (0, 0), (400, 350)])
def test_worse_by_mcnemar(lost, won):
    before = np.array([1.0] * lost + [0.0] * won + [1.0] * 5)
    after = np.array([0.0] * lost + [1.0] * won + [1.0] * 5)
    expected = lost + won > 0 and stats.binomtest(lost, lost + won, alternative="greater").pvalue < 0.05
    assert pruning._worse(before, after, "accuracy", np.random.default_rng(0)) == expected
    assert math.isfinite(lost)


def test_worse_by_bootstrap():
    draw = np.random.default_rng(0)
    before = draw.normal(size=200)
    assert pruning._worse(before, before - 0.2 + 0.1 * draw.normal(size=200), "target", draw)
    assert not pruning._worse(before, before + draw.normal(size=200), "target", np.random.default_rng(1))


@pytest.mark.parametrize("options", [{"orders": 9}, {"steps": 0}])
def test_too_few(options):
    with pytest.raises(UsageError, match="10 random orders"):
        opened("text-classification/bert").pruning_curve(TEXTS, LABELS, **options)
