"""Attention drawn: every head where it belongs, one image per stream, in bounds, and every text a text."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from rich.cells import cell_len

from clearhead import render
from clearhead.attentions import WHAT_IT_IS
from clearhead.render import colours, fragment, paint
from clearhead.render.html import page
from clearhead.render.looks import GAP, LARGE, SMALL, looks, sized
from render.attention_examples import ATTENTIONS, hostile, layer, maps, odd, short, stream, translator, units, wide
from render.drawn_examples import EVIL
from render.examples import BREAKOUT, review
from render.test_generation import MORE
from render.test_html import ALLOWED, Reader, number
from render.test_pictures import shown, unpacked


@pytest.fixture(params=ATTENTIONS)
def found(request):
    return ATTENTIONS[request.param]()


def test_all_heads_of_a_stream_are_one_image_with_each_in_its_place():
    made = short()
    tower = looks(made).towers[0]
    dots = np.asarray(unpacked(paint.faded(tower.sprite())).convert("RGBA"))
    step = tower.side + tower.side // GAP
    assert dots.shape == (6 * step, 4 * step, 4)
    assert tuple(dots[0, 0, :3]) == tuple(int(colours.HEAT_PLUS[i : i + 2], 16) for i in (1, 3, 5))
    for n, each in enumerate(made["encoder"]):
        for head, weights in enumerate(each.matrix()):
            drawn = dots[n * step : n * step + tower.side, head * step : head * step + tower.side, 3]
            where = np.arange(tower.side) * 17 // tower.side
            expected = 255 * np.sqrt(weights / weights.max())[where][:, where]
            assert np.abs(drawn - expected).max() <= 0.51
    assert not dots[tower.side : step, :, 3].any()


def test_a_page_has_an_image_per_stream_and_one_per_layer():
    reader = Reader(page([translator()]))
    images = [e for e in reader.found if e["tag"] == "image"]
    assert len(images) == 3 + (3 + 2 + 2)
    assert all(e["attributes"]["href"].startswith("data:image/png;base64,") for e in images)
    titles = [e["text"] for e in reader.of("cell", "bare")]
    assert len(titles) == 3 * 4 + 2 * 8 + 2 * 8
    assert titles[0].startswith("layer 0, head 0: entropy ")
    assert WHAT_IT_IS in reader.of("meaning")[0]["text"]
    assert [e["text"] for e in reader.found if e["tag"] == "h2"] == ["encoder", "decoder", "cross"]


def test_frames_are_as_far_apart_as_the_heads_in_the_image():
    cells = [e["attributes"] for e in Reader(page([short()])).of("cell", "bare")]
    step, side = (float(cells[1]["x"]) - float(cells[0]["x"])), float(cells[0]["width"])
    assert step == float(cells[4]["y"]) - float(cells[0]["y"])
    assert step / side == (GAP + 1) / GAP
    image = next(e["attributes"] for e in Reader(page([short()])).found if e["tag"] == "image")
    assert (float(image["width"]), float(image["height"])) == (4 * step, 6 * step)


def test_entropy_and_the_unit_looked_at_most_are_what_the_weights_say():
    made = short()
    for drawn, each in zip(looks(made).towers[0].layers, made["encoder"], strict=True):
        weights = each.matrix()
        by_head = [-sum(p * math.log2(p) for p in head.ravel() if p > 0) / len(head) for head in weights]
        assert [head.bits for head in drawn.heads] == pytest.approx(by_head)
        assert drawn.bits == pytest.approx(np.mean(by_head))
        assert drawn.most_bits == math.log2(17)
        held = weights.mean((0, 1))
        assert drawn.most == each.keys[int(held.argmax())].text
        assert drawn.share == pytest.approx(held.max())
        assert drawn.largest == pytest.approx(weights.mean(0).max())
        assert f"{drawn.bits:.2f} of 4.09 bits; looked at most: {drawn.most}" in page([made])
        assert re.search(
            rf"{drawn.number} .* {drawn.bits:.2f} {re.escape(drawn.most)} +{drawn.share:.3f}", shown([made])
        )


def test_short_texts_have_labels_at_the_edges_and_long_ones_have_none():
    reader = Reader(page([short()]))
    texts = [e["text"] for e in reader.found if e["tag"] == "text" and "mean" in (
        e["inside"][-1]["attributes"].get("class") or "")]  # fmt: skip
    assert len(texts) == 6 * 2 * 17
    assert texts[:4] == ["[CLS]", "a", "gripping", ","]
    assert looks(wide()).towers[0].layers[0].keys == ()
    edge = units([str(n) for n in range(48)])
    assert looks(maps(stream("encoder", 1, 1, edge, edge))).towers[0].layers[0].keys


def test_files_stay_small():
    assert len(page([wide()])) < 1_000_000
    many = units([f"w{n}" for n in range(64)])
    assert len(page([maps(stream("encoder", 32, 32, many, many))])) < 8_000_000


def test_of_long_inputs_only_means_are_kept_and_weights_come_in_blocks():
    asked = []
    long = units([f"w{n}" for n in range(1000)])
    table = np.full((2, 1000, 1000), 1e-3)
    held = looks(maps(type(short()["encoder"])(name="encoder", layers=(layer(table, long, long, asked=asked),))))
    (drawn,) = held.towers[0].layers
    assert drawn.mean.shape == (LARGE, LARGE)
    assert not drawn.whole
    assert drawn.small[0].shape == (SMALL, SMALL)
    assert drawn.bits == pytest.approx(math.log2(1000))
    assert len(asked) <= 4


@pytest.mark.parametrize(("tall", "wide_"), [(2, 3), (4, 6), (5, 7), (9, 13)])
def test_sizes_are_means_or_repeats(tall, wide_):
    dots = np.arange(24.0).reshape(4, 6)
    made = sized(dots, tall, wide_)
    assert made.shape == (tall, wide_)
    assert made.min() >= 0
    assert made.max() <= 23
    if 4 % tall == 0 and 6 % wide_ == 0:
        assert np.array_equal(made, dots.reshape(tall, 4 // tall, wide_, 6 // wide_).mean((1, 3)))


def test_texts_from_outside_are_never_more_than_texts():
    for source in (page([hostile()]), fragment([hostile()])):
        reader = Reader(source)
        assert {each["tag"] for each in reader.found} <= ALLOWED | MORE
        assert not [name for _, name, _ in reader.attributes if name.startswith("on") or name in ("src", "style")]
        assert "<script" not in source.lower()
        assert "\x1b" not in source
        assert "\u202e" not in source
        assert BREAKOUT in reader.of("looks")[0]["text"]
        assert EVIL[:20] in reader.of("tower")[0]["text"]
    text = shown([hostile()], 120, force_terminal=True, color_system="truecolor")
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert BREAKOUT[:9] in text


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("colour", [None, "truecolor"])
def test_the_terminal_stays_in_its_width(found, width, colour):
    text = shown([found], width, force_terminal=bool(colour), color_system=colour)
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        assert cell_len(line) <= width
    assert "Attention says where a layer looked" in " ".join(text.split())


def test_every_kind_of_file_is_written(found, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    for suffix in (".html", ".png", ".svg"):
        assert found.save(tmp_path / f"attention{suffix}").stat().st_size > 1000
    saved = json.loads(found.save(tmp_path / "attention.json").read_text(encoding="ascii"))
    assert saved["kind"] == "attention"


def test_figures_have_two_axes_per_stream_and_the_same_bytes():
    figure = pytest.importorskip("clearhead.render.figure", reason="needs matplotlib")
    _, axes = figure.figure(translator())
    assert len(axes) == 3 * 2 + 1
    assert WHAT_IT_IS in axes[-1].texts[0].get_text().replace("\n", " ")
    assert figure.image(translator(), "svg") == figure.image(translator(), "svg")
    assert b"<img" not in figure.image(hostile(), "svg")


def test_attention_stands_among_other_drawings(tmp_path):
    path = render.save([review(), short()], tmp_path / "all.html")
    reader = Reader(path.read_text(encoding="utf-8"))
    assert [" ".join(e["text"].split()) for e in reader.of("plain")] == ["Weights of attention"]
    assert "6 layers" in [number(e) for e in reader.of("number")]
    assert not re.search(r"\bid=", fragment([short()]))
    assert short()._repr_html_() == fragment([short()])
    assert page([odd()])
