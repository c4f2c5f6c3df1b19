"""Maps in the terminal: tokens as they are read, a bar for each, and the books as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from clearhead.render import colours
from clearhead.render.agreement import CrossCheck
from clearhead.render.books import Books, Cause, Leak
from clearhead.render.changes import Changes
from clearhead.render.drawings import drawing as drawing_of
from clearhead.render.headsheet import Sheet
from clearhead.render.judgement import Judgement
from clearhead.render.looks import Looks
from clearhead.render.scene import Scene, Stream, Token
from clearhead.render.terminal_pen import BOLD, FAULT, QUIET, Pen
from clearhead.render.verdicts import Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

    from clearhead.render.drawings import Item

BARS = 40  # units with a bar of their own
PARTS = 12  # the same, of a picture
LEAKS = 3  # modules named per cause
LABEL = 16  # columns of a unit's name beside its bar
PLACE = 20  # the same, of a part of a picture
BOOKS = 44  # columns of a name in the books, at least
GAP = 4  # columns between two streams
NARROWEST = 36  # columns a stream needs to stand beside another


def show(maps: Sequence[Item], console: Console | None = None) -> None:
    """Print maps one below the other; works in any width from 60 columns, without colour, and into a pipe."""
    from clearhead.render import (
        terminal_changes,
        terminal_headsheet,
        terminal_judgement,
        terminal_looks,
        terminal_matrix,
    )

    chosen = console or Console(highlight=False)
    pen = Pen.of(chosen)
    for n, each in enumerate(maps):
        if n:
            chosen.print()
        drawing = drawing_of(each)
        parts: Iterator[RenderableType]
        if isinstance(drawing, Scene):
            parts = _Map(pen).drawn(drawing)
        elif isinstance(drawing, Looks):
            parts = terminal_looks.drawn(pen, drawing)
        elif isinstance(drawing, Changes):
            parts = terminal_changes.drawn(pen, drawing)
        elif isinstance(drawing, Sheet):
            parts = terminal_headsheet.drawn(pen, drawing)
        elif isinstance(drawing, Judgement):
            parts = terminal_judgement.drawn(pen, drawing)
        else:
            parts = terminal_matrix.drawn(pen, drawing)
        for part in parts:
            chosen.print(part, highlight=False, width=pen.width)


def audit(pen: Pen, verdict: Verdict) -> Text:
    """The verdict in words and in figures; where there are no books, what the numbers are."""
    if not verdict.claimed:
        return Text.assemble(pen.text(verdict.words, BOLD), pen.text(f"{verdict.joint} {verdict.reason}"))
    mark, style = (pen.marks.good, BOLD) if verdict.passes else ("!", FAULT)
    figures = pen.marks.dot.join(
        (
            f"conservation error {verdict.conservation_error}",
            f"residual {verdict.residual}",
            f"cancellation {verdict.cancellation}",
        )
    )
    return Text("\n").join([pen.text(f"{mark} {verdict.words}", style), pen.text(figures, QUIET)])


def noted(pen: Pen, notes: Sequence[str]) -> Iterator[RenderableType]:
    """How it was made, a quiet line per note."""
    for note in notes:
        yield Padding(pen.text(note, QUIET), (0, 0, 0, 2))


def compared(pen: Pen, check: CrossCheck) -> Iterator[RenderableType]:
    """The verdict of the cross-check, its figures with what chance gives, and what to make of it."""
    units = f" ({check.units} units)" if check.units is not None else ""
    yield Text.assemble(pen.disk(check.state), pen.text(f" {check.heading}", BOLD), pen.text(units, QUIET))
    below = [*([check.figures] if check.figures else []), *([check.sentence] if check.sentence else [])]
    for line in below:
        yield Padding(pen.text(line, QUIET), (0, 0, 0, 2))


def warned(pen: Pen, warnings: Sequence[str]) -> Iterator[RenderableType]:
    """A line per warning."""
    for warning in warnings:
        yield Padding(pen.text(f"! {warning}", Style(color="red")), (0, 0, 0, 2))


class _Map:
    """The parts of one map, from top to bottom."""

    def __init__(self, pen: Pen) -> None:
        self.pen, self.width, self.marks, self.text = pen, pen.width, pen.marks, pen.text

    def drawn(self, drawing: Scene) -> Iterator[RenderableType]:
        yield self.text(f"{drawing.target} = {drawing.value.shown}", BOLD)
        yield self.text(self.marks.dot.join((drawing.method, drawing.task, drawing.model)), QUIET)
        yield from noted(self.pen, drawing.notes)
        yield audit(self.pen, drawing.verdict)
        if drawing.check:
            yield from compared(self.pen, drawing.check)
        yield from warned(self.pen, drawing.warnings)
        yield Text()
        for stream in drawing.streams:
            yield self._read(stream, named=len(drawing.streams) > 1)
        yield Text()
        yield self._bars(drawing)
        if drawing.books:
            yield Text()
            yield self._books(drawing, drawing.books)

    def _read(self, stream: Stream, *, named: bool) -> RenderableType:
        total = f" {stream.total.shown}" if stream.total else ""
        parts = [self.text(f"{stream.name}{total}", QUIET)] if named or stream.picture else []
        if stream.picture:
            from clearhead.render import terminal_picture

            parts += terminal_picture.lines(self.pen, stream, self.width - 2)
        line = Text()
        for token in stream.words:
            before = "" if token.joined or not line else " "
            style = self.pen.tone(token.intensity, quiet=token.special)
            line.append(before).append_text(self.text(token.text, style))
        return Padding(Text("\n").join([*parts, line] if stream.words else parts), (0, 0, 0, 2))

    # ---- bars ------------------------------------------------------------------------------------------------------

    def _bars(self, drawing: Scene) -> RenderableType:
        streams = [stream for stream in drawing.streams if stream.tokens]
        beside = (self.width - 2 - GAP * (len(streams) - 1)) // max(1, len(streams))
        if len(streams) == 1 or beside < NARROWEST:
            table = Table.grid(padding=(0, 0, 1, 0) if len(streams) > 1 else 0)
            for stream in streams:
                table.add_row(self._chart(drawing, stream, self.width - 2))
            return Padding(table, (0, 0, 0, 2))
        table = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
        table.add_row(*(self._chart(drawing, stream, beside) for stream in streams))
        return Padding(table, (0, 0, 0, 2))

    def _chart(self, drawing: Scene, stream: Stream, width: int) -> Text:
        """A line per unit in reading order; of many, the largest, and what the others sum to."""
        shown, others = stream.chosen(PARTS if stream.parts else BARS)
        label = min(
            PLACE if stream.parts else LABEL, max((self.text(token.name).cell_len for token in shown), default=0)
        )
        number = max((len(token.amount.shown) for token in shown), default=0)
        track = width - label - number - 2
        lines = [self._bar(drawing, token, label, track, number) for token in shown]
        if others:
            lines.append(self.text(" ".join(drawing.rest(others)).rjust(width), QUIET))
        return Text("\n").join(lines)

    def _bar(self, drawing: Scene, token: Token, label: int, track: int, number: int) -> Text:
        name = self.pen.right(token.name, label, QUIET if token.special else "")
        return Text(" ").join([name, self._track(drawing, token, track), Text(token.amount.shown.rjust(number))])

    def _track(self, drawing: Scene, token: Token, width: int) -> Text:
        """The bar, from the axis to the left or right, in steps of half a cell."""
        room = width - 1
        left = round(drawing.axis.at(0.0) * room)
        halves = round(abs(drawing.axis.at(token.amount.value) - drawing.axis.at(0.0)) * room * 2)
        cells, half = divmod(halves, 2)
        style = Style(color=colours.strong(token.amount.value, dark=self.pen.dark))
        full, axis = self.marks.full * cells, (self.marks.axis, QUIET)
        if token.amount.value < 0:
            bar = ((self.marks.left if half else "") + full)[-left:] if left else ""
            return Text.assemble(" " * (left - len(bar)), (bar, style), axis, " " * (room - left))
        bar = (full + (self.marks.right if half else ""))[: room - left]
        return Text.assemble(" " * left, axis, (bar, style), " " * (room - left - len(bar)))

    # ---- books -----------------------------------------------------------------------------------------------------

    def _books(self, drawing: Scene, books: Books) -> RenderableType:
        table = self._table()
        causes = iter(books.sinks)
        for step in books.steps:
            style = QUIET if step.kind == "open" else ""
            table.add_row(self.text(drawing.wording(step), columns=self._room), step.amount.shown, style=style)
            for part in step.parts:
                table.add_row(self.text(f"  {drawing.wording(part)}"), part.amount.shown, style=QUIET)
            if step.kind == "sink":
                self._leaks(table, drawing, next(causes))
        table.rows[-1].end_section = True
        table.add_row(self.text(drawing.target, columns=self._room), drawing.value.shown, style=BOLD)
        if books.returned:
            self._returned(table, books)
        return Padding(table, (0, 0, 0, 2), expand=False)

    def _leaks(self, table: Table, drawing: Scene, cause: Cause) -> None:
        for leak in cause.leaks[:LEAKS]:
            table.add_row(self._where(leak, "  "), leak.amount.shown, style=QUIET)
        if others := cause.leaks[LEAKS:]:
            total = drawing.digits.sum(leak.amount for leak in others)
            table.add_row(self.text(f"  {len(others)} others"), total.shown, style=QUIET)

    def _returned(self, table: Table, books: Books) -> None:
        """One line per cause, and the module that leaked most."""
        table.add_row()
        table.add_row(self.text("returned where it leaked, so part of the units"), style=QUIET)
        for cause in books.returned:
            table.add_row(self.text(f"  {cause.name}", columns=self._room), cause.amount.shown, style=QUIET)
            for leak in cause.leaks[:1]:
                table.add_row(self._where(leak, "    most in "), leak.amount.shown, style=QUIET)

    def _table(self) -> Table:
        table = Table(box=self.pen.rule, show_header=False, show_edge=False, pad_edge=False, padding=0)
        table.add_column(min_width=min(BOOKS, self._room), no_wrap=True, overflow="crop")
        table.add_column(justify="right", no_wrap=True)
        return table

    def _where(self, leak: Leak, before: str) -> Text:
        named = f"{leak.module} ({leak.operation})" if leak.module else leak.operation
        return Text(before).append_text(self.text(named, columns=self._room - len(before)))

    @property
    def _room(self) -> int:
        """The columns left for a name beside an amount."""
        return self.width - 20
