"""GradCAM against closed forms, and against hooks and autograd on the models themselves."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from clearhead import AttentionVisualizer, RelevanceMap, Settings
from clearhead.attention.gradcam import Choice, gradcam, mapped
from clearhead.attention.stacks import stacked
from clearhead.errors import ModelError, NonFiniteError, UsageError
from clearhead.question import Question
from clearhead.subjects import Wanted
from relevance.test_contract import fingerprint
from tasks.gallery import Entry, gallery, names
from tasks.plainly import encoded, greedy, options

CAMS = ("mean-gradient", "elementwise")
JOINED = ("text-classification/bert", "causal-lm/llama-writer", "sentence-similarity/bert-embedder")
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-6}

# ---- asking ---------------------------------------------------------------------------------------------------------


@cache
def door(name: str) -> AttentionVisualizer:
    return AttentionVisualizer(gallery(name).model, gallery(name).processor)


def pose(av: AttentionVisualizer, given: Any, *, pixels: bool = False, **wanted: Any) -> Question:
    return av._subject.question(given, Wanted(**wanted), Settings(), pixels=pixels)


def posed(name: str, n: int = 0, **more: Any) -> Question:
    one = gallery(name)
    return pose(door(name), one.inputs[n], **{**options(one.task), **more})


def explained(question: Question, **settings: Any) -> list[RelevanceMap]:
    return [each for _, each in gradcam(question, Settings(method="gradcam", **settings))]


# ---- a model with a closed form -------------------------------------------------------------------------------------


class Mixer(nn.Module):
    r"""$h'_t = h_t + A\, E_s[h_s]$: each position gets a share of all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.map(x.mean(1, keepdim=True))


class Reader(nn.Module):
    """Three blocks; the first position is read. One block more that is never called, and one that leads nowhere."""

    def __init__(self, width: int = 4, blocks: int = 3) -> None:
        super().__init__()
        self.words = nn.Embedding(9, width)
        self.blocks = nn.ModuleList([Mixer(width) for _ in range(blocks)])
        self.head = nn.Linear(width, 3)
        self.idle, self.aside = Mixer(width), Mixer(width)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.words(input_ids)
        for block in self.blocks:
            x = block(x)
        self.aside(x)
        return self.head(x[:, 0])


IDS = torch.tensor([[1, 5, 3, 8, 2]])


def reader(blocks: int = 3) -> AttentionVisualizer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AttentionVisualizer(Reader(blocks=blocks).double().eval())


def by_hand(net: Reader, cam: str, target: int = 1) -> np.ndarray:
    r"""At the output of block 1: $\partial y / \partial h_{1t} = (t = 0) w + A_2^\top w / T$."""
    h = net.words.weight[IDS[0]].detach().numpy()
    for block in net.blocks[:2]:
        h = h + h.mean(0) @ block.map.weight.detach().numpy().T
    w = net.head.weight[target].detach().numpy()
    gradient = np.tile(w @ net.blocks[2].map.weight.detach().numpy() / len(h), (len(h), 1))
    gradient[0] += w
    return (h * gradient).sum(1) if cam == "elementwise" else h @ gradient.mean(0)


@pytest.mark.parametrize("cam", CAMS)
@pytest.mark.parametrize("layer", [None, 1, -2, "blocks.1"])
def test_scores_are_those_of_the_closed_form(cam, layer):
    av = reader()
    (found,) = explained(pose(av, {"input_ids": IDS}, target=1), cam=cam, layer=layer)
    np.testing.assert_allclose(found.relevance, by_hand(av.model, cam), rtol=1e-12)
    assert found.value == float(av.model(IDS)[0, 1].detach())
    assert not found.additive
    assert found.method == "gradcam"
    assert "'blocks.1', block 1 of 3" in found.notes[0]
    assert ("confined to what the head reads" in found.notes[0]) == (layer is None)


def test_one_block_only_is_looked_at_before_it():
    av = reader(blocks=1)
    (found,) = explained(pose(av, {"input_ids": IDS}, target=1), cam="elementwise")
    assert "the input of 'blocks.0'" in found.notes[0]
    h, net = av.model.words.weight[IDS[0]].detach(), av.model
    w = net.head.weight[1].detach()
    gradient = (w @ net.blocks[0].map.weight.detach() / 5).repeat(5, 1)
    gradient[0] += w
    np.testing.assert_allclose(found.relevance, (h * gradient).sum(1), rtol=1e-12)


