"""Attention as a drawing needs it: every head small, the mean of each layer large, and how spread it is.

Weights are asked for layer by layer, and of long inputs only means over stretches of them are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, isqrt, log2
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from clearhead.render.scene import beginning, pairs
from clearhead.render.texts import token, visible
from clearhead.render.verdicts import Verdict

if TYPE_CHECKING:
    from clearhead.attentions import AttentionMaps, LayerMap, StreamMaps
    from clearhead.units import Unit

SMALL, LARGE = 48, 192  # dots along the side of a head and of a mean over heads, at most
GAP = 6  # a sixth of a head's side lies empty behind it
MOST_DOTS = 1_500_000  # of all heads of a stream, and of all its means
LABELLED = 48  # units up to which each has its label beside the mean
EMPTY = Verdict(
    state="unclaimed",
    words="Weights of attention",
    reason="those of each row add up to 1, or to less where a model has sinks that are no units.",
)

Dots = NDArray[np.uint8]  # opacity, 255 for the largest weight


@dataclass(frozen=True, kw_only=True)
class Head:
    """One head: how spread its rows are, in bits and as a share of the most there can be."""

    number: int
    bits: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer; `most` is the unit that all queries together looked at most, and its share of all looks."""

    number: int
    label: str
    heads: tuple[Head, ...]
    shape: tuple[int, int]
    bits: float
    most_bits: float
    most: str
    share: float
    largest: float
    small: tuple[Dots, ...]
    mean: Dots
    queries: tuple[str, ...]
    keys: tuple[str, ...]

    @property
    def spread(self) -> float:
        """The mean entropy as a share of the most there can be."""
        return _part(self.bits, self.most_bits)

    @property
    def whole(self) -> bool:
        """Whether the mean has a dot for each weight."""
        return self.mean.shape == self.shape

    @property
    def said(self) -> str:
        """Entropy and the unit looked at most, in words."""
        entropy = f"entropy {self.bits:.2f} of {self.most_bits:.2f} bits"
        return f"{entropy}; looked at most: {self.most}, {100 * self.share:.0f} %"


@dataclass(frozen=True, kw_only=True)
class Tower:
    """The layers of one stream."""

    name: str
    layers: tuple[Layer, ...]
    side: int

    @property
    def widest(self) -> int:
        """The most heads of any layer."""
        return max(len(layer.heads) for layer in self.layers)

    @property
    def size(self) -> str:
        """Layers, heads, queries and keys, in words."""
        heads = {len(layer.heads) for layer in self.layers}
        shapes = {layer.shape for layer in self.layers}
        of_heads = f" of {_plural(heads.pop(), 'head')}" if len(heads) == 1 else ""
        tall, wide = next(iter(shapes))
        looks = f", {_plural(tall, 'unit')} looking at {wide:,}" if len(shapes) == 1 else ""
        return f"{_plural(len(self.layers), 'layer')}{of_heads}{looks}"

    def sprite(self) -> Dots:
        """All heads in one image: a row per layer, a column per head, a sixth of their side empty behind each."""
        gap = self.side // GAP
        step = self.side + gap
        whole = np.zeros((len(self.layers) * step, self.widest * step), dtype=np.uint8)
        for row, layer in enumerate(self.layers):
            for column, dots in enumerate(layer.small):
                top, left = row * step, column * step
                whole[top : top + self.side, left : left + self.side] = dots
        return whole


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Everything there is to draw about the attention of one input."""

    kind: ClassVar[str] = "attention"

    model: str
    task: str
    towers: tuple[Tower, ...]
    texts: tuple[tuple[str, str], ...]
    meaning: str
    verdict: Verdict
    warnings: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    fingerprint: str
    method: ClassVar[str] = "attention"
    cross_check: ClassVar[tuple[tuple[str, str], ...]] = ()

    @property
    def heading(self) -> str:
        """What was read, in a few words."""
        return beginning(self.texts[0][1]) if self.texts else "Attention"

    @property
    def figure(self) -> str:
        """How much there is of it."""
        return _plural(sum(len(tower.layers) for tower in self.towers), "layer")

    @property
    def excerpt(self) -> str:
        """The streams."""
        return " / ".join(f"{tower.name}, {tower.size}" for tower in self.towers)


def looks(found: AttentionMaps) -> Looks:
    """The scene of an input's attention."""
    from clearhead.attentions import WHAT_IT_IS

    return Looks(
        model=visible(found.model),
        task=visible(found.task),
        towers=tuple(_tower(stream) for stream in found if len(stream)),
        texts=tuple((visible(name), visible(text)) for name, text in found.texts.items() if text.strip()),
        meaning=WHAT_IT_IS,
        verdict=EMPTY,
        warnings=tuple(visible(warning) for warning in found.warnings),
        settings=(*pairs(found.recipe.settings), *pairs({"seed": found.recipe.seed, "dtype": found.recipe.dtype})),
        versions=pairs(found.recipe.versions),
        fingerprint=visible(found.recipe.model_fingerprint) if found.recipe.model_fingerprint else "",
    )


