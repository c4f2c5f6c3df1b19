"""Pictures: only checked ones are shown, each cell lies where its box says, and looks as its number does."""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from clearhead import render
from clearhead.render import colours, paint, pictures
from clearhead.render.html import page
from clearhead.render.scene import scene
from clearhead.render.terminal_pen import Pen
from clearhead.units import Unit
from render.drawn_examples import PICTURES, address, captioned, digit, hostile_picture, of_units, patches, pixels, still
from render.examples import BREAKOUT
from render.test_html import Reader, number


def shown(maps, width=80, **console):
    file = io.StringIO()
    render.show(maps, Console(file=file, width=width, **console))
    return file.getvalue()


def image_stream(found):
    return next(stream for stream in scene(found).streams if stream.picture)


def unpacked(text):
    return Image.open(io.BytesIO(base64.b64decode(text.removeprefix(pictures.ADDRESS))))


# ---- what is let in ------------------------------------------------------------------------------------------------

PNG = address(still(16))
HUGE = b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IEND", b""))
)
SVG = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>").decode()
REFUSED = [
    "https://example.org/x.png",
    "https://example.org/?a" + PNG.removeprefix(pictures.ADDRESS),  # as long as the beginning that is allowed
    "javascript:alert(1)",
    "data:image/svg+xml;base64," + SVG,
    "data:image/png;base64," + SVG,
    "data:text/html,<script>alert(1)</script>",
    " " + PNG,
    PNG + '"><script>alert(1)</script>',
    PNG + "\n",
    PNG.upper(),
    PNG[: len(PNG) // 2 // 4 * 4],
    "data:image/png;base64,",
    "data:image/png;base64," + base64.b64encode(HUGE).decode(),
    "",
    7,
    ["data:image/png;base64,"],
]


@pytest.mark.parametrize("given", REFUSED, ids=map(str, range(len(REFUSED))))
def test_nothing_but_a_readable_png_in_a_data_address_is_shown(given):
    found = replace(digit(), pictures={"image": given})
    source = page([found])
    held = image_stream(found).picture
    assert held.address == ""
    assert "the picture is left out" in " ".join(scene(found).warnings)
    assert "the picture is left out" in source
    assert not [e for e in Reader(source).found if e["tag"] in {"img", "script"}]
    assert not isinstance(given, str) or not given or given not in source
    assert "the picture is left out" in " ".join(shown([found], 200).split())


def test_the_size_is_checked_before_anything_is_decoded(monkeypatch):
    pictures._checked.cache_clear()
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("a decoder saw it"))
    assert pictures.seen("data:image/png;base64," + base64.b64encode(HUGE).decode()).notes == (pictures.REFUSED,)


def test_a_picture_that_is_one_is_shown_as_it_is():
    found = patches()
    reader = Reader(page([found]))
    (image,) = [e for e in reader.found if e["tag"] == "img"]
    assert image["attributes"]["src"] == found.pictures["image"]
    assert image["attributes"]["alt"] == "The picture, 224 by 224 pixels."
    for _, name, value in reader.attributes:
        assert name not in ("src", "href") or value.startswith((pictures.ADDRESS, "#"))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
def test_pictures_of_every_mode_are_opened(mode):
    image = Image.new("L", (8, 8), 128).convert(mode) if mode != "I;16" else Image.new("I;16", (8, 8))
    found = replace(digit(), pictures={"image": address(image)})
    assert not scene(found).warnings
    assert pictures.opened(image_stream(found).picture).mode == "RGB"


def test_the_grey_copy_is_grey_and_small():
    below = unpacked(paint.under(pictures.seen(address(still(512))), 64))
    assert max(below.size) == 64
    red, green, blue = np.asarray(below.convert("RGB"), dtype=int).reshape(-1, 3).T
    assert (red == green).all()
    assert (green == blue).all()


# ---- where cells lie -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [patches, digit, captioned])
def test_cells_lie_where_their_boxes_say(make):
    found = make()
    rects = [e["attributes"] for e in Reader(page([found])).of("cell")]
    boxes = [unit.box for unit in found.units if unit.box]
    drawn = [tuple(int(r[side]) for side in ("x", "y", "width", "height")) for r in rects]
    assert drawn == [(left, top, right - left, bottom - top) for left, top, right, bottom in boxes]
    view = next(e["attributes"]["viewbox"] for e in Reader(page([found])).found if e["tag"] == "svg")
    assert view == f"0 0 {max(b[2] for b in boxes)} {max(b[3] for b in boxes)}"


