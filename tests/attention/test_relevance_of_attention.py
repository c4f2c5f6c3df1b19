"""Attention, rollout, flow and gradient-weighted attention against slow second derivations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from attention import plainly
from clearhead import AttentionVisualizer, Settings
from clearhead.attention.gradients import gradient_attention
from clearhead.attention.plain import attention as one_layer
from clearhead.attention.rollout import rollout
from clearhead.errors import ModelError, UsageError
from clearhead.maps import Recipe, Target
from clearhead.question import Aim, Item, Layout, Pass, Question, Span
from clearhead.subjects import Wanted
from clearhead.units import Unit
from tasks.gallery import gallery, names

IDS = torch.tensor([[3, 1, 4, 1, 5]])
OTHER = torch.tensor([[2, 7, 1]])


def explained(model, ids=IDS, *, target=1, **settings):
    return AttentionVisualizer(model).explain({"input_ids": ids}, target=target, cross_check=False, **settings)


def stored(blocks) -> list[np.ndarray]:
    return [block.weights[0].detach().double().numpy() for block in blocks]


@pytest.fixture(params=[{"read": 0}, {"read": -1, "causal": True}, {"read": "mean"}, {"layers": 3, "read": 2}])
def toy(request):
    return plainly.Model(**request.param).double(), request.param


def reads(known) -> np.ndarray:
    """The positions a model is read from, in equal shares."""
    if known["read"] == "mean":
        return np.full(IDS.shape[1], 1 / IDS.shape[1])
    return np.eye(IDS.shape[1])[known["read"]]


# ---- rollout --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"fusion": "max"}, {"fusion": "min"}, {"residual": 0.2}, {"discard": 0.5}])
def test_a_streamed_row_is_the_row_of_the_dense_product(toy, options):
    model, known = toy
    found = explained(model, method="rollout", **options)
    kind = {key: value for key, value in options.items() if key != "residual"}
    tables = [plainly.fused(each, **kind) for each in stored(model.blocks)]
    expected = reads(known) @ plainly.rollout(tables, options.get("residual", 0.5))
    np.testing.assert_allclose(found.relevance, expected, atol=1e-9)
    assert found.relevance.sum() == pytest.approx(1, abs=1e-12)


def test_a_streamed_row_is_the_sum_over_all_paths():
    model = plainly.Model(layers=3, read=2).double()
    found = explained(model, method="rollout")
    np.testing.assert_allclose(
        found.relevance, plainly.by_paths([e.mean(0) for e in stored(model.blocks)], 2), atol=1e-9
    )


def test_the_whole_matrix_is_the_dense_product_and_its_rows_add_up_to_1(toy):
    model, _ = toy
    found = AttentionVisualizer(model).attention({"input_ids": IDS}, target=0)
    (stream,) = found
    whole = stream.rollout()
    np.testing.assert_allclose(whole, plainly.rollout([each.mean(0) for each in stored(model.blocks)]), atol=1e-9)
    np.testing.assert_allclose(whole.sum(-1), 1, atol=1e-12)


@pytest.mark.parametrize("heads", [(0,), (1,), (-1, 0)])
def test_heads_are_chosen(heads):
    model = plainly.Model().double()
    found = explained(model, method="rollout", heads=heads)
    expected = plainly.rollout([each[list(heads)].mean(0) for each in stored(model.blocks)])[0]
    np.testing.assert_allclose(found.relevance, expected, atol=1e-9)


@examples(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.integers(1, 3), st.integers(1, 3))
def test_shares_are_never_negative_and_add_up_to_1(seed, residual, layers, heads):
    model = plainly.Model(layers=layers, width=6 * heads, heads=heads).double()
    ids = torch.randint(0, 20, (1, 7), generator=torch.Generator().manual_seed(seed))
    found = explained(model, ids, method="rollout", residual=residual)
    assert (found.relevance >= 0).all()
    assert found.relevance.sum() == pytest.approx(1, abs=1e-12)


def test_float32_streams_to_the_dense_row_within_1e_5():
    model = plainly.Model(layers=4, width=16, heads=4)
    ids = torch.randint(0, 20, (1, 300), generator=torch.Generator().manual_seed(1))
    found = explained(model, ids, method="rollout")
    np.testing.assert_allclose(
        found.relevance, plainly.rollout([e.mean(0) for e in stored(model.blocks)])[0], atol=1e-5
    )


def test_a_sink_is_named_and_can_be_left_out():
    model = plainly.Model(layers=4, causal=True, read=-1).double()
    with torch.no_grad():  # keys that all point at the first position's word
        for block in model.blocks:
            block.maps["q"].zero_()
    found = explained(model, method="rollout", residual=0.1)
    assert found.top(1, special=True)[0][0].index == 0
    assert any("sink" in warning for warning in found.warnings)
    left = explained(model, method="rollout", residual=0.1, drop_sink=True)
    assert left.relevance[0] < found.relevance[0] / 2
    assert left.relevance.sum() == pytest.approx(1, abs=1e-12)
    assert any("took" in note for note in left.notes)


# ---- a decoder that looks at an encoder -----------------------------------------------------------------------------


def translation(model, position: int) -> Question:
    """A question about one token of a translation, its logit at a position of the decoder."""
    units = tuple(Unit(index=n, text=str(n), stream="encoder" if n < 5 else "decoder") for n in range(8))
    spans = (Span(first=0, last=5, ids="input_ids"), Span(first=5, last=8, ids="decoder_input_ids"))
    aim = Aim(ask=lambda outputs, _: (Target(kind="token", label="x"), outputs[0][0, position, 3]))
    return Question(
        model=model,
        name="toy",
        task="encoder-decoder",
        passes=(Pass(tensors={"input_ids": IDS, "decoder_input_ids": OTHER}),),
        items=(Item(layouts=(Layout(units=units, spans=spans),), aims=(aim,)),),
        recipe=Recipe(),
    )


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_rollout_runs_through_decoder_and_encoder(position):
    model = plainly.Translator().double()
    ((_, found),) = rollout(translation(model, position), Settings(method="rollout"))
    encoder, back, across = (
        [each.mean(0) for each in stored(blocks)] for blocks in (model.encoder, model.looks_back, model.looks_across)
    )
    own, other = plainly.translated(encoder, back, across)
    np.testing.assert_allclose(found.relevance, [*other[position], *own[position]], atol=1e-9)
    assert found.relevance.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("position", [0, 2])
def test_gradient_weighted_attention_follows_all_rules_of_a_decoder(position):
    model = plainly.Translator().double()
    ((_, found),) = gradient_attention(translation(model, position), Settings(method="gradient-attention"))
    model(IDS, OTHER)[0, position, 3].backward()
    own, other = plainly.chefer_translator(model)
    expected = torch.cat([other[position], own[position] - torch.eye(3)[position]])
    np.testing.assert_allclose(found.relevance, expected.numpy(), atol=1e-9)


def test_attention_of_a_decoder_has_both_streams_half_each():
    model = plainly.Translator().double()
    ((_, found),) = one_layer(translation(model, 1), Settings(method="attention"))
    own, other = stored(model.looks_back)[-1].mean(0)[1], stored(model.looks_across)[-1].mean(0)[1]
    np.testing.assert_allclose(found.relevance, [*(other / 2), *(own / 2)], atol=1e-9)


# ---- one layer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [None, 0, -1, "blocks.0"])
def test_attention_is_the_row_of_the_layer(toy, layer):
    model, known = toy
    found = explained(model, method="attention", layer=layer)
    chosen = {None: -1, "blocks.0": 0}.get(layer, layer)
    np.testing.assert_allclose(found.relevance, reads(known) @ stored(model.blocks)[chosen].mean(0), atol=1e-9)


# ---- flow -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [{"read": 0}, {"read": -1, "causal": True}, {"layers": 3, "read": 2}])
def test_flow_is_that_of_networkx(known):
    model = plainly.Model(**known).double()
    found = explained(model, method="flow")
    top = known["read"] % IDS.shape[1]
    expected = plainly.flow([each.mean(0) for each in stored(model.blocks)], top)
    np.testing.assert_allclose(found.relevance, expected, atol=5 * 2**-20)


def test_flow_says_that_it_is_no_part_of_a_whole():
    assert any("do not add up" in note for note in explained(plainly.Model(), method="flow").notes)


def test_a_flow_that_would_take_hours_is_refused_with_the_estimate(monkeypatch):
    monkeypatch.setattr("clearhead.attention.flow.MOST_EDGES", 40)
    with pytest.raises(UsageError, match=r"A flow is solved for each position; .* minutes.*rollout.*--force"):
        explained(plainly.Model(), method="flow")
    assert explained(plainly.Model(), method="flow", force=True).relevance.sum() > 0


def test_a_flow_that_turns_out_slow_is_refused_while_it_runs(monkeypatch):
    clock = iter(range(0, 10_000, 300))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    with pytest.raises(UsageError, match=r"about 25 minutes"):
        explained(plainly.Model(), method="flow")


# ---- gradient-weighted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [{"read": 0}, {"read": -1, "causal": True}, {"layers": 3, "read": 2}])
def test_gradient_weighted_attention_is_that_of_stored_weights_and_gradients(known):
    model = plainly.Model(**known).double()
    found = explained(model, method="gradient-attention", target=2)
    model(IDS)[0, 2].backward()
    whole = plainly.chefer([plainly.spoken(block) for block in model.blocks])
    at = known["read"] % IDS.shape[1]
    np.testing.assert_allclose(found.relevance, whole[at].numpy() - np.eye(5)[at], atol=1e-9)


def test_gradient_weighted_attention_depends_on_the_target():
    model = plainly.Model().double()
    first, second = (explained(model, method="gradient-attention", target=n).relevance for n in (0, 1))
    assert np.abs(first - second).max() > 1e-3


def test_a_fused_kernel_gives_the_same_as_weights_written_out():
    entry = gallery("text-classification/bert")
    found = {}
    for kernel in ("sdpa", "eager"):
        entry.model.set_attn_implementation(kernel)
        av = AttentionVisualizer(entry.model, entry.processor)
        for method in ("attention", "rollout", "flow", "gradient-attention"):
            found[kernel, method] = av.explain(entry.inputs[0], method=method, cross_check=False).relevance
    entry.model.set_attn_implementation("sdpa")
    for method in ("attention", "rollout", "flow", "gradient-attention"):
        np.testing.assert_allclose(found["sdpa", method], found["eager", method], atol=1e-5)


# ---- wrong use ------------------------------------------------------------------------------------------------------


def test_a_method_that_ignores_the_target_says_so_and_refuses_a_contrast():
    model = plainly.Model()
    for method in ("attention", "rollout", "flow"):
        assert any("ignores the target" in note for note in explained(model, method=method).notes)
        with pytest.raises(UsageError, match=rf"The method {method} does not depend on the target.*gradient-attention"):
            explained(model, method=method, contrast=0)
    assert not any("ignores" in note for note in explained(model, method="gradient-attention").notes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"method": "attention", "layer": 7},
            r"`layer` must be a number from 0 to 1, or below 0 from the end; found 7",
        ),
        ({"method": "attention", "layer": "blocks.3"}, r"'blocks.3' holds 0\. Did you mean 'blocks\.\d'\?"),
        (
            {"method": "rollout", "heads": (0, 5)},
            r"`heads` must be numbers of heads; 'blocks\.\d' has 2, from 0 to 1, and",
        ),
        ({"method": "rollout", "layer": 1}, r"The method rollout does not take `layer`; attention"),
        ({"method": "lrp", "drop_sink": True}, r"The method lrp does not take `drop_sink`; rollout"),
        ({"method": "rolout"}, r"Did you mean 'rollout'\?"),
        ({"method": "rollout", "residual": 1.0}, r"`residual` must be at least 0 and below 1; found 1.0"),
        ({"method": "rollout", "heads": ()}, r"`heads` must be a list of whole numbers, at least one"),
    ],
)
def test_what_does_not_exist_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        explained(plainly.Model(), **settings)


def test_a_model_without_attention_is_told_what_was_looked_for():
    model = torch.nn.Sequential(torch.nn.Embedding(20, 4), torch.nn.Flatten(), torch.nn.Linear(20, 3))

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, input_ids):
            return self.inner(input_ids)

    for method in ("rollout", "attention", "flow", "gradient-attention"):
        with pytest.raises(ModelError, match=r"softmax over keys weighs values.*scaled_dot_product_attention.*neither"):
            explained(Plain(), method=method)
    with pytest.raises(ModelError, match="neither"):
        AttentionVisualizer(Plain()).attention({"input_ids": IDS}, target=0)


# ---- where gradients begin ------------------------------------------------------------------------------------------

TWICE = {"image-classification/convnext"}  # no attention at all


@pytest.mark.parametrize("name", [name for name in names() if name not in TWICE])
def test_one_forward_pass_tells_what_an_answer_is_read_from(name, monkeypatch):
    from clearhead.attention import making

    entry = gallery(name)
    calls = []
    usual = making.seen
    monkeypatch.setattr(making, "seen", lambda *args, **how: calls.append(how["gradients"]) or usual(*args, **how))
    av = AttentionVisualizer(entry.model, entry.processor, task=entry.task)
    more = {"continuation": "ein Haus"} if entry.task == "encoder-decoder" else {}
    av.explain(entry.inputs[0], method="rollout", cross_check=False, **more)
    assert calls == ["late"]


def test_up_to_the_end_of_the_last_block_no_gradient_is_recorded():
    from clearhead.sight.capture import seen

    entry = gallery("text-classification/bert")
    question = AttentionVisualizer(entry.model, entry.processor)._subject.question(
        entry.inputs[0], Wanted(), Settings(method="rollout")
    )
    sight = seen(question, gradients="late")
    first, last = (layer.site for layer in sight.layers)
    assert (first.edge, first.output, last.output) == (None, None, None)
    assert last.edge.is_leaf
    assert sight.outputs[0].logits.requires_grad


def test_a_flow_from_several_positions_is_shared_by_them():
    model = plainly.Model(read="mean").double()
    found = explained(model, method="flow")
    tables = [each.mean(0) for each in stored(model.blocks)]
    np.testing.assert_allclose(found.relevance, plainly.flow(tables, None) / 5, atol=5 * 2**-20)


def test_every_method_that_offers_force_takes_it():
    for method in ("flow", "value-zeroing"):
        assert explained(plainly.Model(), method=method, force=True).method == method
