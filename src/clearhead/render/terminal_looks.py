"""Attention in the terminal: a line per layer, and the mean over the heads of the last one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from rich.padding import Padding
from rich.style import Style
from rich.text import Text

from clearhead.render import colours
from clearhead.render.looks import Layer, Looks, Tower, sized
from clearhead.render.terminal import audit, warned
from clearhead.render.terminal_pen import BOLD, KEY_POSITIVE, QUIET, Pen, sign

if TYPE_CHECKING:
    from rich.console import RenderableType

TRACK = 16  # columns of the bar of an entropy
NAME = 16  # columns of the unit looked at most
SIDE = 24  # squares along the side of a mean, at most


def drawn(pen: Pen, drawing: Looks) -> Iterator[RenderableType]:
    """The parts of an input's attention, from top to bottom."""
    yield pen.text(f"{drawing.heading} ({drawing.figure})", BOLD)
    yield pen.text(pen.marks.dot.join((drawing.method, drawing.task, drawing.model)), QUIET)
    yield audit(pen, drawing.verdict)
    yield pen.text(drawing.meaning, QUIET)
    yield from warned(pen, drawing.warnings)
    for tower in drawing.towers:
        yield Text()
        yield Text.assemble(pen.text(tower.name, BOLD), pen.text(f" {tower.size}", QUIET))
        yield Padding(Text("\n").join(_lines(pen, tower)), (0, 0, 0, 2))
        yield Padding(Text("\n").join(_mean(pen, tower.layers[-1])), (1, 0, 0, 2))


def _lines(pen: Pen, tower: Tower) -> Iterator[Text]:
    """Per layer: how spread its looks are, and the unit looked at most with its share of all looks."""
    yield pen.text(f"{'layer':>5}  {'entropy in bits':<{TRACK + 6}} looked at most", QUIET)
    for layer in tower.layers:
        bar = (pen.marks.full * round(TRACK * layer.spread)).ljust(TRACK)
        style = Style(color=colours.strong(1, dark=pen.dark))
        line = Text.assemble(f"{layer.number:>5}  ", (bar, style), f" {layer.bits:5.2f} ")
        name = pen.text(layer.most, columns=NAME)
        name.pad_right(NAME - name.cell_len)
        line.append_text(name).append(f" {layer.share:.3f}")
        yield line


def _mean(pen: Pen, layer: Layer) -> Iterator[Text]:
    """The mean over the heads in squares, a row per query; of many, means over stretches."""
    tall, wide = (min(SIDE, max(1, each)) for each in layer.mean.shape)
    room = min(wide, (pen.width - 4) // 2)
    yield pen.text(f"layer {layer.number}, mean over its heads: rows look, columns are looked at", QUIET)
    for row in sized(layer.mean.astype(np.float64) / 255, tall, room):
        yield Text().join(_square(pen, float(each)) for each in row)
    if not pen.painted:
        yield pen.text(KEY_POSITIVE, QUIET)


def _square(pen: Pen, share: float) -> Text:
    if not pen.painted:
        return Text(2 * sign(share))
    return Text("  ", Style(bgcolor=colours.scale(share, dark=pen.dark)))
