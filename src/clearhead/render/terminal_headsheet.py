"""A report on heads in the terminal: the most important, layers by heads in blocks, curves and patterns in numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from clearhead.render import colours
from clearhead.render.clusterings import Constellation
from clearhead.render.headsheet import Grid, Kind, Ranked, Sheet, plural
from clearhead.render.prunings import Pruning, figure
from clearhead.render.terminal import audit, noted, warned
from clearhead.render.terminal_pen import BOLD, KEY_POSITIVE, QUIET, Pen, sign

if TYPE_CHECKING:
    from rich.console import RenderableType

NAME = 20  # columns of a head's name, and of an order's
PATTERN = 20  # columns of a pattern
TRACK = 16  # columns of a bar
TALL = 32  # rows of a grid, at most: of more layers, each row is the largest of a few
POINTS = (0, 10, 20, 30, 40, 50, 60, 80, 100)  # percent of heads removed
BLOCKS = " ▁▂▃▄▅▆▇█"


def drawn(pen: Pen, drawing: Sheet) -> Iterator[RenderableType]:
    """The parts of a report, from top to bottom."""
    yield pen.text(f"{drawing.heading} ({drawing.figure})", BOLD)
    yield pen.text(pen.marks.dot.join((drawing.method, drawing.task, drawing.model)), QUIET)
    yield from noted(pen, drawing.notes)
    yield audit(pen, drawing.verdict)
    error = f"standard error {drawing.uncertainty} % (median)" if drawing.uncertainty else "standard error unknown"
    measured = (f"of the {drawing.measured}", drawing.sign, f"documents: {drawing.documents}", error)
    yield pen.text(pen.marks.dot.join(measured), QUIET)
    yield from warned(pen, drawing.warnings)
    if drawing.top:
        yield Text()
        yield Padding(_top(pen, drawing), (0, 0, 0, 2))
    for grid in drawing.grids:
        yield Text()
        yield Padding(Text("\n").join(_grid(pen, grid)), (0, 0, 0, 2))
    if drawing.grids and not _blocks(pen) and not pen.painted:
        yield Padding(pen.text(KEY_POSITIVE, QUIET), (0, 0, 0, 2))
    yield Text()
    yield from _pruning(pen, drawing.pruning) if drawing.pruning else [pen.text(drawing.untried, QUIET)]
    if drawing.kinds:
        yield Text()
        yield Padding(Text("\n").join(_kinds(pen, drawing.kinds)), (0, 0, 0, 2))
    for each in drawing.constellations:
        yield Text()
        yield Padding(Text("\n").join(_clusters(pen, each)), (0, 0, 0, 2))


def _blocks(pen: Pen) -> bool:
    return bool(pen.marks.half)


# ---- the most important --------------------------------------------------------------------------------------------


def _top(pen: Pen, drawing: Sheet) -> Table:
    """A row per head; columns that were not asked for are left out, and in a narrow terminal the least needed."""
    columns = ["", "head", "importance", "share"]
    extras = [("weighted", drawing.weighted), ("lrp", drawing.relevance and pen.width >= 80)]
    columns += [name for name, there in extras if there]
    table = Table.grid(padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(justify="left" if name == "head" else "right", no_wrap=True)
    if drawing.kinds:
        table.add_column(no_wrap=True)
        columns.append("pattern")
    table.add_row(*(pen.text(name, QUIET) for name in columns))
    for each in drawing.top:
        table.add_row(*_row(pen, each, columns))
    return table


def _row(pen: Pen, each: Ranked, columns: Sequence[str]) -> Iterator[Text]:
    plus_minus = "±" if _blocks(pen) else "+-"
    error = f" {plus_minus} {each.error}" if each.error and pen.width >= 80 else ""
    texts = {
        "": pen.text(str(each.rank), QUIET),
        "head": pen.text(each.name, BOLD, columns=NAME if pen.width >= 80 else NAME - 6),
        "importance": Text.assemble(each.importance.shown, pen.text(error, QUIET)),
        "share": Text(f"{each.share} %"),
        "weighted": Text(each.weighted),
        "lrp": Text(each.relevance),
        "pattern": pen.text(each.pattern, columns=PATTERN if pen.width >= 100 else PATTERN - 6),
    }
    return (texts[name] for name in columns)


# ---- layers by heads -----------------------------------------------------------------------------------------------


def _grid(pen: Pen, grid: Grid) -> Iterator[Text]:
    """A row per layer and a block per head, higher for more; of many, the largest of a few."""
    held = f" {grid.size}, {grid.held} % of all importance; the largest {grid.largest} %"
    yield Text.assemble(pen.text(grid.stream, BOLD, columns=NAME), pen.text(held, QUIET))
    depth = _coarse(grid.depth, TALL, max(1, (pen.width - 10) // 2))
    step = -(-len(grid.layers) // TALL)
    for layer, row in zip(grid.layers[::step], depth, strict=True):
        line = pen.text(f"{layer:>4}  ", QUIET)
        for each in row:
            line.append_text(_block(pen, float(each)))
        yield line


def _coarse(depth: np.ndarray, tall: int, wide: int) -> np.ndarray:
    """The largest of each stretch, where there are more rows or columns than there is room for."""
    for axis, room in enumerate((tall, wide)):
        step = -(-depth.shape[axis] // room)
        depth = np.maximum.reduceat(depth, range(0, depth.shape[axis], step), axis=axis)
    return depth


def _block(pen: Pen, share: float) -> Text:
    if not _blocks(pen):
        return Text(2 * sign(share))
    block = BLOCKS[max(1, round(share * (len(BLOCKS) - 1)))]
    return Text(f"{block} ", Style(color=colours.strong(1, dark=pen.dark)))


# ---- curves, patterns, clusters ------------------------------------------------------------------------------------


def _pruning(pen: Pen, found: Pruning) -> Iterator[RenderableType]:
    """What the curves say, and a line of numbers for each order."""
    for said in (*found.findings, found.goes_said):
        if said:
            yield pen.text(said)
    yield pen.text(found.caveat, QUIET)
    room = max(2, (pen.width - NAME - 4) // 7)
    points = POINTS if room >= len(POINTS) else (0, 20, 40, 60, 100)[:room]
    head = "".join(f"{f'{share} %':>7}" for share in points)
    lines = [pen.text(f"{'removed':<{NAME}}{head}", QUIET)]
    for name, removed, values in found.columns:
        line = pen.text(name, columns=NAME)
        line.pad_right(NAME - line.cell_len)
        for share in points:
            line.append(f"{_at(share / 100, removed, values):>7}")
        lines.append(line)
    yield Padding(Text("\n").join([pen.text(found.metric, BOLD, columns=pen.width - 4), *lines]), (0, 0, 0, 2))


def _at(share: float, removed: Sequence[float], values: Sequence[float]) -> str:
    """The metric there, between points in proportion; nothing beyond them."""
    if not removed or not min(removed) <= share <= max(removed):
        return ""
    return figure(float(np.interp(share, removed, values)))


def _kinds(pen: Pen, kinds: Sequence[Kind]) -> Iterator[Text]:
    yield pen.text("patterns", BOLD)
    style = Style(color=colours.strong(1, dark=pen.dark))
    for kind in kinds:
        name = pen.text(kind.name, columns=PATTERN)
        name.pad_right(PATTERN - name.cell_len)
        bar = (pen.marks.full * max(1, round(TRACK * kind.share))).ljust(TRACK)
        line = Text.assemble(name, f"{kind.count:>5} ", (bar, style), " ")
        yield line.append_text(pen.text(kind.meaning, QUIET, columns=max(1, pen.width - line.cell_len - 4)))


def _clusters(pen: Pen, found: Constellation) -> Iterator[Text]:
    apart = f", silhouette {found.silhouette}" if found.silhouette else ""
    said = f" {plural(len(found.groups), 'cluster')} of {plural(len(found.marks), 'head')}{apart}"
    yield Text.assemble(pen.text(found.stream, BOLD, columns=NAME), pen.text(said, QUIET))
    for group in found.groups:
        pattern = f"; mostly {group.pattern}" if group.pattern else ""
        words = f"{group.letter:>2}  {plural(len(group.members), 'head')} like {group.medoid}{pattern}"
        yield pen.text(words, columns=pen.width - 4)
