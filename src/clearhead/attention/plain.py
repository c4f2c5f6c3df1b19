"""The attention of one layer, read at the position of the target: what most tools show, and no more than that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from clearhead.attention.making import BLIND, Looked, Shares, each, made
from clearhead.attention.mixing import Mixing, resampled
from clearhead.config import Settings
from clearhead.errors import UsageError, suggest
from clearhead.maps import RelevanceMap
from clearhead.question import Question
from clearhead.sight.capture import Layer, Row


def attention(question: Question, settings: Settings) -> Iterator[tuple[int, RelevanceMap]]:
    r"""The row of the target's position in one layer: $R_k = \sum_q r_q F_{qk}$, the last layer where none is chosen.

    F are the weights, the heads' mean (or max, or min) or that of chosen `heads`; r the positions that the target is
    read from. Of a decoder that looks at an encoder both attentions of a layer are given, half the weight each.
    Raises UsageError for a layer or head that does not exist, ModelError without attention.
    """
    mixing = Mixing.of(settings)
    for i, looked, notes in each(question):
        yield i, made(looked, _shares(looked, mixing, settings.layer), "attention", notes)


def _shares(looked: Looked, mixing: Mixing, wanted: int | str | None) -> Shares:
    found: dict[Row, Tensor] = {}
    notes = []
    for row, reads in looked.begin.items():
        looks = [_layers(looked.sight.layers, row, crossing=crossing) for crossing in (False, True)]
        chosen = [chosen_layer(layers, wanted) for layers in looks if layers]
        for layer in chosen:
            amounts = resampled(looked.sight, row, reads, layer.site.queries)
            given = amounts.new_zeros(layer.site.keys)
            for rows, table in mixing.tables(layer, amounts.nonzero().flatten()):
                given[: table.shape[-1]] += amounts[rows] @ table.to(amounts.dtype)
            found[layer.key] = found.get(layer.key, 0) + given / len(chosen)
            notes.append(f"Weights of {layer.site.place.module or 'the model'}, {_heads(mixing, layer)}.")
    return Shares(amounts=found, notes=(*notes, BLIND))


def _heads(mixing: Mixing, layer: Layer) -> str:
    count = layer.site.heads
    which = f"heads {', '.join(map(str, mixing.heads))} of {count}" if mixing.heads else f"all {count} heads"
    return f"{mixing.fusion} of {which}"


def _layers(layers: Sequence[Layer], row: Row, *, crossing: bool) -> list[Layer]:
    """The attentions in which a sequence asks: itself, or another one."""
    return [layer for layer in layers if layer.query == row and layer.crossing == crossing]


def chosen_layer(layers: Sequence[Layer], wanted: int | str | None) -> Layer:
    """The layer by its number, from the end below 0, or by the path of its module. Raises UsageError."""
    if wanted is None:
        return layers[-1]
    paths = [layer.site.place.module for layer in layers]
    if isinstance(wanted, int):
        if not -len(layers) <= wanted < len(layers):
            raise UsageError(
                f"`layer` must be a number from 0 to {len(layers) - 1}, or below 0 from the end; found {wanted}."
            )
        return layers[wanted]
    exact = [
        layer for layer, path in zip(layers, paths, strict=True) if path == wanted or path.startswith(f"{wanted}.")
    ]
    if len(exact) != 1:
        raise UsageError(
            f"`layer` must be the path of one module with attention; {wanted!r} holds {len(exact)}."
            f"{suggest(wanted, paths)}"
        )
    return exact[0]
