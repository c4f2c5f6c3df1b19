"""Models and inputs that are changed for a while: what changes, what stays, and that every bit comes back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer
from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.question import Question
from clearhead.sanity import layers, near, other, randomised, settled
from clearhead.subjects import Wanted
from tasks.gallery import gallery, names
from tasks.plainly import door, options

SECANT = Settings(method="secant")


def posed(name: str) -> Question:
    one = gallery(name)
    extra = {"target": "sequence"} if one.task in ("encoder-decoder", "causal-lm") else {}
    generate = {"generate": 3} if one.task == "causal-lm" else options(one.task)
    return door(name)._subject.question(one.inputs[0], Wanted(**{**generate, **extra}), SECANT)


def values(question: Question) -> Any:
    (item,) = question.items
    with torch.no_grad():
        outputs = [question.model(**part.tensors) for part in question.passes]
        return [(str(target), float(value)) for target, value in (aim.ask(outputs, 0) for aim in item.aims)]


@pytest.fixture
def bits() -> Iterator[Any]:
    """Whatever a test does to a model, its state is the same afterwards."""
    kept: list[tuple[nn.Module, dict[str, torch.Tensor]]] = []

    def watch(model: nn.Module) -> None:
        kept.append((model, copy.deepcopy(model.state_dict())))

    yield watch
    for model, state in kept:
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name]), name


# ---- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_every_parameter_that_matters_has_one_layer(name: str, bits: Any) -> None:
    """Random weights in all layers are random weights in all that the answer depends on."""
    question = settled(posed(name))
    bits(question.model)
    found = layers(question)
    held = [id(each) for members in found.values() for each in members]
    assert len(held) == len(set(held))
    outside = [each for each in question.model.parameters() if id(each) not in set(held)]
    before = values(question)
    with randomised(outside, 3):
        assert values(question) == before  # what no layer has is never used
    with randomised([each for members in found.values() for each in members], 3):
        after = values(question)
    assert [target for target, _ in after] == [target for target, _ in before]
    assert all(np.isfinite(value) for _, value in after)
    assert any(abs(one - two) > 1e-6 for (_, one), (_, two) in zip(before, after, strict=True))
    assert values(question) == before


def test_layers_stand_from_the_top_down() -> None:
    found = list(layers(posed("text-classification/bert")))
    assert found[0] == "classifier"
    assert found.index("bert.encoder.layer.1") < found.index("bert.encoder.layer.0")
    assert found[-1] == "bert.embeddings"
    written = list(layers(posed("encoder-decoder/t5")))
    assert written.index("decoder.block.0") < written.index("encoder.block.1") < written.index("encoder.block.0")


def test_a_tied_head_goes_with_the_embeddings() -> None:
    question = posed("causal-lm/gpt2")
    found = layers(question)
    table = question.model.get_input_embeddings().weight
    assert question.model.get_output_embeddings().weight is table
    assert [name for name, members in found.items() if any(each is table for each in members)] == ["transformer.wte"]


def test_a_plain_module_has_layers_too() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    question = AttentionVisualizer(model)._subject.question({"input": torch.randn(1, 3)}, Wanted(target=0), Settings())
    assert list(layers(question)) == ["2", "0"]


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
def test_random_weights_are_the_old_ones_in_another_order(kind: torch.dtype, bits: Any) -> None:
    model = nn.Linear(30, 20).to(kind)
    bits(model)
    old = model.weight.detach().clone()
    seen: list[torch.Tensor] = []

    def fail() -> None:
        with randomised(model.parameters(), 1):
            seen.append(model.weight.detach().clone())
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    (new,) = seen
    assert torch.equal(new.flatten().sort()[0], old.flatten().sort()[0])
    assert (new != old).float().mean() > 0.9
    with randomised(model.parameters(), 2):
        assert not torch.equal(model.weight, new)
    with randomised(model.parameters(), 1):
        assert torch.equal(model.weight, new)


# ---- inputs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_another_input_differs_in_its_units_only(name: str, bits: Any) -> None:
    question = posed(name)
    bits(question.model)
    tokenizer = door(name)._subject.tokenizer
    changed = other(question, 1, tokenizer=tokenizer)
    assert other(question, 1, tokenizer=tokenizer).passes[0].tensors.keys() == question.passes[0].tensors.keys()
    again = other(question, 1, tokenizer=tokenizer).passes[0].tensors
    for key, value in changed.passes[0].tensors.items():
        assert not isinstance(value, torch.Tensor) or torch.equal(value, again[key])
    different = 0
    for one, new, base in zip(question.passes, changed.passes, question.baselines[0].tensors, strict=True):
        for key, before in one.tensors.items():
            after = new.tensors[key]
            if not isinstance(before, torch.Tensor):
                assert after is before
                continue
            assert before.shape == after.shape
            assert before.dtype == after.dtype
            different += int((before != after).sum())
            if not before.is_floating_point():
                stays = base[key] == before
                assert torch.equal(before[stays], after[stays])  # special tokens, padding
    assert different
    assert [target for target, _ in values(settled(changed))]


def test_parts_of_an_image_are_given_to_other_places() -> None:
    question = posed("image-classification/vit")
    x, y = (each.passes[0].tensors["pixel_values"] for each in (question, other(question, 4)))
    parts = [
        {tuple(t[0, :, r : r + 8, c : c + 8].flatten().tolist()) for r in range(0, 32, 8) for c in range(0, 32, 8)}
        for t in (x, y)
    ]
    assert parts[0] == parts[1]
    assert not torch.equal(x, y)


def test_what_is_explained_stays_the_same() -> None:
    """Whatever another input or random weights would be taken for."""
    question = settled(posed("image-classification/vit"))
    ((target, _),) = values(question)
    for seed in range(5):
        assert values(other(question, seed))[0][0] == target


def test_one_unit_cannot_change() -> None:
    question = AttentionVisualizer(nn.Linear(1, 2))._subject.question(
        {"input": torch.ones(1, 1)}, Wanted(target=0), SECANT
    )
    with pytest.raises(UsageError, match="differ"):
        other(question)


@pytest.mark.parametrize("name", names())
def test_an_input_nearby_is_nearby(name: str, bits: Any) -> None:
    question = settled(posed(name))
    bits(question.model)
    before = values(question)
    with near(question, 1, radius=1e-3) as close:
        small = values(close)
    with near(question, 1, radius=0.1) as close:
        large = values(close)
    with near(question, 2, radius=0.1) as close:
        another = values(close)
    moved = [max(abs(a - b) for (_, a), (_, b) in zip(before, each, strict=True)) for each in (small, large, another)]
    assert 0 < moved[0] < moved[1]
    assert large != another
    assert values(question) == before
    assert [target for target, _ in large] == [target for target, _ in before]


def test_noise_is_as_large_as_it_is_said_to_be() -> None:
    question = posed("image-classification/vit")
    x = question.passes[0].tensors["pixel_values"]
    with near(question, 0, radius=0.2) as close:
        moved = (close.passes[0].tensors["pixel_values"] - x) / x.std()
    assert float(moved.abs().max()) <= 0.2 + 1e-6
    assert float(moved.std()) == pytest.approx(0.2 / np.sqrt(3), rel=0.05)
    bert = posed("text-classification/bert")
    table = bert.model.get_input_embeddings().weight
    old, ids = table.detach().clone(), bert.passes[0].tensors["input_ids"][0]
    with near(bert, 0, radius=0.2):
        change = (table.detach() - old) / old.std()
    own = torch.zeros(len(table), dtype=torch.bool)
    own[ids] = True
    assert float(change[~own].abs().max()) == 0
    assert float(change[own].std()) == pytest.approx(0.2 / np.sqrt(3), rel=0.1)


@pytest.mark.parametrize("method", ["lrp", "secant"])
def test_books_balance_in_changed_models_too(method: str) -> None:
    from clearhead.probing import explained

    question = settled(posed("text-classification/bert"))
    with randomised(question.model.parameters(), 0):
        assert explained(question, Settings(method=method)).conserves()
    with near(question, 0) as close:
        assert explained(close, Settings(method=method)).conserves()
