"""Which positions a target is read from: where its gradient at the last attention is not zero."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from clearhead.sight.capture import Layer, Row, Sight
from clearhead.sight.edge import axis_of
from clearhead.sight.sites import Written, laid

Starts = dict[Row, Tensor]


def starts(sight: Sight, value: Tensor) -> Starts:
    """For each sequence that `value` is read from, the shares of its positions [T]; all shares add up to 1.

    Of every group of sequences that look at each other the last attention counts that the value depends on: the
    positions that ask there and pass something on to the value share alike. Empty where no gradient was recorded.
    """
    watched = [(layer, leaf) for layer in sight.layers if (leaf := _leaf(layer)) is not None]
    if not watched or not value.requires_grad:
        return {}
    outputs = [output for _, output in watched]
    gradients = torch.autograd.grad(value, outputs, retain_graph=True, allow_unused=True)
    found: dict[int, tuple[Row, Tensor]] = {}
    tower = towers(sight.layers)
    for (layer, _), gradient in zip(watched, gradients, strict=True):
        reads = torch.zeros(0) if gradient is None else _reads(layer, gradient)
        if reads.any():
            found[tower[layer.query]] = layer.query, reads / reads.sum()
    return {row: reads / len(found) for row, reads in found.values()}


def _leaf(layer: Layer) -> Tensor | None:
    """Where the gradients of a layer are known: at the end of its block, or at what its attention gave out."""
    site = layer.site
    output = site.edge if site.edge is not None else site.output
    return output if output is not None and output.is_leaf and output.requires_grad else None


def _reads(layer: Layer, gradient: Tensor) -> Tensor:
    axis = None if layer.site.edge is None else axis_of(gradient, layer.site.queries)
    if axis is None:
        return asked(layer, gradient)
    reads: Tensor = gradient.detach().select(1 - axis, 0).abs().amax(-1) != 0
    return reads.to(torch.float64 if gradient.dtype == torch.float64 else torch.float32)


def asked(layer: Layer, gradient: Tensor) -> Tensor:
    """Which positions of the sequence have a gradient [T], as 1 and 0."""
    site, kind = layer.site, torch.float64 if gradient.dtype == torch.float64 else torch.float32
    amounts = laid(gradient.detach()).abs().amax(-1)  # [W, H, Q]
    if site.windowed:
        table = amounts.new_zeros(site.shape) if isinstance(site, Written) else amounts.unsqueeze(-1)
        table = (table + amounts.unsqueeze(-1)).expand(site.shape)
        amounts = site.spread(table).amax(-1).unsqueeze(0)
    return (amounts.amax((0, 1)) != 0).to(kind)


def towers(layers: Iterable[Layer]) -> dict[Row, int]:
    """A number for each sequence, the same for those that look at each other."""
    numbers: dict[Row, int] = {}
    for layer in layers:
        own = numbers.setdefault(layer.query, len(numbers))
        other = numbers.setdefault(layer.key, own)
        if other != own:
            numbers.update({row: own for row, number in numbers.items() if number == other})
    return numbers
