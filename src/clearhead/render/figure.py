"""A map as a matplotlib figure: a bar per unit, and the books as a waterfall.

Only `matplotlib.figure` is used, never `pyplot`: no window, no global state.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import font_manager, rc_context
from matplotlib.figure import Figure

from clearhead.render import colours
from clearhead.render.books import Books, Step
from clearhead.render.scene import Scene, Stream, scene
from clearhead.render.texts import Amount, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from clearhead.maps import RelevanceMap

BARS = 24  # units with a bar of their own
LABEL = 28  # characters of a name
TITLE = 44  # characters of the target above the figure
MARGIN = 0.12  # inches
WIDTH, ROW, REST = 8.0, 0.24, 1.7  # inches: the figure's width, a row's height, titles and margins
DOTS = 200  # per inch, in a PNG
SALT = "clearhead"  # so that the same map gives the same SVG
BAR, THIN = 0.56, 0.2  # heights of bars, in rows

# Tried in turn for letters that the default font lacks, if they are installed.
FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Emoji",
    "Segoe UI Symbol",
)

_LOOK = colours.LIGHT


def figure(found: RelevanceMap) -> tuple[Figure, list[Axes]]:
    """A figure with one axes per stream and, last, the axes of the books; of many units the largest have bars."""
    drawing = scene(found)
    streams = [stream for stream in drawing.streams if stream.tokens]
    rows = max((min(len(stream.tokens), BARS + 1) for stream in streams), default=1)
    lines = 1 + sum(1 + len(step.parts) for step in drawing.books.steps)
    made = Figure(figsize=(WIDTH, REST + ROW * (rows + lines)), facecolor=_LOOK.ground)
    made.set_layout_engine("constrained", w_pad=MARGIN, h_pad=MARGIN)
    grid = made.add_gridspec(2, max(1, len(streams)), height_ratios=[rows, lines])
    heading = f"{shortened(drawing.target, TITLE)} = {_typeset(drawing.value.shown)}"
    made.suptitle(heading, x=0.02, ha="left", **_writing(size=14, weight="bold"))
    axes = []
    for n, stream in enumerate(streams):
        axes.append(made.add_subplot(grid[0, n]))
        _chart(axes[-1], drawing, stream, rows, named=len(streams) > 1)
    axes.append(made.add_subplot(grid[1, :]))
    _books(axes[-1], drawing)
    return made, axes


def image(found: RelevanceMap, kind: str) -> bytes:
    """The figure as the bytes of a PNG or SVG; the same map gives the same bytes."""
    made, _ = figure(found)
    data = io.BytesIO()
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    with rc_context({"svg.hashsalt": SALT, "svg.fonttype": "none"}), warnings.catch_warnings():
        # A letter that no installed font has is drawn as a box, and is no reason to speak up.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        made.savefig(data, format=kind, dpi=DOTS, metadata=metadata)
    return data.getvalue()


# ---- units ---------------------------------------------------------------------------------------------------------


def _chart(axes: Axes, drawing: Scene, stream: Stream, rows: int, *, named: bool) -> None:
    """A bar per unit in reading order; of many, the largest, and a line for what the others sum to."""
    shown, others = stream.chosen(BARS)
    _prepare(axes, drawing.axis.low, drawing.axis.high, rows)
    for row, token in enumerate(shown):
        colour = colours.strong(token.amount.value)
        _bar(axes, row, 0.0, token.amount.value, colour)
        _row(axes, row, shortened(token.name, LABEL), token.amount, _LOOK.quiet if token.special else _LOOK.ink)
    if others:
        total = drawing.digits.sum(token.amount for token in others)
        _row(axes, len(shown), f"{len(others)} others", total, _LOOK.quiet)
    title = f"{stream.name} {_typeset(stream.total.shown)}" if named else f"{drawing.method} · {drawing.model}"
    _title(axes, shortened(title, 40 if named else 80))


# ---- books ---------------------------------------------------------------------------------------------------------


def _books(axes: Axes, drawing: Scene) -> None:
    """The books from the first line to the value, each bar beginning where the one before it ended."""
    books, verdict = drawing.books, drawing.verdict
    lines = [line for step in books.steps for line in (step, *step.parts)]
    _prepare(axes, books.axis.low, books.axis.high, len(lines) + 1)
    for row, step in enumerate(lines):
        part = step.kind in {"for", "against"}
        _bar(axes, row, step.start, step.end, _colour(step), height=THIN if part else BAR)
        _row(
            axes,
            row,
            shortened(drawing.wording(step), LABEL),
            step.amount,
            _LOOK.quiet if part or step.kind == "open" else _LOOK.ink,
        )
    _total(axes, books, len(lines), shortened(drawing.target, LABEL))
    _title(axes, f"{verdict.words} · conservation error {_typeset(verdict.conservation_error)}")


def _total(axes: Axes, books: Books, row: int, label: str) -> None:
    axes.axhline(row - 0.5, color=_LOOK.ink, linewidth=0.8)
    _bar(axes, row, 0.0, books.value.value, _LOOK.ink)
    _row(axes, row, label, books.value, _LOOK.ink, weight="bold")


def _colour(step: Step) -> str:
    counted = step.kind in {"units", "for", "against"}
    return colours.strong(step.amount.value) if counted else _LOOK.neutral


# ---- pieces --------------------------------------------------------------------------------------------------------


def _prepare(axes: Axes, low: float, high: float, rows: int) -> None:
    """Empty axes with one row per line from the top, and a hairline at zero."""
    axes.set_facecolor(_LOOK.ground)
    axes.set_xlim(low, high)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.axvline(0.0, color=_LOOK.neutral, linewidth=0.6, zorder=0)


def _bar(axes: Axes, row: int, start: float, end: float, colour: str, *, height: float = BAR) -> None:
    axes.barh(row, end - start, left=start, height=height, color=colour, linewidth=0)


def _row(axes: Axes, row: int, label: str, amount: Amount, colour: str, *, weight: str = "normal") -> None:
    """The name to the left of a row and the number to its right, neither read as mathematics."""
    beside = {"transform": axes.get_yaxis_transform(), "va": "center", **_writing(size=9, weight=weight, colour=colour)}
    axes.text(-0.015, row, label, ha="right", **beside)
    axes.text(1.015, row, _typeset(amount.shown), ha="left", **beside)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", **_writing(size=9, colour=_LOOK.quiet))


def _writing(*, size: float, weight: str = "normal", colour: str = _LOOK.ink) -> dict[str, Any]:
    """How a text is set, whatever the user's own defaults are."""
    return {
        "fontsize": size,
        "fontweight": weight,
        "color": colour,
        "fontfamily": _families(),
        "parse_math": False,
        "usetex": False,
    }


def _families() -> Sequence[str]:
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in FONTS if name in installed)]


def _typeset(number: str) -> str:
    return number.replace("-", "−")
