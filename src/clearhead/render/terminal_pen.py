"""What the terminal outputs draw with: characters, styles and colours as the console can show them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from clearhead.render import colours
from clearhead.render.agreement import MARKS, Agreement
from clearhead.render.texts import shortened

WIDEST = 100  # columns: bars and tables do not get clearer beyond

QUIET = Style(dim=True)
BOLD = Style(bold=True)
FAULT = Style(bold=True, color="red")
NONE = Style.null()

KEY = "# for, strongly; + for; = against, strongly; - against"  # what `sign` means
KEY_POSITIVE = "# much; + some; . hardly any"  # where no number is negative
DISKS_ASCII: dict[Agreement, str] = {"agree": "*", "weak": "~", "chance": "o", "unknown": "?"}


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
    half: str  # the upper half of a cell
    arrow: str
    nothing: str


BLOCKS = Marks(full="▄", left="▗", right="▖", axis="│", dot=" · ", cut="…", good="✓", half="▀", arrow="→", nothing="·")
RULE = box.Box("    \n    \n    \n    \n ── \n    \n    \n    \n")  # a line above the total and nothing else
RULE_ASCII = box.Box("    \n    \n    \n    \n -- \n    \n    \n    \n", ascii=True)
ASCII = Marks(full="#", left="", right="", axis="|", dot=" | ", cut="~", good="ok:", half="", arrow="->", nothing=".")


@dataclass(frozen=True, kw_only=True)
class Pen:
    """What the console can do; `painted` if it shows enough colours for a picture."""

    width: int
    marks: Marks
    encoding: str
    dark: bool
    painted: bool

    @classmethod
    def of(cls, console: Console) -> Pen:
        """The pen for a console."""
        plain = console.options.ascii_only
        rich_colours = not console.no_color and console.color_system in {"truecolor", "256"}
        return cls(
            width=min(console.width, WIDEST),
            marks=ASCII if plain else BLOCKS,
            encoding=console.encoding if plain else "utf-8",
            dark=_is_dark(),
            painted=rich_colours and not plain,
        )

    def text(self, words: str, style: Style | str = "", *, columns: int | None = None) -> Text:
        """Words as they are, never markup, in so many columns; what the console cannot write is an escape."""
        written = words.encode(self.encoding, "backslashreplace").decode(self.encoding)
        return Text(written if columns is None else _fitted(written, columns, self.marks.cut), style=style)

    def right(self, words: str, columns: int, style: Style | str = "") -> Text:
        """Words at the right end of so many columns."""
        made = self.text(words, style, columns=columns)
        made.pad_left(columns - made.cell_len)
        return made

    def tone(self, intensity: float, *, quiet: bool = False) -> Style:
        """Strong units are bold and those against the target underlined, for terminals without colour."""
        step = colours.level(intensity)
        if step == 0:
            return QUIET if quiet else NONE
        ground = colours.scale(intensity, dark=self.dark)
        bold, against = abs(step) * 2 >= colours.LEVELS, step < -1
        return Style(color=colours.ink(ground), bgcolor=ground, bold=bold or None, underline=against or None)

    def disk(self, state: Agreement) -> Text:
        """Whether a cross-check agrees: a disk in its colour, or a sign where there are no such characters."""
        mark = MARKS[state] if self.encoding == "utf-8" else DISKS_ASCII[state]
        return Text(mark, Style(color=colours.calm(state, dark=self.dark), bold=True))

    @property
    def rule(self) -> box.Box:
        """A line above the total of a table."""
        return RULE if self.marks is BLOCKS else RULE_ASCII

    @property
    def ground(self) -> str:
        """The colour that the terminal's ground is taken to have."""
        return colours.palette(dark=self.dark).ground


def sign(intensity: float) -> str:
    """One character for a square without colour: # and + speak for, = and - against, strong and weak."""
    strong, weak = ("#", "+") if intensity > 0 else ("=", "-")
    return strong if abs(intensity) >= 0.5 else weak if abs(intensity) >= 0.1 else "."


def _fitted(text: str, columns: int, cut: str) -> str:
    """The text in so many columns; some characters take two."""
    fitting = (shortened(text, length, cut) for length in range(max(1, columns), 0, -1))
    return next((each for each in fitting if cell_len(each) <= columns), "")


def _is_dark() -> bool:
    """Whether the terminal's ground is dark: some say so in COLORFGBG, and most are."""
    ground = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return ground not in {"7", "15"}