# ---- what cannot be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [-1, 2, "blocks.2"])
def test_a_layer_that_is_read_at_one_position_is_refused_and_the_nearest_good_one_named(layer):
    with pytest.raises(UsageError, match=r"only 1 of 5 units.*nearest.*'blocks\.1' \(layer=1\)"):
        explained(pose(reader(), {"input_ids": IDS}, target=1), layer=layer)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (3, r"from 0 to 2.*found 3"),
        (-4, r"from 0 to 2.*found -4"),
        ("block.1", r"found 'block\.1'.*'blocks\.1'"),
        ("idle", r"'idle' is not on the path: it was not called"),
        ("aside", r"none of 5 units.*'blocks\.1'"),
        ("head", r"'head' is not on the path"),
    ],
)
def test_a_layer_that_does_not_exist_or_leads_nowhere(layer, message):
    av = reader()
    before = fingerprint(av.model)
    with pytest.raises(UsageError, match=message):
        explained(pose(av, {"input_ids": IDS}, target=1), layer=layer)
    assert fingerprint(av.model) == before


def test_a_target_that_depends_on_nothing():
    with pytest.raises(ModelError, match="no gradient reaches"):
        explained(pose(reader(), {"input_ids": IDS}, target=lambda _: torch.tensor(1.0)))


def test_a_number_that_is_not_finite_is_told_with_its_layer():
    av = reader()
    with torch.no_grad():
        av.model.blocks[1].map.weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"first in the output of 'blocks\.1'"):
        explained(pose(av, {"input_ids": IDS}, target=1))


@pytest.mark.parametrize("name", names("question-answering")[:1])
def test_two_positions_that_are_read_are_no_map_either(name):
    with pytest.raises(UsageError, match=r"nearest.*layer=0"):
        explained(posed(name), layer=-1)


def test_a_number_where_no_block_has_one():
    av = AttentionVisualizer(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2)))
    with pytest.raises(UsageError, match="no numbered blocks"):
        explained(pose(av, {"input": IDS}, target=1), layer=0)
    (found,) = explained(pose(av, {"input": IDS}, target=1), cam="elementwise")
    net = av.model
    against = net[2].weight[1] - net[2].weight[0]  # of two classes the difference is explained
    expected = (net[0].weight[IDS[0]] * against.reshape(5, 4)).sum(1)
    np.testing.assert_allclose(found.relevance, expected.detach(), **CLOSE)


# ---- models as they are --------------------------------------------------------------------------------------------


def plain(one: Entry, tensors: Any, path: str, scalar: Any) -> tuple[Tensor, Tensor]:
    """The output of a module and its gradient, by a hook and autograd."""
    kept: list[Tensor] = []

    def hook(_: Any, __: Any, output: Any) -> None:
        tensor = output if isinstance(output, Tensor) else output[0]
        tensor.retain_grad()
        kept.append(tensor)

    handle = one.model.get_submodule(path).register_forward_hook(hook)
    try:
        scalar(one.model(**tensors)).backward()
    finally:
        handle.remove()
        one.model.zero_grad()
    (state,) = kept
    return state.detach().double(), state.grad.double()


def weighed(h: Tensor, g: Tensor, cam: str) -> Tensor:
    return (h * g).sum(-1) if cam == "elementwise" else (h * g.mean(0)).sum(-1)


def best(output: Any) -> Tensor:
    row = output.logits[0]
    top = row.argmax()
    return row[top] - row[1 - top] if len(row) == 2 else row[top]


TEXTS = {
    "text-classification/bert": "bert.encoder.layer.0",
    "text-classification/roberta": "roberta.encoder.layer.0",
    "text-classification/llama": "model.layers.0",
    "text-classification/deberta": "deberta.encoder.layer.0",
}


@pytest.mark.parametrize("cam", CAMS)
@pytest.mark.parametrize("name", TEXTS)
def test_texts_equal_hooks_and_autograd(name, cam):
    one = gallery(name)
    (found,) = explained(posed(name), cam=cam)
    h, g = plain(one, encoded(one, one.inputs[0]), TEXTS[name], best)
    np.testing.assert_allclose(found.relevance, weighed(h[0], g[0], cam), **CLOSE)
    assert repr(TEXTS[name]) in found.notes[0]


@pytest.mark.parametrize("cam", CAMS)
def test_each_side_of_a_translation_has_a_layer_and_a_scale_of_its_own(cam):
    name = "encoder-decoder/bart"
    one = gallery(name)
    rows = explained(posed(name), cam=cam)
    read = encoded(one, one.inputs[0])
    start, produced, _ = greedy(one, one.inputs[0], len(rows))
    count = read.input_ids.shape[1]
    tensors = {**read, "decoder_input_ids": torch.tensor([[*start, *produced[:-1]]])}
    for t, (row, token) in enumerate(zip(rows, produced, strict=True)):
        assert len(row.units) == count + 1 + t
        for path, own in (("model.encoder.layers.1", slice(count)), ("model.decoder.layers.0", slice(count, None))):
            h, g = plain(one, tensors, path, lambda output, t=t, token=token: output.logits[0, t, token])
            expected = weighed(h[0], g[0], cam)
            seen = row.relevance[own]
            np.testing.assert_allclose(seen, expected[: len(seen)], **CLOSE)
        assert "'encoder.layers.1'" in row.notes[0] or "'model.encoder.layers.1'" in row.notes[0]
        assert "scale of its own" in row.notes[-1]


