"""Removing units: against inputs made by hand and read by plain forward passes, for every operator and task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer, Settings
from clearhead.errors import NonFiniteError, UsageError
from clearhead.question import NOTHING
from clearhead.removal import WORDS, Removal
from clearhead.removal import removal as inner
from clearhead.subjects import Wanted
from tasks.gallery import gallery, names
from tasks.plainly import asked, door, encoded, options, rows_of
from weighted import Weighted

SECANT = Settings(method="secant")
BERT, GPT2, VIT, BART = "text-classification/bert", "causal-lm/gpt2", "image-classification/vit", "encoder-decoder/bart"
TEXTS = [name for name in names() if not name.startswith("image")]


def removal(name: str, baseline: Any = None, given: Any = None, aim: int = 0, **wanted: Any) -> Removal:
    one = gallery(name)
    more = {**options(one.task), **wanted}
    subject = door(name)._subject
    question = subject.question(one.inputs[0] if given is None else given, Wanted(baseline=baseline, **more), SECANT)
    return Removal(question, question.baselines[0], aim)


def keep(found: Removal, *gone: int) -> np.ndarray:
    """One variant, of which some units are gone."""
    kept = np.ones((1, len(found.units)), dtype=bool)
    kept[0, list(gone)] = False
    return kept


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-5, abs=2e-6)


@torch.no_grad()
def difference(name: str, **tensors: torch.Tensor) -> float:
    """The logit of the class that is predicted for the whole first input, less the other's, for other tensors."""
    one = gallery(name)
    best = int(one.model(**encoded(one, one.inputs[0])).logits[0].argmax())
    scores = one.model(**tensors).logits[0]
    return float(scores[best] - scores[1 - best])


# ---- all and nothing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_with_all_units_the_score_is_the_explained_value(name: str) -> None:
    for n, row in enumerate(rows_of(asked(name))[:2]):
        found = removal(name, aim=n)
        assert found.scores(keep(found))[0] == near(row.value)
        assert found.value == near(row.value)
        assert found.target == row.target


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("baseline", ["zero", "mean", None])
def test_without_units_the_score_is_what_the_secant_starts_from(name: str, baseline: str | None) -> None:
    one = gallery(name)
    maps = rows_of(door(name).explain(one.inputs[0], method="secant", baseline=baseline, **options(one.task)))
    for n in (0, len(maps) - 1):
        found = removal(name, baseline, aim=n)
        assert found.scores(~keep(found))[0] == near(maps[n].base_value)
        assert found.base_value == near(maps[n].base_value)
        assert found.base_value != near(found.value)


def test_special_tokens_stay_whatever_is_said() -> None:
    found = removal(BERT, "mask")
    assert found.removable.tolist() == [not unit.special for unit in found.units]
    special = [i for i, unit in enumerate(found.units) if unit.special]
    assert special
    assert found.scores(keep(found, *special))[0] == near(found.value)


def test_the_token_that_is_guessed_stays() -> None:
    found = removal("masked-lm/bert-filler", "delete")
    masked = [i for i, unit in enumerate(found.units) if unit.text == "[MASK]"]
    assert len(masked) == 1
    assert not found.removable[masked[0]]
    assert found.scores(keep(found, *masked))[0] == near(found.value)


def test_the_target_is_that_of_the_whole_input() -> None:
    """Where the rest would say something else, the score is that of the first answer still."""

    class Sum(Weighted):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = x.sum(1)
            return torch.stack([total, 10 - total, total * 0], 1)

    av = AttentionVisualizer(Sum())
    given = {"x": torch.tensor([[7.0, 1.0]])}
    question = av._subject.question(given, Wanted(baseline="zero"), SECANT)
    found = Removal(question, question.baselines[0])
    assert (found.target.index, found.value) == (0, 8.0)
    assert found.scores([[False, True], [False, False]]).tolist() == [1.0, 0.0]


# ---- single units, by hand -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("baseline", "instead"), [("mask", 4), ("pad", 0)])
def test_a_token_is_replaced_in_its_place(baseline: str, instead: int) -> None:
    one, found = gallery(BERT), removal(BERT, baseline)
    read = encoded(one, one.inputs[0])
    for place in (1, 3):
        ids = read.input_ids.clone()
        ids[0, place] = instead
        expected = difference(BERT, **{**read, "input_ids": ids})
        assert found.scores(keep(found, place))[0] == near(expected)


