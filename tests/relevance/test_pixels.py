"""Rules of images from the file to the patches: the range of pixels, batches, presets, what is noted."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clearhead import AttentionVisualizer
from clearhead.config import PRESETS
from clearhead.errors import UsageError

END = {"w2": {}, "flat": {}, "zB": {}}


@pytest.fixture(scope="module")
def digits() -> AttentionVisualizer:
    return AttentionVisualizer.from_pretrained("clearhead/digits")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    found = draw.integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    found[:, :20] = 0  # black
    return list(found)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("end", [None, *END])
def test_every_preset_with_every_rule_of_the_input_conserves(digits, images, preset, end):
    more = {} if end is None else {"rules": {"input": end}}
    found = digits.explain(images[0], preset=preset, **more)
    assert not found.warnings or preset in {"attnlrp", "cp-lrp"}
    assert found.residual <= 1e-5
    if preset not in {"attnlrp", "cp-lrp"}:
        assert found.conservation_error <= 1e-4 or found.conserves(1e-4)
    assert found.notes == ()


def test_black_is_the_low_end_and_white_the_high_end(digits, images):
    """The processor's own numbers for black and white, taken from pictures of nothing else."""
    processor = digits._subject._loaded.processor
    ends = [
        processor(images=Image.new("RGB", (40, 40), shade), return_tensors="pt")["pixel_values"][0, :, 0, 0]
        for shade in ("black", "white")
    ]
    from clearhead.config import Settings
    from clearhead.subjects import Wanted

    question = digits._subject.question(images[0], Wanted(), Settings(method="lrp"))
    for end, found in zip(ends, question.passes[0].ranges["pixel_values"], strict=True):
        np.testing.assert_allclose(found.flatten().expand(len(end)), end, atol=1e-5)
    low, high = (float(end.double()[0]) for end in ends)
    known = digits.explain(images[0], rules={"input": "zB"})
    said = digits.explain(images[0], rules={"input": {"rule": "zB", "low": low, "high": high}})
    np.testing.assert_allclose(known.relevance, said.relevance, atol=1e-4 * np.abs(said.relevance).max())


def test_a_narrow_range_is_refused(digits, images):
    with pytest.raises(UsageError, match="Widen the range"):
        digits.explain(images[0], rules={"input": "zB"}, low=-0.01, high=0.01)


@pytest.mark.parametrize("rules", [{"input": end} for end in END] + [{"convolutions": "alpha-beta"}], ids=str)
def test_a_list_is_its_members(digits, images, rules):
    together = digits.explain(images, rules=rules, residual_rule="gamma")
    for each, image in zip(together, images, strict=True):
        alone = digits.explain(image, rules=rules, residual_rule="gamma")
        np.testing.assert_allclose(each.relevance, alone.relevance, atol=1e-4 * np.abs(alone.relevance).max())
        assert each.residual <= 1e-5


def test_black_pixels_get_relevance_where_the_rule_gives_them_some(digits, images):
    plain = digits.explain(images[0], rule="0", leak="record", units="pixel")
    flat = digits.explain(images[0], rule="0", leak="record", units="pixel", rules={"input": "flat"})
    black = np.array([unit.box is not None and unit.box[1] < plain.units[0].box[3] for unit in plain.units])
    assert not np.allclose(plain.relevance[black], flat.relevance[black], rtol=0.1)
    inside = flat.relevance[[unit.box is not None for unit in flat.units]]
    assert len(np.unique(inside.round(9))) <= len(digits.explain(images[0]).units)  # one number for each patch


def test_a_text_says_that_no_layer_reads_its_input():
    text = AttentionVisualizer.from_pretrained("clearhead/sentiment")
    noted = text.explain("A dull film.", rules={"input": "w2"})
    assert any("No layer reads the input" in note for note in noted.notes)
    plain = text.explain("A dull film.", method="lrp")
    np.testing.assert_array_equal(noted.relevance, plain.relevance)
    assert plain.notes == ()


def test_the_recipe_makes_the_map_again(digits, images):
    found = digits.explain(images[0], preset="vision", rules={"input": {"rule": "zB"}})
    again = digits.explain(images[0], **{k: v for k, v in found.recipe.settings.items() if v is not None})
    np.testing.assert_array_equal(found.relevance, again.relevance)
    loaded = type(found).from_dict(found.to_dict())
    assert loaded.recipe.settings["rules"] == {
        "convolutions": "gamma",
        "input": {"rule": "zB"},
    }
