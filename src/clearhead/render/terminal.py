"""Maps in the terminal: tokens as they are read, a bar for each, and the books as a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from clearhead.render import colours
from clearhead.render.books import Cause, Leak
from clearhead.render.scene import Scene, Stream, Token, scene
from clearhead.render.texts import shortened

if TYPE_CHECKING:
    from rich.console import RenderableType

    from clearhead.maps import RelevanceMap

WIDEST = 100  # columns: bars and tables do not get clearer beyond
BARS = 40  # units with a bar of their own
LEAKS = 3  # modules named per cause
LABEL = 16  # columns of a unit's name beside its bar
BOOKS = 44  # columns of a name in the books, at least
GAP = 4  # columns between two streams
NARROWEST = 36  # columns a stream needs to stand beside another

_QUIET = Style(dim=True)
_BOLD = Style(bold=True)
_FAULT = Style(bold=True, color="red")


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The characters that draw."""

    full: str
    left: str  # half a cell, for bars that grow to the left
    right: str
    axis: str
    dot: str
    cut: str
    good: str


BLOCKS = Marks(full="▄", left="▗", right="▖", axis="│", dot=" · ", cut="…", good="✓")
RULE = box.Box("    \n    \n    \n    \n ── \n    \n    \n    \n")  # a line above the total and nothing else
RULE_ASCII = box.Box("    \n    \n    \n    \n -- \n    \n    \n    \n", ascii=True)
ASCII = Marks(full="#", left="", right="", axis="|", dot=" | ", cut="~", good="ok:")


def show(maps: Sequence[RelevanceMap], console: Console | None = None) -> None:
    """Print maps one below the other; works in any width from 60 columns, without colour, and into a pipe."""
    chosen = console or Console(highlight=False)
    pen = _Pen.of(chosen)
    for n, each in enumerate(maps):
        if n:
            chosen.print()
        for part in pen.drawn(scene(each)):
            chosen.print(part, highlight=False, width=pen.width)