def test_a_path_of_one_side_leaves_the_other_side_to_be_chosen():
    row = explained(posed("encoder-decoder/bart"), layer="model.encoder.layers.0")[-1]
    assert "'model.encoder.layers.0'" in row.notes[0]
    assert "as asked for" in row.notes[0]
    assert "'model.decoder.layers.0'" in row.notes[1]


@pytest.mark.parametrize("cam", CAMS)
@pytest.mark.parametrize(
    ("name", "path", "prefix"),
    [
        ("image-classification/vit", "vit.layers.0", 1),
        ("image-classification/dinov2-registers", "dinov2_with_registers.encoder.layer.1", 3),
        ("image-classification/beit", "beit.layers.1", 1),
    ],
)
def test_patches_equal_hooks_and_autograd(name, path, prefix, cam):
    one = gallery(name)
    (found,) = explained(posed(name), cam=cam)
    h, g = plain(one, one.processor(one.inputs[0], return_tensors="pt"), path, best)
    expected = weighed(h[0], g[0], cam)
    expected = expected.clamp(min=0) if cam == "mean-gradient" else expected
    np.testing.assert_allclose(found.relevance, torch.cat([expected[prefix:], expected[:prefix]]), **CLOSE)
    assert [unit.special for unit in found.units] == [False] * 16 + [True] * prefix
    if cam == "mean-gradient":
        assert bool(found.warnings) == (not bool((expected > 0).any()))


def test_merged_patches_give_their_score_to_all_that_they_hold():
    name, path = "image-classification/swin", "swin.encoder.layers.1.blocks.1"
    one = gallery(name)
    (found,) = explained(posed(name), cam="elementwise")
    assert repr(path) in found.notes[0]
    h, g = plain(one, one.processor(one.inputs[0], return_tensors="pt"), path, best)
    small = weighed(h[0], g[0], "elementwise").reshape(4, 4)
    np.testing.assert_allclose(found.relevance.reshape(8, 8), np.kron(small, np.ones((2, 2))), **CLOSE)


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("layer", [None, "convnext.encoder.stages.1"])
def test_feature_maps_are_resized_to_the_units(layer, pixels):
    """Convolutions only, and no attention anywhere."""
    name = "image-classification/convnext"
    one = gallery(name)
    (found,) = explained(posed(name, pixels=pixels), layer=layer)
    path = layer or "convnext.encoder.stages.3.downsampling_layer.0"
    assert repr(path) in found.notes[0]
    h, g = plain(one, one.processor(one.inputs[0], return_tensors="pt"), path, best)
    small = (h[0] * g[0].mean((1, 2), keepdim=True)).sum(0).clamp(min=0)
    side = 32 if pixels else 8
    assert small.shape[0] < side
    small = functional.interpolate(small[None, None], size=(side, side), mode="bilinear")[0, 0]
    np.testing.assert_allclose(found.relevance, small.flatten(), **CLOSE)


def test_pixels_of_a_model_with_patches_are_a_smooth_picture_of_them():
    name = "image-classification/vit"
    (coarse,), (fine,) = explained(posed(name)), explained(posed(name, pixels=True))
    patches = torch.tensor(coarse.relevance[:16].reshape(1, 1, 4, 4))
    expected = functional.interpolate(patches, size=(32, 32), mode="bilinear")
    np.testing.assert_allclose(fine.relevance[:-1], expected.flatten(), **CLOSE)
    assert fine.relevance[-1] == pytest.approx(coarse.relevance[-1])


def test_what_the_target_cannot_depend_on_has_no_score():
    """A token of a causal model is classified; those behind it come too late."""
    net, given = gallery("causal-lm/gpt2").model, {"input_ids": torch.tensor([[4, 8, 15, 16, 23]])}
    (found,) = explained(
        pose(AttentionVisualizer(net), given, target=lambda out: out.logits[0, 2, 7]), cam="mean-gradient"
    )
    assert (found.relevance[3:] == 0).all()
    assert (found.relevance[:3] != 0).all()


