"""Other inputs unit by unit, weights layer by layer, and noise place by place: against what is read off plainly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer
from clearhead.config import Settings
from clearhead.errors import ModelError, UsageError
from clearhead.question import Question
from clearhead.sanity import layers, near, other, randomised, randomising, settled
from clearhead.subjects import Wanted
from tasks.gallery import gallery, names
from tasks.plainly import door
from weighted import Weighted

SECANT = Settings(method="secant")
TEXTS = names(
    "text-classification", "token-classification", "question-answering", "masked-lm", "causal-lm", "encoder-decoder"
)


def posed(name: str, **wanted: Any) -> Question:
    one = gallery(name)
    if one.task in ("causal-lm", "encoder-decoder"):
        wanted = {"generate": 3, "position": 1, **wanted}
    return door(name)._subject.question(one.inputs[0], Wanted(**wanted), SECANT)


def of_tensors(model: nn.Module, **tensors: torch.Tensor) -> Question:
    return AttentionVisualizer(model)._subject.question(tensors, Wanted(target=0), SECANT)


# ---- other inputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_every_ordinary_token_is_another_ordinary_one(name: str) -> None:
    """Special tokens and what was produced stay, and units read as the tokenizer reads their ids."""
    question, tokenizer = posed(name), gallery(name).tokenizer
    changed = other(question, 2, tokenizer=tokenizer)
    (before,), (after,) = question.items, changed.items
    assert [(u.index, u.stream, u.special) for u in after.units] == [
        (u.index, u.stream, u.special) for u in before.units
    ]
    produced = 0
    for number, layout in enumerate(before.layouts):
        for span in layout.spans:
            old, new = (each.passes[number].tensors[span.ids][0].tolist() for each in (question, changed))
            for place, unit in enumerate(layout.units[span.first : span.last]):
                read = after.layouts[number].units[span.first + place].text
                if unit.stream in ("decoder", "generated"):
                    produced += 1
                    assert old[place] == new[place]
                elif unit.special or old[place] in tokenizer.all_special_ids:
                    assert old[place] == new[place]
                    assert read == unit.text
                else:
                    assert old[place] != new[place]
                    assert new[place] not in tokenizer.all_special_ids
                    assert read in (tokenizer.decode([new[place]]), tokenizer.convert_ids_to_tokens(new[place]))
    assert bool(produced) == (gallery(name).task in ("causal-lm", "encoder-decoder"))


def test_ids_without_a_tokenizer_are_none_that_the_config_calls_special() -> None:
    one = gallery("text-classification/bert")
    model, special = one.model, {0, 1, 2}
    model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id = 0, 1, 2
    question = of_tensors(model, input_ids=torch.tensor([[7, 8, 2, 9, 10, 11]]))
    found = {n: other(question, n).passes[0].tensors["input_ids"][0].tolist() for n in range(20)}
    assert all(ids[2] == 2 and not special & {*ids[:2], *ids[3:]} for ids in found.values())
    assert len({tuple(ids) for ids in found.values()}) == 20


@pytest.mark.parametrize("pixels", [False, True])
def test_what_an_image_is_compared_with_goes_with_it(pixels: bool) -> None:
    """A part beside its own blur stays beside it; what is over at the edges stays where it is."""
    one = gallery("image-classification/vit")
    question = door("image-classification/vit")._subject.question(
        one.inputs[0], Wanted(baseline=["blur", "zero"]), SECANT, pixels=pixels
    )
    changed = other(question, 3)
    x, y = (each.passes[0].tensors["pixel_values"] for each in (question, changed))
    b, c = (each.baselines[0].tensors[0]["pixel_values"] for each in (question, changed))
    size = 1 if pixels else 8

    def parts(image: torch.Tensor, beside: torch.Tensor) -> list[tuple[float, ...]]:
        both = torch.cat([image, beside], 1)[0]
        cut = both.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4).flatten(0, 1).flatten(1)
        return sorted(map(tuple, cut.tolist()))

    assert parts(x, b) == parts(y, c)
    assert not torch.equal(x, y)
    assert torch.equal(changed.baselines[1].tensors[0]["pixel_values"], torch.zeros_like(x))


def test_pixels_that_are_left_over_stay() -> None:
    grid = replace(posed("image-classification/vit").items[0].layouts[0].grid, rows=3, columns=3)
    from clearhead.sanity.others import _rearranged

    image = torch.arange(2 * 10 * 11.0).reshape(1, 2, 10, 11)
    order = torch.tensor([4, 3, 2, 1, 0, 5, 6, 7, 8])
    new = _rearranged(image, grid, order)
    assert torch.equal(new[:, :, 9:], image[:, :, 9:])
    assert torch.equal(new[:, :, :, 9:], image[:, :, :, 9:])
    assert torch.equal(new[:, :, 0:3, 0:3], image[:, :, 3:6, 3:6])
    assert torch.equal(new[:, :, 3:6, 3:6], image[:, :, 0:3, 0:3])


def test_several_inputs_are_changed_one_by_one() -> None:
    question = of_tensors(nn.Linear(3, 2), input=torch.randn(2, 3))
    for change in (settled, layers, other, lambda q: near(q).__enter__()):
        with pytest.raises(UsageError, match="One input is changed at a time"):
            change(question)


# ---- layers --------------------------------------------------------------------------------------------------------


class Parts(nn.Module):
    """Parts called in another order than they are written down; one idle, and one whose weight is borrowed."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4)])
        self.idle = nn.Linear(4, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.scale = nn.Parameter(torch.ones(4))
        self.borrowed = nn.Linear(4, 4, bias=False)
        self.embeddings = nn.Sequential(nn.Linear(3, 4))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        x = self.embeddings(input) * self.scale
        x = self.attention(x, x, x)[0]
        for block in reversed(self.blocks):
            x = block(x)
        return self.head(nn.functional.linear(x, self.borrowed.weight)).mean(1)


def test_layers_follow_the_forward_pass_and_not_the_module_tree() -> None:
    model = Parts()
    found = layers(of_tensors(model, input=torch.randn(1, 5, 3)))
    assert list(found) == ["head", "borrowed", "blocks.0", "blocks.1", "attention", "scale", "embeddings.0"]
    assert {id(p) for p in found["attention"]} == {
        id(p) for p in model.attention.parameters()
    }  # out_proj is not called
    assert not {id(p) for each in found.values() for p in each} & {id(p) for p in model.idle.parameters()}


def test_a_model_in_a_wrapper_falls_into_the_same_parts() -> None:
    class Wrapped(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return self.inner(input)

    model, given = Parts(), torch.randn(1, 5, 3)
    plain, wrapped = layers(of_tensors(model, input=given)), layers(of_tensors(Wrapped(model), input=given))
    assert list(wrapped) == [f"inner.{name}" for name in plain]


@pytest.mark.parametrize("name", ["masked-lm/bert-filler", "encoder-decoder/bart"])
def test_tied_parameters_stand_once_and_with_what_uses_them_first(name: str) -> None:
    question = posed(name)
    table = question.model.get_output_embeddings().weight
    assert table is question.model.get_input_embeddings().weight
    owners = [each for each, members in layers(question).items() if any(p is table for p in members)]
    assert owners == list(layers(question))[-1:]


# ---- random weights ------------------------------------------------------------------------------------------------


def test_parameters_in_one_storage_have_their_bits_back() -> None:
    whole = torch.arange(12.0)
    model = nn.Module()
    model.a, model.b = nn.Parameter(whole[:8].reshape(2, 4)), nn.Parameter(whole[4:].reshape(4, 2).t())
    with randomised(model.parameters(), 5):
        assert not torch.equal(whole, torch.arange(12.0))
    assert torch.equal(whole, torch.arange(12.0))


def test_cascades_add_up_and_come_back_in_turn() -> None:
    model = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
    old = [p.detach().clone() for p in model.parameters()]
    with randomised(model[1].parameters(), 1):
        top = model[1].weight.detach().clone()
        with randomised(model[0].parameters(), 2), randomised(model[1].parameters(), 3):
            assert not torch.equal(model[1].weight, top)
            assert not torch.equal(model[0].weight, old[0])
        assert torch.equal(model[1].weight, top)
        assert torch.equal(model[0].weight, old[0])
    assert all(torch.equal(p, each) for p, each in zip(model.parameters(), old, strict=True))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_weights_change_whatever_the_mode(mode: Any) -> None:
    with mode():
        model = nn.Linear(8, 8, dtype=torch.bfloat16).requires_grad_(False)
    old = model.weight.clone()
    with randomised(model.parameters(), 0), mode():
        assert not torch.equal(model.weight, old)
    with mode(), randomised(model.parameters(), 0):
        assert not torch.equal(model.weight, old)
    assert torch.equal(model.weight, old)


def test_large_tensors_are_shuffled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomising, "TOGETHER", 10)
    values = nn.Parameter(torch.arange(25.0).reshape(5, 5))
    with randomised([values], 0):
        new = values.detach().flatten()
        for first in (0, 10, 20):
            assert sorted(new[first : first + 10].tolist()) == list(range(first, min(25, first + 10)))
        assert not torch.equal(new, torch.arange(25.0))


def test_the_fingerprint_tells_a_random_model_and_is_the_old_one_afterwards() -> None:
    subject = door("text-classification/bert")._subject
    before = subject.fingerprint()
    with randomised(subject.model.parameters(), 0):
        assert subject.fingerprint() != before
    assert subject.fingerprint() == before


# ---- inputs nearby -------------------------------------------------------------------------------------------------


def test_noise_leaves_padding_and_moves_what_a_baseline_shares() -> None:
    class Masked(Weighted):
        def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return (inputs_embeds * attention_mask[..., None]).sum(1)

    x, mask = torch.randn(1, 4, 3), torch.tensor([[0, 1, 1, 0]])
    base = x.clone()
    base[0, 1] = 0
    question = AttentionVisualizer(Masked())._subject.question(
        {"inputs_embeds": x, "attention_mask": mask}, Wanted(target=0, baseline=base), SECANT
    )
    with near(question, 0, radius=0.5) as close:
        moved = close.passes[0].tensors["inputs_embeds"] - x
        beside = close.baselines[0].tensors[0]["inputs_embeds"]
    assert (moved[0] != 0).any(1).tolist() == [False, True, True, False]
    assert torch.equal(beside[0, 2], (x + moved)[0, 2])
    assert torch.equal(beside[0, 1], torch.zeros(3))
    assert torch.equal(question.passes[0].tensors["inputs_embeds"], x)


def test_a_model_that_looks_up_in_no_parameter_is_told() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.randn(9, 3))
            self.head = nn.Linear(3, 2)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.head(nn.functional.embedding(input_ids, self.table).mean(1))

    with pytest.raises(ModelError, match="no parameter"), near(of_tensors(Fixed(), input_ids=torch.tensor([[1, 2]]))):
        pass


def test_every_method_reads_the_input_nearby() -> None:
    """Noise on tokens reaches what looks at attention, at gradients and at removals alike."""
    from clearhead.probing import explained

    question = posed("text-classification/bert")
    for method in ("lrp", "secant", "rollout", "gradient-attention", "input-x-gradient", "occlusion"):
        settings = Settings(method=method, cross_check=False)
        before = explained(question, settings).relevance
        with near(question, 1, radius=0.2) as close:
            assert (explained(close, settings).relevance != before).any(), method
        assert (explained(question, settings).relevance == before).all(), method
