"""What a model computes where nothing is said: the points from which slopes of pointwise functions are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from clearhead import inventory
from clearhead.config import Settings
from clearhead.lookups import Blanks
from clearhead.question import NOTHING, Question, uncached
from clearhead.relevance.run import Call, Key, Row, Run, Start
from clearhead.tape import Function, Operation

POSITIONS = 16  # of a text that says nothing; what its last position holds is what counts

# What was noted of a model, by what it read, with the state the model was in.
_KNOWN: Any = WeakKeyDictionary()


class Silent(Run):
    """A run on a text of no tokens at all, whose lookups by id are zero: it notes the pointwise functions' last rows.

    Positions, token types and learned vectors are what they are.
    """

    def __init__(self, settings: Settings, model: nn.Module, rows: dict[str, Row]) -> None:
        plain = replace(settings, leak="record", strict=False, rules={}, residual_rule="plain", checkpoint=False)
        super().__init__(plain, model, rows)
        self.noted: dict[Key, Start] = {}
        self._blanks = Blanks("zero")

    def interpret(self, operation: Operation, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As a plain run does; what is looked up for no token is zero."""
        ids = args[0] if args else None
        if operation.name == "embedding" and len(args) > 1 and isinstance(ids, Tensor) and bool((ids == NOTHING).any()):
            return self.source(self._blanks.looked_up(function, *args, **kwargs), ids)
        return super().interpret(operation, function, args, kwargs)

    def start(self, call: Call, x: Tensor, compute: Callable[[Tensor], Tensor]) -> Start | None:
        """Note what the last position has; a model without biases makes nothing of nothing, and starts at zero."""
        key, held = self.counted(call), x.detach()
        if 1 < x.dim() < 4 and x.numel():
            r, f = (each.flatten(0, -2)[-1].clone() for each in (held, compute(held)))
            if bool(torch.isfinite(r).all() & torch.isfinite(f).all() & r.any()):  # all zero is what there is without
                self.noted[key] = r, f
        return None


def starts(question: Question, settings: Settings, rows: dict[str, Row]) -> tuple[dict[Key, Start], ...]:
    """For each pass about texts, the argument and result of each pointwise function where nothing is said.

    The text is the same for all questions to a model: `POSITIONS` times no token, under a mask of ones. There are none
    where tensors are explained directly, such as images. Raises what the model raises.
    """
    return tuple(_noted(question, number, settings, rows) for number in range(len(question.passes)))


def _noted(question: Question, number: int, settings: Settings, rows: dict[str, Row]) -> dict[Key, Start]:
    """What was noted of a model, which is asked again only when it or what it reads has changed."""
    part, model = question.passes[number], question.model
    ids = {span.ids for item in question.items for span in item.layouts[number].spans}
    if part.explained or not ids:
        return {}
    tensors = _silent(part.tensors, ids)
    known: dict[Any, tuple[Any, dict[Key, Start]]] = _KNOWN.setdefault(model, {})
    reads = tuple((name, x.shape, x.dtype) if isinstance(x, Tensor) else (name, repr(x)) for name, x in tensors.items())
    state = _state(model)
    if reads not in known or known[reads][0] != state:
        run = Silent(settings, model, rows)
        with torch.inference_mode(False), torch.enable_grad():
            run.tape.under(model, **uncached(model, tensors))
        known[reads] = state, run.noted
    return known[reads][1]


def _state(model: nn.Module) -> tuple[Any, ...]:
    """What changes when weights are replaced, written over or moved, or a hook is set.

    The first entry of each tensor tells what was written past autograd, unless that left this entry alone.
    """
    hooks = [
        tuple(hook)
        for _, module in inventory.modules(model)
        for hook in (module._forward_hooks, module._forward_pre_hooks)
        if hook
    ]
    held = inventory.tensors(model)
    return inventory.versions(held), inventory.firsts(held), tuple(hooks)


def _silent(tensors: Mapping[str, Any], ids: set[str]) -> dict[str, Any]:
    """The tensors of one text that says nothing: no tokens, masks of ones, and else zeros."""
    found, lengths = dict(tensors), {x.shape[:2] for name, x in tensors.items() if name in ids}
    for name, x in tensors.items():
        if isinstance(x, Tensor) and x.dim() > 1 and x.shape[:2] in lengths:
            filling = NOTHING if name in ids else int("mask" in name)
            found[name] = x.new_full((1, POSITIONS, *x.shape[2:]), filling)
        elif isinstance(x, Tensor) and x.dim():
            found[name] = x[:1]
    return found
