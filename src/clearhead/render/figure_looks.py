"""Attention as a figure: every head of each stream, and the mean over the heads of its last layer."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from clearhead.render.figure_parts import LOOK, title, typeset, write, writing
from clearhead.render.paint import shades
from clearhead.render.texts import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from clearhead.render.looks import Dots, Looks, Tower

WIDTH, HEAD, LEAST, REST = 10.0, 0.42, 2.6, 1.5  # inches: the figure's width, a head's side, a row's height, the rest
ACROSS = 130  # characters of a line of words
LINE = 0.25  # inches that it is high
LABEL, TITLE = 10, 60  # characters
NAMED = 24  # units up to which a mean has labels


def figure(drawing: Looks) -> tuple[Figure, list[Axes]]:
    """A figure with two axes per stream, all heads and the last mean, and one with what attention is."""
    said = [line for each in (drawing.verdict.sentence, drawing.meaning) for line in wrap(each, ACROSS)]
    heights = [max(LEAST, HEAD * len(tower.layers)) for tower in drawing.towers]
    tall = LINE * len(said)
    made = Figure(figsize=(WIDTH, sum(heights) + tall + REST), facecolor=LOOK.ground)
    made.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    made.suptitle(shortened(drawing.heading, TITLE), x=0.02, ha="left", **writing(size=14, weight="bold"))
    grid = made.add_gridspec(len(heights) + 1, 2, height_ratios=[*heights, tall], width_ratios=(3, 2))
    axes: list[Axes] = []
    for n, tower in enumerate(drawing.towers):
        axes += [made.add_subplot(grid[n, 0]), made.add_subplot(grid[n, 1])]
        _heads(axes[-2], tower)
        _mean(axes[-1], tower)
    axes.append(made.add_subplot(grid[-1, :]))
    write(axes[-1], said)
    return made, axes


def _heads(axes: Axes, tower: Tower) -> None:
    """The image of all heads, with the numbers of layers and heads where they are few enough to be read."""
    _painted(axes, tower.sprite())
    step, middle = tower.side * 7 / 6, tower.side / 2
    for count, set_ticks in ((len(tower.layers), axes.set_yticks), (tower.widest, axes.set_xticks)):
        named = range(0, count, max(1, count // 16))
        set_ticks([n * step + middle for n in named], [str(n) for n in named], **writing(size=7, colour=LOOK.quiet))
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    title(axes, f"{shortened(tower.name, 24)}: {tower.size}; layers down, heads across")


def _mean(axes: Axes, tower: Tower) -> None:
    layer = tower.layers[-1]
    _painted(axes, layer.mean)
    look = writing(size=7)
    axes.set_xticks([])
    axes.set_yticks([])
    if 0 < max(len(layer.keys), len(layer.queries)) <= NAMED:
        axes.set_xticks(range(len(layer.keys)), [shortened(each, LABEL) for each in layer.keys], rotation=90, **look)
        axes.set_yticks(range(len(layer.queries)), [shortened(each, LABEL) for each in layer.queries], **look)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_color(LOOK.neutral)
        side.set_linewidth(0.4)
    end = typeset(f"{layer.largest:.3f}")
    title(axes, f"layer {layer.number}, mean of heads; full colour at {end}")


def _painted(axes: Axes, dots: Dots) -> None:
    axes.set_facecolor(LOOK.ground)
    if dots.size:
        axes.imshow(shades(dots.astype(np.float64) / 255), interpolation="nearest")
