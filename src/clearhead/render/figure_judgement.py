"""A validation or an evaluation as a figure: verdicts, dA of each method, curves, and how far methods agree."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from clearhead.render import colours
from clearhead.render.figure_parts import BAR, LOOK, title, typeset, writing
from clearhead.render.texts import shortened
from clearhead.validations.removals import RANDOM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from clearhead.render.judged_pairs import Matrix
    from clearhead.render.judged_removals import Line, Panel, Panels, Trial
    from clearhead.render.judgement import Judgement, Ruling
    from clearhead.validations import Word

WIDTH, MARGIN = 10.0, 0.3  # inches
HEAD, BELOW = 0.3, 0.35  # inches of a title above a part, and of what is empty below it
ROW, LINE = 0.26, 0.175  # inches of a bar, and of a line of words
NAMES, NUMBERS = 1.55, 0.55  # inches to the left and right of bars
PANEL, TICKS, BESIDE = 0.95, 0.4, 5  # inches of a panel and of the numbers beside it, and panels in a row
SQUARE, LABELS = 0.42, 1.3  # inches of a square, and of the names below them
WIDEST = 7.2  # inches of a matrix
ACROSS = 122  # characters of a line of words
NAME, TITLE, LETTERS = 24, 60, 13  # characters: of a method, of a heading, of a title per inch
DENSE = 10  # methods from which on a matrix is written small
COLOURS: dict[Word, str] = {"trust": LOOK.agree, "care": LOOK.weak, "reject": LOOK.fault, "unknown": LOOK.quiet}


class _Sheet:
    """A figure that is filled from top to bottom; places are in inches from the left and from the top."""

    def __init__(self, tall: float) -> None:
        self.made, self.tall, self.down = Figure(figsize=(WIDTH, tall), facecolor=LOOK.ground), tall, 0.0
        self.axes: list[Axes] = []

    def place(self, left: float, top: float, wide: float, tall: float) -> Axes:
        """Axes at a place below what is there already."""
        bottom = self.tall - self.down - top - tall
        self.axes.append(self.made.add_axes((left / WIDTH, bottom / self.tall, wide / WIDTH, tall / self.tall)))
        return self.axes[-1]


def figure(drawing: Judgement) -> tuple[Figure, list[Axes]]:
    """A figure with the verdicts, bars of dA per way of removing, curves by the first, and the agreement."""
    said = [(each, wrap(f"{each.evidence}: {each.sentence}", ACROSS)) for each in drawing.rulings]
    panels = next((each.curves for each in drawing.trials if each.curves), None)
    matrix = drawing.agreement[0] if drawing.agreement else None
    words = 0.3 + sum(0.14 + LINE * (1 + len(lines)) for _, lines in said)
    bars = HEAD + ROW * max(len(each.lines) for each in drawing.trials) + BELOW if drawing.trials else 0.0
    curves = (HEAD + PANEL + BELOW) * -(-len(panels.panels) // BESIDE) if panels else 0.0
    side = min(WIDEST, SQUARE * len(matrix.methods)) if matrix else 0.0
    parts = [0.75, words + BELOW, bars, curves, HEAD + side + LABELS if matrix else 0.0]
    sheet = _Sheet(sum(parts))
    value = f" = {typeset(drawing.value.shown)}" if drawing.value else ""
    heading = f"{shortened(drawing.heading, TITLE)}{value}"
    look = {"x": MARGIN / WIDTH, "y": 1 - MARGIN / sheet.tall, "ha": "left", "va": "top"}
    sheet.made.suptitle(heading, **look, **writing(size=14, weight="bold"))
    sheet.down += parts[0]
    _verdicts(sheet.place(MARGIN, 0, WIDTH - 2 * MARGIN, words), drawing, said, words)
    sheet.down += parts[1]
    _bars(sheet, drawing.trials)
    sheet.down += parts[2]
    if panels:
        _curves(sheet, panels)
    sheet.down += parts[3]
    if matrix:
        _matrix(sheet.place(MARGIN + NAMES, HEAD, side, side), matrix)
    return sheet.made, sheet.axes


def _verdicts(axes: Axes, drawing: Judgement, said: Sequence[tuple[Ruling, list[str]]], tall: float) -> None:
    """The word, the method, and below it the evidence, in lines."""
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH - 2 * MARGIN)
    axes.set_ylim(tall, 0)
    axes.text(0, 0, f"{drawing.summary} · {drawing.about} · {drawing.model}", **writing(size=9, colour=LOOK.quiet))
    down = 0.3
    for each, lines in said:
        full = each.word in ("trust", "reject")
        colour = COLOURS[each.word]
        ground: dict[str, Any] = {
            "boxstyle": "round,pad=0.25",
            "facecolor": colour if full else LOOK.ground,
            "edgecolor": colour,
        }
        look = writing(size=7, weight="bold", colour=LOOK.ground if full else colour)
        axes.text(0.05, down, f"{each.mark} {each.badge.upper()}", va="center", bbox=ground, **look)
        axes.text(1.25, down, each.method, va="center", **writing(size=9, weight="bold"))
        look = writing(size=8, colour=LOOK.ink)
        axes.text(1.25, down + 0.1, "\n".join(lines), va="top", linespacing=1.35, **look)
        down += 0.14 + LINE * (1 + len(lines))


# ---- dA ------------------------------------------------------------------------------------------------------------


def _bars(sheet: _Sheet, trials: Sequence[Trial]) -> None:
    """An axes per way of removing, beside one another: a bar per method, and what random orders reach behind it."""
    wide = (WIDTH - 2 * MARGIN) / max(1, len(trials))
    for n, each in enumerate(trials):
        left = MARGIN + n * wide + NAMES
        _trial(
            sheet.place(left, HEAD, wide - NAMES - NUMBERS, ROW * len(each.lines)),
            each,
            wide - NAMES - NUMBERS,
            round(LETTERS * wide),
        )


def _trial(axes: Axes, found: Trial, wide: float, room: int) -> None:
    _bare(axes)
    axes.set_xlim(found.axis.low, found.axis.high)
    axes.set_ylim(len(found.lines) - 0.5, -0.5)
    axes.set_yticks(range(len(found.lines)), [_named(line) for line in found.lines], **writing(size=8))
    if found.chance:
        axes.axvspan(*found.chance, color=LOOK.neutral, alpha=0.28, linewidth=0, zorder=0)
    axes.axvline(0.0, color=LOOK.neutral, linewidth=0.6, zorder=0)
    for place, line in enumerate(found.lines):
        if line.value is None:
            continue
        colour = LOOK.neutral if line.reference else colours.strong(line.value)
        axes.barh(place, line.value, height=BAR, color=colour, linewidth=0)
        if line.low is not None and line.high is not None:
            axes.plot([line.low, line.high], [place, place], color=LOOK.ink, linewidth=1.0, marker="|", markersize=5)
        bold = "bold" if line.cells and line.cells[0].best else "normal"
        look = {"transform": axes.get_yaxis_transform(), "va": "center", **writing(size=8, weight=bold)}
        axes.text(1.01, place, typeset(line.cells[0].shown), **look)
    axes.tick_params(length=0)
    axes.set_xticks([])
    words = f"dA ({found.scale}), removed: {found.removal}"
    look = writing(size=9, colour=LOOK.quiet)
    axes.text(-NAMES / wide, 1.02, shortened(words, room), transform=axes.transAxes, va="bottom", **look)


def _named(line: Line) -> str:
    """The name of a row; the grey stretch is explained where random orders stand."""
    return f"{line.method} (grey)" if line.method == RANDOM else shortened(line.method, NAME)


# ---- curves --------------------------------------------------------------------------------------------------------


def _curves(sheet: _Sheet, found: Panels) -> None:
    wide = (WIDTH - 2 * MARGIN) / BESIDE
    for n, each in enumerate(found.panels):
        row, column = divmod(n, BESIDE)
        top = HEAD + row * (HEAD + PANEL + BELOW)
        place = sheet.place(MARGIN + column * wide + TICKS, top, wide - TICKS - 0.15, PANEL)
        _panel(place, found, each, first=n == 0)


def _panel(axes: Axes, found: Panels, each: Panel, *, first: bool) -> None:
    """The two curves of one method over the band of random orders."""
    _bare(axes)

    def values(points: Sequence[tuple[float, float]]) -> list[float]:
        return [found.high - y * (found.high - found.low) for _, y in points]

    shares = [100 * x for x, _ in found.upper]
    if shares:
        axes.fill_between(shares, values(found.lower), values(found.upper), color=LOOK.neutral, alpha=0.28, linewidth=0)
    axes.plot([100 * x for x, _ in each.least], values(each.least), color=LOOK.strong_plus, linestyle="--")
    axes.plot([100 * x for x, _ in each.most], values(each.most), color=LOOK.strong_minus)
    axes.set_xlim(0, 100)
    axes.set_ylim(found.low, found.high)
    small = writing(size=7, colour=LOOK.quiet)
    axes.set_xticks([0, 100], ["0", "100 %"], **small)
    axes.set_yticks([value for value, _ in found.ticks], [typeset(shown) for _, shown in found.ticks], **small)
    axes.grid(axis="y", color=LOOK.neutral, alpha=0.25, linewidth=0.6)
    axes.tick_params(length=0)
    title(axes, f"{shortened(each.method, 18)} {typeset(each.spread)}")
    if first:
        for words, points, colour in (
            ("most first", each.most, LOOK.strong_minus),
            ("least first", each.least, LOOK.strong_plus),
        ):
            middle = points[len(points) // 2]
            above = colour == LOOK.strong_minus  # between the two lines, as the first has most room there
            place = (100 * middle[0], values([middle])[0])
            axes.annotate(
                words,
                place,
                xytext=(0, 4 if above else -4),
                textcoords="offset points",
                ha="center",
                va="bottom" if above else "top",
                **writing(size=7, colour=colour),
            )


# ---- agreement -----------------------------------------------------------------------------------------------------


def _matrix(axes: Axes, found: Matrix) -> None:
    """A square per pair, hatched where it may be chance."""
    _bare(axes)
    count = len(found.methods)
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    size = 6 if count > DENSE else 8
    for y, row in enumerate(found.rows):
        for x, each in enumerate(row):
            if each is None:
                fill = LOOK.ground if x != y else LOOK.neutral
                axes.add_patch(Rectangle((x, y), 1, 1, facecolor=fill, edgecolor=LOOK.ground, alpha=0.4))
                continue
            fill = LOOK.ground if each.chance else colours.scale(each.intensity)
            square = Rectangle((x, y), 1, 1, facecolor=fill, edgecolor=LOOK.neutral, linewidth=0.3)
            axes.add_patch(square)
            if each.chance:
                square.set(hatch="////", edgecolor=colours.mixed(LOOK.ground, LOOK.neutral, 0.5))
            ink = LOOK.quiet if each.chance else colours.ink(fill)
            axes.text(x + 0.5, y + 0.5, typeset(each.shown), ha="center", va="center", **writing(size=size, colour=ink))
    places = [n + 0.5 for n in range(count)]
    names = [shortened(each, NAME) for each in found.methods]
    axes.set_yticks(places, names, **writing(size=size + 1))
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", **writing(size=size + 1))
    axes.tick_params(length=0)
    title(axes, f"{found.name}; hatched: within what chance gives")


def _bare(axes: Axes) -> None:
    axes.set_facecolor(LOOK.ground)
    for side in axes.spines.values():
        side.set_visible(False)
