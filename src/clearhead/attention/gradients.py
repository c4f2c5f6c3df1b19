"""Gradient-weighted attention: what a layer looks at, where that speaks for the target, rolled through the layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from clearhead.attention.making import Looked, Shares, each, made
from clearhead.attention.mixing import chosen_heads, resampled
from clearhead.config import Settings
from clearhead.errors import ModelError
from clearhead.maps import RelevanceMap
from clearhead.question import Question
from clearhead.sight.capture import Layer, Row, Sight
from clearhead.sight.reading import asked, towers
from clearhead.sight.sites import Written, laid

Tables = Iterator[tuple[Tensor, Tensor]]  # rows [b], and for each what it looks at that speaks for the target [b, k]


def gradient_attention(question: Question, settings: Settings) -> Iterator[tuple[int, RelevanceMap]]:
    r"""Relevance of attention by Chefer's rules, with $\bar A = E_h[(A \odot \partial f/\partial A)^+]$.

    One sequence: $r \leftarrow r + \bar A_l^\top r$ from the last layer to the first, in blocks of rows and without
    any T x T table; several: $R^{ss} \leftarrow R^{ss} + \bar A R^{ss}$ and for a look from s at q
    $R^{sq} \leftarrow R^{sq} + (\bar R^{ss})^\top \bar A \bar R^{qq}$. What a position is to itself at the start is
    left out. Depends on the target, is never negative, and adds up to nothing in particular. Raises ModelError
    without attention or where no gradient reaches one. Chefer, Gur & Wolf 2021, "Generic Attention-model
    Explainability", equations 5 to 11.
    """
    for i, looked, notes in each(question, gradients="through"):
        slopes = _slopes(looked)
        amounts: dict[Row, Tensor] = {}
        for tower in _by_tower(looked.sight):
            amounts.update(_of_tower(looked, tower, slopes, settings.heads))
        note = "Weights times their gradients where positive, the heads' mean, added up through all layers."
        yield i, made(looked, Shares(amounts=amounts, notes=(note,)), "gradient-attention", notes)


def _slopes(looked: Looked) -> Mapping[Layer, Tensor]:
    """The gradient of the target with respect to what each attention gives out. Raises ModelError if there is none."""
    known = [(layer, output) for layer in looked.sight.layers if (output := layer.site.output) is not None]
    layers, outputs = [layer for layer, _ in known], [output for _, output in known]
    if not outputs or not looked.value.requires_grad:
        raise ModelError(
            "The target must depend on an attention by differentiable operations; no gradient reaches one. Is the "
            "model computing under `torch.no_grad()`? Choose method='rollout', which needs no gradient."
        )
    found = torch.autograd.grad(looked.value, outputs, retain_graph=True, allow_unused=True)
    return {layer: gradient for layer, gradient in zip(layers, found, strict=True) if gradient is not None}


def _by_tower(sight: Sight) -> list[list[Layer]]:
    """The layers of each group of sequences that look at each other."""
    numbers = towers(sight.layers)
    return [[e for e in sight.layers if numbers[e.query] == n] for n in dict.fromkeys(numbers.values())]


def _of_tower(
    looked: Looked, layers: Sequence[Layer], slopes: Mapping[Layer, Tensor], heads: tuple[int, ...] | None
) -> dict[Row, Tensor]:
    read = [layer for layer in layers if layer in slopes]
    if not read:
        return {}
    top = read[-1].query
    begin = _begin(looked, read[-1], slopes)
    if not any(layer.crossing for layer in layers):
        return {top: _row(looked.sight, layers, slopes, begin, heads)}
    return _rows(looked.sight, layers, slopes, top, begin, heads)


def _begin(looked: Looked, layer: Layer, slopes: Mapping[Layer, Tensor]) -> Tensor:
    """The positions that the target is read from, in equal shares."""
    reads = asked(layer, slopes[layer])
    return reads / reads.sum()


# ---- one layer -----------------------------------------------------------------------------------------------------


def tables(layer: Layer, slope: Tensor, wanted: Tensor | None, heads: tuple[int, ...] | None) -> Tables:
    r"""Rows of $E_h[(A \odot \partial f/\partial A)^+]$; a fused kernel's $\partial f/\partial A$ is $G_o V^\top$."""
    site = layer.site
    if isinstance(site, Written) or site.windowed:
        yield from _whole(layer, slope, wanted, heads)
        return
    if site.held_value is None:
        raise ValueError("Gradients of weights need the values.")
    values, gradient = laid(site.held_value.value)[0], laid(slope)[0]
    groups, (count, _, width) = values.shape[0], gradient.shape
    chosen = chosen_heads(heads, layer)
    for rows, weights in site.blocks(wanted):
        keys = weights.shape[-1]
        asked = gradient[:, rows].to(weights.dtype).reshape(groups, -1, width)
        slopes = (asked @ values[:, :keys].to(weights.dtype).transpose(1, 2)).reshape(count, len(rows), keys)
        spoken = (weights * slopes).clamp_(min=0)
        yield rows, (spoken if chosen is None else spoken[chosen]).mean(0)


