"""Every task, explained against a baseline: the books close exactly, and a list is explained together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer
from clearhead.errors import UsageError
from clearhead.question import NOTHING
from tasks.gallery import INPUTS, gallery, names
from tasks.plainly import door, options, rows_of
from weighted import Weighted

EVERY = [(name, n) for name in names() for n in range(len(INPUTS[name.split("/")[0]]))]
MASKED = [name for name in names("text-classification") if gallery(name).tokenizer.mask_token]


def compared(name: str, given: Any, **asked: Any) -> Any:
    return door(name).explain(given, method="secant", **options(gallery(name).task), **asked)


@pytest.mark.parametrize(("name", "n"), EVERY)
def test_a_difference_adds_up(name: str, n: int) -> None:
    for row in rows_of(compared(name, gallery(name).inputs[n])):
        gap = abs(row.base_value + row.relevance.sum() + row.sinks - row.value)
        assert gap <= max(1e-4 * abs(row.value), 1e-6 * np.abs(row.relevance).sum())
        assert row.method == "secant"
        assert "Compared with" in row.notes[0]
        assert not any(r for r, unit in zip(row.relevance, row.units, strict=True) if unit.special)


@pytest.mark.parametrize("name", MASKED)
def test_the_base_is_what_the_model_says_of_the_baseline(name: str) -> None:
    one = gallery(name)
    found = compared(name, one.inputs[0], baseline="mask", target=0)
    encoded = one.processor(one.inputs[0], return_tensors="pt", return_special_tokens_mask=True)
    special = encoded.pop("special_tokens_mask").bool()
    encoded["input_ids"] = torch.where(special, encoded["input_ids"], one.tokenizer.mask_token_id)
    with torch.no_grad():
        scores = one.model(**encoded).logits[0]
    assert found.base_value == pytest.approx(float(scores[0] - scores[1] if len(scores) == 2 else scores[0]), rel=1e-5)


@pytest.mark.parametrize("name", names())
def test_a_list_equals_its_members_alone(name: str) -> None:
    inputs = list(gallery(name).inputs[:3])
    for found, given in zip(compared(name, inputs), inputs, strict=True):
        for row, other in zip(rows_of(found), rows_of(compared(name, given)), strict=True):
            scale = max(1.0, abs(other.value), float(np.abs(other.relevance).max()))
            np.testing.assert_allclose(row.relevance, other.relevance, atol=1e-5 * scale)
            assert row.base_value == pytest.approx(other.base_value, abs=1e-5 * scale)


def calls_of(model: nn.Module, run: Any) -> int:
    count = [0]

    def counted(*_: object) -> None:
        count[0] += 1

    handle = model.register_forward_pre_hook(counted)
    try:
        run()
    finally:
        handle.remove()
    return count[0]


@pytest.mark.parametrize("name", names("text-classification", "image-classification"))
def test_a_list_is_one_forward_pass(name: str) -> None:
    inputs = list(gallery(name).inputs[:3])
    if "swin" in name:
        inputs = inputs[:1]
    assert calls_of(gallery(name).model, lambda: compared(name, inputs)) == 1


@pytest.mark.parametrize("name", names("text-classification"))
def test_several_baselines_are_averaged(name: str) -> None:
    given = gallery(name).inputs[0]
    both = compared(name, given, baseline=["zero", "mean"])
    each = [compared(name, given, baseline=word) for word in ("zero", "mean")]
    np.testing.assert_allclose(both.relevance, np.mean([one.relevance for one in each], 0), rtol=1e-6, atol=1e-9)
    assert both.base_value == pytest.approx(np.mean([one.base_value for one in each]))
    assert "mean of 2" in both.notes[0]
    assert both.conservation_error < 1e-4


@pytest.mark.parametrize("name", names("text-classification"))
def test_an_input_compared_with_itself_differs_in_nothing(name: str) -> None:
    given = gallery(name).inputs[0]
    found = compared(name, given, baseline=given)
    assert not found.relevance.any()
    assert found.base_value == found.value


def test_experts_that_are_chosen_otherwise_are_booked() -> None:
    """A mixture of two: which one answers hangs on the sign of the first number."""

    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(3, 2) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            chosen = (x[:, :, 0] > 0).long()
            both = torch.stack([expert(x) for expert in self.experts], -2)
            return both.gather(-2, chosen[:, :, None, None].expand(-1, -1, 1, 2)).squeeze(-2).sum(1)

    torch.manual_seed(0)
    model = Mixture()
    x, b = torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[-1.0, 0.5, 0.0]]])
    found = AttentionVisualizer(model).explain({"x": x}, method="secant", baseline=b, target=0)
    with torch.no_grad():
        other, mine = model(b)[0], model(x)[0]
        followed = model.experts[1](b)[0, 0]
    expected = lambda scores: float(scores[0] - scores[1])  # noqa: E731
    assert found.value == pytest.approx(expected(mine))
    assert found.base_value == pytest.approx(expected(other))
    (entry,) = found.ledger
    assert entry.cause == "selection"
    assert entry.relevance == pytest.approx(expected(followed) - expected(other), rel=1e-4)
    assert found.residual < 1e-5
    assert found.warnings


def test_a_baseline_next_to_which_the_model_jumps_is_doubted() -> None:
    """A norm of all units turns the zero vector, and what is next to it, into vectors of length 1."""

    class Jumping(Weighted):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x / (x.pow(2).mean((1, 2), keepdim=True) + 1e-12).sqrt()).sum(-1)[:, :2]

    av = AttentionVisualizer(Jumping().eval())
    x = torch.tensor([[[1.0, 2.0], [0.5, -3.0], [2.0, 2.0]]])
    far = torch.tensor([[[2.0, 1.0], [1.0, 1.0], [-1.0, 0.5]]])
    found = av.explain({"x": x}, method="secant", baseline=torch.zeros_like(x), target=1)
    assert np.abs(found.relevance).sum() > 1e3 * max(abs(found.value), abs(found.base_value))
    assert any("jumps next to this baseline" in warning for warning in found.warnings)
    assert not av.explain({"x": x}, method="secant", baseline=far, target=1).warnings


def test_a_question_without_a_baseline_is_refused() -> None:
    from clearhead.config import Settings
    from clearhead.relevance.secant import secant
    from clearhead.subjects import Wanted

    av = door("text-classification/bert")
    question = av._subject.question(gallery("text-classification/bert").inputs[0], Wanted(), Settings(method="lrp"))
    with pytest.raises(UsageError, match="baseline"):
        next(secant(question, Settings(method="secant")))


def test_no_token_is_no_id() -> None:
    """What stands for no token can never be mistaken for one."""
    assert NOTHING < 0
