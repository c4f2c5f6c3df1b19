"""Pictures as drawings need them: checked, because a map may come from a file that anyone wrote, and cut into cells.

Pillow is imported where a picture is opened or painted, and nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

ADDRESS = "data:image/png;base64,"  # the one kind of address that is ever put into a page
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_BYTES = 16_000_000  # of a picture's file
MOST_SIDE = 4096  # pixels
MANY = 1_000  # cells that are drawn one by one; of more, an image is painted
UNDER = 448  # pixels of the grey copy below the relevance, at most

PARTS = (
    ("at the upper left", "at the top", "at the upper right"),
    ("on the left", "in the centre", "on the right"),
    ("at the lower left", "at the bottom", "at the lower right"),
)
REFUSED = f"the picture is left out, because it is not a PNG of at most {MOST_SIDE} pixels a side in a data address"
ELSEWHERE = "parts lie outside of the picture and are listed only"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Where a unit lies: pixels from the left and top, its row and column from 1 (0 where there is no grid)."""

    left: int
    top: int
    right: int
    bottom: int
    row: int = 0
    column: int = 0

    @property
    def name(self) -> str:
        """Row and column in words, or nothing."""
        return f"row {self.row}, column {self.column}" if self.row else ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A checked picture and the grid of its cells; `address` is empty where there is none that may be shown."""

    address: str
    width: int
    height: int
    rows: int = 0
    columns: int = 0
    notes: tuple[str, ...] = ()

    @property
    def crisp(self) -> bool:
        """Whether it is so small that its pixels are to be seen."""
        return max(self.width, self.height) < 192


def seen(address: object) -> Picture:
    """The picture behind an address, or one without an address, a size and with a note where it is none to show."""
    if address is None:
        return Picture(address="", width=0, height=0)
    size = _checked(address) if isinstance(address, str) else None
    if not size:
        return Picture(address="", width=0, height=0, notes=(REFUSED,))
    return Picture(address=str(address), width=size[0], height=size[1])


@lru_cache(maxsize=64)
def _checked(address: str) -> tuple[int, int] | None:
    """The size of a picture that can be read to its end; None for anything else."""
    data = _decoded(address)
    if data is None or len(data) < 33 or data[:8] != SIGNATURE or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])  # before a decoder allocates anything
    if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE):
        return None
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError):
        return None
    return width, height


def _decoded(address: str) -> bytes | None:
    if not address.startswith(ADDRESS) or len(address) > MOST_BYTES * 4 // 3:
        return None
    try:
        return base64.b64decode(address[len(ADDRESS) :], validate=True)
    except (binascii.Error, ValueError):
        return None


# ---- cells ---------------------------------------------------------------------------------------------------------


def placed(picture: Picture, boxes: Sequence[object]) -> tuple[Picture, list[Cell | None]]:
    """The picture with its grid, and a cell per box: None without a box, or with one that is outside."""
    sides = [_sides(box) for box in boxes]
    width = picture.width or min(MOST_SIDE, max((side[2] for side in sides if side), default=0))
    height = picture.height or min(MOST_SIDE, max((side[3] for side in sides if side), default=0))
    held = [side if side and side[2] <= width and side[3] <= height else None for side in sides]
    corners = {side[:2] for side in held if side}
    lefts, tops = sorted({left for left, _ in corners}), sorted({top for _, top in corners})
    count = sum(side is not None for side in held)
    grid = len(corners) == count and 2 * count >= len(lefts) * len(tops)
    cells = [_cell(side, lefts, tops, grid=grid) if side else None for side in held]
    lost = sum(box is not None for box in boxes) - count
    notes = (*picture.notes, *((f"{lost:,} {ELSEWHERE}",) if lost else ()))
    rows, columns = (len(tops), len(lefts)) if grid else (0, 0)
    return replace(picture, width=width, height=height, rows=rows, columns=columns, notes=notes), cells


def _cell(side: tuple[int, int, int, int], lefts: list[int], tops: list[int], *, grid: bool) -> Cell:
    left, top, right, bottom = side
    row, column = (bisect_left(tops, top) + 1, bisect_left(lefts, left) + 1) if grid else (0, 0)
    return Cell(left=left, top=top, right=right, bottom=bottom, row=row, column=column)


def _sides(box: object) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of a box that has an area; nothing else can be drawn."""
    if not isinstance(box, (tuple, list)) or len(box) != 4 or not all(isinstance(side, int) for side in box):
        return None
    left, top, right, bottom = box
    return (left, top, right, bottom) if 0 <= left < right and 0 <= top < bottom else None


def part(cell: Cell, picture: Picture) -> str:
    """In which of nine parts of the picture the middle of a cell lies."""
    across = min(2, 3 * (cell.left + cell.right) // (2 * picture.width))
    down = min(2, 3 * (cell.top + cell.bottom) // (2 * picture.height))
    return PARTS[down][across]


# ---- Pillow --------------------------------------------------------------------------------------------------------


def opened(picture: Picture) -> Image:
    """The picture in colour; what is transparent in it becomes white."""
    from PIL import Image

    data = _decoded(picture.address) or b""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")


def grey(picture: Picture) -> Image:
    """The picture without its colours, so that they are left to relevance."""
    return opened(picture).convert("L")


def address(image: Any, **options: Any) -> str:
    """An image that was made here, as a `data:` address of a PNG."""
    data = io.BytesIO()
    image.save(data, format="PNG", optimize=True, **options)
    return ADDRESS + base64.b64encode(data.getvalue()).decode("ascii")
