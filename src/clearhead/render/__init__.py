"""Maps drawn: in the terminal, as a page, as a figure, as data. Nothing here knows models or methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clearhead.render.files import SUFFIXES, check_writable, save

if TYPE_CHECKING:
    from rich.console import Console

    from clearhead.render.drawings import Item

__all__ = ["SUFFIXES", "check_writable", "fragment", "save", "show"]


def show(maps: Sequence[Item], console: Console | None = None) -> None:
    """Print maps to the terminal, or to a console of your own."""
    from clearhead.render import terminal

    terminal.show(maps, console)


def fragment(maps: Sequence[Item]) -> str:
    """HTML for a notebook: the maps with their style, which leaves the page round them alone."""
    from clearhead.render import html

    return html.fragment(maps)
