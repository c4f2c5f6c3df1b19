"""A head whose gate is shut is gone, as if by hand, for as long as the block lasts, and nothing else changes."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch

from attention import plainly
from clearhead import AttentionVisualizer
from clearhead.errors import UsageError
from clearhead.headreports import Head
from clearhead.heads.gates import discover, gated, shut
from heads.headless import READERS, fingerprint, handed_zeros, scaled
from sight import families
from tasks.gallery import gallery

MODELS = {
    "text-classification/bert": "bert",
    "causal-lm/gpt2": "gpt2",
    "image-classification/vit": "vit",
    "text-classification/deberta": "deberta",
    "causal-lm/llama-writer": "llama",
}
HEADS = 4
ALL = [
    *(("text", name) for name in families.TEXTS),
    *(("two_sequences", name) for name in families.TWO_SEQUENCES),
    *(("image", name) for name in families.IMAGES),
]


def opened(name: str, kernel: str | None = None) -> AttentionVisualizer:
    entry = gallery(name)
    model = copy.deepcopy(entry.model)
    if kernel is not None and kernel != model.config._attn_implementation:
        model.set_attn_implementation(kernel)
    return AttentionVisualizer(model, entry.processor, task=entry.task, cross_check=False)


def tensors_of(av: AttentionVisualizer, given: object) -> dict[str, torch.Tensor]:
    from clearhead.subjects import Wanted

    (part,) = av._subject.question(given, Wanted(), av.settings).passes
    return dict(part.tensors)


@torch.no_grad()
def scores(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**tensors).logits


# ---- gone ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_without_a_head_is_as_if_its_reader_read_zeros(name, kernel):
    if "deberta" in name and kernel == "sdpa":
        pytest.skip("computes its weights itself")
    av, given = opened(name, kernel), gallery(name).inputs[0]
    tensors = tensors_of(av, given)
    before, whole = fingerprint(av.model), scores(av.model, tensors)
    stream = "decoder" if "causal" in name else "encoder"
    with av.without([f"{stream} 1.2", (stream, 0, 3)]):
        found = scores(av.model, tensors)
    paths = [(READERS[MODELS[name]].format(layer=layer), head) for layer, head in ((1, 2), (0, 3))]
    with handed_zeros(av.model, paths, HEADS):
        expected = scores(av.model, tensors)
    assert not torch.allclose(expected, whole, atol=1e-3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert fingerprint(av.model) == before
    torch.testing.assert_close(scores(av.model, tensors), whole, rtol=0, atol=0)


@pytest.mark.parametrize("stream", ["encoder", "decoder", "cross"])
def test_three_streams_of_a_translator(stream):
    av = opened("encoder-decoder/bart")
    tensors = (
        families.question(av.model, families.TEXT, gallery("encoder-decoder/bart").processor, continuation="ein Ziel")
        .passes[0]
        .tensors
    )
    count = av._heads.known(av.settings)[1].count
    heads = next(n for (module, _), n in count.items() if module in READERS[stream].format(layer=1))
    with av.without((stream, 1, 1)):
        found = scores(av.model, dict(tensors))
    with handed_zeros(av.model, [(READERS[stream].format(layer=1), 1)], heads):
        torch.testing.assert_close(found, scores(av.model, dict(tensors)), rtol=1e-5, atol=1e-5)


def test_a_plain_model_of_tensors_only_learns_its_heads_when_it_is_called():
    model = plainly.Model(layers=2, width=8, heads=2)
    av, ids = AttentionVisualizer(model), torch.arange(6).unsqueeze(0)
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        by_hand.blocks[1].maps["o"][4:] = 0
    with av.without((1, 1)):
        found = model(ids)
    torch.testing.assert_close(found, by_hand(ids))
    with av.without([Head(stream="encoder", layer=1, head=1)]):
        torch.testing.assert_close(model(ids), by_hand(ids))


@pytest.mark.parametrize(("kind", "name"), ALL, ids=lambda each: each)
def test_every_family_has_gates_that_change_nothing_while_open_and_its_streams_are_those_of_attention(kind, name):
    family = getattr(families, kind)(name)
    catalogue = discover(family.question)
    ones = {call: torch.ones(size) for call, size in catalogue.count.items()}
    with torch.no_grad():
        whole = first(family.model(**family.tensors))
        with gated(family.model, lambda _: shut(ones)):
            torch.testing.assert_close(first(family.model(**family.tensors)), whole, rtol=1e-5, atol=1e-5)
        for head in (catalogue.heads[0], catalogue.heads[-1]):
            with gated(family.model, lambda _, head=head: shut(catalogue.masks([head]))):
                assert not torch.equal(first(family.model(**family.tensors)), whole)
    from clearhead.attention.looking import look

    maps = look(family.question).maps
    stated = [
        (stream, n, layer.heads, layer.label) for stream, each in maps.items() for n, layer in enumerate(each.layers)
    ]
    own = {(stream, layer, catalogue.count[call], call[0]) for (stream, layer), call in catalogue.calls.items()}
    assert own == set(stated)


def first(output: object) -> torch.Tensor:
    values = output.values() if hasattr(output, "values") else [output]
    return next(each for each in values if isinstance(each, torch.Tensor))


# ---- within the block ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "method", ["lrp", "attnlrp", "rollout", "attention", "gradient-attention", "value-zeroing", "gradcam", "flow"]
)
def test_every_method_explains_the_model_without_the_head(method, kernel):
    av, text = opened("text-classification/bert", kernel), "a gripping , beautiful film !"
    asked = {"preset": "attnlrp"} if method == "attnlrp" else {"method": method}
    with av.without("encoder 0.1"):
        found = av.explain(text, target=1, **asked)
    with scaled(av.model.get_submodule(READERS["bert"].format(layer=0)), 1, HEADS, 0.0):
        expected = av.explain(text, target=1, **asked)
    assert found.value == pytest.approx(expected.value, rel=1e-5)
    np.testing.assert_allclose(
        found.relevance, expected.relevance, rtol=1e-4, atol=1e-5 * np.abs(expected.relevance).max()
    )


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_attention_maps_within_the_block_show_what_the_model_then_looks_at(kernel):
    av = opened("text-classification/bert", kernel)
    without = AttentionVisualizer(av.pruned("encoder 0.1"), gallery("text-classification/bert").processor)
    with av.without("encoder 0.1"):
        found = [layer.matrix() for layer in av.attention("a good film").maps["encoder"].layers]
    for mine, other in zip(found, without.attention("a good film").maps["encoder"].layers, strict=True):
        np.testing.assert_allclose(mine, other.matrix(), atol=1e-5)


def test_generating_within_the_block_reaches_the_encoder_and_every_step():
    av = opened("encoder-decoder/bart")
    without = AttentionVisualizer(
        av.pruned([("encoder", 0, 1), ("cross", 1, 0)]), gallery("encoder-decoder/bart").processor
    )
    with av.without([("encoder", 0, 1), ("cross", 1, 0)]):
        found = av.explain(families.TEXT, generate=4)
    assert found.rows[0].texts == without.explain(families.TEXT, generate=4).rows[0].texts


def test_nothing_is_left_after_an_exception_or_an_interruption():
    av = opened("text-classification/bert")
    with av.without("encoder 0.1"):
        pass
    before = fingerprint(av.model)

    def breaks(*_: object) -> None:
        raise failure

    handle = av.model.bert.encoder.layer[1].register_forward_pre_hook(breaks)
    for failure in (ValueError("x"), KeyboardInterrupt()):
        with pytest.raises(type(failure)), av.without("encoder 0.1"):
            av.model(**tensors_of(av, "a film"))
    handle.remove()
    assert fingerprint(av.model) == before


def test_another_thread_has_all_heads():
    av = opened("text-classification/bert")
    tensors, found = tensors_of(av, "a film"), []
    whole = scores(av.model, tensors)
    with av.without("encoder 0.1"):
        other = threading.Thread(target=lambda: found.append(scores(av.model, tensors)))
        other.start()
        other.join()
        assert not torch.allclose(scores(av.model, tensors), whole)
    torch.testing.assert_close(found[0], whole, rtol=0, atol=0)


def test_blocks_within_blocks_and_parameters_that_learn():
    av = opened("text-classification/bert")
    tensors = tensors_of(av, "a film")
    with av.without(["encoder 0.1", "encoder 1.0"]):
        both = scores(av.model, tensors)
    with av.without("encoder 0.1"), av.without("encoder 1.0"):
        torch.testing.assert_close(scores(av.model, tensors), both)
        av.model.requires_grad_()
        av.model(**tensors).logits.sum().backward()
    reader = av.model.bert.encoder.layer[0].attention.output.dense.weight.grad
    width = reader.shape[1] // HEADS
    assert reader[:, :width].any()
    assert not reader[:, width : 2 * width].any()


def test_all_heads_of_a_layer_may_go_and_it_is_said():
    av = opened("text-classification/bert")
    with av.without([("encoder", 1, n) for n in range(HEADS)]) as removed:
        assert len(removed.heads) == HEADS
        assert removed.notes == ("All 4 heads of encoder layer 1 are removed; its attention gives out nothing.",)


@pytest.mark.parametrize(
    "wanted", ["encoder 0.4", "encoder 7.0", "decoder 0.0", "encoder", (0, 9), ("encoder", 1), 3, "0.x"]
)
def test_heads_that_do_not_exist(wanted):
    av = opened("text-classification/bert")
    with pytest.raises(UsageError, match="encoder: layers 0 to 1, heads 0 to 3"), av.without([wanted]):
        pass
