"""A map as a matplotlib figure: its picture, a bar per unit, and the books as a waterfall; a generation as a matrix.

Where there are no books, a line says what the numbers are, and another how far a second method agrees.

Only `matplotlib.figure` is used, never `pyplot`: no window, no global state.
"""

from __future__ import annotations

import io
import warnings
from textwrap import wrap
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure

from clearhead.render import colours
from clearhead.render.books import Books, Step
from clearhead.render.changes import Changes
from clearhead.render.drawings import drawing as drawing_of
from clearhead.render.figure_parts import BAR, LOOK, THIN, bar, prepare, row, title, typeset, write, writing
from clearhead.render.headsheet import Sheet
from clearhead.render.judgement import Judgement
from clearhead.render.looks import Looks
from clearhead.render.scene import Scene, Stream
from clearhead.render.texts import Amount, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from clearhead.render.drawings import Item
    from clearhead.render.generation import Generation

BARS = 24  # units with a bar of their own
PARTS = 12  # the same, of a picture
PICTURE, SMALLER = 3.2, 2.7  # inches: the height of a picture that stands alone, or beside another stream
LABEL = 28  # characters of a name
TITLE = 44  # characters of the target above the figure
ACROSS = 105  # characters of a line of words
LINE = 0.8  # rows that it is high
MARGIN = 0.12  # inches
WIDTH, ROW, REST = 8.0, 0.24, 1.7  # inches: the figure's width, a row's height, titles and margins
DOTS = 200  # per inch, in a PNG
SALT = "clearhead"  # so that the same map gives the same SVG


def figure(found: Item) -> tuple[Figure, list[Axes]]:
    """A figure of a map: for each stream its picture, if it has one, and bars for its largest units; last, the books.

    Of a generation, the matrix and the sums of its rows; of attention, its heads; of a report on heads, their
    importance; of a comparison, both inputs and what differs; of a validation or evaluation, verdicts and evidence.
    """
    drawing = drawing_of(found)
    if not isinstance(drawing, Scene):
        return _other(drawing)
    streams = [stream for stream in drawing.streams if stream.tokens]
    pictured = [stream for stream in streams if stream.parts]
    rows = max((len(_rows(stream)) for stream in streams), default=1)
    lines = _lines(drawing)
    tall = (PICTURE if len(streams) == 1 else SMALLER) if pictured else 0.0
    made = Figure(figsize=(WIDTH, REST + ROW * (rows + lines) + tall), facecolor=LOOK.ground)
    made.set_layout_engine("constrained", w_pad=MARGIN, h_pad=MARGIN)
    heights = [*([tall / ROW] if pictured else []), rows, lines]
    grid = made.add_gridspec(len(heights), max(1, len(streams), 2 * len(pictured)), height_ratios=heights)
    heading = f"{shortened(drawing.target, TITLE)} = {typeset(drawing.value.shown)}"
    made.suptitle(heading, x=0.02, ha="left", **writing(size=14, weight="bold"))
    axes: list[Axes] = []
    if pictured:
        from clearhead.render import figure_picture

        axes += figure_picture.pair_by_pair(made, grid, drawing, pictured)
    across = grid.ncols // max(1, len(streams))
    for n, stream in enumerate(streams):
        end = grid.ncols if n == len(streams) - 1 else (n + 1) * across
        axes.append(made.add_subplot(grid[-2, n * across : end]))
        _chart(axes[-1], drawing, stream, rows, named=len(streams) > 1)
    axes.append(made.add_subplot(grid[-1, :]))
    if drawing.books:
        _books(axes[-1], drawing, drawing.books)
    else:
        write(axes[-1], _said(drawing))
    return made, axes


def _other(drawing: Generation | Looks | Sheet | Changes | Judgement) -> tuple[Figure, list[Axes]]:
    """The figure of what is no map."""
    from clearhead.render import figure_changes, figure_headsheet, figure_judgement, figure_looks, figure_matrix

    if isinstance(drawing, Looks):
        return figure_looks.figure(drawing)
    if isinstance(drawing, Changes):
        return figure_changes.figure(drawing)
    if isinstance(drawing, Sheet):
        return figure_headsheet.figure(drawing)
    if isinstance(drawing, Judgement):
        return figure_judgement.figure(drawing)
    return figure_matrix.figure(drawing)


