"""The explained scalar of an input some of whose units are gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearhead.errors import NonFiniteError, UsageError
from clearhead.lookups import Noting
from clearhead.memory import SHARE, fitting, free_memory, halved
from clearhead.question import Baseline, Question, decide
from clearhead.removal.forward import called, repeated, size
from clearhead.removal.operators import Deleted, Hidden, Removing, Replaced
from clearhead.removal.regions import Region, regions

MOST = 32  # variants together: beyond, a processor does not get faster
POSITIONS = 2048  # of all these variants
HELD = 3  # outputs of a batch that are in memory at a time


class Removal:
    r"""$f(x_S)$: what the model says to an input of which the units $S$ are left, for one target.

    `question` is about one item, `baseline` one of its baselines, whose `operator` says how units are removed: replaced
    by what the baseline has in their places, hidden by the attention mask, or left out. Positions are kept (but for
    what is left out), and nothing is ever decoded and read again. The target is that of the whole input, whatever the
    rest would say; a target function is asked as it is. Raises UsageError for an operator that the model or the input
    does not support, ModelError if the model fails.

    >>> import torch
    >>> from clearhead import Settings
    >>> from clearhead.subjects import Loaded, Subject, Wanted
    >>> model = torch.nn.Linear(3, 2, bias=False)
    >>> subject = Subject(Loaded(model=model, processor=None, name="toy", task="tensors", pooling="mean"))
    >>> given = {"input": torch.tensor([[1.0, 2.0, 3.0]])}
    >>> question = subject.question(given, Wanted(baseline="zero"), Settings(method="secant"))
    >>> Removal(question, question.baselines[0]).scores([[False, False, False]]).tolist()
    [0.0]
    """

    def __init__(self, question: Question, baseline: Baseline, aim: int = 0) -> None:
        if len(question.items) != 1:
            raise UsageError(
                f"Units are removed from one input; this question has {len(question.items)}. Use alone(n)."
            )
        (item,) = question.items
        self._question, self._aim = question, item.aims[aim]
        self.units = item.units
        self.label = baseline.label
        whole = [Noting(baseline.vector) for _ in question.passes]
        with question.evaluated(), torch.no_grad():
            outputs = [
                called(question, repeated(part.tensors, 1), noting)
                for part, noting in zip(question.passes, whole, strict=True)
            ]
            self._ask = decide(self._aim.ask, outputs, 0)
            self.target, value = self._ask(outputs, 0)
        self.value = _finite(float(value))
        self._rows = self._together(outputs)
        found = regions(question)
        self._gone = _differing(question, baseline, found, len(self.units))
        self._operator = _operator(question, baseline, whole, [each for each in found if self._any(each)])

    @property
    def removable(self) -> NDArray[np.bool_]:
        """The units that can be removed [units]: neither special nor the same in the baseline."""
        return self._gone.cpu().numpy()

    @property
    def base_value(self) -> float:
        """The scalar when all that can be removed is gone."""
        return float(self.scores(np.zeros((1, len(self.units)), dtype=bool))[0])

    def scores(self, keep: Any) -> NDArray[np.float64]:
        """The scalar for each of n variants, without gradients, in batches that fit into memory.

        `keep` [n, units] is True where a unit stays; units that cannot be removed stay whatever it says. Raises
        UsageError for another shape, NonFiniteError for NaN or infinity.
        """
        kept = np.asarray(keep, dtype=bool)
        if kept.ndim != 2 or kept.shape[1] != len(self.units):
            raise UsageError(f"`keep` has a row of {len(self.units)} truths for each variant; found {kept.shape}.")
        gone = ~torch.from_numpy(np.ascontiguousarray(kept)).to(self._gone.device) & self._gone
        groups: dict[object, list[int]] = defaultdict(list)
        for n, row in enumerate(gone):
            groups[self._operator.key(row)].append(n)
        found = np.empty(len(kept))
        with self._question.evaluated(), torch.no_grad():
            for numbers in groups.values():
                for some, values, _ in halved(
                    numbers, lambda _: self._rows, lambda some: self._scored(gone[list(some)]), lambda _: self._length
                ):
                    found[list(some)] = values
        return found

    def _scored(self, gone: Tensor) -> list[float]:
        tensors = self._operator.tensors(gone)
        outputs = [
            self._operator.placed(number, called(self._question, each, self._operator.blanks(number)), gone)
            for number, each in enumerate(tensors)
        ]
        return [_finite(float(self._ask(outputs, row)[1])) for row in range(len(gone))]

    @property
    def _length(self) -> int:
        return max(len(layout.units) for layout in self._question.items[0].layouts)

    def _together(self, outputs: Sequence[Any]) -> int:
        """How many variants are read at a time; one where a target function takes the output of one."""
        if self._aim.alone:
            return 1
        model = self._question.model
        by_output = int(SHARE * free_memory(model) / (HELD * sum(map(size, outputs)) + 1))
        most = min(MOST, max(1, POSITIONS // self._length), max(1, by_output))
        return fitting(model, self._length, most)

    def _any(self, region: Region) -> bool:
        own = region.units[region.units >= 0]
        return bool(self._gone[own].any())


def _differing(question: Question, baseline: Baseline, found: Sequence[Region], count: int) -> Tensor:
    """The units for which the baseline has something else [units]."""
    differ = torch.zeros(count, dtype=torch.float64)
    for region in found:
        x, b = (each[region.number][region.name] for each in ([p.tensors for p in question.passes], baseline.tensors))
        differ = differ.to(x.device) + region.summed((x != b).double(), count)
    return differ > 0


def _operator(question: Question, baseline: Baseline, whole: Sequence[Noting], found: Sequence[Region]) -> Removing:
    if baseline.operator == "attention-mask":
        return Hidden(question, whole, found)
    if baseline.operator == "delete":
        return Deleted(question, baseline, found)
    return Replaced(question, baseline, found)


def _finite(value: float) -> float:
    if not np.isfinite(value):
        raise NonFiniteError(
            "The explained value must be finite; found NaN or infinity. method='lrp' names the module where it "
            "appears; check the weights, or load the model in a wider float type (dtype='float32')."
        )
    return value