@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_a_token_becomes_a_vector(baseline: str) -> None:
    one, found = gallery(BERT), removal(BERT, baseline)
    read = dict(encoded(one, one.inputs[0]))
    weight = one.model.get_input_embeddings().weight.detach()
    vectors = weight[read.pop("input_ids")].clone()
    vectors[0, [2, 5]] = 0 if baseline == "zero" else weight.mean(0)
    assert found.scores(keep(found, 2, 5))[0] == near(difference(BERT, inputs_embeds=vectors, **read))


def test_the_attention_mask_hides_a_token_and_keeps_positions() -> None:
    one, found = gallery(BERT), removal(BERT, "attention-mask")
    read = encoded(one, one.inputs[0])
    mask = read.attention_mask.clone()
    mask[0, [1, 4]] = 0
    assert found.scores(keep(found, 1, 4))[0] == near(difference(BERT, **{**read, "attention_mask": mask}))


def test_positions_are_kept_by_a_model_that_counts_them_by_its_mask() -> None:
    """Hidden tokens must not move those behind them: what is last then is still at its old place."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(5, 3), nn.Embedding(6, 3)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            places = attention_mask.cumsum(1) * attention_mask
            return ((self.words(input_ids) + self.places(places)) * attention_mask[..., None]).sum(1)

    torch.manual_seed(0)
    model = Counting()
    av = AttentionVisualizer(model)
    given = {"input_ids": torch.tensor([[1, 2, 3]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    question = av._subject.question(given, Wanted(target=1, baseline="attention-mask"), SECANT)
    found = Removal(question, question.baselines[0])
    expected = model.words.weight[[1, 3], 1].sum() + model.places.weight[[1, 3], 1].sum()
    assert found.scores([[True, False, True], [True, True, True]])[0] == near(float(expected.detach()))


@torch.no_grad()
def test_a_deleted_token_is_left_out_with_its_mask_and_type() -> None:
    one, found = gallery(BERT), removal(BERT, "delete")
    read = encoded(one, one.inputs[0])
    left = [n for n in range(read.input_ids.shape[1]) if n not in (2, 3)]
    shorter = {name: tensor[:, left] for name, tensor in read.items()}
    assert "token_type_ids" in shorter
    several = np.concatenate([keep(found, 2, 3), keep(found), keep(found, 1)])
    assert found.scores(several)[0] == near(difference(BERT, **shorter))
    assert found.scores(several)[1] == near(found.value)


@torch.no_grad()
def test_without_a_token_the_next_one_is_still_read_off_the_last() -> None:
    one, found = gallery(GPT2), removal(GPT2, "delete")
    ids = encoded(one, one.inputs[0]).input_ids
    best = int(one.model(input_ids=ids).logits[0, -1].argmax())
    last = ids.shape[1] - 1
    for place in (0, 1, last):
        left = [n for n in range(last + 1) if n != place]
        expected = float(one.model(input_ids=ids[:, left]).logits[0, -1, best])
        assert found.scores(keep(found, place))[0] == near(expected)


@torch.no_grad()
def test_an_answer_is_read_off_its_old_place() -> None:
    name = "token-classification/distilbert"
    name = name if name in names() else names("token-classification")[0]
    one, found = gallery(name), removal(name, "delete")
    read = encoded(one, one.inputs[0])
    at, k = found.target.position, found.target.index
    place = next(i for i, unit in enumerate(found.units) if not unit.special and i < at)
    left = [n for n in range(read.input_ids.shape[1]) if n != place]
    scores = one.model(**{key: tensor[:, left] for key, tensor in read.items()}).logits
    assert found.scores(keep(found, place))[0] == near(float(scores[0, at - 1, k]))


@torch.no_grad()
@pytest.mark.parametrize("baseline", ["mask", "delete", "attention-mask"])
def test_source_and_what_was_written_are_removed_alike(baseline: str) -> None:
    one, found = gallery(BART), removal(BART, baseline, aim=3)
    read = encoded(one, one.inputs[0])
    tokens = [row.target.index for row in rows_of(asked(BART))]
    start, count = one.model.config.decoder_start_token_id, read.input_ids.shape[1]
    ids, written = read.input_ids.clone(), torch.tensor([[start, *tokens[:-1]]])
    masks = [torch.ones_like(ids), torch.ones_like(written)]
    gone = [1, count + 2]  # of the source, and the second written token
    if baseline == "mask":
        ids[0, 1] = written[0, 2] = one.tokenizer.mask_token_id
    elif baseline == "attention-mask":
        masks[0][0, 1] = masks[1][0, 2] = 0
    at = 3
    if baseline == "delete":
        ids, written = (torch.cat([x[:, :n], x[:, n + 1 :]], 1) for x, n in ((ids, 1), (written, 2)))
        masks, at = [torch.ones_like(ids), torch.ones_like(written)], 2
    out = one.model(input_ids=ids, attention_mask=masks[0], decoder_input_ids=written, decoder_attention_mask=masks[1])
    assert found.scores(keep(found, *gone))[0] == near(float(out.logits[0, at, tokens[3]]))


@torch.no_grad()
@pytest.mark.parametrize("baseline", ["mean", "zero", "blur"])
def test_a_patch_gets_the_pixels_of_the_baseline(baseline: str) -> None:
    one, found = gallery(VIT), removal(VIT, baseline)
    pixels = one.processor(one.inputs[0], return_tensors="pt")["pixel_values"]
    question = door(VIT)._subject.question(one.inputs[0], Wanted(baseline=baseline), SECANT)
    other = question.baselines[0].tensors[0]["pixel_values"]
    left, top, right, bottom = found.units[5].box
    changed = pixels.clone()
    changed[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    assert not torch.equal(changed, pixels)
    scores = one.model(pixel_values=changed).logits[0]
    assert found.scores(keep(found, 5))[0] == near(float(scores[found.target.index]))


def test_pixels_beyond_the_last_patch_belong_to_it() -> None:
    """Five rows in two patches of two: the fifth goes with the second, so that nothing is left of the input."""

    class Weighted(nn.Module):
        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return (pixel_values.sum((1, 3)) * torch.tensor([1.0, 10, 100, 1000, 10000])).sum(1, keepdim=True)

    from clearhead.maps import Recipe, Target
    from clearhead.question import Aim, Baseline, Grid, Item, Layout, Pass, Question
    from clearhead.units import Unit

    pixels = torch.ones(1, 1, 5, 1)
    layout = Layout(units=tuple(Unit(index=n, text=str(n)) for n in range(2)), grid=Grid(rows=2, columns=1))
    aim = Aim(ask=lambda outputs, row: (Target(kind="class", label="sum"), outputs[0][row, 0]))
    question = Question(
        model=Weighted(),
        name="",
        task="image-classification",
        passes=(Pass(tensors={"pixel_values": pixels}, explained=("pixel_values",)),),
        items=(Item(layouts=(layout,), aims=(aim,)),),
        recipe=Recipe(),
    )
    found = Removal(question, Baseline(label="0", tensors=({"pixel_values": pixels * 0},)))
    assert found.scores([[False, True], [True, False], [False, False]]).tolist() == [11100.0, 11.0, 0.0]


def test_image_and_text_are_removed_together() -> None:
    name = "image-text-similarity/clip"
    found = removal(name, "zero")
    boxes = [i for i, unit in enumerate(found.units) if unit.box]
    words = [i for i in np.flatnonzero(found.removable) if i not in boxes]
    assert boxes
    assert words
    question = door(name)._subject.question(gallery(name).inputs[0], Wanted(baseline="zero"), SECANT)
    tensors, others = question.passes[0].tensors, question.baselines[0].tensors[0]
    assert int(others["input_ids"].min()) == NOTHING
    with torch.no_grad():
        out = gallery(name).model(**{**tensors, "pixel_values": others["pixel_values"]})
        expected = torch.nn.functional.cosine_similarity(out.image_embeds, out.text_embeds)
    assert found.scores(keep(found, *boxes))[0] == near(float(expected))
    both = found.scores(np.concatenate([keep(found, *boxes, *words), keep(found, *words)]))
    assert both[0] == near(found.base_value)
    assert both[1] != near(both[0])


# ---- batches and memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "baseline"), [(BERT, "mask"), (GPT2, "delete"), (BERT, "attention-mask"), (VIT, "mean")]
)
def test_many_variants_are_what_each_is_alone(name: str, baseline: str) -> None:
    found = removal(name, baseline)
    some = np.random.default_rng(0).random((9, len(found.units))) > 0.4
    some[:, -1] = True
    together = found.scores(some)
    np.testing.assert_allclose(together, [found.scores(row[None])[0] for row in some], rtol=1e-5, atol=1e-6)
    assert len(np.unique(together.round(5))) > 4


def test_memory_that_does_not_suffice_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    found, sizes = removal(BERT, "mask"), []
    usual = inner.Removal._scored

    def scored(self: Removal, gone: torch.Tensor) -> list[float]:
        sizes.append(len(gone))
        if len(gone) > 3:
            raise RuntimeError("not enough memory: you tried to allocate 1 byte")
        return usual(self, gone)

    some = np.random.default_rng(0).random((8, len(found.units))) > 0.5
    expected = found.scores(some)
    monkeypatch.setattr(inner.Removal, "_scored", scored)
    np.testing.assert_allclose(found.scores(some), expected, rtol=1e-6)
    assert sizes == [8, 4, 2, 2, 2, 2]


def test_the_batch_is_bounded_by_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner, "free_memory", lambda _: 0)
    assert removal(BERT, "mask")._rows == 1


def test_the_model_is_left_as_found_and_no_gradient_is_kept() -> None:
    one = gallery(BERT)
    one.model.train()
    try:
        found = removal(BERT, "mask")
        first = found.scores(keep(found, 1))
        assert first[0] == found.scores(keep(found, 1))[0], "no dropout"
        assert one.model.training
        assert all(p.grad is None for p in one.model.parameters())
    finally:
        one.model.eval()


def test_a_target_function_is_asked_about_each_variant_alone() -> None:
    def first(output: Any) -> torch.Tensor:
        assert output.logits.shape[0] == 1
        return output.logits[0, 0]

    found = removal(BERT, "mask", target=first)
    one = gallery(BERT)
    read = encoded(one, one.inputs[0])
    ids = read.input_ids.clone()
    ids[0, 2] = one.tokenizer.mask_token_id
    with torch.no_grad():
        expected = one.model(**{**read, "input_ids": ids}).logits[0, 0]
    assert found.scores(np.concatenate([keep(found), keep(found, 2)]))[1] == near(float(expected))


# ---- what cannot be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", ["attention-mask", "delete"])
def test_patches_are_not_hidden_or_deleted(baseline: str) -> None:
    with pytest.raises(
        UsageError, match=f"operator '{baseline}' is for texts; parts of an image have a colour. Choose"
    ):
        removal(VIT, baseline)


@pytest.mark.parametrize("baseline", ["attention-mask", "delete"])
def test_a_mean_over_all_positions_leaves_nothing_out(baseline: str) -> None:
    with pytest.raises(UsageError, match=r"sentence-similarity reads the vectors of all. Choose one of mask, pad"):
        removal("sentence-similarity/bert-embedder", baseline)


def test_a_model_without_a_mask_hides_nothing() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(5, 3)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.words(input_ids).sum(1)

    av = AttentionVisualizer(Bag())
    given = {"input_ids": torch.tensor([[1, 2, 3]])}
    question = av._subject.question(given, Wanted(baseline="attention-mask"), SECANT)
    with pytest.raises(UsageError, match=r"needs a model that takes `attention_mask`; Bag does not. Choose one"):
        Removal(question, question.baselines[0])


@pytest.mark.parametrize("baseline", ["attention-mask", "delete"])
def test_something_is_left(baseline: str) -> None:
    found = removal(GPT2, baseline)
    with pytest.raises(UsageError, match=f"operator '{baseline}' must leave one token at least"):
        found.scores(~keep(found))


def test_another_shape_is_refused() -> None:
    found = removal(BERT, "mask")
    with pytest.raises(
        UsageError, match=rf"`keep` has a row of {len(found.units)} truths for each variant; found \(3,\)"
    ):
        found.scores([True, False, True])


def test_many_items_are_asked_about_one_by_one() -> None:
    subject = AttentionVisualizer(nn.Linear(3, 2))._subject
    question = subject.question({"x": torch.ones(2, 3)}, Wanted(baseline="zero"), SECANT)
    with pytest.raises(UsageError, match="Units are removed from one input; this question has 2"):
        Removal(question, question.baselines[0])


def test_what_is_not_finite_is_said() -> None:
    class Log(Weighted):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.log().sum(1, keepdim=True)

    subject = AttentionVisualizer(Log())._subject
    question = subject.question({"x": torch.ones(1, 3)}, Wanted(target=0, baseline="zero"), SECANT)
    with pytest.raises(NonFiniteError, match="explained value must be finite"):
        Removal(question, question.baselines[0]).scores([[False, True, True]])


def test_the_words_are_those_that_baselines_know() -> None:
    from clearhead.subjects.baselines import OPERATORS
    from clearhead.subjects.filling import WORDS as FILLED

    known = {word for some in FILLED.values() for word in some}
    assert set(WORDS) == known | set(OPERATORS)