def _tower(stream: StreamMaps) -> Tower:
    heads = sum(layer.heads for layer in stream)
    small = max(GAP, min(SMALL, isqrt(MOST_DOTS // max(1, heads))) // GAP * GAP)
    large = max(small, min(LARGE, isqrt(MOST_DOTS // len(stream))))
    layers = tuple(_layer(n, layer, small, large) for n, layer in enumerate(stream))
    return Tower(name=visible(stream.name), layers=layers, side=small)


def _layer(number: int, layer: LayerMap, small: int, large: int) -> Layer:
    """One layer, of which nothing but `large` by `large` dots per head is in memory at a time."""
    _, tall, wide = layer.shape
    fine, entropy, looked = layer.thumbnails(large), layer.entropy(), _looked(layer)
    most_bits = log2(wide) if wide > 1 else 0.0
    first = int(looked.argmax()) if wide else 0
    mean = fine.mean(0)
    labelled = max(tall, wide) <= LABELLED
    return Layer(
        number=number,
        label=visible(layer.label) if layer.label else "",
        heads=tuple(
            Head(number=n, bits=float(bits), spread=_part(float(bits), most_bits)) for n, bits in enumerate(entropy)
        ),
        shape=(tall, wide),
        bits=float(entropy.mean()) if len(entropy) else 0.0,
        most_bits=most_bits,
        most=token(layer.keys[first].text) if wide else "nothing",
        share=float(looked[first]) if wide else 0.0,
        largest=float(mean.max()) if mean.size else 0.0,
        small=tuple(_dots(sized(head, small, small)) for head in fine),
        mean=_dots(mean),
        queries=_labels(layer.queries) if labelled else (),
        keys=_labels(layer.keys) if labelled else (),
    )


def _part(bits: float, most: float) -> float:
    """A share, 0 to 1, of the most there can be; 0 of what is no number."""
    return min(1.0, max(0.0, bits / most)) if most and isfinite(bits) else 0.0


def _looked(layer: LayerMap) -> NDArray[np.float64]:
    """The share of all looks that each key gets, the mean over heads and queries [keys]."""
    held, mass = np.zeros(len(layer.keys)), 0.0
    for _, weights in layer.blocks(None):
        held += weights.mean(0).sum(0)
        mass += float(weights.mean(0).sum())
    return held / mass if mass else held


def sized(dots: NDArray[np.float64], tall: int, wide: int) -> NDArray[np.float64]:
    """Exactly `tall` by `wide`: means of stretches where there are more, repeated where there are fewer."""
    if not dots.size:
        return np.zeros((tall, wide))
    for axis, side in enumerate((tall, wide)):
        length = dots.shape[axis]
        begins = np.arange(side) * length // side
        if length > side:
            count = np.diff(begins, append=length)
            dots = np.add.reduceat(dots, begins, axis=axis) / (count[:, None] if axis == 0 else count)
        else:
            dots = np.take(dots, begins, axis=axis)
    return dots


def _dots(weights: NDArray[np.float64]) -> Dots:
    """The square root of each weight by the largest, in 8 bits: in equal steps, all but the largest would vanish."""
    known = np.clip(np.nan_to_num(weights, posinf=0.0), 0.0, None)
    largest = known.max() if known.size else 0.0
    made: Dots = np.round(255 * np.sqrt(known / largest if largest else known)).astype(np.uint8)
    return made


def _labels(units: Sequence[Unit]) -> tuple[str, ...]:
    return tuple(token(unit.text) for unit in units)


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
