"""What happens without some heads: a copy of the model that lacks them, and a metric as ever more of them go."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary
from tqdm import tqdm

from clearhead.errors import ModelError, UsageError
from clearhead.headreports import Curve, Head, Pruning
from clearhead.heads.cases import Case, label_of
from clearhead.heads.gates import Call, Catalogue, Gates, passed, shut
from clearhead.heads.importance import Absolute, averaged, importance, normalised
from clearhead.heads.store import Store
from clearhead.heads.together import answers
from clearhead.question import Question
from clearhead.sight.watch import CARRIES
from clearhead.subjects import Subject
from clearhead.subjects.targets import index, logits
from clearhead.tape import Function, Operation, address, is_tensor, picked

ORDERS, POINTS = 10, 10  # random orders, steps of a curve
SIGNIFICANT, DRAWS = 0.05, 2000
STEPS = 64  # of the float type, by which a copy may differ from the gates, relative to the largest number
PROJECTIONS = {"linear": 1, "addmm": 0, "matmul": 0}  # the axis of a weight that its input lies along
BEHIND = CARRIES | {"mul", "add", "sigmoid", "reshape_as", "unsafe_view"}


# ---- a copy without them -------------------------------------------------------------------------------------------


class Behind(Gates):
    """Looks for the parameter that what the heads of each attention give out is multiplied by, joined."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, self._give_on)
        self.found: dict[Call, tuple[str, int]] = {}  # the name of the parameter, and its axis of inputs
        self._known = {at: (name, p) for name, p in model.named_parameters() if (at := address(p))}
        self._from: Any = WeakTensorKeyDictionary()
        self._last: Call = ("", 0)

    def _give_on(self, call: Call, given: Tensor) -> Tensor:
        self._last = call
        return given

    def _given(self, result: Tensor, axes: tuple[int, int]) -> Tensor:
        given = super()._given(result, axes)
        self._from[given] = self._last
        return given

    def interpret(self, operation: Operation, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the tape calls for each operation."""
        result = super().interpret(operation, function, args, kwargs)
        operands = list(picked((*args, *kwargs.values()), is_tensor))
        call = next((self._from[each] for each in operands if each in self._from), None)
        if call is None or not isinstance(result, Tensor) or result in self._from:
            return result
        weights = [each for each in operands if each.dim() == 2 and address(each) in self._known]
        if operation.name in PROJECTIONS and weights:
            name, parameter = self._known[address(weights[-1])]
            axis = PROJECTIONS[operation.name]
            self.found.setdefault(call, (name, axis if weights[-1].stride() == parameter.stride() else 1 - axis))
        elif operation.name in BEHIND:
            self._from[result] = call
        return result


def pruned(question: Question, catalogue: Catalogue, heads: Sequence[Head]) -> nn.Module:
    """A copy of a model in which the weights that read the heads' outputs are 0; the model itself stays as it is.

    Copy and gates are compared on the question. Raises ModelError where they disagree, or where no linear layer reads
    the heads.
    """
    behind = Behind(question.model)
    with question.evaluated(), torch.no_grad():
        for part in question.passes:
            behind.tape.under(question.model, **part.tensors)
    found = copy.deepcopy(question.model)
    parameters = dict(found.named_parameters(remove_duplicate=False))
    for head in heads:
        call = catalogue.calls[head.stream, head.layer]
        if call not in behind.found:
            raise ModelError(
                f"Heads are taken out of the linear layer that reads them, joined; behind {call[0]!r} there is none. "
                "Use `without`, which needs none."
            )
        name, axis = behind.found[call]
        width = parameters[name].shape[axis] // catalogue.count[call]
        with torch.no_grad():
            parameters[name].narrow(axis, head.head * width, width).zero_()
    _compared(question, found, catalogue.masks(heads))
    return found


def _compared(question: Question, found: nn.Module, masks: Mapping[Call, Tensor]) -> None:
    """Raise ModelError if a copy differs from the gates."""
    other = replace(question, model=found)
    with question.evaluated(), other.evaluated():
        pairs = zip(
            _floats(passed(question, shut(masks), recording=False)),
            _floats(passed(other, lambda _, given: given, recording=False)),
            strict=True,
        )
        for mine, copied in pairs:
            most = STEPS * torch.finfo(mine.dtype).eps * max(1.0, float(mine.abs().max()))
            if not torch.allclose(mine, copied, rtol=0, atol=most, equal_nan=True):
                raise ModelError(
                    f"A copy without heads must give what the gates give; it is off by "
                    f"{float((mine - copied).abs().max()):.1e}. Layers that share weights lose a head together: name "
                    "it in all of them, or use `without`."
                )


def _floats(value: Any) -> Iterator[Tensor]:
    """The float tensors in an output, in order."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _floats(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _floats(each)


# ---- a metric without them -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """The metric of each document without some heads; what was computed once is kept in a store."""

    subject: Subject
    catalogue: Catalogue
    cases: Sequence[Case]
    metric: str  # "accuracy", "loss" or "target"
    batch_size: int = 0
    store: Store = field(default_factory=Store)

    def masks(self, removed: Sequence[int]) -> dict[Call, Tensor]:
        """The gates without heads."""
        return self.catalogue.masks(self.catalogue.heads[n] for n in removed)

    def of(self, removed: Sequence[int]) -> NDArray[np.float64]:
        """One number per document."""
        return self.store.of(f"{self.metric} without {sorted(removed)}", lambda: self._measured(removed))

    def importance(self, removed: Sequence[int], absolute: Absolute, normalise: bool) -> NDArray[np.float64]:
        """The importance of each head while others are gone."""

        def made() -> NDArray[np.float64]:
            masks = self.masks(removed)
            found, _ = importance(
                self.subject, self.catalogue, self.cases, absolute=absolute, batch_size=self.batch_size, removed=masks
            )
            return averaged(found)[0]

        mean = self.store.of(f"importance by {absolute} without {sorted(removed)}", made)
        layers = [(head.stream, head.layer) for head in self.catalogue.heads]
        return normalised(layers, mean)[0] if normalise else mean

    def _measured(self, removed: Sequence[int]) -> NDArray[np.float64]:
        give = shut(self.masks(removed))

        def ask(question: Question, own: Sequence[Case]) -> NDArray[np.float64]:
            with question.evaluated(), torch.no_grad():
                outputs = passed(question, give, recording=False)
                return np.array([[self._score(case, outputs, row)] for row, case in enumerate(own)])

        return answers(self.subject, self.cases, ask, what=self.metric, size=self.batch_size)[:, 0]

    def _score(self, case: Case, outputs: list[Any], row: int) -> float:
        if self.metric == "accuracy":
            own = logits(outputs[0])[row]
            return float(int(own.argmax()) == index(label_of(case.label), self.subject.labels, len(own), "label"))
        return float(case.score(outputs, row))


# ---- curves --------------------------------------------------------------------------------------------------------


def curve(
    scores: Scores,
    *,
    steps: int = POINTS,
    orders: int = ORDERS,
    iterative: bool = True,
    absolute: Absolute = "example",
    normalise: bool = True,
    seed: int = 0,
) -> Pruning:
    """The metric as heads go: by importance once and recomputed, the other way round, and in random orders.

    Michel, Levy & Neubig 2019, section 4.3; Budhraja et al. 2020 on why random orders belong beside. Raises
    UsageError for fewer than ten orders or fewer than one step.
    """
    if orders < ORDERS or steps < 1:
        raise UsageError(
            f"A curve needs {ORDERS} random orders and a step at least; found {orders} and {steps}. Give more."
        )
    count = len(scores.catalogue)
    sizes = sorted({round(count * n / steps) for n in range(steps + 1)})
    ranking = np.argsort(scores.importance((), absolute, normalise), kind="stable").tolist()
    draw = np.random.default_rng(seed)
    paths = {"importance": [ranking[:size] for size in sizes], "worst": [ranking[::-1][:size] for size in sizes]}
    for n in range(orders):
        order = draw.permutation(count).tolist()
        paths[f"random {n}"] = [order[:size] for size in sizes]
    bar = tqdm(total=(len(paths) + iterative) * len(sizes), desc="pruning", unit="point", leave=False, disable=None)
    found = {name: [_counted(bar, scores, removed) for removed in path] for name, path in paths.items()}
    if iterative:
        found["iterative"] = list(_iterated(bar, scores, sizes, absolute, normalise))
    bar.close()
    return _judged(scores, ranking, np.array(sizes) / count, found, draw)


def _counted(bar: Any, scores: Scores, removed: Sequence[int]) -> NDArray[np.float64]:
    found = scores.of(removed)
    bar.update()
    return found


def _iterated(
    bar: Any, scores: Scores, sizes: Sequence[int], absolute: Absolute, normalise: bool
) -> Iterator[NDArray[np.float64]]:
    """Importance is computed again after each step, of the heads that are left."""
    gone: list[int] = []
    for size in sizes:
        if size > len(gone):
            left = scores.importance(gone, absolute, normalise)
            gone += [n for n in np.argsort(left, kind="stable").tolist() if n not in set(gone)][: size - len(gone)]
        yield _counted(bar, scores, gone)


def _judged(
    scores: Scores, ranking: list[int], shares: NDArray[np.float64], found: dict[str, Any], draw: np.random.Generator
) -> Pruning:
    sign = -1 if scores.metric == "loss" else 1
    means = {name: np.array([each.mean() for each in path]) for name, path in found.items()}
    band = np.stack([mean for name, mean in means.items() if name.startswith("random")])
    curves = [
        Curve(order=name, removed=shares, metric=means[name], metric_name=scores.metric)
        for name in ("importance", "iterative", "worst")
        if name in means
    ]
    curves.insert(2, Curve(order="random", removed=shares, metric=band, metric_name=scores.metric))
    free = 0.0
    for share, each in zip(shares, found["importance"], strict=True):
        if _worse(sign * found["importance"][0], sign * each, scores.metric, draw):
            break
        free = float(share)
    half = (shares > 0) & (shares <= 0.5)
    half = half if half.any() else shares > 0
    below = float((sign * band[:, half].mean(1) < sign * means["importance"][half].mean()).mean())
    verb = "beats" if below >= 0.9 else "does not beat"
    return Pruning(
        curves=tuple(curves),
        order=tuple(ranking),
        documents=len(scores.cases),
        free=free,
        test="McNemar, exact, one-sided"
        if scores.metric == "accuracy"
        else "paired bootstrap over documents, one-sided",
        beats_random=below >= 0.9,
        notes=(
            f"The order of importance {verb} random orders over the first half of the heads: its mean "
            f"{scores.metric} is better than that of {round(100 * below)} % of {len(band)} random orders.",
        ),
    )


def _worse(before: NDArray[np.float64], after: NDArray[np.float64], metric: str, draw: np.random.Generator) -> bool:
    """Is a metric, of which more is better, significantly lower after than before on the same documents?"""
    change = after - before
    if not change.any():
        return False
    if metric == "accuracy":
        lost, won = int((change < 0).sum()), int((change > 0).sum())
        tail = sum(math.comb(lost + won, k) for k in range(lost, lost + won + 1)) / 2 ** (lost + won)
        return bool(tail < SIGNIFICANT)
    means = change[draw.integers(0, len(change), (DRAWS, len(change)))].mean(1)
    return bool(np.quantile(means, 1 - SIGNIFICANT) < 0)
