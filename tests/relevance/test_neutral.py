"""Slopes of pointwise functions from the point where nothing is said."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearhead import AttentionVisualizer, Settings
from clearhead.question import Question
from clearhead.relevance import neutral
from clearhead.relevance.audit import Audit
from clearhead.relevance.engine import replay
from clearhead.relevance.numerics import NEAR
from clearhead.relevance.run import Run
from clearhead.relevance.table import ROWS
from clearhead.subjects import Wanted
from relevance.twins import inputs, seeded

TEXT = "a good film"
KEY = ("", "gelu", 1)
SETTINGS = [Settings(), Settings(leak="record")]


def started(settings: Settings, x: torch.Tensor, r: torch.Tensor, kind: type[Run] = Run):
    """The relevance of the sum of weighted GELUs whose slopes are drawn from r."""
    run = kind(settings, None, ROWS)
    run.begin({KEY: (r, F.gelu(r))})
    weights = torch.linspace(-1, 2, x.shape[-1], dtype=x.dtype)
    return run, replay(run, lambda t: (F.gelu(t) * weights).sum(), [x]), weights


def by_hand(x: np.ndarray, r: np.ndarray, weights: np.ndarray, *, back: bool) -> tuple[np.ndarray, float]:
    """Entry by entry: the line through two points, and what it leaves of the value in each row."""
    f = {id(a): F.gelu(torch.tensor(a)).numpy() for a in (x, r)}
    relevance, lost = np.zeros_like(x), 0.0
    for i, row in enumerate(x):
        for j, value in enumerate(row):
            away = value - r[j]
            away = np.copysign(max(abs(away), NEAR), away)
            relevance[i, j] = weights[j] * (f[id(x)][i, j] - f[id(r)][j]) / away * value
        leak = weights @ f[id(x)][i] - relevance[i].sum()
        lost += leak
        if back:
            relevance[i] += np.abs(row) * leak / np.abs(row).sum()
    return relevance, lost


@pytest.mark.parametrize("settings", SETTINGS, ids=["return", "record"])
def test_the_line_starts_where_it_is_told_and_what_it_leaves_is_booked(settings):
    x, r = inputs(3, 5), torch.linspace(-2, 1, 5, dtype=torch.float64)
    x[0, 0], x[1, 1] = r[0], r[1] + NEAR / 3  # next to the point from which the line starts
    _, found, weights = started(settings, x, r)
    expected, lost = by_hand(x.numpy(), r.numpy(), weights.numpy(), back=settings.leak == "return")
    np.testing.assert_allclose(found.sources[0].relevance.numpy(), expected, rtol=1e-9, atol=1e-12)
    (entry,) = found.ledger
    assert (entry.cause, entry.returned) == ("reference", settings.leak == "return")
    assert entry.relevance == pytest.approx(lost, rel=1e-9)


def test_from_zero_the_line_is_the_identity_rule():
    x = inputs(3, 5)
    zero = torch.zeros(5, dtype=torch.float64)
    one = started(Settings(), x, zero)[1].sources[0].relevance
    run = Run(Settings(), None, ROWS)
    weights = torch.linspace(-1, 2, 5, dtype=torch.float64)
    two = replay(run, lambda t: (F.gelu(t) * weights).sum(), [x]).sources[0].relevance
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("settings", SETTINGS, ids=["return", "record"])
def test_every_operation_of_it_balances(settings):
    run, _, _ = started(settings, inputs(3, 5), torch.linspace(-2, 1, 5, dtype=torch.float64), kind=Audit)
    assert all(abs(each.relevance) < 1e-12 for each in run.imbalances())


# ---- models --------------------------------------------------------------------------------------------------------


@contextmanager
def arguments(model: torch.nn.Module, kind: type[torch.nn.Module]):
    """What the modules of a kind are given, by their paths."""
    found: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, given, path=path: found.update({path: given[0].detach().clone()}))
        for path, module in model.named_modules()
        if isinstance(module, kind)
    ]
    yield found
    for hook in hooks:
        hook.remove()


def test_a_text_that_says_nothing_is_what_the_model_makes_of_zero_vectors(tiny_classifier):
    from transformers.activations import GELUActivation

    av = AttentionVisualizer.from_pretrained(tiny_classifier)
    question = _question(av, TEXT)
    (found,) = neutral.starts(question, Settings(), ROWS)
    with arguments(av.model, GELUActivation) as seen, torch.no_grad():
        av.model(inputs_embeds=torch.zeros(1, neutral.POSITIONS, 16))
    assert len(seen) == 2
    for path, x in seen.items():
        r, f = found[path, "gelu", 1]
        torch.testing.assert_close(r, x[0, -1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(f, F.gelu(x[0, -1]), rtol=1e-5, atol=1e-6)


def _question(av: AttentionVisualizer, text: str) -> Question:
    return av._subject.question(text, Wanted(), Settings())


def test_what_a_text_says_does_not_matter(tiny_classifier):
    av = AttentionVisualizer.from_pretrained(tiny_classifier)
    (one,), (two,) = (neutral.starts(_question(av, text), Settings(), ROWS) for text in (TEXT, "bad"))
    assert one.keys() == two.keys()
    assert one
    for key, (r, f) in one.items():
        assert torch.equal(r, two[key][0])
        assert torch.equal(f, two[key][1])


def test_the_default_starts_there_and_its_books_close(tiny_classifier):
    av = AttentionVisualizer.from_pretrained(tiny_classifier)
    found, zero = av.explain(TEXT, method="lrp"), av.explain(TEXT, method="lrp", reference="zero")
    assert "reference" in {entry.cause for entry in found.ledger}
    assert "reference" not in {entry.cause for entry in zero.ledger}
    assert np.abs(found.relevance - zero.relevance).max() > 1e-6
    for each in (found, zero):
        assert abs(each.relevance.sum() - each.value) <= 1e-4 * abs(each.value) + 1e-6 * np.abs(each.relevance).sum()


@pytest.mark.parametrize("preset", ["attnlrp", "cp-lrp"])
def test_published_rules_start_at_zero(tiny_classifier, preset):
    av = AttentionVisualizer.from_pretrained(tiny_classifier)
    assert "reference" not in {entry.cause for entry in av.explain(TEXT, preset=preset).ledger}


def test_a_model_that_cannot_read_it_is_explained_from_zero_and_says_so(tiny_classifier, monkeypatch):
    av = AttentionVisualizer.from_pretrained(tiny_classifier)
    zero = av.explain(TEXT, method="lrp", reference="zero")
    monkeypatch.setattr(neutral, "POSITIONS", 33)  # the model has 32
    found = av.explain(TEXT, method="lrp")
    np.testing.assert_array_equal(found.relevance, zero.relevance)
    assert "from zero" in found.notes[0]
    assert not zero.notes


def test_a_model_that_makes_nothing_of_nothing_starts_at_zero():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    with seeded(0):
        model = LlamaForCausalLM(config).eval()
    av = AttentionVisualizer(model)
    question = av._subject.question({"input_ids": torch.arange(5)[None]}, Wanted(), Settings())
    assert neutral.starts(question, Settings(), ROWS) == ({},)


@pytest.mark.parametrize("spelling", ["gelu", "gelu_new"])
def test_functions_written_out_start_there_too(spelling):
    """What the fused kernel gives, to rounding, where there is one; and always a line from that point."""
    from transformers import BertConfig, BertModel
    from transformers.activations import ACT2FN

    config = BertConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_act=spelling,
    )
    with seeded(0):
        model = BertModel(config).eval()
        for parameter in model.parameters():
            parameter.detach().normal_(0, 0.5)
    av = AttentionVisualizer(model)
    question = av._subject.question({"input_ids": torch.arange(5)[None]}, Wanted(), Settings())
    (found,) = neutral.starts(question, Settings(), ROWS)
    path = "encoder.layer.0.intermediate.intermediate_act_fn"
    own = [start for (module, _, _), start in found.items() if module == path]
    whole = own[-1]  # the last call makes the function's result
    with arguments(model, type(ACT2FN[spelling])) as seen, torch.no_grad():
        model(inputs_embeds=torch.zeros(1, neutral.POSITIONS, 16))
    torch.testing.assert_close(whole[0], seen[path][0, -1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole[1], ACT2FN[spelling](seen[path][0, -1]), rtol=1e-4, atol=1e-5)


CHANGES = {
    "written over": lambda weight: weight.mul_(2),
    "written over past autograd": lambda weight: weight.data.mul_(2),
    "replaced": lambda weight: setattr(weight, "data", weight.data * 2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_model_is_asked_once_and_again_when_it_has_changed(tiny_classifier, monkeypatch, change):
    av = AttentionVisualizer.from_pretrained(tiny_classifier)
    asked = []
    silent = neutral.Silent
    monkeypatch.setattr(neutral, "Silent", lambda *given: asked.append(given) or silent(*given))
    (before,) = neutral.starts(_question(av, TEXT), Settings(), ROWS)
    (again,) = neutral.starts(_question(av, "bad"), Settings(), ROWS)
    assert len(asked) == 1
    assert again is before
    with torch.no_grad():
        change(av.model.bert.encoder.layer[0].intermediate.dense.weight)
    (after,) = neutral.starts(_question(av, TEXT), Settings(), ROWS)
    assert len(asked) == 2
    key = next(iter(before))
    assert not torch.equal(before[key][0], after[key][0])


def test_a_hook_is_a_change(tiny_classifier):
    av = AttentionVisualizer.from_pretrained(tiny_classifier)
    (before,) = neutral.starts(_question(av, TEXT), Settings(), ROWS)
    hook = av.model.bert.encoder.layer[0].register_forward_hook(lambda _, given, result: given[0])
    try:
        (during,) = neutral.starts(_question(av, TEXT), Settings(), ROWS)
    finally:
        hook.remove()
    (after,) = neutral.starts(_question(av, TEXT), Settings(), ROWS)
    assert during is not before
    for key, (r, _) in before.items():
        assert torch.equal(r, after[key][0])
