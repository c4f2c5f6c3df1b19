"""Attention rollout: the row of a target through all layers, at any length, and the whole matrix of short inputs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from clearhead.attention.making import BLIND, Looked, Shares, each, made
from clearhead.attention.mixing import Mixing, pulled, resampled
from clearhead.config import Settings
from clearhead.maps import RelevanceMap
from clearhead.question import Question
from clearhead.sight.capture import Layer, Row, Sight
from clearhead.sight.reading import Starts
from clearhead.sight.shelf import Shelf

MOST = 0.5  # a unit that is not read itself and takes more than this is a sink


def rollout(question: Question, settings: Settings) -> Iterator[tuple[int, RelevanceMap]]:
    r"""Shares of positions in one target: $r \leftarrow \hat A_l^\top r$ from the last layer to the first.

    $\hat A = (w I + (1 - w) W)$ with rows renormalised, W the heads' mean (or max, or min) and w = 0.5. A decoder that
    looks at an encoder keeps w and hands 1 - w on, so that all shares add up to 1. Holds no table of T x T weights.
    Raises UsageError for heads that do not exist, ModelError without attention. Abnar & Zuidema 2020, "Quantifying
    Attention Flow in Transformers", section 3; the form with vectors is ours.
    """
    mixing = Mixing.of(settings)
    for i, looked, notes in each(question, put=lambda: Shelf().put):
        yield i, made(looked, _shares(looked, mixing, drop=settings.drop_sink), "rollout", notes)


def _shares(looked: Looked, mixing: Mixing, *, drop: bool) -> Shares:
    found = rolled(looked.sight, looked.begin, mixing)
    sink = _sink(found, looked.begin)
    if sink is None:
        return Shares(amounts=found, notes=(BLIND,))
    row, position, share = sink
    if not drop:
        note = (
            f"One position that the answer is not read from, number {position} of {looked.sight.stream(row)}, takes "
            f"{100 * share:.0f} % of the rollout: a sink, which models look at when there is nothing to look for. "
            "drop_sink=True leaves it out."
        )
        return Shares(amounts=found, notes=(BLIND,), warnings=(note,))
    dropped = rolled(looked.sight, looked.begin, mixing.without(row, position))
    note = f"Nobody's look at position {position} of {looked.sight.stream(row)} counts: it took {100 * share:.0f} %."
    return Shares(amounts=dropped, notes=(BLIND, note))


def rolled(sight: Sight, begin: Starts, mixing: Mixing) -> dict[Row, Tensor]:
    """The shares of all positions at the first layer, given those at the last."""
    now = dict(begin)
    for layer in reversed(sight.layers):
        amounts = now.get(layer.query)
        if amounts is None:
            continue
        amounts = resampled(sight, layer.query, amounts, layer.site.queries)
        stay, given = pulled(mixing, layer, amounts)
        now[layer.query] = stay
        before = now.get(layer.key)
        if before is not None:
            given = given + resampled(sight, layer.key, before, len(given))
        now[layer.key] = given
    return now


def _sink(found: dict[Row, Tensor], begin: Starts) -> tuple[Row, int, float] | None:
    """The position that most goes to although nothing is read from it, if there is one."""
    for row, amounts in found.items():
        read = begin.get(row)
        free = amounts if read is None or len(read) != len(amounts) else amounts.masked_fill(read != 0, 0)
        position = int(free.argmax())
        if float(free[position]) > MOST:
            return row, position, float(free[position])
    return None


# ---- the whole matrix ----------------------------------------------------------------------------------------------


def matrix(sight: Sight, mixing: Mixing, row: Row) -> Tensor:
    r"""The rollout of a sequence that looks at itself only [T, T]: $R = \hat A_L \cdots \hat A_1$."""
    whole: Tensor | None = None
    for layer in sight.layers:
        if layer.query != row or layer.crossing:
            continue
        whole = _mixed(mixing, layer, whole)
    if whole is None:
        raise KeyError(row)
    return whole


def _mixed(mixing: Mixing, layer: Layer, before: Tensor | None) -> Tensor:
    """The rollout up to a layer [T, T], given that of the layers before it."""
    kept, fresh = mixing.kept(layer), None
    for rows, table in mixing.tables(layer):
        if before is None:
            before = torch.eye(layer.site.queries, dtype=table.dtype)
        fresh = torch.zeros_like(before) if fresh is None else fresh
        looked = table @ before[: table.shape[-1]]
        fresh[rows] = (kept * before[rows] + (1 - kept) * looked) / (kept + (1 - kept) * table.sum(-1, keepdim=True))
    if fresh is None:
        raise ValueError("A layer has at least one row.")
    return fresh
