"""Tensors as a model takes them: several sequences at once, and vectors that the model learned beside them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer
from clearhead.errors import UsageError
from tasks.gallery import gallery


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return copy.deepcopy(gallery("encoder-decoder/bart").model).double()


IDS = {"input_ids": torch.tensor([[5, 9, 17, 4, 6]]), "decoder_input_ids": torch.tensor([[0, 8, 12]])}


class Held(nn.Module):
    """A model of two sequences, one of which is held; its lookups are done outside."""

    def __init__(self, model: nn.Module, **held: torch.Tensor) -> None:
        super().__init__()
        self.model, self.held = model, held

    def forward(self, **given: torch.Tensor) -> torch.Tensor:
        return self.model(**given, **self.held).logits


@pytest.mark.parametrize("settings", [{"method": "lrp"}, {"method": "secant"}], ids=lambda each: each["method"])
def test_two_sequences_are_explained_together(model, settings):
    """All that the value is made of comes from both; each is a stream of its name."""
    found = AttentionVisualizer(model).explain(IDS, target=lambda out: out.logits[0, -1, 7], **settings)
    assert [unit.stream for unit in found.units] == ["input_ids"] * 5 + ["decoder_input_ids"] * 3
    assert found.conservation_error < 1e-9
    assert found.value == pytest.approx(model(**IDS).logits[0, -1, 7].item(), rel=1e-9)
    assert found.relevance.all()


def test_each_sequence_gets_what_it_gets_when_the_other_is_held_as_vectors(model):
    """Relevance of one source does not depend on whether another is watched: gradients of a sum of paths."""
    asked = {"target": 7, "reference": "zero"}
    both = AttentionVisualizer(model).explain(IDS, **asked)
    embed = model.get_input_embeddings()
    wrote = Held(model, decoder_inputs_embeds=embed(IDS["decoder_input_ids"]).detach())
    alone = AttentionVisualizer(wrote).explain(
        {"input_ids": IDS["input_ids"]}, target=lambda y: y[0, -1, 7], reference="zero"
    )
    assert both.relevance[:5] == pytest.approx(alone.relevance[:5], rel=1e-9)
    assert both.target.position is None or both.value == pytest.approx(alone.value)


def test_the_mask_of_each_sequence_says_where_its_units_lie(model):
    masks = {"attention_mask": torch.tensor([[1, 1, 1, 1, 0]]), "decoder_attention_mask": torch.tensor([[1, 1, 1]])}
    found = AttentionVisualizer(model).explain({**IDS, **masks}, target=lambda out: out.logits[0, -1, 7], method="lrp")
    assert [unit.text for unit in found.units] == ["0", "1", "2", "3", "0", "1", "2"]
    with pytest.raises(UsageError, match="at least one position that its mask shows"):
        AttentionVisualizer(model).explain({**IDS, "decoder_attention_mask": torch.zeros(1, 3)})


class Prompted(nn.Module):
    """A learned prompt of two vectors is put before what is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.prompt = nn.Parameter(torch.randn(1, 2, 4))
        self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.mix(torch.cat([self.prompt.expand(len(x), -1, -1), x], 1))).sum(1))


@pytest.mark.parametrize("method", ["lrp", "secant"])
def test_learned_vectors_are_units_of_their_own(method):
    """By name, so that what they give is seen and the map still adds up."""
    net, x = Prompted().double().eval(), torch.randn(1, 3, 4, dtype=torch.float64)
    found = AttentionVisualizer(net).explain({"x": x}, target=lambda y: y[0, 1], method=method)
    assert [unit.text for unit in found.units[:3]] == ["0", "1", "2"]
    assert found.conservation_error < 1e-9
    if method == "lrp":
        assert [unit.text for unit in found.units[3:]] == ["prompt"]
        assert found.units[3].special
        assert abs(found.relevance[3]) > 1e-3