# ---- every task ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_every_task(name):
    model = gallery(name).model
    before = fingerprint(model)
    rows = explained(posed(name), cam="elementwise")
    assert fingerprint(model) == before
    for row in rows:
        assert np.isfinite(row.relevance).all()
        assert np.abs(row.relevance).sum() > 0
        assert len(row.notes) >= 2
        assert RelevanceMap.from_dict(row.to_dict()).notes == row.notes


@pytest.mark.parametrize(
    "name", ["text-classification/bert", "causal-lm/llama-writer", "sentence-similarity/bert-embedder"]
)
@pytest.mark.parametrize("cam", CAMS)
def test_a_batch_equals_its_members(name, cam):
    singles = [posed(name, n) for n in range(3)]
    joined = door(name)._subject.joined(singles)
    found = list(gradcam(joined, Settings(method="gradcam", cam=cam)))
    assert [i for i, _ in found] == [0, 1, 2]
    for (_, each), single in zip(found, singles, strict=True):
        (alone,) = explained(single, cam=cam)
        np.testing.assert_allclose(each.relevance, alone.relevance, **CLOSE)


def test_padding_in_a_batch_of_tensors_changes_nothing():
    net = gallery("text-classification/bert").model
    av = AttentionVisualizer(net)
    short = torch.tensor([[5, 9, 7]])
    both = torch.tensor([[5, 9, 7, 0, 0], [6, 8, 11, 12, 13]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    first, _ = explained(pose(av, {"input_ids": both, "attention_mask": mask}, target=0))
    (alone,) = explained(pose(av, {"input_ids": short, "attention_mask": torch.ones_like(short)}, target=0))
    np.testing.assert_allclose(first.relevance, alone.relevance, rtol=1e-3, atol=1e-5)


def test_training_mode_is_noted_and_put_back():
    av = reader()
    av.model.train()
    (found,) = explained(pose(av, {"input_ids": IDS}, target=1))
    assert "training mode" in found.warnings[0]
    assert av.model.training


def test_a_block_that_is_overwritten_afterwards_is_seen_as_it_was():
    class Overwriting(Reader):
        def forward(self, input_ids: Tensor) -> Tensor:
            x = self.words(input_ids)
            for block in self.blocks:
                x = block(x).mul_(2)
            return self.head(x[:, 0])

    with torch.random.fork_rng():
        torch.manual_seed(0)
        av = AttentionVisualizer(Overwriting().double().eval())
    (found,) = explained(pose(av, {"input_ids": IDS}, target=1), cam="elementwise", layer=0)
    net = av.model
    x = net.words(IDS).detach()
    h = net.blocks[0](x).detach().requires_grad_()
    y = net.head((2 * net.blocks[2](2 * net.blocks[1](2 * h)))[:, 0])[0, 1]
    (g,) = torch.autograd.grad(y, h)
    np.testing.assert_allclose(found.relevance, (h * g).sum(-1)[0].detach(), rtol=1e-12)


def test_what_is_refused_can_be_looked_at_from_within():
    """At the last block only the position that is read has a gradient: elementwise, all others are exactly 0."""
    question = posed("text-classification/bert")
    sight, (stack,) = stacked(question)
    found = mapped(sight, [Choice(stack, stack.layers[-1], "")], question.items[0].aims[0], "elementwise")
    assert found.relevance[0] != 0
    assert (found.relevance[1:] == 0).all()


def test_scores_that_a_norm_cancels_are_warned_of():
    r"""A norm does not see the length of a vector: $h \cdot \partial y / \partial h = 0$ in front of it."""

    class Normed(Reader):
        def forward(self, input_ids: Tensor) -> Tensor:
            x = self.words(input_ids)
            for block in self.blocks:
                x = block(x)
            return self.head(nn.functional.layer_norm(x, (4,)).mean(1))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        av = AttentionVisualizer(Normed().double().eval())
    question = pose(av, {"input_ids": IDS}, target=1)
    (found,) = explained(question, cam="elementwise")
    assert "cancel to rounding" in found.warnings[0]
    for better in ({"cam": "mean-gradient"}, {"cam": "elementwise", "layer": 0}):
        (found,) = explained(question, **better)
        assert not found.warnings


def test_orders_of_layers_do_not_matter_to_the_sum():
    """Elementwise scores of a linear rest of the network add up to its value, at every layer alike."""
    av = reader()
    sums = [
        explained(pose(av, {"input_ids": IDS}, target=1), cam="elementwise", layer=layer)[0].relevance.sum()
        for layer in (0, 1)
    ]
    value = float((av.model(IDS)[0, 1] - av.model.head.bias[1]).detach())
    for one, other in itertools.pairwise([*sums, value]):
        assert one == pytest.approx(other, rel=1e-12)
