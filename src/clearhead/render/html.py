"""Maps as HTML: one page that needs no network and no scripts, or a fragment for notebooks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from clearhead.render import clusterings, colours, paint
from clearhead.render.agreement import Tally
from clearhead.render.books import Axis
from clearhead.render.drawings import drawings
from clearhead.render.pictures import MANY
from clearhead.render.texts import shortened

if TYPE_CHECKING:
    from jinja2 import Environment

    from clearhead.render.drawings import Item

BARS = 24  # units with a bar of their own in sight; the rest is a click away
LABEL = 14  # characters beside a table of attention
LEAKS = 8  # modules per cause, the same

_TEMPLATES = "templates"


def page(maps: Sequence[Item]) -> str:
    """One self-contained page with a section per map, and an index where there are several."""
    scenes = drawings(maps)
    return _environment().get_template("page.html.jinja").render(scenes=scenes, **_constants())


def fragment(maps: Sequence[Item]) -> str:
    """The sections of the maps with their style, for a page that is already there."""
    scenes = drawings(maps)
    return _environment().get_template("fragment.html.jinja").render(scenes=scenes, **_constants())


def _constants() -> Mapping[str, Any]:
    levels = [(sign, step) for sign in (1, -1) for step in range(1, colours.LEVELS + 1)]
    return {
        "light": colours.LIGHT,
        "dark": colours.DARK,
        "heat_plus": colours.HEAT_PLUS,
        "heat_minus": colours.HEAT_MINUS,
        "levels": [_level(sign, step) for sign, step in levels],
        "bars": BARS,
        "leaks": LEAKS,
        "many": MANY,
    }


def _level(sign: int, step: int) -> dict[str, str]:
    light, dark = (colours.scale(sign * step / colours.LEVELS, dark=dark) for dark in (False, True))
    return {
        "name": _step_name(sign * step),
        "light": light,
        "dark": dark,
        "light_ink": colours.ink(light),
        "dark_ink": colours.ink(dark),
    }


def _step_name(step: int) -> str:
    return f"p{step}" if step > 0 else f"m{-step}" if step < 0 else "zero"


def _tone(intensity: float) -> str:
    """The classes of a token's background."""
    step = colours.level(intensity)
    return f"{_step_name(step)} against" if step < -1 else _step_name(step)


def _opacity(intensity: float) -> str:
    """How much of the picture below a relevance hides."""
    return f"{colours.COVER * abs(intensity):.2f}"


def _place(axis: Axis, start: float, end: float) -> str:
    """The place of a bar from one running total to another, as a style: texts never come here, only numbers."""
    left, right = sorted((axis.at(start), axis.at(end)))
    return f"left:{100 * left:.3f}%;width:{100 * (right - left):.3f}%"


def _part(found: Tally, number: int) -> str:
    """The place of the rows of one verdict in a bar of all rows, as a style."""
    before = sum(count for *_, count in found.counts[:number])
    return _place(Axis(0.0, float(found.rows)), before, before + found.counts[number][2])


def _signs(text: str) -> str:
    """A sentence with true minus signs before its numbers."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def _bare(number: str) -> str:
    """A number below 1 without the zero before its point, where there is little room."""
    return number.replace("0.", ".", 1) if number.lstrip("-").startswith("0.") else number


def _hyphened(word: str) -> str:
    """A long word with soft hyphens where a narrow column may break it."""
    for ending in ("siveness", "sitivity", "ciency", "delity"):
        word = word.replace(ending, f"\u00ad{ending}")
    return word


def _typeset(number: str) -> str:
    """A number with a true minus sign."""
    return number.replace("-", "−")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("clearhead.render", _TEMPLATES),
        autoescape=True,  # always, whatever a template is called
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(tone=_tone, typeset=_typeset, step=lambda each: _step_name(colours.level(each)))
    environment.filters.update(
        hyphened=_hyphened, signs=_signs, bare=_bare, capitalize_first=lambda text: text[:1].upper() + text[1:]
    )
    environment.filters["short"] = lambda text: shortened(text, LABEL)
    environment.globals.update(
        place=_place,
        part=_part,
        opacity=_opacity,
        overlay=paint.overlay,
        faded=paint.faded,
        under=paint.under,
        extent=paint.extent,
        described=paint.described,
        where=paint.where,
        mark=clusterings.drawn,
    )
    return environment
