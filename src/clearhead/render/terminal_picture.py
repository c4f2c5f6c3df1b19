"""A picture in the terminal: in half-block characters beside its relevance, or as signs where there is no colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from rich.text import Text

from clearhead.render.paint import extent, raster, shades, where
from clearhead.render.pictures import Picture, grey, opened
from clearhead.render.terminal_pen import KEY, KEY_POSITIVE, QUIET, Pen, sign

if TYPE_CHECKING:
    from PIL.Image import Image

    from clearhead.render.scene import Stream

WIDEST = 44  # columns of one drawing
TALLEST = 28  # lines of one drawing
GAP = 4  # columns between the picture and its relevance
FADED = 0.55  # of the grey picture that the ground hides below relevance

Paint = NDArray[np.uint8]


def lines(pen: Pen, stream: Stream, width: int) -> list[Text]:
    """The picture and, beside it, where relevance lies; then the same in words."""
    said = [pen.text(where(stream), QUIET)]
    picture = stream.picture
    if picture is None or not stream.parts:
        return []
    if not pen.painted:
        return [*_signs(pen, stream, width), *said]
    both = bool(picture.address)
    columns, rows = _size(picture, raster(stream), (width - GAP) // 2 if both else width)
    heat = _half_blocks(pen, _heat(pen, stream, columns, rows))
    if not both:
        return [*heat, *said]
    plain = _half_blocks(pen, _scaled(opened(picture), columns, rows))
    return [*(Text(" " * GAP).join(pair) for pair in zip(plain, heat, strict=True)), *said]


def three(pen: Pen, stream: Stream, other: Picture | None, width: int) -> list[Text]:
    """Two pictures of one size side by side, and beside them where the shares lie over the first."""
    picture = stream.picture
    if picture is None or not stream.parts:
        return []
    if not pen.painted or not picture.address or other is None or not other.address:
        return lines(pen, stream, width)
    columns, rows = _size(picture, raster(stream), (width - 2 * GAP) // 3)
    drawn = [_half_blocks(pen, _scaled(opened(each), columns, rows)) for each in (picture, other)]
    names = Text((" " * GAP).join(name.ljust(columns) for name in ("A", "B", "shares over A")).rstrip(), QUIET)
    heat = _half_blocks(pen, _heat(pen, stream, columns, rows))
    beside = [Text(" " * GAP).join(parts) for parts in zip(*drawn, heat, strict=True)]
    return [names, *beside, pen.text(where(stream), QUIET)]


def _size(picture: Picture, dots: NDArray[np.float64], room: int) -> tuple[int, int]:
    """Dots across and down: a whole number for each cell where they fit, else as many as fit."""
    most = min(room, WIDEST, max(1, 2 * TALLEST * picture.width // picture.height))
    cells = dots.shape[1] if picture.columns else 0
    columns = cells * (most // cells) if 0 < cells <= most else most
    rows = max(2, round(columns * picture.height / picture.width))
    return columns, rows + rows % 2


def _scaled(image: Image, columns: int, rows: int) -> Paint:
    from PIL.Image import Resampling

    way = Resampling.NEAREST if image.width < columns else Resampling.BOX
    return np.array(image.resize((columns, rows), way).convert("RGB"), dtype=np.uint8)


def _heat(pen: Pen, stream: Stream, columns: int, rows: int) -> Paint:
    """The grey, faded picture with relevance over it; of several cells in one dot, the mean."""
    ground = np.array([int(pen.ground[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)
    below = np.broadcast_to(ground, (rows, columns, 3))
    if stream.picture and stream.picture.address:
        below = FADED * ground + (1 - FADED) * _scaled(grey(stream.picture), columns, rows)
    over = shades(_sampled(stream, columns, rows))
    cover = over[..., 3:] / 255
    mixed: Paint = (cover * over[..., :3] + (1 - cover) * below).round().astype(np.uint8)
    return mixed


def _sampled(stream: Stream, columns: int, rows: int) -> NDArray[np.float64]:
    """The intensities at so many dots across and down the picture, the mean of all cells that a dot holds."""
    picture = stream.picture
    dots = np.nan_to_num(raster(stream) / stream.reach)
    if picture is None:
        return np.zeros((rows, columns))
    left, top, wide, tall = extent(stream)
    fine = 4  # samples across and down a dot
    ys = ((np.arange(fine * rows) + 0.5) * picture.height / (fine * rows) - top) / tall
    xs = ((np.arange(fine * columns) + 0.5) * picture.width / (fine * columns) - left) / wide
    inside = ((ys >= 0) & (ys < 1))[:, None] & ((xs >= 0) & (xs < 1))[None, :]
    down = np.clip((ys * dots.shape[0]).astype(int), 0, dots.shape[0] - 1)
    across = np.clip((xs * dots.shape[1]).astype(int), 0, dots.shape[1] - 1)
    held = np.where(inside, np.clip(dots, -1, 1)[down[:, None], across[None, :]], 0.0)
    means: NDArray[np.float64] = held.reshape(rows, fine, columns, fine).mean(axis=(1, 3))
    return means


def _half_blocks(pen: Pen, paint: Paint) -> list[Text]:
    """Two rows of dots per line: the upper is the character, the lower its ground."""
    made = []
    for upper, lower in zip(paint[::2], paint[1::2], strict=True):
        line = Text()
        for above, below in zip(upper, lower, strict=True):
            line.append(pen.marks.half, Style(color=_hex(above), bgcolor=_hex(below)))
        made.append(line)
    return made


def _hex(dot: NDArray[np.uint8]) -> str:
    return "#" + "".join(f"{int(channel):02x}" for channel in dot)


def _signs(pen: Pen, stream: Stream, width: int) -> list[Text]:
    """Two characters per cell, as a character is twice as tall as wide; of many cells, their means."""
    picture = stream.picture
    if picture is None:
        return []
    cells = picture.columns or TALLEST
    columns = min(cells, width // 2, max(1, TALLEST * picture.width // picture.height))
    rows = picture.rows if columns == picture.columns else max(1, round(columns * picture.height / picture.width))
    means = _sampled(stream, columns, rows)
    peak = 1.0 if columns == picture.columns else float(np.abs(means).max()) or 1.0
    made = [pen.text("".join(2 * sign(float(each) / peak) for each in line)) for line in means]
    return [*made, pen.text(KEY_POSITIVE if stream.smooth else KEY, QUIET)]
