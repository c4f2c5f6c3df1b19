"""A validation or an evaluation in the terminal: verdicts as sentences, then tables that fit its width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from clearhead.render import colours
from clearhead.render.judged_pairs import Matrix, Square
from clearhead.render.judged_removals import Cell, Panels, Trial
from clearhead.render.judgement import UNTESTED, Checked, Judgement, Ruling
from clearhead.render.terminal import noted
from clearhead.render.terminal_pen import BOLD, NONE, QUIET, Pen

if TYPE_CHECKING:
    from rich.console import RenderableType

    from clearhead.render.prunings import Points
    from clearhead.validations import Word

NAME = 20  # columns of a method
BADGE = 14  # columns of a word and its sign
SQUARE = 7  # columns of a figure of two methods
GAP = 2
BLOCKS = "▁▂▃▄▅▆▇█"
DIGITS = "0123456789"  # in their place where there are no blocks
SHORT = {
    "comprehensiveness": "compr",
    "sufficiency": "suff",
    "deletion": "del",
    "insertion": "ins",
    "infidelity": "infid",
    "max-sensitivity": "sens",
}
ASCII: dict[Word, str] = {"trust": "+", "care": "!", "reject": "x", "unknown": "?"}


def drawn(pen: Pen, drawing: Judgement) -> Iterator[RenderableType]:
    """The parts, from top to bottom."""
    value = f" = {drawing.value.shown}" if drawing.value else ""
    yield pen.text(f"{drawing.heading}{value}", BOLD)
    yield pen.text(pen.marks.dot.join((drawing.method, drawing.task, drawing.model, drawing.about)), QUIET)
    for _, text in drawing.texts:
        yield Padding(pen.text(text), (0, 0, 0, 2))
    yield Text()
    yield pen.text(drawing.summary, BOLD)
    if drawing.choice:
        yield pen.text(f"Chosen: {drawing.choice}")
    for name, share, milliseconds, level in drawing.candidates:
        words = f"{share:>5} of the largest dA, {milliseconds:>5} ms{', as good as the best' if level else ''}"
        yield Padding(Text.assemble(pen.right(name, NAME, BOLD), pen.text(f" {words}", QUIET)), (0, 0, 0, 2))
    yield from _rulings(pen, drawing)
    yield from noted(pen, drawing.notes)
    for n, each in enumerate(drawing.trials):
        yield Text()
        yield from _removed(pen, each, first=not n)
    for n, matrix in enumerate(drawing.agreement[:1] + drawing.contests):
        yield Text()
        yield from _matrix(pen, matrix, "agreement: " if not n and drawing.agreement else "paired tests: ")
    yield Text()
    yield from _tested(pen, drawing.checked)
    for skipped in drawing.skipped:
        yield pen.text(f"skipped {skipped}")


# ---- verdicts ------------------------------------------------------------------------------------------------------


def _rulings(pen: Pen, drawing: Judgement) -> Iterator[RenderableType]:
    table = Table.grid(padding=(0, GAP, 0, 0))
    table.add_column(width=BADGE, no_wrap=True)
    table.add_column(ratio=1)
    for each in drawing.rulings:
        said = Text.assemble(
            pen.text(f"{each.method}: ", BOLD), pen.text(f"{each.evidence}: "), pen.text(each.sentence, BOLD)
        )
        below = [f"why: {'; '.join(each.reasons)}"] if each.reasons else []
        below += [f"not checked: {each.unchecked}"] if each.unchecked and not drawing.unchecked else []
        table.add_row(_badge(pen, each), Text("\n").join([said, *(pen.text(line, QUIET) for line in below)]))
    yield Padding(table, (0, 0, 0, 2))
    if drawing.unchecked:
        yield Padding(pen.text(f"not checked: {drawing.unchecked}", QUIET), (0, 0, 0, 2))


def _badge(pen: Pen, each: Ruling) -> Text:
    mark = each.mark if pen.marks.half else ASCII[each.word]
    style = Style(color=word_colour(each.word, dark=pen.dark), bold=True, reverse=each.word in ("trust", "reject"))
    return Text.assemble(pen.text(f" {mark} {each.badge.upper()} ", style))


def word_colour(word: Word, *, dark: bool = False) -> str:
    """The colour of a verdict."""
    chosen = colours.palette(dark=dark)
    return {"trust": chosen.agree, "care": chosen.weak, "reject": chosen.fault}.get(word, chosen.quiet)


# ---- what removing units says --------------------------------------------------------------------------------------


def _removed(pen: Pen, found: Trial, *, first: bool) -> Iterator[RenderableType]:
    yield pen.text(f"removed: {found.removal}", BOLD)
    yield pen.text(found.said, QUIET)
    widths, left_out = _fitting(pen, found)
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    for _ in range(len(widths) + found.timed):
        table.add_column(justify="right", no_wrap=True)
    heads = [pen.text(f"{SHORT.get(each.name, each.name)} {_arrow(pen, each.arrow)}", QUIET) for each in found.columns]
    table.add_row(Text(), *heads[: len(widths)], *([pen.text("ms", QUIET)] if found.timed else []))
    for line in found.lines:
        name = pen.text(line.method, QUIET if line.reference else BOLD, columns=NAME)
        cells = [_cell(pen, each, spans=n == 0) for n, each in enumerate(line.cells[: len(widths)])]
        table.add_row(name, *cells, *([pen.text(_plain(pen, line.milliseconds), QUIET)] if found.timed else []))
    yield Padding(table, (0, 0, 0, 2))
    key = "*: best; (in brackets): within what random orders reach" if first else ""
    more = f"{'; ' if key else ''}not shown here: {', '.join(left_out)}" if left_out else ""
    if key or more:
        yield Padding(pen.text(key + more, QUIET), (0, 0, 0, 2))
    yield from noted(pen, found.notes)
    if found.curves:
        yield Padding(Text("\n").join(_curves(pen, found.curves)), (0, 0, 0, 2))


def _fitting(pen: Pen, found: Trial) -> tuple[list[int], list[str]]:
    """The widths of as many columns as fit, and the names of the others."""
    room = pen.width - 2 - (NAME + 1) - (1 + max(len(line.milliseconds) for line in found.lines) if found.timed else 0)
    widths: list[int] = []
    for n, column in enumerate(found.columns):
        cells = [_cell(pen, line.cells[n], spans=n == 0).cell_len for line in found.lines]
        width = max(len(SHORT.get(column.name, column.name)) + 2, *cells) + 1
        if width > room:
            break
        room -= width
        widths.append(width)
    return widths, [each.name for each in found.columns[len(widths) :]]


def _cell(pen: Pen, each: Cell, *, spans: bool) -> Text:
    """A figure, the first column with its interval; the best has a star, what may be chance stands in brackets."""
    shown = _plain(pen, each.shown)
    span = f" {_plain(pen, each.span)}" if spans and each.span else ""
    if each.best:
        return Text.assemble((f"*{shown}", BOLD), pen.text(span, QUIET))
    text = f"({shown})" if each.chance else shown
    return Text.assemble((text, QUIET if each.chance else NONE), pen.text(span, QUIET))


def _plain(pen: Pen, text: str) -> str:
    return text if pen.marks.half else text.replace("–", "-").replace("±", "+-").replace("…", "...")


def _arrow(pen: Pen, arrow: str) -> str:
    return arrow if pen.marks.half else {"↑": "^", "↓": "v"}[arrow]


def _curves(pen: Pen, panels: Panels) -> Iterator[Text]:
    """A row per method: the value as the most relevant units go first, and as the least do."""
    yield pen.text(f"{'none to all removed':<{NAME}}  {'most first':<12}{'least first':<12}", QUIET)
    dark = pen.dark
    for each in panels.panels:
        name = pen.text(each.method, columns=NAME)
        name.pad_right(NAME + GAP - name.cell_len)
        most = Text(_blocks(pen, each.most).ljust(12), Style(color=colours.strong(-1, dark=dark)))
        yield name.append_text(most).append_text(
            Text(_blocks(pen, each.least), Style(color=colours.strong(1, dark=dark)))
        )
    if panels.middle:
        yield pen.text(f"{'random order':<{NAME + GAP}}{_blocks(pen, panels.middle)}", QUIET)


def _blocks(pen: Pen, points: Points) -> str:
    """A column of blocks per point, higher for more."""
    steps = BLOCKS if pen.marks.half else DIGITS
    return "".join(steps[round((1 - y) * (len(steps) - 1))] for _, y in points)


# ---- methods against methods ---------------------------------------------------------------------------------------


def _matrix(pen: Pen, found: Matrix, before: str) -> Iterator[RenderableType]:
    """The figures in blocks of as many columns as fit; each pair once, under the number of the other method."""
    yield pen.text(f"{before}{found.name}", BOLD)
    yield pen.text(f"{found.meaning}. {found.level} In brackets: may be chance.", QUIET)
    count = len(found.methods)
    fits = max(1, (pen.width - 2 - NAME - 4) // SQUARE)
    for start in range(0, count - 1, fits):
        columns = range(start, min(count - 1, start + fits))
        head = "".join(f"{n + 1:>{SQUARE}}" for n in columns)
        lines = [pen.text(" " * (NAME + 4) + head, QUIET)]
        lines += [_row(pen, found, n, [m for m in columns if m < n], NAME) for n in range(start, count)]
        yield Padding(Text("\n").join(lines), (0, 0, 0, 2))


def _row(pen: Pen, found: Matrix, n: int, columns: Sequence[int], room: int) -> Text:
    name = pen.text(found.methods[n], columns=room)
    name.pad_right(room - name.cell_len)
    line = Text.assemble(pen.text(f"{n + 1:>3} ", QUIET), name)
    for m in columns:
        line.append_text(_square(pen, found.rows[n][m]))
    return line


def _square(pen: Pen, each: Square | None) -> Text:
    if each is None:
        return pen.text(_plain(pen, f"{'–':>{SQUARE - 1}} "), QUIET)
    if each.chance:
        return Text(f"{f'({each.shown})':>{SQUARE}}", QUIET)
    return Text(f"{each.shown:>{SQUARE - 1}} ", BOLD)


# ---- sanity --------------------------------------------------------------------------------------------------------


def _tested(pen: Pen, found: Sequence[Checked]) -> Iterator[RenderableType]:
    if not found:
        yield pen.text(UNTESTED, QUIET)
        return
    yield pen.text("similarity after a change, and from which on nothing depends on it", BOLD)
    table = Table.grid(padding=(0, GAP, 0, 0))
    table.add_column(no_wrap=True)
    table.add_row(Text(), *(pen.text(each, QUIET) for each in ("random weights", "another class", "another input")))
    for each in found:
        cells = []
        for answer in each.answers:
            style = Style(color=word_colour("reject", dark=pen.dark), bold=True)
            fails = answer is not None and answer.depends is False
            shown = f"{answer.shown} of {answer.bound}: {answer.word}" if answer else "not tested"
            cells.append(pen.text(_plain(pen, shown), style if fails else NONE if answer else QUIET))
        table.add_row(pen.text(each.method, BOLD, columns=NAME), *cells)
    yield Padding(table, (0, 0, 0, 2))
