"""The pieces that figures are made of, whatever the user's own defaults are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import font_manager
from matplotlib.colors import ListedColormap
from matplotlib.transforms import blended_transform_factory

from clearhead.render import colours
from clearhead.render.texts import Amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR, THIN = 0.56, 0.2  # heights of bars, in rows
LOOK = colours.LIGHT

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


def prepare(axes: Axes, low: float, high: float, rows: int) -> None:
    """Empty axes with one row per line from the top, and a hairline at zero."""
    axes.set_facecolor(LOOK.ground)
    axes.set_xlim(low, high)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.axvline(0.0, color=LOOK.neutral, linewidth=0.6, zorder=0)


def bar(axes: Axes, place: int, start: float, end: float, colour: str, *, height: float = BAR) -> None:
    """A bar from one number to another."""
    axes.barh(place, end - start, left=start, height=height, color=colour, linewidth=0)


def row(axes: Axes, place: int, label: str, amount: Amount, colour: str, *, weight: str = "normal") -> None:
    """The name to the left of a row and the number to its right, neither read as mathematics."""
    beside = {"transform": axes.get_yaxis_transform(), "va": "center", **writing(size=9, weight=weight, colour=colour)}
    axes.text(-0.015, place, label, ha="right", **beside)
    axes.text(1.015, place, typeset(amount.shown), ha="left", **beside)


def title(axes: Axes, text: str) -> None:
    """What an axes shows, quietly above it."""
    axes.set_title(text, loc="left", **writing(size=9, colour=LOOK.quiet))


def write(axes: Axes, lines: Sequence[str]) -> None:
    """Lines of words and nothing else, from the left of the figure."""
    axes.set_axis_off()
    place = blended_transform_factory(axes.figure.transFigure, axes.transAxes)
    words = axes.text(0.02, 1, "\n".join(lines), va="top", transform=place, linespacing=1.5, **writing(size=9))
    words.set_in_layout(False)


def writing(*, size: float, weight: str = "normal", colour: str = LOOK.ink) -> dict[str, Any]:
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


def typeset(number: str) -> str:
    """A number with a true minus sign."""
    return number.replace("-", "−")


def colour_map(steps: int = 201, *, positive: bool = False) -> ListedColormap:
    """The diverging scale of all outputs, from against to for; or of numbers that are never negative its one side."""
    half = steps // 2
    return ListedColormap([colours.scale(step / half) for step in range(0 if positive else -half, half + 1)])