@pytest.mark.parametrize("make", [patches, digit, captioned])
def test_cells_have_their_colour_and_their_number(make):
    found = make()
    held = [(u, r) for u, r in zip(found.units, found.relevance, strict=True) if u.box]
    largest = max(abs(r) for _, r in held)
    cells = Reader(page([found])).of("cell")
    for (unit, relevance), cell in zip(held, cells, strict=True):
        opacity = float(cell["attributes"]["fill-opacity"])
        assert opacity == pytest.approx(colours.COVER * abs(relevance) / largest, abs=6e-3)
        assert ("plus" in cell["attributes"]["class"].split()) is bool(relevance >= 0)
        row, column = unit.box[1] // (unit.box[3] - unit.box[1]), unit.box[0] // (unit.box[2] - unit.box[0])
        name, amount = number(cell).rsplit(": ", 1)
        assert name == f"row {row + 1}, column {column + 1}"
        assert float(amount) == pytest.approx(relevance, abs=6e-4)


def test_the_largest_parts_are_marked_and_named_alike():
    reader = Reader(page([patches()]))
    marked = [e["text"] for e in reader.of("rank") if e["tag"] == "g"]
    assert sorted(marked) == list("12345")
    assert {e["text"].strip() for e in reader.of("at", "rank")} == set("12345")
    first = next(e for e in reader.found if e["tag"] == "li" and "row 9, column 10" in e["text"])
    assert "1 row 9, column 10" in " ".join(first["text"].split())


def test_words_say_where_it_is():
    label = next(e["attributes"]["aria-label"] for e in Reader(page([patches()])).found if e["tag"] == "svg")
    assert label.startswith(
        "Relevance of 196 parts of the picture in 14 rows and 14 columns. Largest: row 9, column 10"
    )
    corner = of_units(digit().units, [1.0, *[0.0] * 15], pictures=digit().pictures)
    assert paint.where(image_stream(corner)) == (
        "Largest: row 1, column 1, at the upper left, +1.000. "
        "100 % of all relevance without signs lies at the upper left."
    )


def test_units_beside_the_picture_are_tokens():
    reader = Reader(page([patches()]))
    assert [e["text"].split()[0] for e in reader.of("token")] == ["cls_token"]
    assert len(reader.of("cell")) == 196


@pytest.mark.parametrize(
    "box",
    [
        (-1, 0, 2, 2),
        (0, 0, 9, 2),
        (2, 2, 2, 4),
        (0, 0, 1, float("nan")),
        ("0", 0, 1, 1),
        (0, 0),
        (4, 4, 2, 2),
        [1e9] * 4,
    ],
)
def test_boxes_that_cannot_be_drawn_are_listed_only(box):
    found = digit()
    units = (replace(found.units[0], box=box, text="lost"), *found.units[1:])
    drawing = scene(replace(found, units=units))
    assert len(drawing.streams[0].parts) == 15
    assert [token.label for token in drawing.streams[0].words] == ["lost"]
    assert any("1 parts lie outside" in warning for warning in drawing.warnings)
    assert "lost" in page([replace(found, units=units)])


def test_boxes_that_make_no_grid_keep_their_own_names():
    boxes = [(0, 0, 3, 8), (3, 1, 8, 4), (4, 4, 8, 8), (1, 2, 7, 6)]
    units = tuple(Unit(index=i, text=f"segment {i}", stream="image", box=box) for i, box in enumerate(boxes))
    found = of_units(units, [1.0, -2.0, 0.5, 0.1], pictures=digit().pictures)
    stream = image_stream(found)
    assert [token.label for token in stream.parts] == [f"segment {i}" for i in range(4)]
    assert paint.raster(stream).shape == (8, 8)
    assert paint.raster(stream)[7, 0] == 0.5
    assert shown([found], 60)


# ---- very many -----------------------------------------------------------------------------------------------------


