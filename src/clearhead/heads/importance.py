r"""How much heads matter: $I_h = E_x|\partial L/\partial\xi_h|$, attention by gradient, relevance.

Axes: items B, windows W, heads H, queries Q, keys K, width D. Michel, Levy & Neubig 2019, "Are Sixteen Heads Really
Better than One?", section 3; Chefer, Gur & Wolf 2021; Voita et al. 2019, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearhead.attention.making import each
from clearhead.config import Settings
from clearhead.errors import ModelError
from clearhead.heads.cases import Case
from clearhead.heads.gates import Call, Catalogue, gated, passed, per_item, shut
from clearhead.heads.store import Store
from clearhead.heads.together import answers
from clearhead.question import Question
from clearhead.relevance.lrp import lrp
from clearhead.sight.capture import Layer
from clearhead.sight.sites import Written, laid
from clearhead.subjects import Subject

Absolute = Literal["example", "token"]


# ---- by gates ------------------------------------------------------------------------------------------------------


Slopes = tuple[NDArray[np.float64], NDArray[np.float64]]  # of each item, for heads and for groups of them


def slopes(
    catalogue: Catalogue,
    question: Question,
    own: Sequence[Case],
    absolute: Absolute = "example",
    removed: Mapping[Call, Tensor] | None = None,
) -> Slopes:
    r"""$|\partial L/\partial\xi_h|$ of each item [B, heads], all heads in one forward and one backward pass.

    The gate of a head has an entry for each query, whose gradients are summed before the absolute value is taken
    (`example`, as the paper has it) or after (`token`, as its code has it); those of a group of heads that share keys
    and values are summed too. Gates that are `removed` are shut, and have no importance.
    Raises ModelError where no gradient reaches a gate.
    """
    leaves: list[tuple[Call, Tensor]] = []
    without = shut(removed or {})

    def give(call: Call, given: Tensor) -> Tensor:
        leaf = given.new_ones((*given.shape[:-1], 1)).requires_grad_()
        leaves.append((call, leaf))
        return without(call, given) * leaf

    outputs = passed(question, give, recording=True)
    sums: dict[Call, Tensor] = {}
    for (call, leaf), gradient in zip(leaves, _pulled(own, outputs, [leaf for _, leaf in leaves]), strict=True):
        known = torch.zeros_like(leaf) if gradient is None else gradient
        amounts = per_item(known.squeeze(-1).double(), len(own), catalogue.count[call]).sum(1).cpu()  # [B, H, Q]
        amounts = amounts if absolute == "token" else amounts.sum(-1, keepdim=True)
        sums[call] = amounts if call not in sums else torch.cat([sums[call], amounts], -1)  # a module of two inputs
    return _absolute(catalogue, sums, absolute)


def _pulled(own: Sequence[Case], outputs: list[Any], leaves: list[Tensor]) -> Sequence[Tensor | None]:
    """The gradients of all items' scalars: no item depends on another's gates."""
    with torch.inference_mode(False), torch.enable_grad():
        value = torch.stack([case.score(outputs, row).reshape(()) for row, case in enumerate(own)]).sum()
        if not value.requires_grad:
            raise ModelError(
                "The value must depend on the heads by differentiable operations; no gradient reaches one. Is the "
                "model computing under `torch.no_grad()`?"
            )
        return torch.autograd.grad(value, leaves, allow_unused=True)


def _absolute(catalogue: Catalogue, sums: dict[Call, Tensor], absolute: Absolute) -> Slopes:
    heads, groups = [], []
    for call in catalogue.starts():
        amounts = sums[call] if absolute == "token" else sums[call].sum(-1, keepdim=True)  # [B, H, Q or 1]
        heads.append(amounts.abs().sum(-1))
        size = catalogue.group_size(call)
        if size is not None:
            groups.append(amounts.reshape(len(amounts), -1, size, amounts.shape[-1]).sum(2).abs().sum(-1))
    empty = torch.zeros(len(heads[0]), 0)
    return torch.cat(heads, 1).numpy(), (torch.cat(groups, 1) if groups else empty).numpy()


def importance(
    subject: Subject,
    catalogue: Catalogue,
    found: Sequence[Case],
    *,
    absolute: Absolute = "example",
    batch_size: int = 0,
    removed: Mapping[Call, Tensor] | None = None,
    store: Store | None = None,
) -> Slopes:
    """The slopes of every input [documents, heads] and [documents, groups], in the order of the inputs."""

    def ask(question: Question, own: Sequence[Case]) -> NDArray[np.float64]:
        with question.evaluated():
            return np.concatenate(slopes(catalogue, question, own, absolute, removed), axis=1)

    rows = answers(subject, found, ask, what="importance", size=batch_size, store=store)
    return rows[:, : len(catalogue)], rows[:, len(catalogue) :]


def averaged(amounts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean over documents, and its standard error."""
    error = amounts.std(0, ddof=1) / np.sqrt(len(amounts)) if len(amounts) > 1 else np.zeros(amounts.shape[1])
    return amounts.mean(0), error


