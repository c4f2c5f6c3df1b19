"""Attention maps: any layer, head or row, their summaries, and what a model looked at while it wrote."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from attention import plainly
from clearhead import AttentionMaps, AttentionVisualizer
from clearhead.errors import UsageError
from tasks.gallery import gallery, names

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2]])


@pytest.fixture(scope="module")
def toy():
    """Maps of a plain model in float64, and the weights that it computed itself, layer by layer."""
    model = plainly.Model(layers=3, width=8, heads=2).double()
    maps = AttentionVisualizer(model).attention({"input_ids": IDS}, target=0)
    return maps, [block.weights[0].detach().numpy() for block in model.blocks]


def test_every_layer_head_and_row_is_the_models_own(toy):
    maps, weights = toy
    assert maps.streams == ("encoder",)
    assert [layer.label for layer in maps["encoder"]] == ["blocks.0", "blocks.1", "blocks.2"]
    for n, own in enumerate(weights):
        layer = maps["encoder"].layer(n)
        assert layer.shape == own.shape
        np.testing.assert_allclose(layer.matrix(), own, atol=1e-12)
        np.testing.assert_allclose(layer.mean(), own.mean(0), atol=1e-12)
        np.testing.assert_allclose(layer.head(1), own[1], atol=1e-12)
        np.testing.assert_allclose(layer.row(-2), own[:, -2], atol=1e-12)


def test_entropy_is_that_of_the_rows_in_bits(toy):
    maps, weights = toy
    expected = -(weights[0] * np.log2(weights[0])).sum(-1).mean(-1)
    np.testing.assert_allclose(maps.layer(0).entropy(), expected, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 7, 100])
def test_top_k_has_the_largest_weights_and_says_what_they_hold(toy, k):
    maps, weights = toy
    found = maps.layer(1).top_k(k)
    ordered = -np.sort(-weights[1], axis=-1)[..., :k]
    np.testing.assert_allclose(found.weights, ordered, atol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(weights[1], found.keys, -1), ordered, atol=1e-12)
    np.testing.assert_allclose(found.kept, ordered.sum((1, 2)) / weights[1].sum((1, 2)), atol=1e-12)


@pytest.mark.parametrize("side", [1, 2, 3, 7, 64])
def test_thumbnails_are_means_of_what_they_stand_for(toy, side):
    maps, weights = toy
    found = maps.layer(0).thumbnails(side)
    count = min(side, 7)
    edges = [n * 7 // count for n in range(count)] + [7]
    for i in range(count):
        for j in range(count):
            part = weights[0][:, edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
            np.testing.assert_allclose(found[:, i, j], part.mean((1, 2)), atol=1e-12)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m["encodr"], r"The streams are encoder; found 'encodr'\. Did you mean 'encoder'\?"),
        (lambda m: m["encoder"].layer(3), r"A layer is a number from 0 to 2, or below 0 from the end; found 3"),
        (lambda m: m.layer(0).head(2), r"A head is a number from 0 to 1"),
        (lambda m: m.layer(0).row(7), r"A query is a number from 0 to 6"),
        (lambda m: m.layer(0).head(True), r"found True"),
        (lambda m: m.layer(0).thumbnails(0), r"`side` must be 1 or larger"),
        (lambda m: m.layer(0).top_k(0), r"`k` must be 1 or larger"),
        (lambda m: m.step(0), r"A step is a number of which there are none"),
    ],
)
def test_what_is_not_there_is_refused(toy, ask, message):
    with pytest.raises(UsageError, match=message):
        ask(toy[0])


@pytest.mark.parametrize("name", names("encoder-decoder"))
def test_a_translation_has_three_streams_of_their_own_sizes(name):
    entry = gallery(name)
    av = AttentionVisualizer(entry.model, entry.processor)
    maps = av.attention(entry.inputs[0], continuation="ein Haus")
    assert maps.streams == ("encoder", "decoder", "cross")
    source, target = (sum(unit.stream == s for unit in maps.units) for s in ("encoder", "decoder"))
    assert [m.layer(0).shape[1:] for m in maps] == [(source, source), (target, target), (target, source)]
    cross = maps["cross"].layer(0)
    assert {unit.stream for unit in cross.queries} == {"decoder"}
    assert {unit.stream for unit in cross.keys} == {"encoder"}
    with pytest.raises(UsageError, match=r"several streams: choose one of encoder, decoder, cross"):
        maps.layer(0)
    with pytest.raises(UsageError, match=r"A rollout is of a stream that looks at itself; 'cross' does not"):
        maps["cross"].rollout()


@pytest.mark.parametrize("name", names("image-text-similarity"))
def test_a_model_of_two_towers_has_a_stream_for_each(name):
    entry = gallery(name)
    maps = AttentionVisualizer(entry.model, entry.processor).attention(entry.inputs[0])
    assert {"image", "text"} <= set(maps.streams) <= {"image", "text", "pooling"}
    assert any(unit.box for unit in maps["image"].layer(0).keys)


def test_learned_vectors_and_merged_patches_have_names():
    entry = gallery("image-classification/dinov2-registers")
    keys = AttentionVisualizer(entry.model, entry.processor).attention(entry.inputs[0]).layer(0).keys
    assert [unit.text for unit in keys[:3]] == ["cls_token", "register_tokens 1", "register_tokens 2"]
    assert [unit.box is None for unit in keys] == [True] * 3 + [False] * 16
    entry = gallery("image-classification/swin")
    maps = AttentionVisualizer(entry.model, entry.processor).attention(entry.inputs[0])
    assert [len(layer.keys) for layer in maps["encoder"]] == [64, 64, 16, 16]
    assert maps.layer(-1).keys[5].box == (8, 8, 16, 16)


@pytest.mark.parametrize("name", names("causal-lm"))
def test_what_was_looked_at_while_writing_is_what_generate_with_a_cache_says(name):
    entry = gallery(name)
    maps = AttentionVisualizer(entry.model, entry.processor).attention(entry.inputs[0], generate=5)
    assert maps.streams == ("decoder",)
    eager = copy.deepcopy(entry.model)
    eager.set_attn_implementation("eager")
    ids = entry.tokenizer(entry.inputs[0], return_tensors="pt")["input_ids"]
    said = eager.generate(
        ids, max_new_tokens=5, do_sample=False, output_attentions=True, return_dict_in_generate=True, pad_token_id=0
    )
    assert len(maps.steps) == len(said.attentions)
    for step, layers in zip(maps.steps, said.attentions, strict=True):
        for mine, own in zip(step["decoder"], layers, strict=True):
            whole = np.zeros(mine.shape[2])
            whole[: own.shape[-1]] = own[0, :, -1].mean(0).numpy()
            assert mine.shape[1] == 1
            np.testing.assert_allclose(mine.mean()[0], whole, atol=1e-5)


def test_steps_of_a_translation_have_the_decoder_and_what_it_saw():
    entry = gallery("encoder-decoder/bart")
    maps = AttentionVisualizer(entry.model, entry.processor).attention(entry.inputs[0], continuation="ein Haus")
    step = maps.step(1)
    assert step.streams == ("decoder", "cross")
    assert step.produced == (maps.produced[1],)
    np.testing.assert_allclose(step["cross"].layer(0).matrix()[:, 0], maps["cross"].layer(0).row(1))
    np.testing.assert_allclose(step["cross"].layer(0).row(0), maps["cross"].layer(0).row(1))


def test_padding_is_no_row_and_no_column():
    entry = gallery("text-classification/bert")
    ids = entry.tokenizer(entry.inputs[1], return_tensors="pt")["input_ids"]
    count = ids.shape[1]
    padded = torch.cat([ids, torch.zeros(1, 3, dtype=torch.long)], 1)
    mask = (torch.arange(count + 3) < count).long()[None]
    av = AttentionVisualizer(entry.model)
    whole, alone = (
        av.attention(t, target=0) for t in ({"input_ids": padded, "attention_mask": mask}, {"input_ids": ids})
    )
    assert whole.layer(0).shape == alone.layer(0).shape
    np.testing.assert_allclose(whole.layer(1).matrix(), alone.layer(1).matrix(), atol=1e-6)


def test_a_list_gives_a_list():
    entry = gallery("text-classification/bert")
    found = AttentionVisualizer(entry.model, entry.processor).attention(list(entry.inputs[:2]))
    assert [type(each) for each in found] == [AttentionMaps] * 2


def test_plain_data_says_what_it_leaves_out(toy):
    maps, weights = toy
    data = maps.to_dict(top=2)
    layer = data["streams"][0]["layers"][0]
    assert np.shape(layer["top_weights"]) == (2, 7, 2)
    assert layer["kept"] == pytest.approx((-np.sort(-weights[0], -1)[..., :2]).sum((1, 2)) / 7, abs=1e-6)
    assert "not what the answer came from" in data["what_it_is"]


@pytest.mark.parametrize("most", [0, 2**40])
def test_what_waits_in_a_file_comes_back_as_it_was(monkeypatch, most):
    monkeypatch.setattr("clearhead.sight.shelf.Shelf.__init__.__defaults__", (most,))
    entry = gallery("causal-lm/llama-writer")
    found = AttentionVisualizer(entry.model, entry.processor).explain(entry.inputs[0], method="rollout")
    usual = AttentionVisualizer(entry.model, entry.processor).explain(entry.inputs[0], method="rollout")
    np.testing.assert_array_equal(found.relevance, usual.relevance)
