"""A comparison as a figure: both texts slot below slot or both pictures, a bar per slot that differs, and the books."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import blended_transform_factory
from rich.cells import cell_len

from clearhead.render import colours
from clearhead.render.changes import Change, Changes, Fold, Lane
from clearhead.render.figure_parts import BAR, LOOK, THIN, bar, prepare, row, title, typeset, writing
from clearhead.render.texts import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.gridspec import GridSpec
    from matplotlib.transforms import Transform

WIDTH, ROW, REST = 8.0, 0.24, 1.5  # inches: the figure's width, a row's height, titles and margins
PICTURE = 2.5  # inches: the height of a picture
LETTER, LEFT = 0.0703, 0.42  # inches: the width of a letter of a text, and the space before it
ACROSS = 102  # letters of equal width in a line of text
LINES = 40  # lines of text, at most
STEP = 3.6  # rows that a line of both texts and its shares take
BARS = 24  # slots with a bar of their own
LABEL = 34  # characters of what became of a slot
TITLE = 66  # characters of a line above the figure
LONGEST = 24  # letters of one unit
MARGIN = 0.12  # inches
DOWN = 1.1  # rows from A to B

Placed = tuple[int, Change | Fold]  # where a slot begins in its line


def figure(drawing: Changes) -> tuple[Figure, list[Axes]]:
    """A figure with axes for each stream, the bars and the books."""
    shown = drawing.differing[:BARS]
    heights = [_height(lane) for lane in drawing.lanes]
    lines = 1 + sum(1 + len(step.parts) for step in drawing.books.steps)
    parts = [*heights, *([len(shown) + 0.5] if shown else []), lines]
    made = Figure(figsize=(WIDTH, REST + ROW * sum(parts)), facecolor=LOOK.ground)
    made.set_layout_engine("constrained", w_pad=MARGIN, h_pad=MARGIN)
    grid = made.add_gridspec(len(parts), 3, height_ratios=parts)
    a, b = (typeset(each.shown) for each in drawing.values)
    figure_of = f"{a} → {b} (difference {typeset(drawing.difference.unsigned.shown)})"
    target = f"{shortened(drawing.target, TITLE)}:"
    apart = "\n" if len(target) + len(figure_of) > TITLE else " "
    made.suptitle(f"{target}{apart}{figure_of}", x=0.02, ha="left", **writing(size=12, weight="bold"))
    axes: list[Axes] = []
    for n, lane in enumerate(drawing.lanes):
        if lane.pictured:
            axes += _pictures(made, grid, n, lane)
        else:
            axes.append(made.add_subplot(grid[n, :]))
            _texts(made, axes[-1], drawing, lane, heights[n])
    if shown:
        axes.append(made.add_subplot(grid[-2, :]))
        _bars(axes[-1], drawing, shown)
    axes.append(made.add_subplot(grid[-1, :]))
    _books(axes[-1], drawing)
    return made, axes


# ---- both sides ----------------------------------------------------------------------------------------------------


def _height(lane: Lane) -> float:
    """How many rows a stream takes."""
    if lane.pictured:
        return PICTURE / ROW
    return (STEP if lane.differing else 1.4) * len(_lines(lane)) + 0.4


def _lines(lane: Lane) -> list[list[Placed]]:
    """The slots line by line, each with the letter at which it begins."""
    lines: list[list[Placed]] = [[]]
    at = 0
    for each in lane.line:
        wide = _wide(each)
        gap = 0 if isinstance(each, Change) and each.joined and not each.differs else 1
        if lines[-1] and at + gap + wide > ACROSS:
            lines.append([])
            at = 0
        at += gap if lines[-1] else 0
        lines[-1].append((at, each))
        at += wide
    return lines[:LINES]


def _wide(each: Change | Fold) -> int:
    if isinstance(each, Fold):
        return cell_len(_left_out(each))
    sides = [cell_len(_short(side.text)) for side in (each.a, each.b) if side]
    return max(*sides, len(each.amount.shown) if each.differs else 0, 0)


def _left_out(each: Fold) -> str:
    return f"… {each.count} more …"


def _short(text: str) -> str:
    return shortened(text, LONGEST)


def _texts(made: Figure, axes: Axes, drawing: Changes, lane: Lane, rows: float) -> None:
    """A above, B below, and the shares below what differs; a text that is the same is written once."""
    axes.set_facecolor(LOOK.ground)
    axes.set_ylim(rows, 0)
    axes.set_axis_off()
    place = blended_transform_factory(made.dpi_scale_trans, axes.transData)
    total = f" {typeset(lane.total.shown)}" if lane.total and lane.differing else ""
    named = f"{lane.name}{total}" if lane.differing else f"{lane.name}, the same in both"
    title(axes, named if len(drawing.lanes) > 1 else f"{drawing.method} · {drawing.model} · {drawing.count}")
    write = _Writer(axes, place)
    step = STEP if lane.differing else 1.4
    for n, line in enumerate(_lines(lane)):
        top = n * step + 0.7
        if lane.differing:
            write(-3, top, "A", LOOK.quiet, size=7, weight="bold")
            write(-3, top + DOWN, "B", LOOK.quiet, size=7, weight="bold")
        for at, each in line:
            if isinstance(each, Fold):
                write(at, top, _left_out(each), LOOK.quiet)
            else:
                _slot(write, at, top, each, twice=bool(lane.differing))


class _Writer:
    """Writes letters of equal width at a letter and a row; boxes behind them too."""

    def __init__(self, axes: Axes, place: Transform) -> None:
        self._axes, self._place = axes, place

    def __call__(
        self, at: float, row: float, text: str, colour: str, *, size: float = 8.4, weight: str = "normal"
    ) -> None:
        look = writing(size=size, weight=weight, colour=colour)
        look["fontfamily"] = ["DejaVu Sans Mono", *look["fontfamily"]]
        made = self._axes.text(LEFT + at * LETTER, row, text, va="center", transform=self._place, **look)
        made.set_in_layout(False)

    def box(self, at: float, row: float, letters: float, **look: Any) -> None:
        """A box round so many letters."""
        corner, wide = (LEFT + (at - 0.2) * LETTER, row - DOWN / 2), (letters + 0.4) * LETTER
        self._axes.add_patch(
            Rectangle(corner, wide, DOWN, transform=self._place, linewidth=0.7, clip_on=False, **look)
        ).set_in_layout(False)


def _slot(write: _Writer, at: float, top: float, each: Change, *, twice: bool) -> None:
    inks = (LOOK.quiet if each.special else LOOK.ink, LOOK.quiet)
    letters = max(cell_len(_short(side.text)) for side in (each.a, each.b) if side)
    for side, down, ink in zip((each.a, each.b), (0.0, DOWN), inks, strict=True):
        if each.differs and side:
            write.box(at, top + down, letters, facecolor=colours.scale(each.intensity), edgecolor=LOOK.ink)
        elif each.differs:
            write.box(at, top + down, letters, fill=False, edgecolor=LOOK.neutral, hatch="////", linestyle=":")
        if side and (twice or not down):
            write(at, top + down, _short(side.text), LOOK.ink if each.differs else ink)
    if each.differs:
        write(at, top + 2.05, typeset(each.amount.shown), LOOK.ink, size=7, weight="bold")


def _pictures(made: Figure, grid: GridSpec, number: int, lane: Lane) -> Iterator[Axes]:
    """A, B, and the shares over A."""
    from clearhead.render import figure_picture

    stream = lane.pictured
    assert stream is not None  # noqa: S101 - only lanes with pictures come here
    for n, draw in enumerate((stream.picture, lane.other, None)):
        axes = made.add_subplot(grid[number, n])
        if draw is not None:
            figure_picture.plain(axes, stream, draw)
            title(axes, f"{'AB'[n]}, as the model saw it" if draw.address else f"{'AB'[n]}, no picture")
        else:
            figure_picture.heat(axes, stream)
            title(axes, "shares over A")
        yield axes


# ---- bars and books ------------------------------------------------------------------------------------------------


def _bars(axes: Axes, drawing: Changes, shown: Sequence[Change]) -> None:
    prepare(axes, drawing.axis.low, drawing.axis.high, len(shown))
    for place, each in enumerate(shown):
        a, b = each.labels
        both = f"{a} → {b}" if a and b else a or b
        bar(axes, place, 0.0, each.amount.value, colours.strong(each.amount.value))
        row(axes, place, shortened(f"{each.said} {both}".strip(), LABEL), each.amount, LOOK.ink)
    others = len(drawing.differing) - len(shown)
    rest = f"; {others:,} others, together {_sum(drawing, others)}" if others else ""
    title(axes, f"raises A over B (blue), lowers A below B (orange){rest}")


def _sum(drawing: Changes, others: int) -> str:
    return typeset(drawing.digits.sum(each.amount for each in drawing.differing[-others:]).shown)


def _books(axes: Axes, drawing: Changes) -> None:
    """From the value of B to the value of A, each bar beginning where the one before it ended."""
    books = drawing.books
    lines = [line for step in books.steps for line in (step, *step.parts)]
    prepare(axes, books.axis.low, books.axis.high, len(lines) + 1)
    for place, step in enumerate(lines):
        part = step.kind in {"for", "against"}
        counted = part or step.kind == "units"
        colour = colours.strong(step.amount.value) if counted else LOOK.neutral
        bar(axes, place, step.start, step.end, colour, height=THIN if part else BAR)
        quiet = part or step.kind == "open"
        row(axes, place, shortened(drawing.wording(step), LABEL), step.amount, LOOK.quiet if quiet else LOOK.ink)
    axes.axhline(len(lines) - 0.5, color=LOOK.ink, linewidth=0.8)
    bar(axes, len(lines), 0.0, books.value.value, LOOK.ink)
    row(axes, len(lines), "the value of A", books.value, LOOK.ink, weight="bold")
    title(axes, f"{drawing.verdict.words} · conservation error {typeset(drawing.verdict.conservation_error)}")
