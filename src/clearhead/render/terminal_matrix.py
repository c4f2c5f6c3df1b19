"""A generation in the terminal: a matrix of squares where it fits, then each token with what it came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.style import Style
from rich.text import Text

from clearhead.render import colours
from clearhead.render.agreement import Tally
from clearhead.render.generation import Generation, Line, Square
from clearhead.render.terminal import audit, noted, warned
from clearhead.render.terminal_pen import BOLD, FAULT, KEY, KEY_POSITIVE, QUIET, Pen, sign
from clearhead.render.texts import Amount, shortened

if TYPE_CHECKING:
    from rich.console import RenderableType

TOP = 3  # units named per produced token
LABEL = 12  # columns of a produced token
NAME = 14  # columns of a unit


def drawn(pen: Pen, drawing: Generation) -> Iterator[RenderableType]:
    """The parts of a generation, from top to bottom."""
    yield pen.text(f"{drawing.heading} ({drawing.figure})", BOLD)
    yield pen.text(pen.marks.dot.join((drawing.method, drawing.task, drawing.model)), QUIET)
    yield from noted(pen, drawing.notes)
    yield audit(pen, drawing.verdict)
    if drawing.checks:
        yield from _counted(pen, drawing.checks)
    yield from warned(pen, drawing.warnings)
    yield Text()
    for name, text in drawing.texts:
        yield Padding(Text("\n").join([pen.text(name, QUIET), pen.text(text)]), (0, 0, 0, 2))
    yield Text()
    label = min(LABEL, max(pen.text(line.token).cell_len for line in drawing.lines))
    for part in _matrix(pen, drawing, label):
        yield Padding(part, (0, 0, 0, 2))
    for line in drawing.lines:
        yield Padding(_came_from(pen, drawing, line, label), (0, 0, 0, 2))


def _counted(pen: Pen, checks: Tally) -> Iterator[RenderableType]:
    """In how many rows the cross-check says what, and what to make of it."""
    heading = pen.text(f" Cross-check with {checks.against}: {checks.words}", BOLD)
    yield Text.assemble(pen.disk(checks.state), heading)
    for line in ([checks.ranks] if checks.ranks else []) + list(checks.sentences):
        yield Padding(pen.text(line, QUIET), (0, 0, 0, 2))


def _matrix(pen: Pen, drawing: Generation, label: int) -> Iterator[Text]:
    """A square per unit, each row with a scale of its own, if they fit; a space divides the streams."""
    room = pen.width - 2 - label - 1 - (len(drawing.groups) - 1)
    if len(drawing.columns) > room:
        yield pen.text(f"{len(drawing.columns)} units do not fit here as a matrix; the report shows it.", QUIET)
        yield Text()
        return
    each = 2 if 2 * len(drawing.columns) <= room else 1
    yield Text(" " * (label + 1)).append_text(_heads(pen, drawing, each))
    for line in drawing.lines:
        row = pen.right(line.token, label).append(" ")
        for n, square in enumerate(line.squares):
            row.append(" " if n in drawing.edges else "").append_text(_square(pen, square, each))
        yield row
    yield pen.text("each row has its own scale; blank: not yet produced", QUIET)
    if not pen.painted:
        yield pen.text(KEY_POSITIVE if drawing.positive else KEY, QUIET)
    yield Text()


def _heads(pen: Pen, drawing: Generation, each: int) -> Text:
    """The names of the streams above their columns."""
    names = []
    for group in drawing.groups:
        room = each * len(group.columns)
        name = pen.text(group.name, QUIET, columns=room)
        name.pad_right(max(0, room - name.cell_len))
        names.append(name)
    return Text(" ").join(names)


def _square(pen: Pen, square: Square | None, columns: int) -> Text:
    if square is None:
        return Text(" " * columns)
    if pen.painted:
        faint = colours.level(square.intensity) == 0
        ground = colours.scale(square.intensity, dark=pen.dark)
        return Text("·".ljust(columns), QUIET) if faint else Text(" " * columns, Style(bgcolor=ground))
    return Text(sign(square.intensity) * columns)


def _came_from(pen: Pen, drawing: Generation, line: Line, label: int) -> Text:
    """The token with its books, and below it the units that counted most."""
    words = [f"{_bare(amount)} {shortened(name, NAME)}" for name, amount in zip(drawing.sums, line.sums, strict=True)]
    rest = [f"{line.rest.shown} rest"] if line.rest.as_shown else []
    sums = _sum([*words, *rest])
    if drawing.measure == "relevance":
        books = f" = {line.value.shown}" + (f" = {sums}" if sums else "")
    else:
        books = f" = {line.value.shown}" + (f"; shares {sums} = {_bare(line.whole)}" if sums and line.whole else "")
    head = Text.assemble(pen.right(line.token, label, BOLD), pen.text(books))
    if not line.balanced:
        head.append_text(pen.text("  !", FAULT))
    if check := line.drawing.check:
        head.append_text(Text.assemble("  ", pen.disk(check.state), pen.text(f" {check.verdict}", QUIET)))
    below = Text(" " * (label + 3))
    for n, token in enumerate(line.largest(TOP)):
        below.append("   " if n else "")
        below.append_text(pen.text(token.name, pen.tone(token.intensity), columns=NAME))
        below.append_text(pen.text(f" {token.amount.shown}", QUIET))
    return Text("\n").join([head, below])


def _bare(amount: Amount) -> str:
    return amount.unsigned.shown


def _sum(words: list[str]) -> str:
    """Signed numbers with their names, joined as a sum."""
    joined = "".join(f" - {each[1:]}" if each.startswith("-") else f" + {each.removeprefix('+')}" for each in words)
    return f"-{joined[3:]}" if joined.startswith(" - ") else joined[3:]
