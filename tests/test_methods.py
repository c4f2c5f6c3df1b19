"""The table of methods: every one of them on every task, compared with lrp, and the model left as found."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from clearhead import AttentionVisualizer, GenerationMap, RelevanceMap, Settings
from clearhead.config import Method
from clearhead.errors import ModelError, UsageError
from clearhead.methods import METHODS, OPTIONS
from tasks.gallery import gallery, names

ATTENTIVE = [name for name, row in METHODS.items() if row.caution]
WITHOUT = {"image-classification/convnext"}  # no attention
ONE_SEQUENCE = {"value-zeroing"}  # refuses what looks from one sequence at another


def asked(name: str) -> dict[str, object]:
    return {"continuation": "ein Haus"} if name.startswith("encoder-decoder") else {}


def door(name: str) -> AttentionVisualizer:
    entry = gallery(name)
    return AttentionVisualizer(entry.model, entry.processor, task=entry.task)


def maps(found) -> list[RelevanceMap]:
    return list(found.rows) if isinstance(found, GenerationMap) else [found]


def test_every_method_has_a_row_and_every_option_a_taker():
    assert set(METHODS) | {"auto"} == set(get_args(Method))
    assert {option for row in METHODS.values() for option in row.takes} == set(OPTIONS)


@pytest.mark.parametrize("method", ATTENTIVE)
@pytest.mark.parametrize("name", names())
def test_every_method_answers_every_task(name, method):
    av = door(name)
    one = gallery(name).inputs[0]
    if name in WITHOUT and method != "gradcam":
        with pytest.raises(ModelError, match="Attention is found where"):
            av.explain(one, method=method)
        return
    if method in ONE_SEQUENCE and name.startswith("encoder-decoder"):
        with pytest.raises(UsageError, match="Value zeroing is defined for one sequence"):
            av.explain(one, method=method, **asked(name))
        return
    for found in maps(av.explain(one, method=method, **asked(name))):
        assert found.method == method
        assert not found.additive
        assert np.isfinite(found.relevance).all()
        assert np.abs(found.relevance).max() > 0
        assert found.notes
        assert found.cross_check["against"] == "lrp"
        assert found.cross_check["sentence"] == METHODS[method].caution
        assert not any("add up" in warning for warning in found.warnings)
        again = RelevanceMap.from_dict(json.loads(json.dumps(found.to_dict())))
        assert (again.notes, again.additive, again.cross_check) == (found.notes, False, dict(found.cross_check))


@pytest.mark.parametrize("method", ATTENTIVE)
@pytest.mark.parametrize("name", ["text-classification/bert", "causal-lm/llama-writer", "image-classification/swin"])
def test_a_list_gives_what_each_input_gives_alone(name, method):
    av = door(name)
    inputs = list(gallery(name).inputs[:3])
    for one, found in zip(inputs, av.explain(inputs, method=method), strict=True):
        alone = av.explain(one, method=method)
        np.testing.assert_allclose(found.relevance, alone.relevance, rtol=1e-5, atol=1e-6)
        assert found.cross_check["verdict"] == alone.cross_check["verdict"]


@pytest.mark.parametrize("method", ["rollout", "gradient-attention", "gradcam"])
def test_every_produced_token_has_a_row(method):
    found = door("causal-lm/gpt2").explain("Two young people are", generate=4, method=method)
    assert isinstance(found, GenerationMap)
    assert [len(row.units) for row in found] == sorted(len(row.units) for row in found)
    assert all(row.cross_check for row in found)


@pytest.mark.parametrize("method", ["attention", "rollout", "gradcam"])
def test_relevance_of_pixels_is_that_of_their_patches(method):
    av, one = door("image-classification/vit"), gallery("image-classification/vit").inputs[0]
    patches, pixels = (av.explain(one, method=method, units=units, cross_check=False) for units in ("patch", "pixel"))
    assert len([unit for unit in pixels.units if unit.box]) == 32 * 32
    if method != "gradcam":
        assert pixels.relevance.sum() == pytest.approx(patches.relevance.sum(), abs=1e-6)


def test_without_a_cross_check_lrp_is_not_computed(monkeypatch):
    monkeypatch.setattr("clearhead.methods.lrp", lambda *_: pytest.fail("lrp was computed"))
    assert door("text-classification/bert").explain("a film", method="rollout", cross_check=False).cross_check is None


def test_a_comparison_that_fails_is_a_warning_and_no_error(monkeypatch):
    def broken(*_):
        raise ModelError("no gradient today")
        yield

    monkeypatch.setattr("clearhead.methods.lrp", broken)
    found = door("text-classification/bert").explain("a film", method="rollout")
    assert found.cross_check is None
    assert any("could not be compared with lrp: no gradient today" in warning for warning in found.warnings)


def fingerprint(model) -> object:
    state = [(name, p.detach().clone(), p.requires_grad, p.grad) for name, p in model.named_parameters()]
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), m.training, sorted(vars(m)))
        for m in model.modules()
    ]
    return state, hooks, torch.is_grad_enabled(), torch.get_rng_state()


def same(one, other) -> bool:
    (first, hooks, grad, random), (second, others, graded, randomly) = one, other
    values = all(torch.equal(a[1], b[1]) and a[2:] == b[2:] for a, b in zip(first, second, strict=True))
    return values and hooks == others and grad == graded and torch.equal(random, randomly)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_found(method):
    entry = gallery("text-classification/bert")
    av = door("text-classification/bert")
    before = fingerprint(entry.model)
    refused = pytest.raises(UsageError, match="DeepLIFT has rules") if method == "deeplift" else nullcontext()
    with refused:
        av.explain(entry.inputs[0], method=method)
    assert same(before, fingerprint(entry.model))

    def fails(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        av.explain(entry.inputs[0], method=method, target=fails)
    assert same(before, fingerprint(entry.model))


@pytest.mark.parametrize("method", ATTENTIVE)
def test_inference_mode_of_the_caller_does_not_matter(method):
    av, one = door("text-classification/bert"), gallery("text-classification/bert").inputs[0]
    usual = av.explain(one, method=method).relevance
    with torch.inference_mode():
        np.testing.assert_array_equal(av.explain(one, method=method).relevance, usual)


def test_settings_of_a_file_may_be_lists(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('method = "attention"\nlayer = 0\nheads = [0, 2]\n')
    settings, _ = Settings.resolve(file=file)
    assert settings == replace(Settings(), method="attention", layer=0, heads=(0, 2))
