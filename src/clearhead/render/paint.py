"""Relevance over a picture as an array, as an image, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clearhead.render import colours
from clearhead.render.pictures import UNDER, address, grey, part
from clearhead.render.scene import Stream

if TYPE_CHECKING:
    from clearhead.render.pictures import Picture

FINEST = 256  # dots along the longer side where cells make no grid
SMOOTH = 224  # dots along the longer side where colours are mixed between cells

_LIES = {"relevance": "of all relevance without signs lies", "shares": "of all shares lie"}


def raster(stream: Stream) -> NDArray[np.float64]:
    """The intensities [rows, columns] of the cells, of the largest relevance; NaN where there is no cell."""
    picture = stream.picture
    if picture is None or not stream.parts:
        return np.full((0, 0), np.nan)
    if picture.rows:
        dots = np.full((picture.rows, picture.columns), np.nan)
        for each in stream.parts:
            if each.cell:
                dots[each.cell.row - 1, each.cell.column - 1] = each.intensity
        return dots
    share = min(1.0, FINEST / max(picture.width, picture.height))
    dots = np.full((max(1, round(picture.height * share)), max(1, round(picture.width * share))), np.nan)
    for each in stream.parts:
        if cell := each.cell:
            top, left = int(cell.top * share), int(cell.left * share)
            bottom, right = max(top + 1, round(cell.bottom * share)), max(left + 1, round(cell.right * share))
            dots[top:bottom, left:right] = each.intensity
    return dots


def extent(stream: Stream) -> tuple[int, int, int, int]:
    """Left, top, width and height of what the raster covers, in pixels of the picture."""
    picture = stream.picture
    cells = [each.cell for each in stream.parts if each.cell]
    if picture is None or not cells:
        return 0, 0, 0, 0
    if not picture.rows:
        return 0, 0, picture.width, picture.height
    left, top = min(cell.left for cell in cells), min(cell.top for cell in cells)
    return left, top, max(cell.right for cell in cells) - left, max(cell.bottom for cell in cells) - top


def shades(intensity: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colour and opacity [..., 4] of intensities in [-1, 1]; what is not a number is clear."""
    known = np.clip(np.nan_to_num(intensity, posinf=0.0, neginf=0.0), -1.0, 1.0)
    ends = [[int(end[i : i + 2], 16) for i in (1, 3, 5)] for end in (colours.HEAT_MINUS, colours.HEAT_PLUS)]
    chosen = np.array(ends, dtype=np.uint8)[(known >= 0).astype(int)]
    opacity = np.round(255 * colours.COVER * np.abs(known)).astype(np.uint8)
    return np.concatenate([chosen, opacity[..., None]], axis=-1)


def dots(stream: Stream, side: int = SMOOTH) -> NDArray[np.float64]:
    """The intensities to paint, 1 where the colours end: one for each cell, or mixed to `side` dots if smooth."""
    cells = raster(stream) / stream.reach
    if not stream.smooth or max(cells.shape) >= side:
        return cells
    _, _, width, height = extent(stream)
    share = side / max(width, height)
    return between(cells, max(1, round(height * share)), max(1, round(width * share)))


def between(cells: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """Bilinear interpolation between the middles of cells; beyond the outermost middles, their own values."""
    down, across = (_hats(fine, coarse) for fine, coarse in zip((rows, columns), cells.shape, strict=True))
    mixed: NDArray[np.float64] = down @ np.nan_to_num(cells, posinf=0.0, neginf=0.0) @ across.T
    return mixed


def _hats(fine: int, coarse: int) -> NDArray[np.float64]:
    """The weights [fine, coarse] with which each dot sees the cells."""
    at = np.clip((np.arange(fine) + 0.5) * coarse / fine - 0.5, 0, coarse - 1)
    weights: NDArray[np.float64] = np.maximum(0.0, 1 - np.abs(at[:, None] - np.arange(coarse)))
    return weights


def overlay(stream: Stream, side: int = SMOOTH) -> str:
    """The relevance as the address of a PNG, clear where there is none: see `dots`."""
    from PIL import Image

    return address(Image.fromarray(shades(dots(stream, side))))


def faded(opacity: NDArray[np.uint8]) -> str:
    """One colour at these opacities [rows, columns] as the address of a PNG with a palette of 256."""
    from PIL import Image

    if not opacity.size:
        return ""
    image = Image.fromarray(np.ascontiguousarray(opacity)).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([int(colours.HEAT_PLUS[i : i + 2], 16) for i in (1, 3, 5)] * 256)
    return address(image, transparency=bytes(range(256)))


def under(picture: Picture, side: int = UNDER) -> str:
    """The grey picture below the relevance as the address of a PNG of at most `side` pixels, or nothing."""
    from PIL import Image

    if not picture.address:
        return ""
    image = grey(picture)
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return address(image.quantize(32, dither=Image.Dither.NONE) if picture.crisp is False else image)


def described(stream: Stream) -> str:
    """What the drawing shows, in words."""
    picture = stream.picture
    if picture is None or not stream.parts:
        return "No part of the picture has a place."
    grid = f" in {picture.rows} rows and {picture.columns} columns" if picture.rows else ""
    return f"{stream.measure.capitalize()} of {len(stream.parts):,} parts of the picture{grid}. {where(stream)}"


def where(stream: Stream) -> str:
    """Where the relevance lies, in words: the largest part, and the ninth of the picture that holds most."""
    picture = stream.picture
    found = [(each, each.cell) for each in stream.parts if each.cell and each.intensity]
    if picture is None or not found:
        return f"No part has any {stream.measure.removesuffix('s')}."
    first, cell = max(found, key=lambda pair: abs(pair[0].intensity))
    largest = f"Largest: {first.name}, {part(cell, picture)}, {first.amount.shown}."
    if stream.measure not in _LIES:  # scores add up to nothing
        return largest
    held: dict[str, float] = {}
    for each, place in found:
        ninth = part(place, picture)
        held[ninth] = held.get(ninth, 0.0) + abs(each.intensity)
    most = max(held, key=lambda ninth: held[ninth])
    return f"{largest} {100 * held[most] / sum(held.values()):.0f} % {_LIES[stream.measure]} {most}."
