"""Pictures in figures: as the model saw them, and with relevance over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from clearhead.render.figure_parts import LOOK, title, typeset, writing
from clearhead.render.paint import dots, extent, shades
from clearhead.render.pictures import Cell, Picture, grey, opened
from clearhead.render.texts import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

    from clearhead.render.scene import Scene, Stream

FADED = 0.45  # opacity of the grey picture below relevance
_SIGNS = "blue above 0, orange below"
NUMBERED = 26  # cells across, up to which the largest have their rank written in them


def pair_by_pair(made: Figure, grid: GridSpec, drawing: Scene, streams: Sequence[Stream]) -> list[Axes]:
    """In the first row of the grid, two axes per stream: the picture, and where relevance lies."""
    axes = []
    across = grid.ncols // (2 * len(streams))
    for n, stream in enumerate(streams):
        for half, draw in enumerate((_seen, _heat)):
            first = (2 * n + half) * across
            axes.append(made.add_subplot(grid[0, first : first + across]))
            draw(axes[-1], drawing, stream)
    return axes


def plain(axes: Axes, stream: Stream, picture: Picture) -> None:
    """A picture as the model saw it, in the frame of a stream."""
    _framed(axes, stream)
    if picture.address:
        axes.imshow(np.asarray(opened(picture)), extent=_whole(picture), interpolation=_sampling(picture))


def _seen(axes: Axes, drawing: Scene, stream: Stream) -> None:
    picture = stream.picture
    assert picture is not None  # noqa: S101 - only streams with pictures come here
    plain(axes, stream, picture)
    title(axes, f"{shortened(stream.name, 24)}, as the model saw it" if picture.address else "no picture")


def _heat(axes: Axes, drawing: Scene, stream: Stream) -> None:
    heat(axes, stream)
    end = typeset(drawing.digits.amount(drawing.largest.value * stream.reach).unsigned.shown)
    beyond = " and beyond" if stream.beyond else ""
    colour = "clear at 0" if drawing.positive else "blue for, orange against" if drawing.books else _SIGNS
    title(axes, f"{colour}; full colour at {end}{beyond}")


def heat(axes: Axes, stream: Stream) -> None:
    """The grey picture, relevance over it, and the largest parts with their rank."""
    picture = _framed(axes, stream)
    if picture.address:
        below = np.asarray(grey(picture))
        axes.imshow(
            below, cmap="gray", vmin=0, vmax=255, alpha=FADED, extent=_whole(picture), interpolation=_sampling(picture)
        )
    left, top, width, height = extent(stream)
    over = shades(dots(stream))
    axes.imshow(over, extent=(left, left + width, top + height, top), interpolation="nearest")
    axes.set_xlim(0, picture.width)
    axes.set_ylim(picture.height, 0)
    for token in stream.parts:
        if token.rank and token.cell:
            _ranked(axes, token.rank, token.cell, numbered=picture.columns <= NUMBERED, framed=not stream.smooth)


def _whole(picture: Picture) -> tuple[float, float, float, float]:
    return 0.0, float(picture.width), float(picture.height), 0.0


def _ranked(axes: Axes, rank: int, cell: Cell, *, numbered: bool, framed: bool) -> None:
    width, height = cell.right - cell.left, cell.bottom - cell.top
    if framed:
        axes.add_patch(Rectangle((cell.left, cell.top), width, height, fill=False, edgecolor=LOOK.ink, linewidth=0.8))
    if numbered:
        look = writing(size=7, weight="bold")
        text = axes.text(cell.left + width / 2, cell.top + height / 2, str(rank), ha="center", va="center", **look)
        text.set_path_effects([withStroke(linewidth=2, foreground=LOOK.ground)])


def _framed(axes: Axes, stream: Stream) -> Picture:
    """Empty axes in the picture's shape."""
    assert stream.picture is not None  # noqa: S101 - only streams with pictures come here
    axes.set_facecolor(LOOK.ground)
    axes.set_xlim(0, stream.picture.width)
    axes.set_ylim(stream.picture.height, 0)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(LOOK.neutral)
        side.set_linewidth(0.4)
    return stream.picture


def _sampling(picture: Picture) -> str:
    return "nearest" if picture.crisp else "antialiased"
