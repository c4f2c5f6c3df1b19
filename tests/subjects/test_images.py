"""Images in every form people have them: modes, arrays, files; and what is no image, or too much of one."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clearhead import RelevanceMap
from clearhead.errors import UsageError
from tasks.gallery import SIDE, picture
from tasks.plainly import asked, door, same

VIT, CLIP = "image-classification/vit", "image-text-similarity/clip"


def explained(given: Any) -> RelevanceMap:
    return door(VIT).explain(given, target=1)


def equal(one: RelevanceMap, other: RelevanceMap) -> None:
    same(one, other, tolerance=1e-6)


# ---- the same image in many forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["str", "path", "array", "bmp", "opened"])
def test_an_image_in_any_form_is_the_same(form: str, tmp_path: Path) -> None:
    image = picture()
    file = tmp_path / ("image.bmp" if form == "bmp" else "image.png")
    image.save(file)
    given: Any = {"str": str(file), "array": np.asarray(image)}.get(form, file)
    if form == "opened":
        with Image.open(file) as given:
            found = explained(given)
    else:
        found = explained(given)
    equal(found, explained(image))
    assert not found.warnings


def test_an_image_beside_a_text_may_be_a_file(tmp_path: Path) -> None:
    image, text = picture(), "a photo of a red square"
    image.save(tmp_path / "image.png")
    for given in (tmp_path / "image.png", str(tmp_path / "image.png"), np.asarray(image)):
        equal(door(CLIP).explain((given, text)), door(CLIP).explain((image, text)))


def opaque(mode: str) -> Image.Image:
    return picture().quantize(16) if mode == "P" else picture().convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA", "YCbCr", "HSV"])
def test_other_modes_become_rgb_and_say_so(mode: str) -> None:
    image = opaque(mode)
    found = explained(image)
    (note,) = found.warnings
    assert f"mode {mode} " in note
    assert "RGB" in note
    expected = explained(image.convert("RGB"))
    assert not expected.warnings
    equal(found, expected)
    assert image.mode == mode  # the user's image is as it was


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    image = picture().convert(mode)
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, SIDE // 2, SIDE))
    image.putalpha(alpha)
    shown = picture().convert(mode).convert("RGB")
    shown.paste((255, 255, 255), (0, 0, SIDE // 2, SIDE))
    equal(explained(image), explained(shown))


def test_a_palette_with_a_transparent_colour_becomes_white_there(tmp_path: Path) -> None:
    image = Image.new("P", (SIDE, SIDE), 0)
    image.putpalette([0, 0, 0, 200, 30, 30])
    image.paste(1, (0, 0, SIDE // 2, SIDE))
    image.save(tmp_path / "image.png", transparency=0)
    expected = Image.new("RGB", (SIDE, SIDE), "white")
    expected.paste((200, 30, 30), (0, 0, SIDE // 2, SIDE))
    equal(explained(tmp_path / "image.png"), explained(expected))


def test_a_grey_array_is_an_image() -> None:
    grey = np.asarray(picture().convert("L"))
    found = explained(grey)
    equal(found, explained(np.stack([grey] * 3, axis=-1)))
    assert any("mode L " in note for note in found.warnings)


def test_a_view_of_an_array_is_an_image() -> None:
    wide = np.asarray(picture(width=2 * SIDE))
    equal(explained(wide[:, ::2]), explained(np.ascontiguousarray(wide[:, ::2])))


def test_a_photo_stands_upright(tmp_path: Path) -> None:
    """Cameras write a picture as it lay on the chip, and beside it how to turn it."""
    image = picture(width=SIDE, height=24)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    image.save(tmp_path / "photo.png", exif=exif)
    equal(explained(tmp_path / "photo.png"), explained(image.transpose(Image.Transpose.ROTATE_270)))


def test_of_several_frames_the_first_is_explained(tmp_path: Path) -> None:
    frames = [picture(seed).quantize(32) for seed in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    found = explained(tmp_path / "moving.gif")
    assert any("3 frames" in note for note in found.warnings)
    frames[0].save(tmp_path / "still.gif")
    np.testing.assert_allclose(found.relevance, explained(tmp_path / "still.gif").relevance, atol=1e-6)


def test_a_large_image_is_scaled_as_its_model_does() -> None:
    image = picture(width=300, height=200)
    found = explained(image)
    pixels = door(VIT)._subject._loaded.processor(image, return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, SIDE, SIDE)
    by_tensor = door(VIT).explain({"pixel_values": pixels}, target=1)
    assert found.value == pytest.approx(by_tensor.value, rel=1e-5)
    assert max(unit.box[2] for unit in found.units if unit.box) == SIDE


def test_an_image_of_one_pixel_is_an_image() -> None:
    assert np.isfinite(explained(Image.new("RGB", (1, 1), "red")).relevance).all()


def test_images_are_left_as_found() -> None:
    image = picture().convert("RGBA")
    before = image.tobytes()
    array = np.asarray(picture()).copy()
    copy = array.copy()
    explained(image)
    explained(array)
    assert (image.mode, image.tobytes()) == ("RGBA", before)
    np.testing.assert_array_equal(array, copy)


# ---- what is no image -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((8, 8, 3)), "float64"),
        (np.zeros((8, 8, 3), dtype=np.float32), "float32"),
        (np.zeros((8, 8, 3), dtype=np.int64), "int64"),
        (np.zeros((8, 8), dtype=bool), "bool"),
        (np.zeros((8, 8, 2), dtype=np.uint8), r"\[8, 8, 2\]"),
        (np.zeros((8, 8, 5), dtype=np.uint8), r"\[8, 8, 5\]"),
        (np.zeros((3, 8, 8), dtype=np.uint8), r"\[3, 8, 8\].*channels last"),
        (np.zeros((2, 8, 8, 3), dtype=np.uint8), r"\[2, 8, 8, 3\]"),
        (np.zeros(8, dtype=np.uint8), r"\[8\]"),
        (np.zeros((0, 8, 3), dtype=np.uint8), "at least one pixel"),
    ],
)
def test_arrays_that_are_no_images(array: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        explained(array)


@pytest.mark.parametrize("given", [7, 2.5, {1, 2}, b"\x89PNG", object()])
def test_things_that_are_no_images(given: Any) -> None:
    with pytest.raises(UsageError, match=type(given).__name__):
        explained(given)


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_more_than_eight_bits_are_refused(mode: str) -> None:
    """Pillow would cut them off at 255 without a word."""
    with pytest.raises(UsageError) as caught:
        explained(Image.new(mode, (SIDE, SIDE)))
    assert str(caught.value) == (
        f"An image has 8 bits per channel; found mode {mode}. Scale it to 0..255 and convert it to mode L or RGB."
    )


def png(width: int, height: int, *, data: bytes = b"", name: bytes = b"IDAT") -> bytes:
    """A PNG that says it is so large, whatever it holds."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (name, zlib.compress(data)), (b"IEND", b"")]
    made = b"\x89PNG\r\n\x1a\n"
    for kind, content in parts:
        made += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return made


