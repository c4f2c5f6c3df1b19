"""A generation as a figure: the matrix as a heat map, and beside it what each stream adds to each token."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from clearhead.render import colours
from clearhead.render.figure_parts import LOOK, colour_map, title, typeset, writing
from clearhead.render.texts import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from clearhead.render.generation import Generation

SQUARE = 0.22  # inches
WIDEST, TALLEST = 20.0, 20.0  # inches of the matrix
LABEL = 16  # characters of a name
SUM = 0.85  # inches of a column of sums
TITLE = 60  # characters of what was produced
TOP, BOTTOM, SIDE = 0.9, 1.0, 1.5  # inches round the matrix, without the names above it
LINE = 0.2  # inches of a line of words
ACROSS = 100  # characters of it
LETTER = 0.075  # inches of a letter of these
HAIR = "#dcdde1"


def figure(drawing: Generation) -> tuple[Figure, list[Axes]]:
    """A figure with the axes of the matrix, of the sums and of the colour scale."""
    rows, columns = len(drawing.lines), max(1, len(drawing.columns))
    wide, tall = min(WIDEST, SQUARE * columns), min(TALLEST, SQUARE * rows)
    sums = SUM * len(_names(drawing))
    names = LETTER * max((min(LABEL, len(column.label)) for column in drawing.columns), default=1)
    top = TOP + LINE * (len(_said(drawing)) - 1)
    size = (max(7.0, SIDE + wide + sums), top + names + tall + BOTTOM)
    made = Figure(figsize=size, facecolor=LOOK.ground)
    made.suptitle(shortened(drawing.heading, TITLE), x=0.02, y=1 - 0.12 / size[1], va="top", ha="left", **_head())
    made.text(
        0.02,
        1 - 0.46 / size[1],
        "\n".join(_said(drawing)),
        va="top",
        linespacing=1.5,
        **writing(size=9, colour=LOOK.quiet),
    )
    bottom = BOTTOM / size[1]
    matrix = made.add_axes((SIDE / size[0], bottom, wide / size[0], tall / size[1]))
    beside = made.add_axes(((SIDE + wide) / size[0], bottom, sums / size[0], tall / size[1]))
    scale = made.add_axes((SIDE / size[0], 0.5 / size[1], 1.8 / size[0], 0.1 / size[1]))
    _matrix(matrix, drawing)
    _sums(beside, drawing)
    _scale(made, scale, positive=drawing.positive)
    return made, [matrix, beside, scale]


def _said(drawing: Generation) -> list[str]:
    """What the numbers are, and in how many rows a second method agrees."""
    if drawing.verdict.claimed:
        error = typeset(drawing.verdict.conservation_error)
        said = [f"{drawing.verdict.words} · largest conservation error {error}"]
    else:
        said = [drawing.verdict.sentence]
    if drawing.checks:
        said.append(f"Cross-check with {drawing.checks.against}: {drawing.checks.words}")
    return [line for each in said for line in wrap(each, ACROSS)]


def _names(drawing: Generation) -> list[str]:
    """The headings of the sums: the streams, the rest if there is one, what they add up to, and the score."""
    names = [f"+ {name}" if n else name for n, name in enumerate(drawing.sums)]
    if drawing.measure == "relevance":
        return [*names, *(["+ rest"] if drawing.leftover else []), "= score"]
    return [*names, *(["= all"] if drawing.sums else []), "score"]


def _head() -> dict[str, object]:
    return writing(size=14, weight="bold")


def _matrix(axes: Axes, drawing: Generation) -> None:
    """A square per unit, with hairlines round those that had been produced."""
    seen = [(n, m, each) for n, line in enumerate(drawing.lines) for m, each in enumerate(line.squares) if each]
    squares = [[(m, n), (m + 1, n), (m + 1, n + 1), (m, n + 1)] for n, m, _ in seen]
    fills = [colours.scale(each.intensity) for *_, each in seen]
    axes.add_collection(PolyCollection(squares, facecolors=fills, edgecolors=HAIR, linewidths=0.5))
    axes.set_xlim(0, max(1, len(drawing.columns)))
    axes.set_ylim(len(drawing.lines), 0)
    axes.patch.set_alpha(0)
    for edge in sorted(drawing.edges):
        axes.axvline(edge, color=LOOK.neutral, linewidth=1.2)
    small = min(8.0, 0.62 * 72 * WIDEST / max(1, len(drawing.columns)))
    low = min(8.0, 0.62 * 72 * TALLEST / len(drawing.lines))
    for n, column in enumerate(drawing.columns):
        quiet = LOOK.quiet if column.special else LOOK.ink
        look = writing(size=small, colour=quiet)
        axes.text(n + 0.5, -0.15, shortened(column.label, LABEL), rotation=90, ha="center", va="bottom", **look)
    for n, row in enumerate(drawing.lines):
        axes.text(-0.25, n + 0.5, shortened(row.token, LABEL), ha="right", va="center", **writing(size=low))
    _groups(axes, drawing)
    _bare(axes)


def _groups(axes: Axes, drawing: Generation) -> None:
    """The names of the streams below their columns."""
    starts = [0, *sorted(drawing.edges)]
    for start, group in zip(starts, drawing.groups, strict=False):
        look = writing(size=8, colour=LOOK.quiet)
        below = len(drawing.lines) + 0.2
        axes.text(start + 0.1, below, shortened(group.name, max(3, 2 * len(group.columns))), va="top", **look)


def _sums(axes: Axes, drawing: Generation) -> None:
    """The sums of the streams, the rest if there is one, and the value, right-aligned."""
    names = _names(drawing)
    axes.set_xlim(0, len(names))
    axes.set_ylim(len(drawing.lines), 0)
    axes.patch.set_alpha(0)
    for n, name in enumerate(names):
        look = writing(size=8, colour=LOOK.quiet)
        axes.text(n + 0.95, -0.15, shortened(name, 12), ha="right", va="bottom", **look)
    for n, line in enumerate(drawing.lines):
        whole = [line.whole] if line.whole and drawing.measure == "shares" else []
        amounts = [*line.sums, *([line.rest] if drawing.leftover else []), *whole, line.value]
        for m, amount in enumerate(amounts):
            last = m == len(amounts) - 1
            look = writing(size=8, weight="bold" if last else "normal", colour=LOOK.ink)
            axes.text(m + 0.95, n + 0.5, typeset(amount.shown), ha="right", va="center", **look)
    _bare(axes)


def _scale(made: Figure, axes: Axes, *, positive: bool) -> None:
    """The colours, from the row's largest against to the row's largest for."""
    colours_ = ScalarMappable(Normalize(0 if positive else -1, 1), colour_map(positive=positive))
    bar = made.colorbar(colours_, cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    bar.set_ticks([])
    title(axes, f"{'none · largest' if positive else 'against · for'}, each row on its own scale")


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
