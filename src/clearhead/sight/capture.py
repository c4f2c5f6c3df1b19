"""A question's forward passes, watched: every attention in order, and which units its positions are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clearhead.errors import ClearheadError, ModelError
from clearhead.question import Grid, Layout, Pass, Question, failed, uncached
from clearhead.sight.edge import Edge
from clearhead.sight.sites import Site
from clearhead.sight.watch import Beside, Watch, started

Gradients = Literal["late", "each", "through"]


@dataclass(frozen=True, slots=True)
class Row:
    """A sequence of one pass: the input that its positions stand for, which is empty for a learned query."""

    part: int
    name: str


@dataclass(slots=True, eq=False)
class Layer:
    """One attention, and the sequences that its queries and keys belong to."""

    site: Site
    query: Row
    key: Row

    @property
    def crossing(self) -> bool:
        """Does one sequence look at another?"""
        return self.query != self.key


@dataclass(slots=True, eq=False)
class Sight:
    """What was seen of a question about one item."""

    question: Question
    layers: list[Layer] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    beside: list[tuple[int, Beside]] = field(default_factory=list)

    def covered(self, row: Row, length: int) -> list[tuple[int, ...] | str]:
        """For each position of a sequence the units that it covers, or the name of a learned vector beside them.

        Padding covers nothing. Raises ModelError where the positions of a sequence are not known.
        """
        if not row.name:
            return ["query"] * length
        layout = self.question.items[0].layouts[row.part]
        first = sum(len(each.units) for each in self.question.items[0].layouts[: row.part])
        if layout.grid and row.name in self.question.passes[row.part].explained:
            return _on_grid(layout.grid, length, self._names(row, length), first)
        return _in_text(layout, row.name, self.question.passes[row.part], length, first)

    def _names(self, row: Row, length: int) -> dict[int, str]:
        """The names of learned vectors that stand beside a sequence, by their place."""
        for part, each in reversed(self.beside):
            if part == row.part and len(each.names) == length and row.name in each.origins:
                return {place: name for place, name in enumerate(each.names) if name is not None}
        return {}

    def stream(self, row: Row) -> str:
        """The name of the units that a sequence stands for."""
        layout = self.question.items[0].layouts[row.part]
        if layout.grid and row.name in self.question.passes[row.part].explained:
            return layout.grid.stream
        span = next((span for span in layout.spans if span.ids == row.name), None)
        return layout.units[span.first - layout.spans[0].first].stream if span and not layout.grid else _named(layout)


def _named(layout: Layout) -> str:
    texts = [unit.stream for unit in layout.units if unit.box is None]
    return texts[0] if texts else layout.units[0].stream


def _in_text(layout: Layout, name: str, part: Pass, length: int, first: int) -> list[tuple[int, ...] | str]:
    span = next((each for each in layout.spans if each.ids == name), None)
    ids = part.tensors.get(name)
    if span is None or (isinstance(ids, Tensor) and ids.dim() > 1 and ids.shape[1] != length):
        raise ModelError(
            f"The positions of an attention must be the units of the input; `{name}` has "
            f"{tuple(ids.shape) if isinstance(ids, Tensor) else 'no tensor'}, and the attention {length} positions."
        )
    start = span.offset
    count = span.last - span.first
    begin = span.first if span.first >= first else span.first + first
    return [(begin + p - start,) if start <= p < start + count else () for p in range(length)]


def _on_grid(grid: Grid, length: int, names: Mapping[int, str], first: int) -> list[tuple[int, ...] | str]:
    """Patches, or squares of patches that a model merged, with learned vectors beside them."""
    tall, wide = grid.patches or (grid.rows, grid.columns)
    own = length - len(names)
    side = next((k for k in range(1, max(tall, wide) + 1) if -(-tall // k) * -(-wide // k) == own), None)
    if side is None:
        raise ModelError(
            f"The positions of an attention must be the {tall} x {wide} patches of the image, or squares of them; "
            f"found {own} beside {len(names)} learned vectors."
        )
    columns, found, place = -(-wide // side), list[tuple[int, ...] | str](), 0
    for position in range(length):
        if position in names:
            found.append(names[position])
            continue
        down = _reach(place // columns * side, side, tall, grid.rows)
        across = _reach(place % columns * side, side, wide, grid.columns)
        found.append(tuple(first + grid.first + y * grid.columns + x for y in down for x in across))
        place += 1
    return found


def _reach(begin: int, side: int, patches: int, units: int) -> range:
    """The rows (or columns) of units that some rows of patches cover: the same, or the pixels in them."""
    start = begin * units // patches
    return range(start, max(start + 1, min(begin + side, patches) * units // patches))


# ---- looking -------------------------------------------------------------------------------------------------------


def seen(
    question: Question,
    *,
    gradients: Gradients | None = None,
    put: Callable[[Site], None] = lambda _: None,
) -> Sight:
    """Make the passes of a question about one item, and note every attention as it comes.

    `put` is told of each. Without `gradients` none are recorded; with `"late"` from the end of the last block on; with
    `"each"` from every attention on; with `"through"` from the input on.
    Raises ModelError if there is no attention, or the model fails.
    """
    sight = Sight(question)
    latest: dict[str, int] = {}
    for number, part in enumerate(question.passes):
        sites: list[Site] = []

        def found(site: Site, sites: list[Site] = sites) -> None:
            sites.append(site)
            put(site)

        names = [span.ids for span in question.items[0].layouts[number].spans]
        inputs = [name for name in dict.fromkeys((*names, *part.explained)) if name in part.tensors]
        through = gradients == "through"
        tensors = {
            **part.tensors,
            **({name: started(part.tensors[name])[1] for name in part.explained} if through else {}),
        }
        edge = Edge(question.model) if gradients == "late" else None
        watch = Watch(
            question.model,
            found,
            {name: tensors[name] for name in inputs},
            grid=question.items[0].layouts[number].grid is not None,
            begin=edge or ("attention" if gradients == "each" else "lookup" if through else None),
        )
        sight.outputs.append(called(question, tensors, watch, recording=gradients in ("each", "through")))
        if edge is not None:
            edge.finish(sight.outputs[-1])
        sight.beside += [(number, each) for each in watch.beside]
        for site in sites:
            sight.layers.append(_layer(site, number, latest))
    if not sight.layers:
        raise nothing_found(question.model)
    return sight


def _layer(site: Site, part: int, latest: dict[str, int]) -> Layer:
    """An attention with its sequences: of several inputs it depends on, the one that came into play last is its own."""
    for name in sorted(site.place.query | site.place.key):
        latest.setdefault(name, len(latest))

    def own(origins: frozenset[str]) -> Row:
        return Row(part, max(origins, key=lambda name: latest[name]) if origins else "")

    return Layer(site, own(site.place.query), own(site.place.key))


def called(question: Question, tensors: Mapping[str, Any], watch: Watch, *, recording: bool) -> Any:
    """The output of one pass under a watch, `recording` gradients or not until the watch decides otherwise.

    Raises ModelError if the model fails.
    """
    try:
        with torch.inference_mode(False), torch.set_grad_enabled(recording):
            return watch.tape.under(question.model, **uncached(question.model, tensors))
    except (ClearheadError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise failed(question.model, tensors, error) from error


def nothing_found(model: nn.Module) -> ModelError:
    """The error for a model without attention."""
    return ModelError(
        f"Attention is found where a softmax over keys weighs values by a product, or in a call of "
        f"scaled_dot_product_attention; {type(model).__name__} made neither. A kernel of its own that computes "
        "attention out of sight can often be switched off: load the model with attn_implementation='sdpa'. Methods "
        "that need no attention: lrp, gradcam."
    )
