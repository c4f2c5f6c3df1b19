"""A comparison in the terminal: two texts one below the other, slot below slot, with shares below what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from clearhead.render import colours
from clearhead.render.changes import Change, Changes, Fold, Lane
from clearhead.render.terminal import audit, noted, warned
from clearhead.render.terminal_pen import BOLD, NONE, QUIET, Pen

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST = 24  # slots with a bar of their own
PARTS = 12  # the same, of a picture
LABEL = 32  # columns of what became of a slot, at most
EDGE = 4  # columns to the left of a text
LONGEST = 24  # columns of one unit


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One slot as three lines of equal width, and the columns between it and the one before it."""

    a: Text
    b: Text
    share: Text
    gap: int

    @property
    def width(self) -> int:
        return max(self.a.cell_len, self.b.cell_len, self.share.cell_len)


def drawn(pen: Pen, drawing: Changes) -> Iterator[RenderableType]:
    """The parts of a comparison, from top to bottom."""
    a, b = (each.shown for each in drawing.values)
    figure = f"{a} {pen.marks.arrow} {b} (difference {drawing.difference.unsigned.shown})"
    yield pen.text(f"{drawing.target}: {figure}", BOLD)
    yield pen.text(pen.marks.dot.join((drawing.method, drawing.task, drawing.model, drawing.count)), QUIET)
    yield from noted(pen, drawing.notes)
    yield from warned(pen, drawing.warnings)
    for lane in drawing.lanes:
        yield Text()
        yield Padding(Text("\n").join(_lane(pen, drawing, lane)), (0, 0, 0, 2))
    if any(each.kind in ("removed", "inserted") for each in drawing.differing):
        yield Padding(pen.text(f"{pen.marks.nothing} nothing there", QUIET), (0, 0, 0, 2 + EDGE - 2))
    if drawing.differing:
        yield Text()
        yield Padding(Text("\n").join(_bars(pen, drawing)), (0, 0, 0, 2))
    yield Text()
    yield Padding(_books(pen, drawing), (0, 0, 0, 2), expand=False)
    yield audit(pen, drawing.verdict)
    yield from _leaks(pen, drawing)


# ---- slots ---------------------------------------------------------------------------------------------------------


def _lane(pen: Pen, drawing: Changes, lane: Lane) -> Iterator[Text]:
    if len(drawing.lanes) > 1 or lane.pictured:
        total = f" {lane.total.shown}" if lane.total and lane.differing else ""
        yield pen.text(f"{lane.name}{total}{'' if lane.differing else ', the same in both'}", QUIET)
    if lane.pictured:
        from clearhead.render import terminal_picture

        yield from terminal_picture.three(pen, lane.pictured, lane.other, pen.width - 2)
        return
    columns = [_column(pen, each) for each in lane.line]
    for n, line in enumerate(_broken(columns, pen.width - 2 - EDGE)):
        if n and lane.differing:
            yield Text()
        yield from _rows(pen, line, differs=bool(lane.differing))


def _column(pen: Pen, each: Change | Fold) -> _Column:
    if isinstance(each, Fold):
        said = pen.text(f"{pen.marks.cut} {each.count} more {pen.marks.cut}", QUIET)
        return _Column(a=said, b=pen.text(pen.marks.cut, QUIET), share=Text(), gap=1)
    gap = 0 if each.joined else 1
    if not each.differs:
        style = QUIET if each.special else NONE
        a, b = (_word(pen, side.text, own) if side else Text() for side, own in ((each.a, style), (each.b, QUIET)))
        return _Column(a=a, b=b, share=Text(), gap=gap)
    share = Text(each.amount.shown, Style(color=colours.strong(each.amount.value, dark=pen.dark)))
    longest = max(cell_len(side.text) for side in (each.a, each.b) if side)
    style = pen.tone(each.intensity) + BOLD
    a, b = (
        _word(pen, side.text, style) if side else pen.text(pen.marks.nothing * min(longest, LONGEST), QUIET)
        for side in (each.a, each.b)
    )
    return _Column(a=a, b=b, share=share, gap=max(gap, 1))


def _word(pen: Pen, text: str, style: Style) -> Text:
    return pen.text(text, style, columns=LONGEST) if cell_len(text) > LONGEST else pen.text(text, style)