def test_very_many_cells_are_one_image_with_the_same_colours():
    found = pixels(48)
    source = page([found])
    assert not Reader(source).of("cell")
    dots = np.asarray(unpacked(paint.overlay(image_stream(found))))
    assert dots.shape == (48, 48, 4)
    signs = found.relevance.reshape(48, 48)
    plus, minus = (tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (colours.HEAT_PLUS, colours.HEAT_MINUS))
    assert {tuple(dot) for dot in dots[signs > 0][:, :3]} == {plus}
    assert {tuple(dot) for dot in dots[signs < 0][:, :3]} == {minus}
    reach = np.sort(np.abs(found.relevance))[::-1][48 * 48 // 100]
    expected = 255 * colours.COVER * np.minimum(1, np.abs(signs) / reach)
    assert np.abs(dots[..., 3] - expected).max() <= 1
    assert dots[..., 3].max() == round(255 * colours.COVER)


def test_a_page_of_fifty_thousand_pixels_stays_small_and_says_what_it_leaves_out():
    found = pixels()
    source = page([found])
    assert len(source) < 400_000
    text = Reader(source).of("more")[0]["text"]
    assert text.startswith("50,164 others, together")
    listed = [float(number(e)) for e in Reader(source).of("number", inside="bars")]
    others = float(number(Reader(source).of("number", inside="more")[0]))
    assert sum(listed) + others == pytest.approx(float(found.relevance.sum()), abs=1e-3)
    assert "full colour from there on, for" in source


# ---- other outputs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("colour", [None, "truecolor"])
def test_the_terminal_stays_in_its_width(name, width, colour):
    text = shown([PICTURES[name]()], width, force_terminal=colour is not None, color_system=colour)
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        assert len(line) <= width


def test_the_terminal_shows_strongest_and_sign_without_colour():
    lines = [line.strip() for line in shown([patches()]).splitlines()]
    grid = [line for line in lines if re.fullmatch(r"[.+#=-]{28}", line)]
    assert len(grid) == 14
    assert grid[8][18:20] == "##"
    assert grid[13][4:6] == "=="


def test_the_terminal_paints_the_strongest_patch_bluest():
    text = shown([digit()], 60, force_terminal=True, color_system="truecolor")
    blue = re.findall(r"38;2;(\d+);(\d+);(\d+)", text)
    assert max(int(b) - int(r) for r, _, b in blue) > 100


@pytest.mark.parametrize(
    ("system", "painted"), [(None, False), ("standard", False), ("256", True), ("truecolor", True)]
)
def test_a_terminal_without_enough_colours_gets_signs(system, painted):
    assert Pen.of(Console(file=io.StringIO(), force_terminal=True, color_system=system)).painted is painted


@pytest.mark.parametrize("name", PICTURES)
def test_figures_hold_the_picture_and_the_books(name, tmp_path):
    figure = pytest.importorskip("clearhead.render.figure", reason="needs matplotlib")
    found = PICTURES[name]()
    _, axes = figure.figure(found)
    assert len(axes) == 2 + len(found.streams) + 1
    heat = axes[1].images[-1].get_array()
    assert heat[..., 3].max() == round(255 * colours.COVER)
    assert figure.image(found, "svg") == figure.image(found, "svg")


@pytest.mark.parametrize("relevance", [0.0, float("nan"), float("inf"), -float("inf")])
def test_odd_relevance_is_drawn(relevance):
    found = of_units(digit().units, [relevance] * 16, pictures=digit().pictures, value=1.0)
    assert len(Reader(page([found])).of("cell")) == 16
    assert "nan" not in " ".join(e["attributes"]["fill-opacity"] for e in Reader(page([found])).of("cell"))
    assert "No part has any relevance." in page([found])
    assert shown([found], 60, force_terminal=True, color_system="truecolor")
    assert unpacked(paint.overlay(image_stream(found))).getchannel("A").getextrema() == (0, 0)


def test_hostile_maps_stay_text():
    source = page([hostile_picture()])
    reader = Reader(source)
    assert {e["tag"] for e in reader.found} & {"script", "img", "b"} == set()
    assert "example.org" not in source
    assert reader.found[-1]
    assert BREAKOUT in "".join(e["text"] for e in reader.of("over"))


def test_a_saved_picture_comes_back(tmp_path):
    found = patches()
    again = type(found).load(render.save([found], tmp_path / "map.json"))
    assert page([again]) == page([found])
