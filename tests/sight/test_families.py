"""What is captured is what models state themselves: every family, as it is built, against its own open weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clearhead.sight.capture import Layer, Sight, seen
from sight.families import (
    IMAGES,
    LENGTH,
    NAMES,
    TEXTS,
    TWO_SEQUENCES,
    VOCABULARY,
    WINDOWED,
    family,
    ids,
    opened,
    own,
    question,
)
from tasks.gallery import image_processor, made, picture

CLOSE = 1e-5


def by_stream(sight: Sight) -> dict[str, list[Layer]]:
    """The attentions of each stream; those of learned queries, which no model states, under `learned`."""
    found: dict[str, list[Layer]] = {}
    for layer in sight.layers:
        stream = "cross" if layer.crossing else sight.stream(layer.query)
        found.setdefault(stream if layer.query.name else "learned", []).append(layer)
    return found


def agree(layers: list[Layer], stated: list[Tensor]) -> None:
    assert len(layers) == len(stated)
    for layer, table in zip(layers, stated, strict=True):
        torch.testing.assert_close(layer.site.matrix(), table[0], atol=CLOSE, rtol=0)


# ---- every family ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if IMAGES.get(name) is not WINDOWED])
def test_the_weights_are_the_models_own(name):
    each = family(name)
    found = by_stream(seen(each.question))
    assert len(found.pop("learned", [])) == each.beside
    stated = own(each.model, each.tensors)
    if "" in stated:
        (stream,) = found
        stated = {stream: stated[""]}
    assert set(found) == set(stated)
    for stream, tables in stated.items():
        agree(found[stream], tables)


def test_there_are_many_families():
    assert len(NAMES) >= 50


def test_a_small_fault_would_be_noticed():
    each = family("Bert")
    stated = own(each.model, each.tensors)[""]
    stated[1] = stated[1] * (1 + 1e-3)
    with pytest.raises(AssertionError):
        agree(seen(each.question).layers, stated)


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "Funnel"])
def test_positions_of_a_text_are_its_units(name):
    sight = seen(family(name).question)
    every = [(i,) for i in range(LENGTH)]
    for layer in sight.layers:
        assert sight.covered(layer.query, layer.site.queries) == every
        assert sight.covered(layer.key, layer.site.keys) == every


@pytest.mark.parametrize("name", [*TWO_SEQUENCES, "Whisper"])
def test_two_sequences_of_one_length_are_told_apart(name):
    each = family(name)
    sight = seen(each.question)
    found = by_stream(sight)
    assert {stream: len(layers) for stream, layers in found.items()} == {"encoder": 2, "decoder": 3, "cross": 3}
    assert len({layer.site.matrix().shape[1:] for layer in sight.layers}) == 1
    for layer in found["cross"]:
        assert (sight.stream(layer.query), sight.stream(layer.key)) == ("decoder", "encoder")


# ---- what families differ in ----------------------------------------------------------------------------------------


def test_sinks_take_a_part_of_each_row():
    sums = seen(family("GptOss").question).layers[0].site.matrix().sum(-1)
    assert (sums < 1).all()
    assert (sums < 0.9).any()


@pytest.mark.parametrize(("name", "layer"), [("Mistral", 0), ("GPTNeo", 1), ("Gemma2", 0), ("GptOss", 1)])
def test_a_sliding_window_is_shorter_than_the_text(name, layer):
    weights = seen(family(name).question).layers[layer].site.matrix()
    seen_by = (weights > 0).sum(-1)
    assert seen_by.max() == 4
    assert (weights[:, LENGTH - 1, : LENGTH - 4] == 0).all()


def test_pooled_positions_are_no_units_and_no_learned_vectors():
    sight = seen(family("Funnel").question)
    pooled = [layer for layer in sight.layers if layer.site.queries != layer.site.keys]
    assert pooled
    assert all(layer.query.name == "input_ids" for layer in pooled)
    with pytest.raises(Exception, match="must be the units of the input"):
        sight.covered(pooled[0].query, pooled[0].site.queries)


@pytest.mark.parametrize(
    ("name", "learned"), [("ViT", 1), ("DeiT", 2), ("Beit", 1), ("Dinov2WithRegisters", 3), ("IJepa", 0), ("CLIP", 1)]
)
def test_patches_come_after_learned_vectors(name, learned):
    sight = seen(family(name).question)
    layer = by_stream(sight)["image"][0]
    covered = sight.covered(layer.query, layer.site.queries)
    assert all(isinstance(each, str) for each in covered[:learned])
    assert covered[learned:] == [(i,) for i in range(16)]


def test_keys_of_merged_patches_cover_squares():
    sight = seen(family("Segformer").question)
    layer = sight.layers[0]
    assert sight.covered(layer.query, layer.site.queries) == [(i,) for i in range(64)]
    squares = [tuple(8 * (2 * y + v) + 2 * x + u for v in (0, 1) for u in (0, 1)) for y in range(4) for x in range(4)]
    assert sight.covered(layer.key, layer.site.keys) == squares


# ---- windows --------------------------------------------------------------------------------------------------------


def laid_out(tables: Tensor, side: int, window: int, shift: int) -> Tensor:
    """Weights of windows [W, H, window^2, window^2] over an image [H, side^2, side^2], by counting.

    The image is filled up to whole windows, moved up and left by `shift` round its edges, and cut.
    """
    full = -(-side // window) * window
    whole = torch.zeros(tables.shape[1], side * side, side * side)

    def place(number: int, entry: int) -> int | None:
        row = (number // (full // window) * window + entry // window + shift) % full
        column = (number % (full // window) * window + entry % window + shift) % full
        return row * side + column if row < side and column < side else None

    for number in range(len(tables)):
        for a in range(window * window):
            for b in range(window * window):
                asks, answers = place(number, a), place(number, b)
                if asks is not None and answers is not None:
                    whole[:, asks, answers] = tables[number, :, a, b]
    return whole


@pytest.mark.parametrize("name", [name for name in IMAGES if IMAGES[name] is WINDOWED])
@pytest.mark.parametrize("pixels", [32, 40])  # 8 x 8 patches: whole windows; 10 x 10: filled up
def test_windows_are_mapped_back_to_the_image(name, pixels):
    model = made(name, "ForImageClassification", **{**WINDOWED, "image_size": pixels})
    processor = image_processor()
    processor.size = {"height": pixels, "width": pixels}
    sight = seen(question(model, picture(0), processor))
    twin, stated = opened(model), []
    for path, module in twin.named_modules():
        if path.endswith("attention.self") or (path.endswith("attention") and not path.endswith("attention.attention")):
            module.register_forward_hook(lambda _, __, out: stated.append(out[1]) if isinstance(out, tuple) else None)
    with torch.no_grad():
        twin(**sight.question.passes[0].tensors, output_attentions=True)
    stated = list({id(each): each for each in stated}.values())
    sides = [(side, 4, shift if side > 4 else 0) for side in (pixels // 4, pixels // 8) for shift in (0, 2)]
    assert len(stated) == len(sight.layers) == 4
    for layer, tables, (side, window, shift) in zip(sight.layers, stated, sides, strict=True):
        torch.testing.assert_close(
            layer.site.matrix(), laid_out(tables, side, window, shift), atol=CLOSE, rtol=0, msg=str((side, shift))
        )
    merged = sight.covered(sight.layers[2].query, sight.layers[2].site.queries)
    assert merged[1] == (2, 3, pixels // 4 + 2, pixels // 4 + 3)


# ---- padding --------------------------------------------------------------------------------------------------------


def padded(side: str, count: int = 3) -> dict[str, Tensor]:
    filled = {}
    for name, tensor in ids().items():
        filler = torch.zeros(1, count, dtype=tensor.dtype)
        filled[name] = torch.cat([filler, tensor] if side == "left" else [tensor, filler], dim=1)
    return filled


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "name",
    ["Bert", "DistilBert", "DebertaV2", "XLNet", "ModernBert", "GPT2", "Bloom", "Mpt", "Falcon", "Llama", "Gemma2"],
)
def test_padding_has_no_weight_and_no_unit(name, side):
    model = family(name).model
    tensors = padded(side)
    sight = seen(question(model, tensors))
    for layer, table in zip(sight.layers, own(model, tensors)[""], strict=True):
        covered = sight.covered(layer.query, layer.site.queries)
        real = [i for i, units in enumerate(covered) if units]
        assert real == tensors["attention_mask"][0].nonzero().flatten().tolist()
        assert [covered[i] for i in real] == [(i,) for i in range(LENGTH)]
        weights = layer.site.matrix()[:, real]
        torch.testing.assert_close(weights, table[0][:, real], atol=CLOSE, rtol=0)
        torch.testing.assert_close(weights[:, :, real].sum(-1), torch.ones(weights.shape[:2]), atol=CLOSE, rtol=0)


@pytest.mark.parametrize("name", ["Bert", "ModernBert", "Llama", "Bloom"])
def test_weights_are_those_of_the_text_alone(name):
    model = family(name).model
    alone, filled = seen(question(model, ids())), seen(question(model, padded("right")))
    for a, b in zip(alone.layers, filled.layers, strict=True):
        torch.testing.assert_close(a.site.matrix(), b.site.matrix()[:, :LENGTH, :LENGTH], atol=CLOSE, rtol=0)


def test_no_token_of_a_text_is_special():
    assert ids()["input_ids"].min() >= 5
    assert ids()["input_ids"].max() < VOCABULARY