def _broken(columns: Sequence[_Column], width: int) -> Iterator[list[_Column]]:
    """The slots line by line: as many as fit."""
    line: list[_Column] = []
    taken = 0
    for each in columns:
        if line and taken + each.gap + each.width > width:
            yield line
            line, taken = [], 0
        taken += each.width + (each.gap if line else 0)
        line.append(each)
    if line:
        yield line


def _rows(pen: Pen, line: Sequence[_Column], *, differs: bool) -> Iterator[Text]:
    """A, B and the shares of one line; where nothing differs in a text, it is written once."""
    rows = ([each.a for each in line], [each.b for each in line], [each.share for each in line])
    for name, row in zip(("A", "B", ""), rows if differs else rows[:1], strict=False):
        if not any(each.cell_len for each in row):
            continue
        made = Text().append_text(pen.text((name if differs else "").ljust(EDGE - 2), QUIET))
        for n, (each, column) in enumerate(zip(row, line, strict=True)):
            own = each.copy()
            own.pad_right(column.width - own.cell_len)
            made.append(" " * (column.gap if n else 0)).append_text(own)
        made.rstrip()
        yield made


# ---- bars, books, leaks --------------------------------------------------------------------------------------------


def _bars(pen: Pen, drawing: Changes) -> Iterator[Text]:
    """A line per slot that differs, largest first; of many, what the others sum to."""
    found = drawing.differing
    most = PARTS if any(lane.pictured for lane in drawing.lanes) else MOST
    shown = found[:most] if len(found) > most + 1 else found
    names = [_named(pen, each) for each in shown]
    label = min(LABEL, max(each.cell_len for each in names))
    number = max(len(each.amount.shown) for each in shown)
    track = pen.width - 2 - label - number - 2
    for each, name in zip(shown, names, strict=True):
        fitted = pen.right(name.plain, label)
        yield Text(" ").join([fitted, _bar(pen, drawing, each, track), Text(each.amount.shown.rjust(number))])
    if others := found[len(shown) :]:
        total = drawing.digits.sum(each.amount for each in others).shown
        yield pen.text(f"{len(others):,} others, together {total}".rjust(pen.width - 2), QUIET)


def _named(pen: Pen, each: Change) -> Text:
    a, b = each.labels
    both = f"{a} {pen.marks.arrow} {b}" if a and b else a or b
    return pen.text(f"{each.said} {both}".strip())


def _bar(pen: Pen, drawing: Changes, each: Change, width: int) -> Text:
    room, zero = width - 1, drawing.axis.at(0.0)
    left = round(zero * room)
    long = round(abs(drawing.axis.at(each.amount.value) - zero) * room)
    style = Style(color=colours.strong(each.amount.value, dark=pen.dark))
    axis = (pen.marks.axis, QUIET)
    if each.amount.value < 0:
        long = min(long, left)
        return Text.assemble(" " * (left - long), (pen.marks.full * long, style), axis, " " * (room - left))
    long = min(long, room - left)
    return Text.assemble(" " * left, axis, (pen.marks.full * long, style), " " * (room - left - long))


def _books(pen: Pen, drawing: Changes) -> Table:
    table = Table(box=pen.rule, show_header=False, show_edge=False, pad_edge=False, padding=0)
    table.add_column(min_width=min(44, pen.width - 20), no_wrap=True, overflow="crop")
    table.add_column(justify="right", no_wrap=True)
    for step in drawing.books.steps:
        style = QUIET if step.kind == "open" else ""
        table.add_row(pen.text(drawing.wording(step), columns=pen.width - 20), step.amount.shown, style=style)
        for part in step.parts:
            table.add_row(pen.text(f"  {drawing.wording(part)}"), part.amount.shown, style=QUIET)
    table.rows[-1].end_section = True
    table.add_row(pen.text("the value of A"), drawing.books.value.shown, style=BOLD)
    return table


def _leaks(pen: Pen, drawing: Changes) -> Iterator[RenderableType]:
    """What leaked, layer by layer, or that nothing did."""
    if not drawing.layers:
        yield pen.text("Nothing leaked in any layer.", QUIET)
        return
    yield pen.text("Where it leaked, layer by layer", BOLD)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, amount in drawing.layers:
        table.add_row(pen.text(name, columns=pen.width - 20), amount.shown, style=QUIET)
    yield Padding(table, (0, 0, 0, 2))
