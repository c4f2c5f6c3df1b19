"""From maps, and what was measured of them, to a verdict: on one prediction, and over a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from clearhead.checks.agreement import FEWEST, agreements, mean_agreements
from clearhead.checks.faithfulness import Perturbed
from clearhead.checks.measuring import Choices, contests, faithfulness, mean_faithfulness
from clearhead.checks.removing import Scores, among
from clearhead.checks.samples import ROUNDS
from clearhead.checks.sanity import mean_sanity
from clearhead.checks.verdict import Evidence, Removed, judge
from clearhead.errors import UsageError, choice
from clearhead.maps import RelevanceMap
from clearhead.units import Unit
from clearhead.validations import (
    METRICS,
    Agreements,
    Conservation,
    Evaluation,
    Faithfulness,
    Figure,
    Sanity,
    Thresholds,
    Validation,
    Verdict,
)
from clearhead.validations.evaluation import Test

Values = NDArray[np.float64]


# ---- one prediction ------------------------------------------------------------------------------------------------


def validation(
    maps: Mapping[str, RelevanceMap],
    scores: Mapping[str, Scores] | None = None,
    *,
    units: Sequence[Unit] | None = None,
    judged: NDArray[np.bool_] | None = None,
    scale: str = "logit",
    signed: Collection[str] | None = None,
    tolerances: Mapping[str, float] | None = None,
    against: str | None = None,
    perturbed: Mapping[str, Perturbed] | None = None,
    sanity: Sequence[Sanity] = (),
    choices: Choices | None = None,
    thresholds: Thresholds | None = None,
) -> Validation:
    """How far to trust several maps of one prediction, by the names of their methods.

    `scores` gives for each way to remove units the explained value of sets of `units` that stay [n, units], by default
    those of the first map; a map may have other special units beside them. `judged` says which of them may go, by
    default those that are not special. `signed` names the methods whose relevance has a sign (see `agreements`),
    `tolerances` how large the conservation error of some may be, where that is more than the threshold, since they
    integrate or draw; `against` the method that agreement is quoted with. `perturbed` gives what `max_sensitivity`
    takes, of units that are judged; `sanity` what was tested. With fewer than five units that are judged nothing is
    removed, and the notes say so. Raises UsageError for maps of different units, or an unknown name, NonFiniteError
    for NaN.

    >>> from clearhead import Target, Unit
    >>> weights, units = np.array([3.0, 1.0, -1.0, 2.0, 0.5]), tuple(Unit(index=i, text="abcde"[i]) for i in range(5))
    >>> about = dict(model="toy", task="tensors", units=units, target=Target(kind="class", label="fine"), value=5.5)
    >>> maps = {"true": RelevanceMap(method="true", relevance=weights, **about)}
    >>> validation(maps, {"zero": lambda kept: kept @ weights}).verdict("true").word
    'trust'
    """
    first = _first(maps)
    all_of = tuple(units or first.units)
    _check_named(maps, [against, *(each.method for each in sanity)])
    asked, bar, own = choices or Choices(), thresholds or Thresholds(), _judged(all_of, judged)
    few = () if own.sum() >= FEWEST else (f"There are {own.sum()} units to judge; below {FEWEST} little can be said.",)
    relevances = {name: aligned(name, each, all_of, own) for name, each in maps.items()}
    chosen = {} if few else {name: among(each, own) for name, each in (scores or {}).items()}
    found = Validation(
        model=first.model,
        task=first.task,
        target=first.target,
        value=first.value,
        units=int(own.sum()),
        texts=first.texts,
        methods=tuple(maps),
        agreement=agreements(maps, signed=signed, seed=asked.seed),
        faithfulness=_measured(relevances, chosen, scale, asked, perturbed),
        conservation=_all_books(maps, tolerances or {}, bar),
        sanity=tuple(sanity),
        against=against,
        thresholds=bar,
        notes=few,
        recipe=replace(first.recipe, settings=asdict(asked), seed=asked.seed),
    )
    return replace(found, verdicts=verdicts(found))


def _check_named(maps: Mapping[str, RelevanceMap], names: Sequence[str | None]) -> None:
    for name in names:
        if name is not None and name not in maps:
            raise choice("method", name, maps)


def _measured(
    relevances: Mapping[str, Values],
    scores: Mapping[str, Scores],
    scale: str,
    asked: Choices,
    perturbed: Mapping[str, Perturbed] | None,
) -> tuple[Faithfulness, ...]:
    """What each way of removing says; max-sensitivity removes nothing, so it is measured once, with the first."""
    found: list[Faithfulness] = []
    for name, each in scores.items():
        near = None if found else perturbed
        found.append(faithfulness(relevances, each, removal=name, scale=scale, choices=asked, perturbed=near))
    return tuple(found)


def _first(maps: Mapping[str, RelevanceMap]) -> RelevanceMap:
    """The first map, if all are of one prediction."""
    if not maps:
        raise UsageError("A validation is of at least one map; found none. Explain something first.")
    (name, first), *others = maps.items()
    for other, each in others:
        if _ordinary(each) != _ordinary(first):
            raise UsageError(
                f"Maps of the same units are judged together; those of {other} ({len(each.units)}) differ from those "
                f"of {name} ({len(first.units)}). Explain the same input, and do not sum tokens to words in one only."
            )
    return first


def _ordinary(found: RelevanceMap) -> list[Unit]:
    return [unit for unit in found.units if not unit.special]


def aligned(name: str, found: RelevanceMap, units: Sequence[Unit], judged: NDArray[np.bool_]) -> Values:
    """The relevance of those of `units` that are judged, in their order. Raises UsageError if the map lacks one."""
    known = {(unit.stream, unit.index): float(r) for unit, r in zip(found.units, found.relevance, strict=True)}
    wanted = [(unit.stream, unit.index) for unit, own in zip(units, judged, strict=True) if own]
    missing = [key for key in wanted if key not in known]
    if missing:
        raise UsageError(f"A map has the units that are judged; {name} lacks {len(missing)} of {len(wanted)}.")
    return np.array([known[key] for key in wanted])


def _judged(units: Sequence[Unit], judged: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    if judged is None:
        return np.array([not unit.special for unit in units], dtype=bool)
    own = np.asarray(judged, dtype=bool)
    if own.shape != (len(units),):
        raise UsageError(f"`judged` has a truth for each of {len(units)} units; found {own.shape}.")
    return own


def _all_books(
    maps: Mapping[str, RelevanceMap], tolerances: Mapping[str, float], bar: Thresholds
) -> dict[str, Conservation]:
    return {name: _books(each, max(bar.conservation, tolerances.get(name, 0.0))) for name, each in maps.items()}


def _books(found: RelevanceMap, most: float) -> Conservation:
    error = found.conservation_error
    known = error if found.additive and np.isfinite(error) else None
    return Conservation(additive=found.additive, error=known, balanced=int(found.conserves(most)))


# ---- a data set ----------------------------------------------------------------------------------------------------


def evaluation(
    found: Iterable[Validation],
    *,
    skipped: Mapping[str, int] | None = None,
    metrics: Sequence[str] = ("dA",),
    test: Test = "wilcoxon",
    rounds: int = ROUNDS,
    seed: int = 0,
    thresholds: Thresholds | None = None,
) -> Evaluation:
    """Means over validations with bootstrap intervals, paired tests of `metrics` between methods, and verdicts.

    Inputs with too few units are left out and counted with those `skipped` before, by reason. An input counts for the
    ways of removing that all inputs have. Raises UsageError if none is left, or for an unknown metric or test.
    """
    bar = thresholds or Thresholds()
    kept, reasons = _enough(list(found), skipped or {}, bar)
    for metric in metrics:
        if metric not in METRICS:
            raise choice("metric", metric, METRICS)
    ways = _ways(kept)
    means = Evaluation(
        model=kept[0].model,
        task=kept[0].task,
        inputs=len(kept),
        methods=tuple(dict.fromkeys(name for each in kept for name in each.methods)),
        agreement=mean_agreements([each.agreement for each in kept], rounds=rounds, seed=seed),
        skipped=reasons,
        faithfulness=tuple(mean_faithfulness(each, rounds=rounds, seed=seed) for each in ways),
        contests=tuple(
            one
            for each in ways
            for metric in metrics
            for one in contests(each, metric, test=test, rounds=rounds, seed=seed)
        ),
        conservation=_mean_books(kept),
        seconds=_median_seconds(kept),
        sanity=_mean_sanity(kept, bar),
        against=kept[0].against,
        thresholds=bar,
        recipe=replace(kept[0].recipe, seed=seed),
    )
    return replace(means, verdicts=verdicts(means))


def _enough(
    found: Sequence[Validation], skipped: Mapping[str, int], bar: Thresholds
) -> tuple[list[Validation], dict[str, int]]:
    """The inputs that have enough units, and how many were left out for which reason."""
    kept, reasons = [each for each in found if each.units >= bar.fewest_units], Counter(skipped)
    if len(found) > len(kept):
        reasons[f"fewer than {bar.fewest_units} units"] += len(found) - len(kept)
    if not kept:
        told = "; ".join(f"{count} skipped: {reason}" for reason, count in reasons.items()) or "none was given"
        raise UsageError(f"An evaluation is over at least one input; {told}. Give longer inputs, or others.")
    return kept, dict(reasons)


def _ways(kept: Sequence[Validation]) -> list[list[Faithfulness]]:
    """For each way of removing that all inputs have, what it says of each."""
    names = [each.removal for each in kept[0].faithfulness]
    held = [{each.removal: each for each in one.faithfulness} for one in kept]
    return [[one[name] for one in held] for name in names if all(name in one for one in held)]


def _mean_books(kept: Sequence[Validation]) -> dict[str, Conservation]:
    held: dict[str, list[Conservation]] = {}
    for name, books in (item for each in kept for item in each.conservation.items()):
        held.setdefault(name, []).append(books)
    return {name: _joined(members) for name, members in held.items()}


def _median_seconds(kept: Sequence[Validation]) -> dict[str, float]:
    held: dict[str, list[float]] = {}
    for name, seconds in (item for each in kept for item in each.seconds.items()):
        held.setdefault(name, []).append(seconds)
    return {name: float(np.median(members)) for name, members in held.items()}


def _joined(members: Sequence[Conservation]) -> Conservation:
    additive = all(each.additive for each in members)
    known = [each.error for each in members if each.error is not None]
    return Conservation(
        additive=additive,
        error=max(known) if additive and len(known) == len(members) else None,
        balanced=sum(each.balanced for each in members),
        inputs=sum(each.inputs for each in members),
    )


def _mean_sanity(kept: Sequence[Validation], bar: Thresholds) -> tuple[Sanity, ...]:
    held: dict[str, list[Sanity]] = {}
    for each in (each for one in kept for each in one.sanity):
        held.setdefault(each.method, []).append(each)
    return tuple(mean_sanity(members, bar) for members in held.values())


# ---- verdicts ------------------------------------------------------------------------------------------------------


def verdicts(found: Validation | Evaluation) -> tuple[Verdict, ...]:
    """The verdict on each method of a validation or an evaluation, from what it holds and by its thresholds."""
    return tuple(judge(_evidence(found, method), found.thresholds) for method in found.methods)


def _evidence(found: Validation | Evaluation, method: str) -> Evidence:
    tested = [each for each in found.sanity if each.method == method]
    removed = [each for each in (_removed(one, method) for one in found.faithfulness) if each is not None]
    single = isinstance(found, Validation)
    return Evidence(
        method=method,
        units=found.units if isinstance(found, Validation) else found.thresholds.fewest_units,
        agreement=_agreement(found.agreement, method, found.against),
        against=found.against or "",
        removed=tuple(removed),
        conservation=found.conservation.get(method),
        findings=tuple(finding for each in tested for finding in each.findings),
        sensitivity=_sensitivity(found.faithfulness, method),
        what="this prediction" if single else "this model's predictions",
    )


def _agreement(found: Agreements, method: str, against: str | None) -> Figure | None:
    pairs = [each for each in found.pairs if {each.first, each.second} == {method, against}]
    return pairs[0].figures["spearman"] if pairs else None


def _removed(found: Faithfulness, method: str) -> Removed | None:
    row = next((each for each in found.rows if each.method == method), None)
    best = found.best("dA")
    if row is None:
        return None
    return Removed(removal=found.removal, spread=row.figures["dA"], best=best.figures["dA"].value if best else None)


def _sensitivity(found: Sequence[Faithfulness], method: str) -> float | None:
    for row in (row for each in found for row in each.rows if row.method == method):
        figure = row.figures.get("max-sensitivity")
        if figure is not None:
            return figure.value
    return None