def _lines(drawing: Scene) -> float:
    """How many rows the last part is high."""
    if drawing.books is None:
        return LINE * len(_said(drawing))
    return 1 + sum(1 + len(step.parts) for step in drawing.books.steps)


def _said(drawing: Scene) -> list[str]:
    """What the numbers are and how far a second method agrees, in lines that fit."""
    said = [drawing.verdict.sentence, *([drawing.check.line] if drawing.check else [])]
    return [line for each in said for line in wrap(each, ACROSS)]


def image(found: Item, kind: str) -> bytes:
    """The figure as the bytes of a PNG, SVG or PDF; the same map gives the same bytes."""
    made, _ = figure(found)
    data = io.BytesIO()
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}[kind]
    with rc_context({"svg.hashsalt": SALT, "svg.fonttype": "none"}), warnings.catch_warnings():
        # A letter that no installed font has is drawn as a box, and is no reason to speak up.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        _settle(made)
        made.savefig(data, format=kind, dpi=DOTS, metadata=metadata)
    return data.getvalue()


def _settle(made: Figure) -> None:
    """Let the layout find its places once, and round them: its solver's last digits differ from run to run."""
    if made.get_layout_engine() is None:
        return
    made.draw_without_rendering()
    made.set_layout_engine("none")
    for axes in made.axes:
        left, bottom, width, height = (round(each, 6) for each in axes.get_position(original=True).bounds)
        axes.set_position((left, bottom, width, height))


# ---- units ---------------------------------------------------------------------------------------------------------


def _rows(stream: Stream) -> list[str]:
    """The names of the rows of a stream's chart."""
    shown, others = stream.chosen(_bars(stream))
    return [*(token.name for token in shown), *(["others"] if others else [])]


def _bars(stream: Stream) -> int:
    return PARTS if stream.parts else BARS


def _chart(axes: Axes, drawing: Scene, stream: Stream, rows: int, *, named: bool) -> None:
    """A bar per unit in reading order; of many, the largest, and a line for what the others sum to."""
    shown, others = stream.chosen(_bars(stream))
    prepare(axes, drawing.axis.low, drawing.axis.high, rows)
    for place, token in enumerate(shown):
        colour = colours.strong(token.amount.value)
        bar(axes, place, 0.0, token.amount.value, colour)
        row(axes, place, shortened(token.name, LABEL), token.amount, LOOK.quiet if token.special else LOOK.ink)
    if others:
        words, number = drawing.rest(others)
        row(axes, len(shown), words.removesuffix(", together"), Amount(0.0, number), LOOK.quiet)
    total = f" {typeset(stream.total.shown)}" if stream.total else ""
    heading = f"{stream.name}{total}" if named else f"{drawing.method} · {drawing.model}"
    title(axes, shortened(heading, 40 if named else 80))


# ---- books ---------------------------------------------------------------------------------------------------------


def _books(axes: Axes, drawing: Scene, books: Books) -> None:
    """The books from the first line to the value, each bar beginning where the one before it ended."""
    verdict = drawing.verdict
    lines = [line for step in books.steps for line in (step, *step.parts)]
    prepare(axes, books.axis.low, books.axis.high, len(lines) + 1)
    for place, step in enumerate(lines):
        part = step.kind in {"for", "against"}
        bar(axes, place, step.start, step.end, _colour(step), height=THIN if part else BAR)
        row(
            axes,
            place,
            shortened(drawing.wording(step), LABEL),
            step.amount,
            LOOK.quiet if part or step.kind == "open" else LOOK.ink,
        )
    _total(axes, books, len(lines), shortened(drawing.target, LABEL))
    title(axes, f"{verdict.words} · conservation error {typeset(verdict.conservation_error)}")


def _total(axes: Axes, books: Books, place: int, label: str) -> None:
    axes.axhline(place - 0.5, color=LOOK.ink, linewidth=0.8)
    bar(axes, place, 0.0, books.value.value, LOOK.ink)
    row(axes, place, label, books.value, LOOK.ink, weight="bold")


def _colour(step: Step) -> str:
    counted = step.kind in {"units", "for", "against"}
    return colours.strong(step.amount.value) if counted else LOOK.neutral
