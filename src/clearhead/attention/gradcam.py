"""GradCAM on hidden states: which vectors of a layer speak for the target, for texts, images and translation."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from clearhead.attention.stacks import Layer, Placed, Stack, gradients, grid_of, stacked, supports
from clearhead.config import Settings
from clearhead.errors import ModelError, NonFiniteError, UsageError
from clearhead.maps import RelevanceMap, Target
from clearhead.question import Aim, Grid, Question
from clearhead.sight.capture import Sight
from clearhead.units import Unit

CHOSEN = "Leave `layer` out to have it chosen."
FORMULAS = {
    "mean-gradient": "Each channel of the layer weighs its gradient's mean over all positions",
    "elementwise": "Each entry of the layer weighs its own gradient",
}
ROUNDING = 1e-3  # of the sum of absolute products: scores below it are what is left of values that cancel
Supports = Mapping[Layer, frozenset[int]]


@dataclass(frozen=True, eq=False)
class Choice:
    """The layer of a stack that is looked at, and why."""

    stack: Stack
    layer: Layer
    why: str


def gradcam(question: Question, settings: Settings) -> Iterator[tuple[int, RelevanceMap]]:
    r"""What a layer's vectors $h_t$ say for the target y, by their gradients: a score per position.

    `cam="mean-gradient"`: $s_t = \sum_c \alpha_c h_{tc}$ with $\alpha_c = E_t[\partial y / \partial h_{tc}]$, as
    published; on images negative scores become 0. `cam="elementwise"`: $s_t = \sum_c h_{tc} \, \partial y / \partial
    h_{tc}$. Chosen by itself is the last block whose gradient is not confined to the positions that the head reads, or
    the last feature map; each sequence (encoder and decoder, image and text) has a layer of its own. Scores of feature
    maps are resized to the units. Raises UsageError for a layer that does not exist, is not on the path or has no
    gradient but where the head reads; ModelError where no gradient reaches a layer; NonFiniteError. Selvaraju et al.
    2017, "Grad-CAM", section 3, carried to hidden states; Draelos & Carin 2020, "HiResCAM".
    """
    path = settings.layer if isinstance(settings.layer, str) else None
    if path is not None:
        _require_module(question, path)
    with question.evaluated() as notes:
        for i in range(len(question.items)):
            own = question.alone(i)
            sight, stacks = stacked(own, path)
            choices = chosen(sight, stacks, settings.layer)
            for aim in own.items[0].aims:
                yield i, mapped(sight, choices, aim, settings.cam, notes)


def asked(sight: Sight, stacks: Sequence[Stack], aim: Aim) -> tuple[Target, Tensor]:
    """A target and its value. Raises ModelError if it depends on nothing, NonFiniteError."""
    with torch.inference_mode(False), torch.enable_grad():
        target, value = aim.ask(sight.outputs, 0)
        value = value.reshape(())
    if not bool(torch.isfinite(value.detach()).all()):
        raise _not_finite("value", [layer for stack in stacks for layer in stack.layers])
    if not value.requires_grad:
        raise ModelError(
            "The target must depend on the input by differentiable operations; no gradient reaches any layer. Is the "
            "model computing under `torch.no_grad()`, or with whole numbers?"
        )
    return target, value


# ---- the layer -----------------------------------------------------------------------------------------------------


def chosen(sight: Sight, stacks: Sequence[Stack], wanted: int | str | None) -> list[Choice]:
    """The layer of each sequence: what is wanted, or the last one that is not confined. Raises UsageError.

    Of several targets the one that can depend on most units decides, so that all are looked at in the same layer.
    """
    aims = sight.question.items[0].aims
    longest = max(aims, key=lambda aim: np.inf if aim.horizon is None else aim.horizon)
    _, value = asked(sight, stacks, longest)
    choices = []
    for stack in stacks:
        layers = [*stack.layers, *(each for each in (stack.first, stack.named) if each is not None)]
        found = supports(value, layers)
        default = _default(stack, found)
        layer = stack.named if isinstance(wanted, str) else None if wanted is None else _numbered(stack, wanted)
        if layer is not None:
            _require_open(stack, layer, found, default)
        choices.append(default if layer is None else Choice(stack, layer, "as asked for"))
    if isinstance(wanted, str) and not any(stack.named for stack in stacks):
        raise _off_the_path(wanted, "it was not called, or gives no vector for each position", choices)
    return choices


def _default(stack: Stack, found: Supports) -> Choice:
    """The last layer whose gradient is not confined; else what comes before all of them."""
    for layer in reversed(stack.layers):
        if stack.maps and found[layer]:
            return Choice(stack, layer, "the last feature map that a gradient reaches")
        if not stack.maps and not _confined(stack, layer, found):
            last = layer is stack.layers[-1]
            why = "" if last else ": of the blocks behind it the gradient is confined to what the head reads"
            return Choice(stack, layer, f"the last block{'' if last else ' that can be used'}{why}")
    why = "the gradient of every block is confined to what the head reads" if stack.layers else "there are no blocks"
    return Choice(stack, stack.first or stack.layers[0], why)


def _confined(stack: Stack, layer: Layer, found: Supports) -> bool:
    """Is there a gradient at no unit but those few that the head reads?

    The head reads where the last layer has a gradient. It reads few if these are at most half of all that count at the
    input, so that a mean over all positions, or all but special ones, confines nothing.
    """
    own = found[layer]
    reads = next((found[each] for each in reversed(stack.layers) if found[each]), frozenset[int]())
    count = len(found[stack.first] if stack.first else reads)
    if count <= 1:
        return not own
    return len(own) <= 1 or (own <= reads and 2 * len(reads) <= count)


def _numbered(stack: Stack, wanted: int) -> Layer:
    numbered = stack.blocks
    if not numbered:
        raise UsageError(
            f"`layer` must be the path of a module where {stack.stream!r} goes through no numbered blocks; found "
            f"{wanted}. {CHOSEN}"
        )
    if not -len(numbered) <= wanted < len(numbered):
        raise UsageError(
            f"`layer` must be the number of a block, from 0 to {len(numbered) - 1} or below 0 from the end; found "
            f"{wanted} for the {len(numbered)} blocks of {stack.stream!r}. {CHOSEN}"
        )
    return numbered[wanted]


def _require_module(question: Question, path: str) -> None:
    """Raise UsageError for a path that leads to no module; it names the nearest."""
    paths = [name for name, _ in question.model.named_modules(remove_duplicate=False) if name]
    if path in paths:
        return
    near = difflib.get_close_matches(path, paths, n=3, cutoff=0.4) or paths[-3:]
    raise UsageError(
        f"`layer` must be a number or the path of a module of the model; found {path!r}. The nearest are "
        f"{', '.join(map(repr, near))}. {CHOSEN}"
    )


def _require_open(stack: Stack, layer: Layer, found: Supports, default: Choice) -> None:
    """Raise UsageError for a layer that no gradient reaches, or only where the head reads it."""
    places, near = found[layer], _spoken(default.layer)
    if layer.placed.covers is not None and not _confined(stack, layer, found):
        return
    if layer.placed.covers is None and places and min(layer.placed.size) > 1:
        return
    if not places and layer.placed.covers is None:
        raise _off_the_path(layer.path, "its gradient is 0", [default])
    whole = len(layer.placed.units(range(len(layer.placed.covers or ()))))
    finding = f"only {len(places)} of {whole}" if places else f"none of {whole}"
    raise UsageError(
        f"`layer` must have a gradient at more units than the head reads; {layer} has one at {finding} units of "
        f"{stack.stream!r}, so its map would say nothing of the others. The nearest layer that has: {near}. {CHOSEN}"
    )


def _off_the_path(path: str, finding: str, defaults: Sequence[Choice]) -> UsageError:
    return UsageError(
        f"`layer` must be a module on the path from the input to the target, with a vector for each position or a "
        f"feature map as its output; {path!r} is not on the path: {finding}. One that is: "
        f"{', '.join(_spoken(choice.layer) for choice in defaults)}. {CHOSEN}"
    )


def _spoken(layer: Layer) -> str:
    return str(layer) if layer.number is None else f"{layer} (layer={layer.number})"


# ---- the map -------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Scores:
    """The scores of all units, those of learned vectors by stream and name, and warnings about them."""

    units: NDArray[np.float64]
    learned: list[tuple[str, str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def mapped(sight: Sight, choices: Sequence[Choice], aim: Aim, cam: str, notes: tuple[str, ...] = ()) -> RelevanceMap:
    """The map of one target at the chosen layers, whatever they are. Raises NonFiniteError, ModelError."""
    question, (item,) = sight.question, sight.question.items
    target, value = asked(sight, [choice.stack for choice in choices], aim)
    scores = _Scores(np.zeros(len(item.units)))
    for choice in choices:
        _enter(scores, sight, choice, value, cam)
    relevance = np.append(scores.units, [amount for *_, amount in scores.learned])
    if not np.isfinite(relevance).all():
        raise _not_finite("score", [choice.layer for choice in choices])
    units = item.units
    if aim.horizon is not None and not scores.learned and not scores.units[aim.horizon :].any():
        units, relevance = units[: aim.horizon], relevance[: aim.horizon]
    more = [
        Unit(index=len(units) + k, text=name, stream=stream, special=True)
        for k, (stream, name, _) in enumerate(scores.learned)
    ]
    return RelevanceMap(
        method="gradcam",
        model=question.name,
        task=question.task,
        target=target,
        value=float(value.detach()),
        units=(*units, *more),
        relevance=relevance,
        texts=item.texts,
        pictures=item.pictures,
        warnings=(*item.warnings, *notes, *scores.warnings),
        notes=_notes(choices, cam, images=any(grid_of(question, choice.stack.row) for choice in choices)),
        additive=False,
        recipe=question.recipe,
    )


def _enter(scores: _Scores, sight: Sight, choice: Choice, value: Tensor, cam: str) -> None:
    """Enter the scores of one sequence."""
    stack, layer = choice.stack, choice.layer
    (gradient,) = gradients(value, [layer])
    if gradient is None or not bool(gradient.any()):
        scores.warnings.append(f"The target does not depend on {stack.stream!r}; its scores are 0.")
        return
    states = layer.placed.laid(layer.state.value)
    if cam == "elementwise" and _cancels(states, gradient):
        scores.warnings.append(
            f"The scores of {layer} cancel to rounding: a norm right behind it takes no notice of the length of its "
            "vectors. Choose an earlier layer, or cam='mean-gradient'."
        )
    own = _scores(choice, value, weighed(states, gradient, _known(layer.placed), cam))
    grid = grid_of(sight.question, stack.row)
    if grid is not None and cam == "mean-gradient":
        if not bool((own > 0).any()):
            scores.warnings.append(
                "Nothing in the image speaks for the target at this layer: all scores were negative, and became 0. "
                "cam='elementwise' keeps negative ones."
            )
        own = own.clamp(min=0)
    for amount, covered in zip(own.tolist(), layer.placed.covers or (), strict=False):
        if isinstance(covered, str):
            scores.learned.append((stack.stream, covered, amount))
        elif grid is None:
            scores.units[list(covered)] = amount
    if grid is not None:
        layouts = sight.question.items[0].layouts[: stack.row.part]
        first_unit = sum(len(each.units) for each in layouts) + grid.first
        resized = _on_grid(own, layer.placed, grid, first_unit).flatten()
        scores.units[first_unit : first_unit + len(resized)] = resized.cpu().numpy()


def _scores(choice: Choice, value: Tensor, scores: Tensor) -> Tensor:
    """The scores of the places of a layer, 0 where the target cannot depend on it."""
    first = choice.stack.first or choice.layer
    reach = supports(value, [first])[first]
    for place, covered in enumerate(choice.layer.placed.covers or ()):
        if not isinstance(covered, str) and reach.isdisjoint(covered):
            scores[place] = 0
    return scores


def _cancels(states: Tensor, gradient: Tensor) -> bool:
    """Do the products of all entries add up to nothing at each place, though they are not 0?"""
    products = states * gradient
    return float(products.sum(-1).abs().sum()) <= ROUNDING * float(products.abs().sum())


def weighed(states: Tensor, gradient: Tensor, known: Tensor, cam: str) -> Tensor:
    r"""Scores [places] of states [places, channels]: $\sum_c h_{tc} E_t[g_{tc}]$ over known places, or $h \cdot g$."""
    if cam == "elementwise":
        return (states * gradient).sum(-1)
    return states @ gradient[known].mean(0)


def _known(placed: Placed) -> Tensor:
    """The places that are no padding."""
    if placed.covers is None:
        return torch.arange(placed.size[0] * placed.size[1])
    return torch.tensor([p for p, covers in enumerate(placed.covers) if covers])


def _on_grid(scores: Tensor, placed: Placed, grid: Grid, first: int) -> Tensor:
    """Scores as an image of units [rows, columns]: of patches where they lie, resized where units are others."""
    size, patches = (grid.rows, grid.columns), grid.patches or (grid.rows, grid.columns)
    if placed.covers is None:
        return _resized(scores.reshape(placed.size), size)
    image = scores.new_zeros(grid.rows * grid.columns)
    for amount, covers in zip(scores, placed.covers, strict=True):
        if not isinstance(covers, str):
            image[[unit - first for unit in covers]] = amount
    image = image.reshape(size)
    if size == patches:
        return image
    return _resized(functional.adaptive_avg_pool2d(image[None], patches)[0], size)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape) == size:
        return image
    return functional.interpolate(image[None, None], size=size, mode="bilinear", antialias=True)[0, 0]


def _notes(choices: Sequence[Choice], cam: str, *, images: bool) -> tuple[str, ...]:
    """How the map was made: the layer of each sequence and why, the formula, what is not comparable."""
    found = []
    for choice in choices:
        number, count = choice.layer.number, len(choice.stack.blocks)
        block = "" if number is None else f", block {number} of {count} (counted from 0)"
        found.append(f"GradCAM of {choice.stack.stream!r} looks at {choice.layer}{block}: {choice.why}.")
    signs = "negative ones became 0, as published" if images and cam == "mean-gradient" else "negative ones are kept"
    if len(choices) > 1 and images and cam == "mean-gradient":
        signs = "on the image, as published, negative ones became 0"
    found.append(f"{FORMULAS[cam]}; {signs}. Scores rank units and do not add up to the target.")
    if len(choices) > 1:
        streams = " and ".join(repr(choice.stack.stream) for choice in choices)
        found.append(f"{streams} are computed separately, and each has a scale of its own: do not compare across them.")
    return tuple(found)


def _not_finite(what: str, layers: Sequence[Layer]) -> NonFiniteError:
    bad = next((layer for layer in layers if not bool(torch.isfinite(layer.state.value).all())), None)
    place = f"it appeared first in {bad}" if bad is not None else "the layers looked at are finite"
    return NonFiniteError(
        f"The explained {what} must be finite; found NaN or infinity, and {place}. Check the weights, or load the "
        "model in a wider float type (dtype='float32')."
    )
