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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.gridspec import GridSpec

    from clearhead.render.judged_pairs import Matrix
    from clearhead.render.judged_removals import Panel, Panels, Trial
    from clearhead.render.judgement import Judgement, Ruling
    from clearhead.validations import Word

WIDTH = 10.0  # inches
ROW, LINE, PANEL, SQUARE = 0.26, 0.19, 1.45, 0.4  # inches of a bar, a line of words, a panel, a square
LEAST, MOST = 1.4, 7.0  # inches of a matrix
ACROSS = 118  # characters of a line of words
NAME, TITLE = 24, 60  # characters
BESIDE = 5  # panels in a row
DENSE = 10  # methods from which on a matrix is written small
COLOURS: dict[Word, str] = {"trust": LOOK.agree, "care": LOOK.weak, "reject": LOOK.fault, "unknown": LOOK.quiet}


def figure(drawing: Judgement) -> tuple[Figure, list[Axes]]:
    """A figure with the verdicts, an axes of bars per way of removing, curves by the first, and the agreement."""
    said = [(each, wrap(f"{each.evidence}: {each.sentence}", ACROSS)) for each in drawing.rulings]
    panels = next((each.curves for each in drawing.trials if each.curves), None)
    rows = -(-len(panels.panels) // BESIDE) if panels else 0
    matrix = drawing.agreement[0] if drawing.agreement else None
    heights = [sum(0.12 + LINE * (1 + len(lines)) for _, lines in said) + 0.2]
    heights += [ROW * max(len(each.lines) for each in drawing.trials) + 0.5] if drawing.trials else []
    heights += [PANEL] * rows
    heights += [min(MOST, max(LEAST, SQUARE * len(matrix.methods))) + 1.1] if matrix else []
    made = Figure(figsize=(WIDTH, sum(heights) + 0.9), facecolor=LOOK.ground)
    made.set_layout_engine("constrained", w_pad=0.08, h_pad=0.1)
    value = f" = {typeset(drawing.value.shown)}" if drawing.value else ""
    heading = f"{shortened(drawing.heading, TITLE)}{value}"
    made.suptitle(heading, x=0.02, ha="left", **writing(size=14, weight="bold"))
    grid = made.add_gridspec(len(heights), BESIDE * max(1, len(drawing.trials)), height_ratios=heights)
    axes = [made.add_subplot(grid[0, :])]
    _verdicts(axes[0], drawing, said, heights[0])
    axes += _bars(made, grid, drawing.trials)
    if panels:
        axes += _curves(made, grid, panels, 1 + bool(drawing.trials), grid.ncols // BESIDE)
    if matrix:
        axes.append(made.add_subplot(grid[-1, :]))
        _matrix(axes[-1], matrix)
    return made, axes


def _verdicts(axes: Axes, drawing: Judgement, said: Sequence[tuple[Ruling, list[str]]], tall: float) -> None:
    """The word, the method, and below it the evidence, in lines."""
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(tall, 0)
    axes.set_in_layout(False)
    axes.text(0, 0, f"{drawing.summary} · {drawing.about} · {drawing.model}", **writing(size=9, colour=LOOK.quiet))
    down = 0.25
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
        down += 0.12 + LINE * (1 + len(lines))


# ---- dA ------------------------------------------------------------------------------------------------------------


def _bars(made: Figure, grid: GridSpec, trials: Sequence[Trial]) -> list[Axes]:
    """An axes per way of removing, beside one another: a bar per method, and what random orders reach behind it."""
    axes = []
    for n, each in enumerate(trials):
        axes.append(made.add_subplot(grid[1, BESIDE * n : BESIDE * (n + 1)]))
        _trial(axes[-1], each)
    return axes


def _trial(axes: Axes, found: Trial) -> None:
    _bare(axes)
    axes.set_xlim(found.axis.low, found.axis.high)
    axes.set_ylim(len(found.lines) - 0.5, -0.5)
    axes.set_yticks(range(len(found.lines)), [shortened(line.method, NAME) for line in found.lines], **writing(size=8))
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
    title(axes, f"dA ({found.scale}), removed: {shortened(found.removal, 36)}; grey: random orders")


# ---- curves --------------------------------------------------------------------------------------------------------


def _curves(made: Figure, grid: GridSpec, found: Panels, start: int, wide: int) -> list[Axes]:
    axes = []
    for n, each in enumerate(found.panels):
        row, column = divmod(n, BESIDE)
        axes.append(made.add_subplot(grid[start + row, column * wide : (column + 1) * wide]))
        _panel(axes[-1], found, each, first=n == 0)
    return axes


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
            below = colour == LOOK.strong_minus
            place = (100 * middle[0], values([middle])[0])
            axes.annotate(
                words,
                place,
                xytext=(0, -4 if below else 4),
                textcoords="offset points",
                ha="center",
                va="top" if below else "bottom",
                **writing(size=7, colour=colour),
            )


# ---- agreement -----------------------------------------------------------------------------------------------------


def _matrix(axes: Axes, found: Matrix) -> None:
    """A square per pair, hatched where it may be chance."""
    _bare(axes)
    count = len(found.methods)
    axes.set_aspect("equal")
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