@dataclass(frozen=True, kw_only=True)
class _Pen:
    """What the console can do."""

    width: int
    marks: Marks
    encoding: str
    dark: bool

    @classmethod
    def of(cls, console: Console) -> _Pen:
        plain = console.options.ascii_only
        return cls(
            width=min(console.width, WIDEST),
            marks=ASCII if plain else BLOCKS,
            encoding=console.encoding if plain else "utf-8",
            dark=_is_dark(),
        )

    def text(self, words: str, style: Style | str = "", *, columns: int | None = None) -> Text:
        """Words as they are, never markup, in so many columns; what the console cannot write is an escape."""
        written = words.encode(self.encoding, "backslashreplace").decode(self.encoding)
        return Text(written if columns is None else _fitted(written, columns, self.marks.cut), style=style)

    # ---- the parts of a drawing, from top to bottom ----------------------------------------------------------------

    def drawn(self, drawing: Scene) -> Iterator[RenderableType]:
        yield self.text(f"{drawing.target} = {drawing.value.shown}", _BOLD)
        yield self.text(self.marks.dot.join((drawing.method, drawing.task, drawing.model)), _QUIET)
        yield self._audit(drawing)
        for warning in drawing.warnings:
            yield Padding(self.text(f"! {warning}", Style(color="red")), (0, 0, 0, 2))
        yield Text()
        for stream in drawing.streams:
            yield self._read(stream, named=len(drawing.streams) > 1)
        yield Text()
        yield self._bars(drawing)
        yield Text()
        yield self._books(drawing)

    def _audit(self, drawing: Scene) -> Text:
        verdict = drawing.verdict
        mark, style = (self.marks.good, _BOLD) if verdict.passes else ("!", _FAULT)
        figures = self.marks.dot.join(
            (
                f"conservation error {verdict.conservation_error}",
                f"residual {verdict.residual}",
                f"cancellation {verdict.cancellation}",
            )
        )
        return Text("\n").join([self.text(f"{mark} {verdict.words}", style), self.text(figures, _QUIET)])

    def _read(self, stream: Stream, *, named: bool) -> RenderableType:
        line = Text()
        for token in stream.tokens:
            line.append("" if token.joined or not line else " ").append_text(self.text(token.text, self._tone(token)))
        name = self.text(f"{stream.name} {stream.total.shown}", _QUIET) if named else Text()
        return Padding(Text("\n").join([name, line]) if named else line, (0, 0, 0, 2))

    def _tone(self, token: Token) -> Style:
        """Strong tokens are bold and those against the target underlined, for terminals without colour."""
        step = colours.level(token.intensity)
        if step == 0:
            return _QUIET if token.special else Style.null()
        ground = colours.scale(token.intensity, dark=self.dark)
        bold, against = abs(step) * 2 >= colours.LEVELS, step < -1
        return Style(color=colours.ink(ground), bgcolor=ground, bold=bold or None, underline=against or None)

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
        shown, others = stream.chosen(BARS)
        label = min(LABEL, max((self.text(token.name).cell_len for token in shown), default=0))
        number = max((len(token.amount.shown) for token in shown), default=0)
        track = width - label - number - 2
        lines = [self._bar(drawing, token, label, track, number) for token in shown]
        if others:
            total = drawing.digits.sum(token.amount for token in others).shown
            lines.append(self.text(f"{len(others)} others, together {total}".rjust(width), _QUIET))
        return Text("\n").join(lines)

    def _bar(self, drawing: Scene, token: Token, label: int, track: int, number: int) -> Text:
        name = self.text(token.name, _QUIET if token.special else "", columns=label)
        name.pad_left(label - name.cell_len)
        return Text(" ").join([name, self._track(drawing, token, track), Text(token.amount.shown.rjust(number))])

    def _track(self, drawing: Scene, token: Token, width: int) -> Text:
        """The bar, from the axis to the left or right, in steps of half a cell."""
        room = width - 1
        left = round(drawing.axis.at(0.0) * room)
        halves = round(abs(drawing.axis.at(token.amount.value) - drawing.axis.at(0.0)) * room * 2)
        cells, half = divmod(halves, 2)
        style = Style(color=colours.strong(token.amount.value, dark=self.dark))
        full, axis = self.marks.full * cells, (self.marks.axis, _QUIET)
        if token.amount.value < 0:
            bar = ((self.marks.left if half else "") + full)[-left:] if left else ""
            return Text.assemble(" " * (left - len(bar)), (bar, style), axis, " " * (room - left))
        bar = (full + (self.marks.right if half else ""))[: room - left]
        return Text.assemble(" " * left, axis, (bar, style), " " * (room - left - len(bar)))

    # ---- books -----------------------------------------------------------------------------------------------------

    def _books(self, drawing: Scene) -> RenderableType:
        table = self._table()
        causes = iter(drawing.books.sinks)
        for step in drawing.books.steps:
            style = _QUIET if step.kind == "open" else ""
            table.add_row(self.text(drawing.wording(step), columns=self._room), step.amount.shown, style=style)
            for part in step.parts:
                table.add_row(self.text(f"  {drawing.wording(part)}"), part.amount.shown, style=_QUIET)
            if step.kind == "sink":
                self._leaks(table, drawing, next(causes))
        table.rows[-1].end_section = True
        table.add_row(self.text(drawing.target, columns=self._room), drawing.value.shown, style=_BOLD)
        if drawing.books.returned:
            self._returned(table, drawing)
        return Padding(table, (0, 0, 0, 2), expand=False)

    def _leaks(self, table: Table, drawing: Scene, cause: Cause) -> None:
        for leak in cause.leaks[:LEAKS]:
            table.add_row(self._where(leak, "  "), leak.amount.shown, style=_QUIET)
        if others := cause.leaks[LEAKS:]:
            total = drawing.digits.sum(leak.amount for leak in others)
            table.add_row(self.text(f"  {len(others)} others"), total.shown, style=_QUIET)

    def _returned(self, table: Table, drawing: Scene) -> None:
        """One line per cause, and the module that leaked most."""
        table.add_row()
        table.add_row(self.text("returned where it leaked, so part of the units"), style=_QUIET)
        for cause in drawing.books.returned:
            table.add_row(self.text(f"  {cause.name}", columns=self._room), cause.amount.shown, style=_QUIET)
            for leak in cause.leaks[:1]:
                table.add_row(self._where(leak, "    most in "), leak.amount.shown, style=_QUIET)

    def _table(self) -> Table:
        rule = RULE if self.marks is BLOCKS else RULE_ASCII
        table = Table(box=rule, show_header=False, show_edge=False, pad_edge=False, padding=0)
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


def _fitted(text: str, columns: int, cut: str) -> str:
    """The text in so many columns; some characters take two."""
    fitting = (shortened(text, length, cut) for length in range(max(1, columns), 0, -1))
    return next((each for each in fitting if cell_len(each) <= columns), "")


def _is_dark() -> bool:
    """Whether the terminal's ground is dark: some say so in COLORFGBG, and most are."""
    ground = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return ground not in {"7", "15"}