def cut(image: Image.Image, kind: str, tmp_path: Path) -> bytes:
    image.save(tmp_path / f"whole.{kind}")
    content = (tmp_path / f"whole.{kind}").read_bytes()
    return content[: len(content) // 2]


@pytest.mark.parametrize("what", ["text", "nothing", "noise", "half a png", "half a jpeg", "svg", "html", "zeros"])
def test_files_that_are_no_images(what: str, tmp_path: Path) -> None:
    content = {
        "text": b"a gripping, beautiful film",
        "nothing": b"",
        "noise": np.random.default_rng(0).bytes(500),
        "half a png": cut(picture(), "png", tmp_path),
        "half a jpeg": cut(picture(width=200, height=200), "jpeg", tmp_path),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "html": b"<html><script>alert(1)</script></html>",
        "zeros": bytes(1000),
    }[what]
    file = tmp_path / "odd.png"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"odd\.png.*[^.]\. Save it again, as PNG or JPEG\.$"):
        explained(file)


def test_places_where_there_is_no_image(tmp_path: Path) -> None:
    for given in (tmp_path / "missing.png", str(tmp_path / "missing.png")):
        with pytest.raises(UsageError, match=r"missing\.png' is none\. Check the path\.$"):
            explained(given)
    with pytest.raises(UsageError, match=r"folder"):
        explained(tmp_path)


@pytest.mark.parametrize(
    "given",
    ["", " ", "https://example.org/image.png", "a\0b", "a film " * 1000],
    ids=["empty", "blank", "web", "zero", "prose"],
)
def test_strings_that_are_no_places(given: str) -> None:
    with pytest.raises(UsageError, match=r"(?i)image|file|character"):
        explained(given)


# ---- too much of one ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(10_000, 9_900), (30_000, 30_000), (2**31 - 1, 1), (200_000_000, 1)])
def test_an_image_that_would_fill_the_memory_is_refused_unread(width: int, height: int, tmp_path: Path) -> None:
    file = tmp_path / "bomb.png"
    file.write_bytes(png(width, height))
    with pytest.raises(UsageError, match=r"(?i)pixels") as caught:
        explained(file)
    assert "cannot be read" not in str(caught.value)
    assert "at most 64,000,000 pixels" in str(caught.value)
    assert any(size in str(caught.value) for size in (f"{width * height:,}", f"{width} x {height}"))


def test_an_image_in_memory_has_its_bounds_too() -> None:
    with pytest.raises(UsageError, match=r"(?i)pixels"):
        explained(Image.new("1", (20_000, 10_000)))
    with pytest.raises(UsageError, match=r"(?i)pixels"):
        explained(np.broadcast_to(np.uint8(0), (20_000, 10_000, 3)))


def test_an_image_that_holds_less_than_it_says_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "short.png"
    file.write_bytes(png(64, 64, data=b"\0" * 10))
    with pytest.raises(UsageError, match=r"short\.png|cannot be read"):
        explained(file)


def test_the_usual_limit_of_pillow_may_be_lifted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program that lifts it for itself is no way round ours."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    file = tmp_path / "bomb.png"
    file.write_bytes(png(30_000, 30_000))
    with pytest.raises(UsageError, match=r"(?i)pixels"):
        explained(file)


def test_the_first_of_several_images_is_asked_first() -> None:
    assert asked(VIT).pictures["image"] == door(VIT).explain(picture(0)).pictures["image"]
