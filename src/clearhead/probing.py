"""Maps of a question whose weights, target or input are changed: do methods see it, and how much?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from clearhead import batches, methods
from clearhead.checks.sanity import other_inputs, other_targets, randomised, sanity
from clearhead.checks.validating import aligned
from clearhead.config import Settings
from clearhead.errors import ClearheadError
from clearhead.maps import RelevanceMap
from clearhead.question import Question
from clearhead.sanity import layers, near, other, settled, targets
from clearhead.sanity import randomised as at_random
from clearhead.subjects import COMPARING
from clearhead.validations import Sanity, Step, Thresholds

CASCADE = 4  # steps from the top of the model to its bottom
DRAWS = 2  # models that are random altogether, and other inputs
STEPS = 20  # of integrated gradients, whose ranks need no more


def explained(question: Question, settings: Settings) -> RelevanceMap:
    """The map of a question with one aim by the method of the settings."""
    compares = settings.method in COMPARING
    recipe = replace(question.recipe, settings=settings.as_dict(), seed=settings.seed)
    own = replace(question, baselines=question.baselines if compares else (), recipe=recipe)
    (found,) = batches.one(own, methods.method(settings), settings)
    return found


# ---- weights, target, input ----------------------------------------------------------------------------------------


def tested(
    question: Question,
    named: Mapping[str, Settings],
    maps: Mapping[str, RelevanceMap],
    bar: Thresholds,
    tokenizer: Any,
) -> list[Sanity]:
    """Of each method, how alike its map stays as weights become random, for other targets and inputs of other content.

    Weights go from the top down in four steps, the last of which is the whole model, and twice all at once. What is
    explained stays the same but where the target is what changes. A `tokenizer` tells which tokens are special. A
    change under which a method fails is left out.
    """
    fixed, quick = settled(question), {name: _quick(each) for name, each in named.items()}
    cascade = {name: _all_of(fixed, quick, own, 0) for name, own in _cuts(fixed).items()}
    everything = tuple(question.model.parameters())
    at_once = [_all_of(fixed, quick, everything, 1 + n) for n in range(DRAWS)]
    classes = {name: _each(each, quick) for name, each in targets(question).items()}
    inputs: dict[str, dict[str, RelevanceMap]] = {}
    for n in range(DRAWS):
        with suppress(ClearheadError):
            inputs[f"input {n}"] = _each(other(fixed, n, tokenizer=tokenizer), quick)
    found = []
    for name, before in maps.items():
        steps: list[Step] = []
        steps += randomised(before, _of(name, cascade), [each[name] for each in at_once if name in each])
        steps += other_targets(before, _of(name, classes))
        steps += other_inputs(before, _of(name, inputs))
        found.append(sanity(name, steps, bar))
    return found


def _quick(settings: Settings) -> Settings:
    """Settings that rank as those do, in less time."""
    own = replace(settings, cross_check=False)
    return replace(own, steps=STEPS) if own.method == "integrated-gradients" and not own.steps else own


def _cuts(question: Question) -> dict[str, tuple[nn.Parameter, ...]]:
    """How far down weights are random at each step, by the lowest layer that is; all of them at the last."""
    groups = layers(question)
    names = list(groups)
    lasts = sorted({round(len(names) * (n + 1) / CASCADE) for n in range(CASCADE)} - {0})
    return {
        f"down to {names[last - 1] or 'the model itself'}": tuple(p for name in names[:last] for p in groups[name])
        for last in lasts
    }


def _all_of(
    question: Question, named: Mapping[str, Settings], parameters: Sequence[nn.Parameter], seed: int
) -> dict[str, RelevanceMap]:
    """The maps by each method while some weights are random."""
    with at_random(parameters, seed):
        return _each(question, named)


def _each(question: Question, named: Mapping[str, Settings]) -> dict[str, RelevanceMap]:
    """The maps by each method that can make one."""
    found = {}
    for name, settings in named.items():
        with suppress(ClearheadError):
            found[name] = explained(question, settings)
    return found


def _of(name: str, changed: Mapping[str, Mapping[str, RelevanceMap]]) -> dict[str, RelevanceMap]:
    return {change: maps[name] for change, maps in changed.items() if name in maps}


# ---- inputs nearby -------------------------------------------------------------------------------------------------


def steady(question: Question, settings: Settings, judged: NDArray[np.bool_]) -> Callable[[int], NDArray[np.float64]]:
    """From the number of an input nearby to the relevance of the units that are judged."""
    fixed, quick, units = settled(question), _quick(settings), question.items[0].units

    def relevance(number: int) -> NDArray[np.float64]:
        with near(fixed, number) as close:
            return aligned(settings.method, explained(close, quick), units, judged)

    return relevance
