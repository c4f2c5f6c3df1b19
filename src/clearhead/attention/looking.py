"""Attention maps of a question: the streams by name, their layers with labels, weights made when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clearhead.attention.mixing import Mixing
from clearhead.attention.rollout import matrix
from clearhead.attentions import AttentionMaps, Block, LayerMap, StreamMaps
from clearhead.errors import ModelError
from clearhead.question import Question
from clearhead.sight.capture import Layer, Row, Sight, seen
from clearhead.sight.shelf import Shelf
from clearhead.units import Unit

CROSS, POOLING, ENCODER, DECODER = "cross", "pooling", "encoder", "decoder"


def look(question: Question) -> AttentionMaps:
    """The attention of a question about one item. Raises ModelError without attention."""
    with question.evaluated() as notes:
        sight = seen(question, put=Shelf().put)
        (item,) = question.items
        named = stream_names(sight)
        groups: dict[str, list[Layer]] = {}
        for layer in sight.layers:
            groups.setdefault(named[layer.query, layer.key], []).append(layer)
        written = [aim for aim in item.aims if aim.horizon is not None] if item.generation else []
        return AttentionMaps(
            model=question.name,
            task=question.task,
            maps={name: _stream(sight, name, layers) for name, layers in groups.items()},
            units=item.units,
            produced=tuple(_said(sight, aim) for aim in written),
            reads=tuple(int(aim.horizon or 1) - 1 for aim in written),
            texts=item.texts,
            pictures=item.pictures,
            warnings=(*item.warnings, *notes),
            recipe=question.recipe,
        )


def _said(sight: Sight, aim: Any) -> str:
    with torch.no_grad():
        target, _ = aim.ask(sight.outputs, 0)
    return str(target.label)


def stream_names(sight: Sight) -> dict[tuple[Row, Row], str]:
    """The name of the stream of each pair of sequences, of which one looks at the other."""
    own = list(dict.fromkeys(layer.query for layer in sight.layers if not layer.crossing))
    found = {}
    for layer in sight.layers:
        pair = (layer.query, layer.key)
        if not layer.query.name:
            found[pair] = POOLING
        elif layer.crossing:
            found[pair] = CROSS
        elif len(own) > 1:
            found[pair] = sight.stream(layer.query)
        elif pair not in found:
            found[pair] = DECODER if _looks_back(layer) else ENCODER
    twice = len(set(found.values())) < len(found)
    return {pair: f"{name} {pair[1].part + 1}" for pair, name in found.items()} if twice else found


def _looks_back(layer: Layer) -> bool:
    """Does the first position see itself only?"""
    if layer.site.windowed or layer.site.queries < 2:
        return False
    ((_, weights),) = layer.site.blocks(torch.tensor([0]))
    return bool((weights[:, 0, 1:] == 0).all())


def _stream(sight: Sight, name: str, layers: Sequence[Layer]) -> StreamMaps:
    roll = None if layers[0].crossing else _rolling(sight, layers[0])
    return StreamMaps(name=name, layers=tuple(_layer(sight, layer) for layer in layers), roll=roll)


def _rolling(sight: Sight, layer: Layer) -> Callable[..., NDArray[np.float64]]:
    def roll(**options: Any) -> NDArray[np.float64]:
        found = matrix(sight, Mixing(**options), layer.query)
        places, _ = _labelled(sight, layer.query, len(found))
        return np.asarray(found[places][:, places].numpy(), dtype=np.float64)

    return roll


def _layer(sight: Sight, layer: Layer) -> LayerMap:
    """A layer as its units see it: without padding."""
    asks, queries = _labelled(sight, layer.query, layer.site.queries)
    looks, keys = _labelled(sight, layer.key, layer.site.keys)
    place = {int(position): n for n, position in enumerate(asks)}

    def blocks(wanted: Sequence[int] | None) -> Iterator[Block]:
        chosen = asks if wanted is None else asks[list(wanted)]
        for rows, weights in layer.site.blocks(chosen):
            whole = weights.new_zeros(*weights.shape[:2], layer.site.keys)
            whole[..., : weights.shape[-1]] = weights
            yield np.array([place[int(row)] for row in rows]), whole[..., looks].cpu().numpy()

    return LayerMap(label=layer.site.place.module, heads=layer.site.heads, queries=queries, keys=keys, blocks=blocks)


def _labelled(sight: Sight, row: Row, length: int) -> tuple[torch.Tensor, tuple[Unit, ...]]:
    """The positions of a sequence that are no padding, and their units; merged patches are one unit."""
    units = sight.question.items[0].units
    places, found = [], []
    try:
        covered = sight.covered(row, length)
    except ModelError:  # frames of a sound, pooled tokens: nothing that was given, but counted all the same
        covered = [f"position {n}" for n in range(length)]
    for position, covers in enumerate(covered):
        if isinstance(covers, str):
            found.append(Unit(index=-1, text=covers, stream=sight.stream(row) if row.name else POOLING, special=True))
        elif covers:
            found.append(_together([units[k] for k in covers]))
        else:
            continue
        places.append(position)
    return torch.tensor(places, dtype=torch.long), tuple(found)


def _together(units: Sequence[Unit]) -> Unit:
    """Patches that a model merged, as one."""
    if len(units) == 1:
        return units[0]
    boxes = [unit.box for unit in units if unit.box is not None]
    box = (
        min(b[0] for b in boxes),
        min(b[1] for b in boxes),
        max(b[2] for b in boxes),
        max(b[3] for b in boxes),
    )
    return replace(units[0], text=f"{units[0].text} to {units[-1].text}", box=box)
