"""Does an explanation change when what it should depend on changes: the weights, the class, the input?

Adebayo et al. 2018, "Sanity Checks for Saliency Maps", sections 3 and 4; for another class Sixt et al. 2020, "When
Explanations Lie". Someone else randomises and explains; here maps are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clearhead.checks.agreement import FEWEST, common, has_sign
from clearhead.checks.ranks import spearman
from clearhead.checks.samples import SURE, finite
from clearhead.errors import UsageError
from clearhead.maps import RelevanceMap
from clearhead.validations import Finding, Question, Sanity, Step, Thresholds
from clearhead.validations.verdicts import Kind

Values = NDArray[np.float64]
TOO_FEW = f"Fewer than {FEWEST} units rank too little for a sanity test."


# ---- how alike two maps are ----------------------------------------------------------------------------------------


def alike(before: Values, after: Values, *, kind: Kind, name: str, signed: bool = True) -> Step:
    r"""Spearman's $\rho$ between relevance before and after a change, and between its sizes, from -1 to 1.

    `signed=False` for methods without sign, of which only sizes are compared. None where there are fewer than 5
    units, or one of the two is the same for all. Raises NonFiniteError for NaN, UsageError for other units.

    >>> step = alike(np.array([1.0, 2, 3, 4, 5]), -np.array([1.0, 2, 3, 4, 5]), kind="class", name="negative")
    >>> round(step.signed, 6), round(step.size, 6)
    (-1.0, 1.0)
    """
    a, b = finite(before, "Relevances before"), finite(after, f"Relevances after ({name})")
    if a.ndim != 1 or a.shape != b.shape:
        raise UsageError(f"The same units are compared before and after; found {a.shape} and {b.shape} ({name}).")
    return Step(
        kind=kind,
        name=name,
        signed=_similarity(a, b) if signed else None,
        size=_similarity(np.abs(a), np.abs(b)),
        units=len(a),
    )


def _similarity(a: Values, b: Values) -> float | None:
    found = spearman(a, b) if len(a) >= FEWEST else None
    return found.value if found else None


# ---- what was changed ----------------------------------------------------------------------------------------------


def randomised(
    before: RelevanceMap,
    cascade: Mapping[str, RelevanceMap],
    all_at_once: Sequence[RelevanceMap] = (),
    *,
    signed: bool | None = None,
) -> list[Step]:
    """A step for each map of a model whose weights were made random, special units left out.

    `cascade` holds maps by what was randomised last, from the top down, each on top of those before; its last one is
    of a model that is random altogether, as are those of `all_at_once`, each of another seed. `signed` says whether
    the method has a sign; by default what `has_sign` finds. Raises what `alike` raises.
    """
    own = has_sign(before) if signed is None else signed
    after: list[tuple[Kind, str, RelevanceMap]] = [("cascade", name, each) for name, each in cascade.items()]
    after += [("all", f"all, draw {n}", each) for n, each in enumerate(all_at_once)]
    return [_step(before, each, kind, name, own) for kind, name, each in after]


def other_targets(before: RelevanceMap, after: Mapping[str, RelevanceMap], *, signed: bool | None = None) -> list[Step]:
    """A step for each map of the same input that explains another target, by its name. Raises what `alike` raises."""
    own = has_sign(before) if signed is None else signed
    return [_step(before, each, "class", name, own) for name, each in after.items()]


def other_inputs(before: RelevanceMap, after: Mapping[str, RelevanceMap], *, signed: bool | None = None) -> list[Step]:
    """A step for each map of another input with as many units, compared place by place. Raises what `alike` raises.

    The others should have nothing to do with the input: units drawn at random, or another image.
    """
    own = has_sign(before) if signed is None else signed
    return [_step(before, each, "input", name, own) for name, each in after.items()]


def _step(before: RelevanceMap, after: RelevanceMap, kind: Kind, name: str, signed: bool) -> Step:
    own = sum(not unit.special for unit in before.units)
    mine, theirs = common(before, after)
    if len(mine) != own:
        raise UsageError(
            f"The same units are compared before and after; {name!r} has {len(mine)} of {own}. Explain an input of "
            "the same length."
        )
    return alike(mine, theirs, kind=kind, name=name, signed=signed)


# ---- what it says --------------------------------------------------------------------------------------------------


def findings(steps: Sequence[Step], thresholds: Thresholds | None = None, *, inputs: int = 1) -> tuple[Finding, ...]:
    r"""Whether a method depends on the weights, the class and the input, of those that were changed.

    Weights: the model that is random altogether (the last step of a cascade and all at once), by the larger of the two
    similarities, since sizes may stay where signs do not. Class and input: the similarity with sign where there is
    one, since another class may turn every sign. The mean of a question's steps is compared with its threshold, and
    with what chance reaches once in 40: $1.96/\sqrt{(n-1)m}$ of n units and m `inputs`.

    >>> step = Step(kind="class", name="negative", signed=None, size=1.0, units=20)
    >>> [str(each) for each in findings([step])]
    ['does not depend on the class']
    """
    bar = thresholds or Thresholds()
    cascade = [each for each in steps if each.kind == "cascade"]
    random = [*cascade[-1:], *(each for each in steps if each.kind == "all")]
    classes, others = ([each for each in steps if each.kind == kind] for kind in ("class", "input"))
    asked: list[tuple[Question, float, list[Step], list[float | None]]] = [
        ("weights", bar.weights, random, [_larger(each) for each in random]),
        ("class", bar.classes, classes, [_own(each) for each in classes]),
        ("input", bar.inputs, others, [_own(each) for each in others]),
    ]
    return tuple(_found(name, least, known, own, inputs) for name, least, own, known in asked if own)


def _own(step: Step) -> float | None:
    return step.size if step.signed is None else step.signed


def _larger(step: Step) -> float | None:
    known = [each for each in (step.signed, step.size) if each is not None]
    return max(known) if known else None


def _found(
    question: Question, least: float, similarities: Sequence[float | None], steps: Sequence[Step], inputs: int
) -> Finding:
    known = [each for each in similarities if each is not None]
    if not known:
        return Finding(question=question, similarity=None, bound=None, depends=None)
    units = min(each.units for each in steps)
    bound = max(least, SURE / math.sqrt((units - 1) * inputs))
    mean = float(np.mean(known))
    return Finding(question=question, similarity=mean, bound=bound, depends=mean < bound)


def sanity(method: str, steps: Sequence[Step], thresholds: Thresholds | None = None) -> Sanity:
    """The tests of one method on one input, with what they say."""
    few = any(each.units < FEWEST for each in steps)
    return Sanity(
        method=method, steps=tuple(steps), findings=findings(steps, thresholds), notes=(TOO_FEW,) if few else ()
    )


def mean_sanity(found: Sequence[Sanity], thresholds: Thresholds | None = None) -> Sanity:
    """The tests of one method over several inputs: every step by its kind and name as a mean, and what they say.

    Raises UsageError for no input, or more than one method.
    """
    methods = {each.method for each in found}
    if len(methods) != 1:
        raise UsageError(f"A mean is over the tests of one method; found {', '.join(sorted(methods)) or 'none'}.")
    held: dict[tuple[Kind, str], list[Step]] = {}
    for step in (step for each in found for step in each.steps):
        held.setdefault((step.kind, step.name), []).append(step)
    steps = [_mean_step(kind, name, members) for (kind, name), members in held.items()]
    return Sanity(
        method=methods.pop(),
        steps=tuple(steps),
        findings=findings(steps, thresholds, inputs=len(found)),
        inputs=len(found),
        notes=tuple(dict.fromkeys(note for each in found for note in each.notes)),
    )


def _mean_step(kind: Kind, name: str, members: Sequence[Step]) -> Step:
    def mean(values: Sequence[float | None]) -> float | None:
        known = [each for each in values if each is not None]
        return float(np.mean(known)) if known else None

    units = float(np.mean([each.units for each in members]))
    return Step(
        kind=kind,
        name=name,
        signed=mean([each.signed for each in members]),
        size=mean([each.size for each in members]),
        units=units,
    )
