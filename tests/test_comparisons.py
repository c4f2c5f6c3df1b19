"""What changed between two inputs: exact, antisymmetric, nothing where nothing differs, on every task."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clearhead import AttentionVisualizer, Comparison
from clearhead.comparisons import Slot
from clearhead.errors import OutputError, UsageError
from clearhead.generations import GenerationMap
from clearhead.maps import LedgerEntry, RelevanceMap
from clearhead.units import Unit
from render.comparison_examples import COMPARISONS, edited, leaks, made, one_word
from tasks.gallery import gallery, names, picture
from tasks.plainly import door

SENTIMENT = [  # a sentence, the word that is replaced, and what by
    ("A gripping, beautiful film.", "gripping", "boring"),
    ("The acting is superb throughout.", "superb", "terrible"),
    ("I loved every minute of it.", "loved", "hated"),
    ("The plot is clever.", "clever", "stupid"),
    ("An excellent cast is wasted here.", "wasted", "used"),
    ("It never lets you go.", "never", "always"),
    ("The jokes are funny.", "funny", "flat"),
    ("A dull and lifeless story.", "dull", "rich"),
    ("The music is too loud.", "too", "very"),
    ("The director knows his craft.", "knows", "forgets"),
    ("What a charming little movie.", "charming", "tedious"),
    ("The ending is a mess.", "mess", "triumph"),
    ("It has a big heart.", "big", "small"),
    ("The script is unwatchable nonsense.", "unwatchable", "delightful"),
    ("She gives a moving performance.", "moving", "wooden"),
    ("A waste of two hours.", "waste", "feast"),
    ("The effects look cheap.", "cheap", "gorgeous"),
    ("The dialogue feels natural.", "natural", "forced"),
    ("A smart, warm comedy.", "warm", "cold"),
    ("Nothing in it works.", "Nothing", "Everything"),
]


@pytest.fixture(scope="module")
def sentiment():
    return AttentionVisualizer.from_pretrained("clearhead/sentiment")


def logits(av, text):
    tokens = av._subject._loaded.processor(text, return_tensors="pt")
    with torch.no_grad():
        return av.model(**tokens).logits[0].double().numpy()


def closes(found):
    """f(a) - f(b) is the sum of the shares and of what the ledger names."""
    parts = float(found.relevance.sum()) + sum(entry.relevance for entry in found.ledger if not entry.returned)
    size = max(abs(found.value), abs(found.base_value), float(np.abs(found.relevance).sum()))
    assert found.difference == pytest.approx(parts, abs=3e-6 * max(size, 1))
    assert found.conserves()
    assert found.warnings == ()


def opposite(found, other):
    """The other way round everything has the other sign; slots are the same with a and b exchanged."""
    swapped = {"same": "same", "replaced": "replaced", "inserted": "removed", "removed": "inserted"}
    assert [(swapped[s.kind], s.b, s.a) for s in found.slots] == [(s.kind, s.a, s.b) for s in other.slots]
    scale = max(float(np.abs(found.relevance).max()), abs(found.value), 1.0)
    np.testing.assert_allclose(found.relevance, -other.relevance, atol=5e-6 * scale)
    assert found.value == pytest.approx(other.base_value, abs=5e-6 * scale)
    assert found.alignment == pytest.approx(-other.alignment, abs=5e-6 * scale)
    assert (found.target.label, found.target.contrast) == (other.target.label, other.target.contrast)


# ---- real models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "word", "other"), SENTIMENT)
def test_the_share_goes_to_the_word_that_differs(sentiment, text, word, other):
    second = text.replace(word, other)
    found = sentiment.compare(text, second)
    closes(found)
    differing = set(found.differing)
    assert differing
    for n, (slot, share) in enumerate(zip(found.slots, found.relevance, strict=True)):
        assert (n in differing) or share == 0.0
        for unit, whole, changed in ((slot.a, text, word), (slot.b, second, other)):
            if n in differing and unit is not None:  # only pieces of the word differ
                assert whole.index(changed) <= unit.start < unit.end <= whole.index(changed) + len(changed)
    (whole, share), *more = found.words().top()
    assert not more
    assert (whole.a.text, whole.b.text) == (word, other)
    assert share == pytest.approx(found.difference - found.alignment, abs=1e-5)
    assert np.abs(found.relevance).max() > 1e-3


@pytest.mark.parametrize(("text", "word", "other"), SENTIMENT[:3])
def test_values_are_those_of_plain_forward_passes_for_the_larger_of_both_predictions(sentiment, text, word, other):
    mine, theirs = logits(sentiment, text), logits(sentiment, text.replace(word, other))
    index = int(max((mine.max() - mine.min(), mine.argmax()), (theirs.max() - theirs.min(), theirs.argmax()))[1])
    found = sentiment.compare(text, text.replace(word, other))
    assert found.target.index == index
    assert found.value == pytest.approx(mine[index] - mine[1 - index], abs=1e-4)
    assert found.base_value == pytest.approx(theirs[index] - theirs[1 - index], abs=1e-4)
    assert len(found.notes) == (mine.argmax() != theirs.argmax())


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("The film is not good at all.", "The film is good."),
        ("A gripping film.", "A gripping, utterly beautiful film."),
        ("I liked the unwatchable parts of it.", "I really liked the parts."),
    ],
)
def test_what_gaps_do_is_measured_and_booked(sentiment, text, other):
    found = sentiment.compare(text, other)
    closes(found)
    opposite(found, sentiment.compare(other, text))
    index = found.target.index
    tokenizer = sentiment._subject._loaded.processor
    read = {}
    for side, whole in (("a", text), ("b", other)):
        ids = iter(tokenizer(whole)["input_ids"])
        gapped = [next(ids) if getattr(slot, side) else tokenizer.mask_token_id for slot in found.slots]
        assert list(ids) == []
        with torch.no_grad():
            z = sentiment.model(input_ids=torch.tensor([gapped])).logits[0]
        plain = logits(sentiment, whole)
        read[side] = plain[index] - plain[1 - index] - float(z[index] - z[1 - index])
    gaps = {entry.operation: entry.relevance for entry in found.ledger if entry.cause == "alignment"}
    assert gaps["gaps in A"] == pytest.approx(read["a"], abs=1e-4)
    assert gaps["gaps in B"] == pytest.approx(-read["b"], abs=1e-4)
    assert abs(found.alignment) > 1e-4


def test_a_target_of_ones_own_and_a_contrast(sentiment):
    a, b = "A gripping film.", "A boring film."
    found = sentiment.compare(a, b, target="negative", contrast="positive")
    assert str(found.target) == "negative against positive"
    assert found.difference < 0
    own = sentiment.compare(a, b, target=lambda output: output.logits[0, 0])
    assert own.value == pytest.approx(logits(sentiment, a)[0], abs=1e-4)
    assert own.base_value == pytest.approx(logits(sentiment, b)[0], abs=1e-4)
    closes(own)


def test_what_the_model_reads_alike_is_the_same(sentiment):
    found = sentiment.compare("The Film.", "the film.")
    assert found.differing == ()
    assert found.difference == 0.0
    assert not found.relevance.any()
    assert "The model reads 'The' and 'the' as the same token." in found.notes


def test_a_mask_that_is_written_where_one_is_read_leaves_the_difference_to_the_gaps(sentiment):
    found = sentiment.compare("A [MASK] film.", "A film.")
    assert [slot.kind for slot in found.slots].count("removed") == 1
    assert not found.relevance.any()
    assert found.difference == pytest.approx(found.alignment, abs=1e-6)
    assert abs(found.difference) > 1e-3
    closes(found)


def test_digits_differ_where_their_pixels_do():
    from sklearn.datasets import load_digits

    shades = (load_digits().images * 255 / 16).round().astype("uint8")
    av = AttentionVisualizer.from_pretrained("clearhead/digits")
    a = Image.fromarray(shades[3]).convert("RGB")
    found, back = (av.compare(*both) for both in (
        (a, Image.fromarray(shades[8]).convert("RGB")), (Image.fromarray(shades[8]).convert("RGB"), a),
    ))  # fmt: skip
    closes(found)
    opposite(found, back)
    assert found.map.pictures["image"] == back.other_pictures["image"] != found.other_pictures["image"]
    pixels = shades[3].copy()
    pixels[:3, 5:] = 255 - pixels[:3, 5:]
    corner = av.compare(a, Image.fromarray(pixels).convert("RGB"))
    closes(corner)
    for slot, share in zip(corner.slots, corner.relevance, strict=True):
        if slot.a.box[2] <= 16 or slot.a.box[1] >= 16:  # of 32 pixels, which blur the edge a little
            assert slot.kind == "same"
            assert share == 0.0
    assert 0 < len(corner.differing) < len(corner.slots)


def test_a_translation_is_compared_by_one_text():
    av = AttentionVisualizer.from_pretrained("clearhead/translate")
    a, b = "Two dogs are playing in the snow.", "Two cats are playing in the snow."
    found = av.compare(a, b)
    closes(found)
    opposite(found, av.compare(b, a))
    assert found.target.kind == "sequence"
    assert found.target.label in (av.explain(each)[0].texts["decoder"] for each in (a, b))
    assert all(slot.kind == "same" for slot in found.slots if slot.a and slot.a.stream == "decoder")
    (word, _), *more = found.words().top()
    assert not more
    assert (word.a.text, word.b.text) == ("dogs", "cats")
    token = av.compare(a, b, continuation="Zwei Hunde spielen im Schnee.", position=1)
    closes(token)
    mine, theirs = (av.explain(each, continuation="Zwei Hunde spielen im Schnee.", position=1) for each in (a, b))
    assert token.target.label == mine.target.label == " Hunde"
    assert (token.value, token.base_value) == pytest.approx((mine.value, theirs.value), abs=1e-4)


def test_a_continuation_is_compared_by_its_probability():
    av = AttentionVisualizer.from_pretrained("clearhead/captions")
    a, b = "A man in a red", "A woman in a red"
    found = av.compare(a, b, continuation=" dress.")
    closes(found)
    mine, theirs = (av.explain(each, continuation=" dress.", target="sequence") for each in (a, b))
    assert (found.value, found.base_value) == pytest.approx((mine.value, theirs.value), abs=1e-4)
    assert [str(found.slots[n]) for n in found.differing] == [" man → woman"] or len(found.differing) == 1
    assert found.difference < 0
    following = av.compare(a, b)
    values = [av.explain(each, target=following.target.index).value for each in (a, b)]
    assert (following.value, following.base_value) == pytest.approx(tuple(values), abs=1e-4)


# ---- every task, on tiny models ------------------------------------------------------------------------------------

LENGTHENED = {
    "text-classification": ("a gripping , beautiful film !", "this was a gripping film"),
    "token-classification": ("Anna Smith lives in Berlin", "Anna lives in Paris"),
    "question-answering": (
        ("What is the capital of France?", "The capital of France is Paris, and the capital of Germany is Berlin."),
        ("What is a capital in Germany?", "The capital of Germany is Paris, and the capital of France is Berlin."),
    ),
    "masked-lm": ("people are {mask} on the street", "two people are {mask} in the street"),
    "causal-lm": ("Two young people are", "Two people are walking and are"),
    "encoder-decoder": ("Two young people are walking", "Two people are walking in the park"),
    "image-classification": (picture(0), picture(1)),
    "image-text-similarity": ((picture(0), "a photo of a red square"), (picture(1), "a photo of a green field in a")),
    "sentence-similarity": (
        ("Two young people are walking in the park.", "people are walking on the street"),
        ("Two people are walking in the park.", "people are talking on the street and walking"),
    ),
}


def both(name):
    one = gallery(name)
    mask = getattr(one.tokenizer, "mask_token", None)
    pair = LENGTHENED[one.task]
    return tuple(each.format(mask=mask) for each in pair) if one.task == "masked-lm" else pair


def asking(name):
    return {"continuation": "ein Haus"} if gallery(name).task == "encoder-decoder" else {}


@pytest.mark.parametrize("name", names())
def test_every_task_has_exact_books_that_turn_round(name):
    a, b = both(name)
    found = door(name).compare(a, b, **asking(name))
    closes(found)
    assert found.differing
    for slot, share in zip(found.slots, found.relevance, strict=True):
        assert share == 0.0 or slot.kind != "same"
    opposite(found, door(name).compare(b, a, **asking(name)))


@pytest.mark.parametrize("name", names())
def test_an_input_compared_with_itself_is_exactly_nothing(name):
    a, b = both(name)
    for same in (a, b):
        found = door(name).compare(same, same, **asking(name))
        assert found.difference == found.conservation_error == found.residual == 0.0
        assert not found.relevance.any()
        assert found.differing == ()
        assert found.ledger == ()


@pytest.mark.parametrize("name", names())
def test_values_are_those_that_are_explained(name):
    """The target of larger value, asked for by itself, has the same value on its own side."""
    a, b = both(name)
    found = door(name).compare(a, b, **asking(name))
    if asking(name):
        values = [door(name).explain(each, target="sequence", **asking(name)).value for each in (a, b)]
        assert (found.value, found.base_value) == pytest.approx(tuple(values), abs=1e-4)
        return
    own = [door(name).explain(each).value for each in (a, b)]
    if gallery(name).task in ("image-text-similarity", "sentence-similarity"):
        assert (found.value, found.base_value) == pytest.approx(tuple(own), abs=1e-5)
    else:
        assert max(own) == pytest.approx((found.value, found.base_value)[int(own[1] > own[0])], abs=1e-4)


def test_a_tensor_is_compared_place_by_place():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    av = AttentionVisualizer(model.double().eval())
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(1, 3, 2, generator=draw, dtype=torch.float64)
    b = a.clone()
    b[0, 1] += 1
    found = av.compare({"input": a}, {"input": b}, target=1)
    closes(found)
    assert found.differing == (1,)
    assert found.relevance[[0, 2]].tolist() == [0.0, 0.0]
    assert found.relevance[1] == pytest.approx((model(a) - model(b))[0, 1].item(), abs=1e-12)


def test_ids_are_compared_place_by_place():
    name = "text-classification/bert"
    texts = [gallery(name).processor(text, return_tensors="pt") for text in ("a good film", "a bad film")]
    found = door(name).compare(*[dict(each) for each in texts])
    words = door(name).compare("a good film", "a bad film")
    assert found.differing == words.differing == (2,)
    np.testing.assert_allclose(found.relevance, words.relevance, atol=1e-6)


@pytest.mark.parametrize("flag", [True, False])
def test_the_model_is_left_as_it_was_found(flag):
    name = "text-classification/bert"
    model = gallery(name).model
    model.train(flag)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        found = door(name).compare("a good film", "a bad film indeed")
        assert model.training is flag
        assert all(p.grad is None for p in model.parameters())
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert any("training mode" in each for each in found.warnings) is flag
    finally:
        model.eval()


def test_a_position_is_that_of_a_or_of_the_one_text_that_has_it():
    av = door("token-classification/bert-tagger")
    a, b = "Anna lives in Berlin", "people in Berlin"
    found = av.compare(a, b, position="Berlin", target="PLACE")
    values = [av.explain(each, position="Berlin", target="PLACE").value for each in (a, b)]
    assert (found.value, found.base_value) == pytest.approx(tuple(values), abs=1e-5)
    same = av.compare(a, b, position=4, target="PLACE")
    assert same.value == found.value
    other = av.compare("Anna lives in Paris", "Anna lives in Berlin", position="Berlin")
    assert other.target.position == 4


# ---- the result itself ---------------------------------------------------------------------------------------------


def test_alignment_is_no_gap_in_the_books():
    found = edited()
    assert found.alignment == pytest.approx(0.2)
    assert found.conservation_error == pytest.approx(0.0, abs=1e-12)
    assert found.conserves()
    short = replace(found, map=replace(found.map, ledger=found.ledger[:1]))
    assert short.conservation_error == pytest.approx(0.1 / abs(found.base_value))
    assert not short.conserves()


def test_errors_are_relative_to_the_larger_value_and_residual_counts_leaks():
    found = leaks()
    assert found.conservation_error == pytest.approx(0.0625 / 1.5)
    assert found.residual == pytest.approx(0.0, abs=1e-12)
    assert found.layers == (("model.layers.0", 0.25), ("model.layers.1", -0.375), ("head", 0.0625))
    nothing = made([("a", "b")], [0.0], value=0.0)
    assert nothing.conservation_error == 0.0
    assert replace(nothing, map=replace(nothing.map, relevance=[1.0])).conservation_error == float("inf")


def test_what_was_returned_is_no_leak():
    entry = LedgerEntry(cause="bias", module="m.0", operation="linear", relevance=0.5, returned=True)
    found = one_word()
    assert replace(found, map=replace(found.map, ledger=(entry,))).layers == ()


def test_top_is_of_what_differs_by_size():
    assert [(str(slot), share) for slot, share in edited().top(2)] == [("bad → fine", -2.0), ("un → good", -1.25)]
    assert len(edited().top(99)) == len(edited().differing) == 6
    assert [str(slot) for slot, _ in edited().top(6)][-1] == "(nothing) → n"


def test_words_hold_together_on_both_sides_and_add_up():
    found = edited().words()
    assert [str(slot) for slot in found.slots] == [
        "[CLS]", "the", "unwatchable → good", "film", "(nothing) → isn", "was", "bad → fine", "[SEP]",
    ]  # fmt: skip
    assert [slot.kind for slot in found.slots] == [
        "same", "same", "replaced", "same", "inserted", "same", "replaced", "same",
    ]  # fmt: skip
    assert found.relevance.tolist() == [0.0, 0.0, -1.5, 0.0, 0.063, 0.0, -2.0, 0.0]
    assert found.difference == edited().difference
    assert [unit.index for unit in found.map.units] == list(range(8))
    assert found.words().relevance.tolist() == found.relevance.tolist()


def test_a_word_of_one_side_holds_several_of_the_other_together():
    found = made([("un", "a"), ("##watch", "good"), ("##able", "one"), ("film", "film")], [1.0, 2.0, 3.0, 0.0]).words()
    assert [str(slot) for slot in found.slots] == ["unwatchable → a good one", "film"]
    assert found.relevance.tolist() == [6.0, 0.0]


@pytest.mark.parametrize("name", COMPARISONS)
def test_saved_and_read_it_is_the_same(name, tmp_path):
    found = COMPARISONS[name]()
    read = Comparison.load(found.save(tmp_path / "c.json"))
    assert json.dumps(read.to_dict()) == json.dumps(found.to_dict())
    assert read.slots == found.slots
    assert read.map.units == found.map.units
    assert read.relevance.tolist() == found.relevance.tolist()
    assert (read.other_texts, read.other_pictures) == (found.other_texts, found.other_pictures)
    assert repr(read) == repr(found)


def test_the_schema_is_written_out():
    data = one_word().to_dict()
    assert data["schema"] == 1
    assert data["difference"] == pytest.approx(4.18)
    assert data["slots"][1]["kind"] == "replaced"
    assert (data["slots"][1]["a"]["text"], data["slots"][1]["b"]["text"]) == ("gripping", "dull")
    assert data["slots"][1]["relevance"] == 4.18
    assert edited().to_dict()["slots"][3]["b"] is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: [data], "JSON object with `slots`"),
        (lambda data: {"units": []}, "JSON object with `slots`"),
        (lambda data: {**data, "schema": 99}, "reads schema 1; found 99"),
        (lambda data: {**data, "slots": data["slots"][:-1]}, "a slot for each unit"),
        (lambda data: {**data, "slots": [{**data["slots"][0], "kind": "gone"}, *data["slots"][1:]]}, "kind 'gone'"),
        (lambda data: {**data, "slots": [{**data["slots"][0], "b": None}, *data["slots"][1:]]}, "unless it is removed"),
    ],
)  # fmt: skip
def test_what_is_no_saved_comparison_is_told(change, told):
    with pytest.raises(UsageError, match=told):
        Comparison.from_dict(change(one_word().to_dict()))


@pytest.mark.parametrize("text", ["{", '{"schema": 1, "slots": [{}]}', '{"schema": 1, "slots": [], "map": 3}'])
def test_a_file_that_is_none_is_told(text, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises((OutputError, UsageError), match=r"cannot be read as one|is not a saved comparison|JSON object"):
        Comparison.load(path)


def test_other_results_send_a_comparison_to_its_own_reader():
    with pytest.raises(UsageError, match="It is read by Comparison"):
        RelevanceMap.from_dict(one_word().to_dict())
    with pytest.raises(UsageError, match="rows"):
        GenerationMap.from_dict(one_word().to_dict())


@pytest.mark.parametrize(
    ("kind", "a", "b"),
    [("same", "x", None), ("replaced", None, "x"), ("inserted", "x", "y"), ("removed", "x", "y"), ("gone", "x", "y")],
)
def test_a_slot_has_the_units_that_its_kind_says(kind, a, b):
    units = [None if text is None else Unit(index=0, text=text) for text in (a, b)]
    with pytest.raises(UsageError, match="A slot has a unit of a unless"):
        Slot(kind=kind, a=units[0], b=units[1])


def test_it_shows_and_represents_itself(capsys):
    one_word().show()
    assert "gripping" in capsys.readouterr().out
    assert "<article" in one_word()._repr_html_()
    expected = (
        "<Comparison of positive against negative: +2.3100 → -1.8700 (difference 4.1800); 1 of 4 slots differ: "
        "gripping → dull +4.180>"
    )
    assert repr(one_word()) == expected
