"""Figures: no global state, no mathematics in tokens, the same bytes each time."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

pytest.importorskip("matplotlib", reason="needs the extra `plot`: pip install 'clearhead[plot]'")

from matplotlib import rc_context, rcParams

from clearhead.render.figure import figure, image
from clearhead.render.texts import visible
from render.examples import ADVERSARIAL, ALL, BREAKOUT, adversarial, leaking, long, made, pair, review

SVG = "{http://www.w3.org/2000/svg}"


def texts(found):
    return [each.text or "" for each in ET.fromstring(image(found, "svg")).iter(f"{SVG}text")]


def numbers(axes):
    """The numbers written to the right of the rows, from top to bottom."""
    right = [text for text in axes.texts if text.get_ha() == "left"]
    return [text.get_text().replace("−", "-") for text in right]


@pytest.mark.parametrize("name", ALL)
def test_bars_are_the_relevances(name):
    found = ALL[name]()
    _, axes = figure(found)
    lengths = [bar.get_width() for each in axes[:-1] for bar in each.patches]
    shown = [float(text) for each in axes[:-1] for text in numbers(each)]
    assert sum(shown) == pytest.approx(float(found.relevance.sum()), abs=0.02)
    assert set(lengths) <= set(found.relevance.tolist())


@pytest.mark.parametrize("name", ALL)
def test_the_waterfall_ends_at_the_value(name):
    found = ALL[name]()
    *_, books = figure(found)[1]
    *steps, total = [bar for bar in books.patches if bar.get_height() > 0.3]
    for before, after in pairwise(steps):
        assert after.get_x() == pytest.approx(before.get_x() + before.get_width(), abs=1e-9)
    assert steps[-1].get_x() + steps[-1].get_width() == pytest.approx(found.value, abs=1e-9)
    assert total.get_width() == found.value


@pytest.mark.parametrize("count", [8, 25, 26, 128])
def test_any_number_of_units_fits(count):
    _, axes = figure(long(count))
    labels = [text.get_text() for text in axes[0].texts if text.get_ha() == "right"]
    assert len(labels) <= 25
    assert (f"{count - 24} others" in labels) is (count > 25)


def test_rows_do_not_overlap():
    made_, axes = figure(long(128))
    made_.draw_without_rendering()
    for each in axes:
        boxes = sorted((t.get_window_extent() for t in each.texts if t.get_ha() == "right"), key=lambda b: b.y0)
        assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    box = made_.get_tightbbox().padded(0)
    assert box.x0 >= 0
    assert box.x1 <= made_.get_figwidth()


def test_two_streams_have_an_axes_each():
    assert len(figure(pair())[1]) == 3
    assert len(figure(review())[1]) == 2


def test_tokens_are_no_mathematics_and_no_markup():
    found = made(ADVERSARIAL[:24], [1.0] * 24, model=BREAKOUT)
    shown = texts(found)
    assert "$x^2$" in shown
    assert "$\\frac{" in shown
    for text in ADVERSARIAL[:21]:
        assert any(visible(text)[:9] in each for each in shown)
    assert b"<img" not in image(found, "svg")


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
@pytest.mark.parametrize("make", [review, adversarial])
def test_the_same_map_gives_the_same_bytes(kind, make):
    assert image(make(), kind) == image(make(), kind)


def test_an_svg_carries_no_date_and_loads_nothing():
    source = image(leaking(), "svg").decode()
    assert "dc:date" not in source
    assert not [
        value for element in ET.fromstring(source).iter() for key, value in element.items()
        if key.endswith(("href", "src")) and not value.startswith("#")
    ]  # fmt: skip


def test_the_users_own_style_changes_nothing():
    plain = image(review(), "svg")
    with rc_context({"text.color": "red", "axes.facecolor": "black", "font.size": 30, "text.parse_math": True}):
        assert image(review(), "svg") == plain


def test_no_global_state_is_left():
    before = dict(rcParams)
    image(review(), "png")
    assert dict(rcParams) == before
    code = "import sys; from clearhead.render import figure; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("odd", [made([], []), made(["a"], [0.0]), made(["a"], [1.0], value=0)])
def test_odd_maps_have_a_figure(odd):
    assert image(odd, "png").startswith(b"\x89PNG")
