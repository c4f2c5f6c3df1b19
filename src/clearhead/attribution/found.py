"""From a question to the maps of a method that is asked about one input, one scalar and one baseline at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray

from clearhead.config import Settings
from clearhead.maps import LedgerEntry, RelevanceMap, Target
from clearhead.question import Question
from clearhead.units import Unit

Ready = Callable[[int], "Found"]  # from the number of an aim to what was found
Begin = Callable[[Question, Settings], Ready]  # about one item


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a method says about one scalar: a number for each unit [units], and how far it can be trusted.

    `base` is the scalar at the baseline, `compared` what this is in words, once for each baseline. `error` is the
    standard error of each number, of methods that draw. `said` are further notes.
    """

    target: Target
    value: float
    relevance: NDArray[np.float64]
    base: float = 0.0
    compared: tuple[str, ...] = ()
    error: NDArray[np.float64] | None = None
    said: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """What base and relevance do not explain of the value."""
        return self.value - self.base - float(self.relevance.sum())


def answered(
    question: Question, settings: Settings, begin: Begin, *, additive: bool
) -> Iterator[tuple[int, RelevanceMap]]:
    """The number of an item and a map, for each aim of each item, each item by itself."""
    package = "shap" if settings.method == "partition-shap" else "captum"
    recipe = replace(
        question.recipe, seed=settings.seed, versions={**question.recipe.versions, package: version(package)}
    )
    with question.evaluated() as warnings:
        for i, item in enumerate(question.items):
            with torch.inference_mode(False), torch.enable_grad():
                ready = begin(question.alone(i), settings)
            for n in range(len(item.aims)):
                with torch.inference_mode(False), torch.enable_grad():
                    found = ready(n)
                units, relevance = _within(item.units, found.relevance, item.aims[n].horizon)
                yield (
                    i,
                    RelevanceMap(
                        method=settings.method,
                        model=question.name,
                        task=question.task,
                        target=found.target,
                        value=found.value,
                        base_value=found.base,
                        units=units,
                        relevance=relevance,
                        ledger=_ledger(found, settings.method) if additive else (),
                        texts=item.texts,
                        pictures=item.pictures,
                        warnings=(*item.warnings, *warnings, *found.warnings),
                        notes=_notes(found, additive=additive),
                        additive=additive,
                        recipe=recipe,
                    ),
                )


def averaged(each: Sequence[Found]) -> Found:
    """The mean of what was found of one scalar from several baselines."""
    first, count = each[0], len(each)
    if count == 1:
        return first
    errors = [one.error for one in each if one.error is not None]
    return replace(
        first,
        base=float(np.mean([one.base for one in each])),
        relevance=np.mean([one.relevance for one in each], 0),
        compared=tuple(label for one in each for label in one.compared),
        error=np.sqrt(np.sum(np.square(errors), 0)) / count if errors else None,
        said=tuple(dict.fromkeys(note for one in each for note in one.said)),
        warnings=tuple(dict.fromkeys(warning for one in each for warning in one.warnings)),
    )


def _within(
    units: tuple[Unit, ...], relevance: NDArray[np.float64], horizon: int | None
) -> tuple[tuple[Unit, ...], NDArray[np.float64]]:
    """The units that the scalar can depend on, unless others have relevance all the same."""
    if horizon is None or relevance[horizon:].any():
        return units, relevance
    return units[:horizon], relevance[:horizon]


def _ledger(found: Found, method: str) -> tuple[LedgerEntry, ...]:
    entry = LedgerEntry(cause="completeness", module="", operation=method, relevance=found.gap, returned=False)
    return (entry,) if found.gap else ()


def _notes(found: Found, *, additive: bool) -> tuple[str, ...]:
    notes = []
    if len(found.compared) == 1:
        notes.append(f"Compared with {found.compared[0]}.")
    elif found.compared:
        notes.append(f"The mean of {len(found.compared)} comparisons: with {'; '.join(found.compared)}.")
    if found.compared and additive:
        notes.append(f"Completeness: {found.gap:+.2g} of a difference of {found.value - found.base:.4g} is left over.")
    if found.error is not None and len(found.error):
        notes.append(
            f"Standard error of a unit's number: {np.sqrt(np.mean(np.square(found.error))):.2g} (root mean square), "
            f"at most {found.error.max():.2g}."
        )
    return (*notes, *found.said)
