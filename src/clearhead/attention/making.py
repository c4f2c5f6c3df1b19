"""From shares of positions to a map: whose share is it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clearhead.errors import ModelError, NonFiniteError
from clearhead.maps import RelevanceMap, Target
from clearhead.question import Aim, Question
from clearhead.sight.capture import Gradients, Row, Sight, seen
from clearhead.sight.reading import Starts, starts
from clearhead.sight.sites import Site
from clearhead.units import Unit

BLIND = "This method ignores the target: it depends on where the answer is read, not on which answer is meant."


@dataclass(frozen=True, eq=False, kw_only=True)
class Looked:
    """One target of a question about one item, what was seen on the way to it, and where it is read."""

    sight: Sight
    target: Target
    value: Tensor
    begin: Starts
    horizon: int | None

    @property
    def question(self) -> Question:
        """The question about one item."""
        return self.sight.question


@dataclass(frozen=True, eq=False, kw_only=True)
class Shares:
    """What a method found: an amount for each position of each sequence, and how to read them."""

    amounts: Mapping[Row, Tensor]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def each(
    question: Question,
    *,
    gradients: Gradients = "late",
    put: Callable[[], Callable[[Site], None]] = lambda: lambda _: None,
) -> Iterator[tuple[int, Looked, tuple[str, ...]]]:
    """Every target of every item, looked at one item at a time, with notes about the state of the model.

    `put` is asked once per item for what is told of each attention.
    """
    with question.evaluated() as notes:
        for i in range(len(question.items)):
            own = question.alone(i)
            sight = seen(own, gradients=gradients, put=put())
            for aim in own.items[0].aims:
                looked = _looked(sight, aim)
                if gradients == "late" and not looked.begin:
                    sight = seen(own, gradients="each", put=put())
                    looked = _looked(sight, aim)
                if gradients != "through" and not looked.begin:
                    raise ModelError(
                        "The target must depend on what an attention gives out; this one depends on none. Choose "
                        "another target, or method='lrp', which follows every operation."
                    )
                yield i, looked, notes


def _looked(sight: Sight, aim: Aim) -> Looked:
    with torch.inference_mode(False), torch.enable_grad():
        target, value = aim.ask(sight.outputs, 0)
        value = value.reshape(())
        return Looked(sight=sight, target=target, value=value, begin=starts(sight, value), horizon=aim.horizon)


def made(looked: Looked, shares: Shares, method: str, notes: tuple[str, ...]) -> RelevanceMap:
    """The map of one target. Raises NonFiniteError."""
    question = looked.question
    (item,) = question.items
    amounts = np.zeros(len(item.units))
    learned: dict[tuple[str, str], float] = {}
    for row, tensor in shares.amounts.items():
        _spread(looked.sight, row, tensor, amounts, learned)
    if not np.isfinite(amounts).all():
        raise NonFiniteError(
            "What is found must be finite; found NaN or infinity in the attention. Check the weights, or load the "
            "model in a wider float type (dtype='float32')."
        )
    units = item.units
    if looked.horizon is not None and not amounts[looked.horizon :].any():
        units, amounts = units[: looked.horizon], amounts[: looked.horizon]
    more = [
        Unit(index=len(units) + k, text=name, stream=stream, special=True) for k, (stream, name) in enumerate(learned)
    ]
    return RelevanceMap(
        method=method,
        model=question.name,
        task=question.task,
        target=looked.target,
        value=float(looked.value.detach()),
        units=(*units, *more),
        relevance=np.append(amounts, list(learned.values())),
        texts=item.texts,
        pictures=item.pictures,
        warnings=(*item.warnings, *notes, *shares.warnings),
        notes=shares.notes,
        additive=False,
        recipe=replace(question.recipe),
    )


def _spread(sight: Sight, row: Row, tensor: Tensor, amounts: np.ndarray, learned: dict[tuple[str, str], float]) -> None:
    """Give the amount of each position to the units it covers, in equal parts, or to a learned vector."""
    for covers, amount in zip(sight.covered(row, len(tensor)), tensor.double().tolist(), strict=True):
        if isinstance(covers, str):
            if amount:
                key = (sight.stream(row), covers)
                learned[key] = learned.get(key, 0.0) + amount
        elif covers:
            amounts[list(covers)] += amount / len(covers)