def normalised(layers: Sequence[object], mean: NDArray[np.float64], *others: NDArray[np.float64]) -> list[Any]:
    r"""Divided by $\sqrt{\sum_h I_h^2}$ of their layer; a layer of zeros stays one."""
    names = np.array([list(dict.fromkeys(layers)).index(each) for each in layers], dtype=np.int64)
    norms = np.sqrt(np.bincount(names, weights=mean**2)) if len(names) else np.zeros(0)
    by = np.where(norms > 0, norms, 1)[names]
    return [each / by for each in (mean, *others)]


# ---- attention times its gradient ----------------------------------------------------------------------------------


def weighted(catalogue: Catalogue, question: Question) -> NDArray[np.float64]:
    r"""$\mathrm{mean}(A \odot \partial f/\partial A)^+$ of every head for one input, summed over its targets."""
    starts, total = catalogue.starts(), np.zeros(len(catalogue))
    for _, looked, _ in each(question, gradients="through"):
        layers = [layer for layer in looked.sight.layers if layer.site.output is not None]
        outputs = [layer.site.output for layer in layers if layer.site.output is not None]
        found = torch.autograd.grad(looked.value, outputs, retain_graph=True, allow_unused=True)
        known = dict(zip(layers, found, strict=True))
        for layer, call in zip(looked.sight.layers, _calls(looked.sight.layers), strict=True):
            gradient = known.get(layer)
            if gradient is not None:
                begin = starts[call]
                total[begin : begin + catalogue.count[call]] += _spoken(layer, gradient)
    return total


def _calls(layers: Sequence[Layer]) -> list[Call]:
    """The call that each layer is: modules are counted anew in every pass."""
    seen: dict[tuple[int, str], int] = {}
    found = []
    for layer in layers:
        key = (layer.query.part, layer.site.place.module)
        seen[key] = seen.get(key, -1) + 1
        found.append((key[1], seen[key]))
    return found


def _spoken(layer: Layer, slope: Tensor) -> NDArray[np.float64]:
    """The mean over queries and keys, head by head [H]; a fused kernel's gradient of weights is $G_o V^T$."""
    site = layer.site
    size = site.queries * site.keys
    if isinstance(site, Written) or site.windowed:
        weights, slopes = site.matrix(), laid(slope).double()
        if not isinstance(site, Written) and site.held_value is not None:
            slopes = slopes @ laid(site.held_value.value).double().transpose(-1, -2)
        slopes = site.spread(slopes) if site.windowed else slopes[0]
        return (weights * slopes).clamp(min=0).sum((1, 2)).double().cpu().numpy() / size
    if site.held_value is None:
        raise ValueError("Gradients of weights need the values.")
    values, gradient = laid(site.held_value.value)[0], laid(slope)[0]  # [G, K, D], [H, Q, D]
    total = torch.zeros(site.heads, dtype=torch.float64)
    for rows, weights in site.blocks():
        keys = weights.shape[-1]
        asked = gradient[:, rows].to(weights.dtype).reshape(len(values), -1, gradient.shape[-1])
        slopes = (asked @ values[:, :keys].to(weights.dtype).transpose(1, 2)).reshape(weights.shape)
        total += (weights * slopes).clamp_(min=0).sum((1, 2), dtype=torch.float64).cpu()
    return total.numpy() / size


# ---- relevance -----------------------------------------------------------------------------------------------------


def relevance(catalogue: Catalogue, question: Question, settings: Settings) -> NDArray[np.float64]:
    r"""$R_h = \sum o_h G_h$ of every head for one input: what lrp sends through what the head gives out.

    Taken in the backward pass of lrp itself; of several targets, the sum.
    """
    starts, total = catalogue.starts(), np.zeros(len(catalogue))

    def give(call: Call, given: Tensor) -> Tensor:
        if not given.requires_grad:
            return given
        begin, count = starts[call], catalogue.count[call]
        passing = given.view_as(given)  # so that gradients come as they arrive, not as the rule hands them on
        held = given.detach()

        def note(gradient: Tensor) -> None:
            amounts = per_item((held.double() * gradient.double()).sum(-1), 1, count)
            total[begin : begin + count] += amounts.sum((0, 1, 3)).cpu().numpy()

        passing.register_hook(note)  # type: ignore[no-untyped-call]
        return passing

    with gated(question.model, lambda _: give):
        for _ in lrp(question, settings):
            pass
    return total
