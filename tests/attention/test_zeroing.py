"""Value zeroing against the models' own layers, whose value projections a hook overwrites, and against plain sums."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clearhead import AttentionVisualizer, RelevanceMap, Settings
from clearhead.attention import zeroing
from clearhead.attention.zeroing import Zeroed, value_zeroing
from clearhead.errors import ModelError, UsageError
from clearhead.question import Question
from clearhead.sight.capture import Row
from clearhead.subjects import Wanted
from relevance.test_contract import fingerprint
from tasks.gallery import gallery, names
from tasks.plainly import encoded, options

CLOSE: dict[str, Any] = {"rtol": 2e-3, "atol": 2e-5}


@cache
def door(name: str) -> AttentionVisualizer:
    return AttentionVisualizer(gallery(name).model, gallery(name).processor)


def posed(name: str, n: int = 0) -> Question:
    one = gallery(name)
    return door(name)._subject.question(one.inputs[n], Wanted(**options(one.task)), Settings())


def explained(question: Question, **settings: Any) -> list[RelevanceMap]:
    return [each for _, each in value_zeroing(question, Settings(method="value-zeroing", **settings))]


def distances(whole: np.ndarray, without: list[np.ndarray]) -> np.ndarray:
    """1 - cos of each row, with and without each position, rows normalised: slowly, number by number."""
    table = np.zeros((len(whole), len(without)))
    for i, j in itertools.product(range(len(whole)), range(len(without))):
        x, y = whole[i], without[j][i]
        cosine = sum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(sum(x * x) * sum(y * y))
        table[i, j] = max(0.0, 1 - cosine)
    return table / table.sum(1, keepdims=True)


# ---- a hook on the values ------------------------------------------------------------------------------------------


def hooked(name: str, value: Callable[[int], str], layer: int, given: Any) -> np.ndarray:
    """C of a layer by running the whole model, the output of a value projection overwritten in one row."""
    model = gallery(name).model

    def states(position: int | None) -> np.ndarray:
        def hook(_: Any, __: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, position] = 0
            return changed

        module = model.get_submodule(value(layer))
        handle = None if position is None else module.register_forward_hook(hook)
        try:
            with torch.no_grad():
                found = model(**given, output_hidden_states=True).hidden_states[layer + 1]
        finally:
            if handle is not None:
                handle.remove()
        return found[0].double().numpy()

    whole = states(None)
    return distances(whole, [states(j) for j in range(len(whole))])


VALUES = {
    "text-classification/bert": lambda n: f"bert.encoder.layer.{n}.attention.self.value",
    "text-classification/roberta": lambda n: f"roberta.encoder.layer.{n}.attention.self.value",
    "text-classification/deberta": lambda n: f"deberta.encoder.layer.{n}.attention.self.value_proj",
    "question-answering/distilbert-reader": lambda n: f"distilbert.transformer.layer.{n}.attention.v_lin",
}
READS = {"question-answering/distilbert-reader": None}


def start(name: str, length: int) -> np.ndarray:
    """The first position for classes; the two that are read for an answer."""
    begin = np.zeros(length)
    if READS.get(name, 0) == 0:
        begin[0] = 1
        return begin
    from tasks.plainly import answered

    first, last, *_ = answered(gallery(name), gallery(name).inputs[0])
    for place in {first, last}:
        begin[place] = 1 / len({first, last})
    return begin


@pytest.mark.parametrize("name", VALUES)
def test_each_layer_equals_hooks_and_all_of_them_their_product(name):
    one = gallery(name)
    given = encoded(one, one.inputs[0])
    tables = [hooked(name, VALUES[name], n, given) for n in range(2)]
    begin = start(name, len(tables[0]))
    (whole,) = explained(posed(name))
    np.testing.assert_allclose(whole.relevance, begin @ tables[1] @ tables[0], **CLOSE)
    for n in (0, -1):
        (found,) = explained(posed(name), layer=n)
        np.testing.assert_allclose(found.relevance, begin @ tables[n], **CLOSE)


def test_a_model_that_looks_back_only():
    name = "text-classification/llama"
    one = gallery(name)
    given = encoded(one, one.inputs[0])
    zeroed = Zeroed(posed(name))
    row = Row(0, "input_ids")
    (first, _) = (zeroed.table(step).numpy() for step in zeroed.steps if step.layer.query == row)
    expected = hooked(name, lambda n: f"model.layers.{n}.self_attn.v_proj", 0, given)
    np.testing.assert_allclose(first, expected, **CLOSE)
    assert (np.triu(first, 1) == 0).all()
    np.testing.assert_allclose(first.sum(1), 1, rtol=1e-12)


def test_windows_of_an_image():
    """Positions lie in windows: row 2a + b, column 2c + d of an 8 x 8 image is place 2b + d of window 4a + c."""
    name = "image-classification/swin"
    one = gallery(name)
    block = one.model.get_submodule("swin.encoder.layers.0.blocks.0")
    value = block.get_submodule("attention.v_proj")
    given = one.processor(one.inputs[0], return_tensors="pt")

    def output(position: int | None) -> np.ndarray:
        def hook(_: Any, __: Any, found: Tensor) -> Tensor:
            row, column = divmod(position, 8)
            changed = found.clone()
            changed[row // 2 * 4 + column // 2, row % 2 * 2 + column % 2] = 0
            return changed

        kept: list[Tensor] = []
        handles = [
            block.register_forward_hook(lambda _, __, out: kept.append(out if isinstance(out, Tensor) else out[0]))
        ]
        if position is not None:
            handles.append(value.register_forward_hook(hook))
        with torch.no_grad():
            one.model(**given)
        for handle in handles:
            handle.remove()
        return kept[0][0].double().numpy()

    zeroed = Zeroed(posed(name))
    table = zeroed.table(zeroed.steps[0]).numpy()
    whole = output(None)
    places = [0, 13, 22, 63]
    without = {j: output(j) for j in places}
    for j in places:
        turned = [1 - x @ y / math.sqrt((x @ x) * (y @ y)) for x, y in zip(whole, without[j], strict=True)]
        moved = {i for i, amount in enumerate(turned) if amount > 1e-9}
        assert moved == set(np.flatnonzero(table[:, j])) == window(j)


def window(position: int) -> set[int]:
    row, column = divmod(position, 8)
    return {8 * (row // 2 * 2 + b) + column // 2 * 2 + d for b in range(2) for d in range(2)}


# ---- attention in plain sums ---------------------------------------------------------------------------------------


class Looks(nn.Module):
    """One head without a residual path, in one of several spellings."""

    def __init__(self, spelling: str, width: int = 4) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)
        if self.spelling == "fused":
            return nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        weights = (q @ k.transpose(1, 2) / 2).softmax(-1)
        if self.spelling == "matmul":
            return weights @ v
        if self.spelling == "turned":
            return torch.bmm(v.transpose(1, 2), weights.transpose(1, 2)).transpose(1, 2)
        return torch.einsum("bqk,bkd->bqd", weights, v)


class Reads(nn.Module):
    """Two of them in a list, and a mean over positions."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.blocks = nn.ModuleList([Looks(spelling), Looks(spelling)])
        self.head = nn.Linear(4, 3)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.words(input_ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


IDS = torch.tensor([[1, 5, 3, 8]])


def reads(spelling: str = "fused") -> AttentionVisualizer:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return AttentionVisualizer(Reads(spelling).double().eval())


def pose(av: AttentionVisualizer, **more: Any) -> Question:
    return av._subject.question({"input_ids": IDS}, Wanted(target=1), Settings(**more))


def attended(block: Looks, x: np.ndarray, leave: int | None = None) -> np.ndarray:
    """Attention as a sum over keys, without the value of one of them."""

    def through(linear: nn.Linear) -> list[np.ndarray]:
        return [linear.weight.detach().numpy() @ row + linear.bias.detach().numpy() for row in x]

    queries, keys, values = (through(each) for each in (block.query, block.key, block.value))
    found = []
    for q in queries:
        scores = [math.exp(float(q @ k) / 2) for k in keys]
        parts = [s / sum(scores) * v for n, (s, v) in enumerate(zip(scores, values, strict=True)) if n != leave]
        found.append(sum(parts))
    return np.array(found)


@pytest.mark.parametrize("spelling", ["fused", "matmul", "einsum"])
def test_however_attention_is_written_it_equals_plain_sums(spelling):
    av = reads(spelling)
    x, tables = av.model.words.weight[IDS[0]].detach().numpy(), []
    for block in av.model.blocks:
        whole = attended(block, x)
        tables.append(distances(whole, [attended(block, x, j) for j in range(4)]))
        x = whole
    (found,) = explained(pose(av))
    np.testing.assert_allclose(found.relevance, np.full(4, 1 / 4) @ tables[1] @ tables[0], rtol=1e-9)
    assert found.value == float(av.model(IDS)[0, 1].detach())
    assert not found.additive
    assert found.method == "value-zeroing"
    assert any("ignores the target" in note for note in found.notes)


def test_weights_that_stand_behind_the_values():
    """The same product the other way round."""
    (found,), (other,) = explained(pose(reads("turned")), layer=0), explained(pose(reads("matmul")), layer=0)
    np.testing.assert_allclose(found.relevance, other.relevance, rtol=1e-9)


def test_a_block_that_is_no_member_of_a_list():
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.block, self.head = nn.Embedding(9, 4), Looks("matmul"), nn.Linear(4, 3)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.head(self.block(self.words(input_ids)).mean(1))

    with torch.random.fork_rng():
        torch.manual_seed(2)
        av = AttentionVisualizer(Single().double().eval())
    x = av.model.words.weight[IDS[0]].detach().numpy()
    table = distances(attended(av.model.block, x), [attended(av.model.block, x, j) for j in range(4)])
    (found,) = explained(pose(av))
    np.testing.assert_allclose(found.relevance, table.mean(0), rtol=1e-9)


# ---- every task ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in names() if not n.startswith("encoder-decoder") and "convnext" not in n])
def test_shares_add_up_to_one_and_the_model_is_left_as_found(name):
    model = gallery(name).model
    before = fingerprint(model)
    (found,) = explained(posed(name, 1), layer=None)
    assert fingerprint(model) == before
    assert found.relevance.sum() == pytest.approx(1, abs=1e-6)
    assert (found.relevance >= 0).all()


@pytest.mark.parametrize("name", ["text-classification/bert", "causal-lm/gpt2"])
def test_a_batch_equals_its_members(name):
    singles = [posed(name, n) for n in range(3)]
    found = list(value_zeroing(door(name)._subject.joined(singles), Settings(method="value-zeroing")))
    assert [i for i, _ in found] == [0, 1, 2]
    for (_, each), single in zip(found, singles, strict=True):
        (alone,) = explained(single)
        np.testing.assert_allclose(each.relevance, alone.relevance, **CLOSE)


def test_a_generation_sees_what_came_before():
    one = gallery("causal-lm/gpt2")
    question = door("causal-lm/gpt2")._subject.question(one.inputs[0], Wanted(generate=3), Settings())
    rows = explained(question)
    count = len(encoded(one, one.inputs[0]).input_ids[0])
    assert [len(row.units) for row in rows] == [count + t for t in range(len(rows))]
    for row in rows:
        assert row.relevance.sum() == pytest.approx(1)


# ---- what cannot be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": 2}, r"from 0 to 1.*found 2"),
        ({"layer": -3}, r"from 0 to 1.*found -3"),
        ({"layer": "blocks.0"}, r"must be a number.*'blocks\.0'"),
        ({"heads": (0,)}, "all heads"),
    ],
)
def test_what_cannot_be_asked_for(settings, message):
    av = reads()
    before = fingerprint(av.model)
    with pytest.raises(UsageError, match=message):
        explained(pose(av), **settings)
    assert fingerprint(av.model) == before


def test_sequences_that_look_at_each_other_are_refused():
    with pytest.raises(UsageError, match=r"'decoder' looks at 'encoder'.*rollout"):
        explained(posed("encoder-decoder/bart"))


def test_a_model_without_attention():
    with pytest.raises(ModelError, match="made neither"):
        explained(posed("image-classification/convnext"))


def test_what_would_take_minutes_is_refused_unless_forced(monkeypatch):
    monkeypatch.setattr(zeroing, "MOST_SECONDS", 0.0)
    with pytest.raises(UsageError, match=r"2 x 4 runs.*force=True"):
        explained(pose(reads()))
    assert len(explained(pose(reads()), force=True)) == 1


def test_a_block_that_does_not_give_the_same_twice():
    class Counts(Looks):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x) + self.calls

    av = reads()
    block = Counts("fused").double()
    av.model.blocks[1] = block
    with pytest.raises(ModelError, match=r"'blocks\.1' again.*same twice"):
        explained(pose(av))
