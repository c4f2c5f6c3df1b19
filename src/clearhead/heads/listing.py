"""The heads of a model in one order, and what a stream lets them see."""

from __future__ import annotations

from collections.abc import Sequence

from clearhead.attentions import AttentionMaps, LayerMap, StreamMaps
from clearhead.errors import UsageError
from clearhead.headreports import Head

_ROWS = 8  # rows of a layer that are asked whether they look ahead


def heads_of(maps: Sequence[AttentionMaps]) -> tuple[Head, ...]:
    """All heads by stream, layer and number, as the first of the maps has them.

    Raises UsageError where there are no maps, or where they are not of one model.
    """
    if not maps:
        raise UsageError("Heads are those of attention maps; found none. Pass what `attention(...)` returned.")
    first = _shape(maps[0])
    for number, each in enumerate(maps):
        if _shape(each) != first:
            raise UsageError(
                f"Maps of one model have the same streams, layers and heads; document {number} has {_shape(each)}, "
                f"the first {first}. Make them all with one model and the same question."
            )
    return tuple(
        Head(stream=stream.name, layer=number, head=head, module=layer.label)
        for stream in maps[0]
        for number, layer in enumerate(stream)
        for head in range(layer.heads)
    )


def looks_at_itself(layer: LayerMap) -> bool:
    """Are the queries the keys? They are not where one text looks at another."""
    return layer.queries == layer.keys


def looks_back(stream: StreamMaps) -> bool:
    """Does every head see earlier keys only, as far as some rows of each layer tell?"""
    return all(looks_at_itself(layer) and not _ahead(layer) for layer in stream)


def _ahead(layer: LayerMap) -> bool:
    last = len(layer.queries) - 1
    chosen = sorted({last * n // _ROWS for n in range(_ROWS)} - {last})
    if not chosen:
        return False
    return any(
        bool((block[:, n, row + 1 :] > 0).any())
        for rows, block in layer.blocks(chosen)
        for n, row in enumerate(rows.tolist())
    )


def _shape(maps: AttentionMaps) -> dict[str, tuple[int, ...]]:
    return {stream.name: tuple(layer.heads for layer in stream) for stream in maps}