def _whole(layer: Layer, slope: Tensor, wanted: Tensor | None, heads: tuple[int, ...] | None) -> Tables:
    """The same for weights that the model computed itself, or in windows."""
    site = layer.site
    weights = site.matrix()
    if isinstance(site, Written):
        slopes = laid(slope).to(weights.dtype)
    elif site.held_value is not None:
        values = laid(site.held_value.value).to(weights.dtype)
        slopes = laid(slope).to(weights.dtype) @ values.transpose(-1, -2)
    else:
        raise ValueError("Gradients of weights need the values.")
    spoken = (weights * (site.spread(slopes) if site.windowed else slopes[0])).clamp_(min=0)
    chosen = chosen_heads(heads, layer)
    table = (spoken if chosen is None else spoken[chosen]).mean(0)
    rows = torch.arange(table.shape[0]) if wanted is None else wanted
    yield rows, table[rows]


# ---- through the layers --------------------------------------------------------------------------------------------


def _row(
    sight: Sight,
    layers: Sequence[Layer],
    slopes: Mapping[Layer, Tensor],
    begin: Tensor,
    heads: tuple[int, ...] | None,
) -> Tensor:
    """One sequence that looks at itself: the row of the target, less what it began with."""
    amounts = begin
    own = begin
    for layer in reversed(layers):
        row = layer.query
        amounts, own = (resampled(sight, row, each, layer.site.queries) for each in (amounts, own))
        if layer not in slopes:
            continue
        given = torch.zeros_like(amounts)
        for rows, table in tables(layer, slopes[layer], amounts.nonzero().flatten(), heads):
            given[: table.shape[-1]] += amounts[rows] @ table.to(amounts.dtype)
        amounts = amounts + given
    return amounts - own


def _rows(
    sight: Sight,
    layers: Sequence[Layer],
    slopes: Mapping[Layer, Tensor],
    top: Row,
    begin: Tensor,
    heads: tuple[int, ...] | None,
) -> dict[Row, Tensor]:
    """Sequences that look at each other: whole tables between all of them, of which the target's row is given."""
    found: dict[tuple[Row, Row], Tensor] = {}

    def known(row: Row, other: Row, size: tuple[int, int]) -> Tensor:
        if (row, other) not in found:
            found[row, other] = torch.eye(size[0]).to(begin) if row == other else begin.new_zeros(size)
        return found[row, other]

    for layer in layers:
        asks, seen, size = layer.query, layer.key, (layer.site.queries, layer.site.keys)
        own, other = known(asks, asks, (size[0], size[0])), known(seen, seen, (size[1], size[1]))
        table = _table(layer, slopes.get(layer), begin.new_zeros(size), heads)
        if layer.crossing:
            between = known(asks, seen, size)
            found[asks, seen] = between + _normalised(own).T @ table @ _normalised(other)
            continue
        for row, reached in [pair for pair in found.items() if pair[0][0] == asks]:
            found[row] = reached + table @ reached
    rows = {other: begin.to(each.dtype) @ each for (row, other), each in found.items() if row == top}
    return {**rows, top: rows[top] - begin}


def _table(layer: Layer, slope: Tensor | None, whole: Tensor, heads: tuple[int, ...] | None) -> Tensor:
    """All rows of a layer's table written into `whole` [Q, K]."""
    if slope is not None:
        for rows, table in tables(layer, slope, None, heads):
            whole[rows, : table.shape[-1]] = table.to(whole.dtype)
    return whole


def _normalised(table: Tensor) -> Tensor:
    r"""$\bar R = \hat R / S + I$ with $\hat R = R - I$ and S its row sums (equations 8 and 9)."""
    own = torch.eye(len(table), dtype=table.dtype)
    rest = table - own
    total = rest.sum(-1, keepdim=True)
    return torch.where(total == 0, rest, rest / torch.where(total == 0, 1, total)) + own
