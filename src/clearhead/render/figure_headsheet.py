"""A report on heads as a figure: importance by layer and head for each stream, and the pruning curves below."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from clearhead.render import colours
from clearhead.render.figure_parts import LOOK, colour_map, title, typeset, write, writing
from clearhead.render.prunings import HALF, Style
from clearhead.render.texts import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from clearhead.render.headsheet import Grid, Sheet
    from clearhead.render.prunings import Pruning

WIDTH, CELL, LEAST, MOST, CURVES, REST = 8.0, 0.3, 0.9, 6.0, 3.2, 1.3  # inches: the figure's width and heights
ACROSS, LINE = 105, 0.22  # characters of a line of words, inches that it is high
NAMED = 16  # numbers along a side
WRITTEN = 16  # heads across up to which each share is written

_LOOKS: dict[Style, tuple[str, str, float]] = {
    "first": (LOOK.strong_plus, "-", 2.2),
    "second": (LOOK.agree, "--", 2.0),
    "third": (LOOK.chance, "-.", 1.8),
    "worst": (LOOK.strong_minus, ":", 2.0),
    "middle": (LOOK.quiet, "-", 1.0),
}


def figure(drawing: Sheet) -> tuple[Figure, list[Axes]]:
    """A figure with an axes per stream, one for the curves where there are any, and one with what they say."""
    heights = [min(MOST, max(LEAST, CELL * len(grid.layers))) + 0.4 for grid in drawing.grids]
    heights += [CURVES] if drawing.pruning else []
    said = [line for each in _said(drawing) for line in wrap(each, ACROSS)]
    heights.append(LINE * len(said))
    made = Figure(figsize=(WIDTH, sum(heights) + REST), facecolor=LOOK.ground)
    made.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    made.suptitle(
        shortened(f"{drawing.heading}: {drawing.model}", 60), x=0.02, ha="left", **writing(size=14, weight="bold")
    )
    parts = made.add_gridspec(len(heights), 1, height_ratios=heights)
    axes = [made.add_subplot(parts[n, 0]) for n in range(len(heights))]
    for each, grid in zip(axes, drawing.grids, strict=False):
        _grid(each, grid)
    if drawing.pruning:
        _curves(axes[-2], drawing.pruning)
    write(axes[-1], said)
    return made, axes


def _said(drawing: Sheet) -> list[str]:
    found = drawing.pruning
    pruned = [*found.findings, found.goes_said, found.caveat] if found else [drawing.untried]
    return [drawing.verdict.sentence, *(each for each in pruned if each)]


def _grid(axes: Axes, grid: Grid) -> None:
    """A square per head, deeper for more, with its share in percent where there is room."""
    axes.set_facecolor(LOOK.ground)
    depth = grid.depth
    axes.imshow(depth, cmap=colour_map(positive=True), vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for names, set_ticks in ((grid.layers, axes.set_yticks), (grid.heads, axes.set_xticks)):
        places = range(0, len(names), max(1, -(-len(names) // NAMED)))
        set_ticks(list(places), [str(names[n]) for n in places], **writing(size=7, colour=LOOK.quiet))
    if len(grid.heads) <= WRITTEN:
        for y, row in enumerate(grid.rows):
            for x, cell in enumerate(row):
                if cell:
                    ink = colours.ink(colours.scale(cell.intensity))
                    axes.text(x, y, cell.share, ha="center", va="center", **writing(size=7, colour=ink))
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_color(LOOK.neutral)
        side.set_linewidth(0.4)
    held = f"{grid.held} % of all importance, full colour at {grid.largest} %"
    title(axes, f"{shortened(grid.stream, 24)}: {grid.size}; layers down, heads across; {held}")


def _curves(axes: Axes, found: Pruning) -> None:
    """The lines over the band of random orders."""
    axes.set_facecolor(LOOK.ground)
    for band in found.bands:
        shares = [100 * x for x, _ in band.upper]
        label = f"{shortened(band.name, 24)}: lowest to highest of {band.orders}"
        axes.fill_between(shares, band.low, band.high, color=LOOK.neutral, alpha=0.28, linewidth=0, label=label)
    for line in found.lines:
        colour, dashes, wide = _LOOKS[line.style]
        shares = [100 * x for x in line.removed]
        axes.plot(shares, line.values, color=colour, linestyle=dashes, linewidth=wide, label=shortened(line.name, 24))
    if found.goes is not None:
        axes.axvline(100 * found.goes, color=LOOK.ink, linewidth=0.8, linestyle=(0, (3, 3)))
        words = f" {100 * found.goes:.0f} % can go "
        place, edge = (found.low, "bottom") if found.more else (found.high, "top")
        beside = "left" if found.goes < HALF else "right"  # of the words, so that they stay inside
        ground = {"facecolor": LOOK.ground, "edgecolor": "none", "pad": 1.5}
        axes.text(100 * found.goes, place, words, va=edge, ha=beside, bbox=ground, **writing(size=8, weight="bold"))
    axes.set_xlim(0, 100)
    axes.set_ylim(found.low, found.high)
    small = writing(size=8, colour=LOOK.quiet)
    axes.set_xticks([0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"], **small)
    axes.set_yticks([value for value, _ in found.ticks], [typeset(shown) for _, shown in found.ticks], **small)
    axes.grid(axis="y", color=LOOK.neutral, alpha=0.25, linewidth=0.6)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    legend = axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, -0.32), ncols=3)
    for text in legend.get_texts():
        text.set(parse_math=False, usetex=False, fontsize=8, color=LOOK.ink)
    title(axes, f"{shortened(found.metric, 40)} against the share of heads removed")
