"""One forward pass under the tape, one backward pass: relevance of the sources, and the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from clearhead.config import Settings
from clearhead.errors import ModelError, UsageError
from clearhead.maps import LedgerEntry
from clearhead.relevance.ledger import Ledger
from clearhead.relevance.numerics import rooms
from clearhead.relevance.run import Lookup, Owed, Run
from clearhead.relevance.table import ROWS
from clearhead.tape import Keeper, Tape


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A tensor where relevance ended: an explained input, a learned vector, or an embedding lookup (with its ids)."""

    value: Tensor
    gradient: Tensor
    name: str
    indices: Tensor | None = None
    first: int = 0
    length: int | None = None
    base: Tensor | None = None
    own: Tensor | None = None

    @property
    def relevance(self) -> Tensor:
        """R = x G for every entry, in float64; (x - b) G against what a baseline has in its place.

        What a rule gave it straight (`own`) is added.
        """
        passed = self._change.double() * self.gradient.double()
        return passed if self.own is None else passed + self.own.double()

    def part(self, rows: slice) -> Source:
        """Some rows of its leading axis."""
        base, own = (None if each is None else each[rows] for each in (self.base, self.own))
        return replace(self, value=self.value[rows], gradient=self.gradient[rows], base=base, own=own)

    @property
    def _change(self) -> Tensor:
        return self.value if self.base is None else self.value.double() - self.base.double()


@dataclass(frozen=True, slots=True, eq=False)
class Propagation:
    """What one backward pass found: the sources in order of execution, and for each item its value and its ledger.

    `bases` are the values at the baseline, where there is one.
    """

    values: tuple[float, ...]
    sources: tuple[Source, ...]
    ledgers: tuple[tuple[LedgerEntry, ...], ...]
    bases: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        """The value of the only item."""
        (value,) = self.values
        return value

    @property
    def base(self) -> float:
        """The value of the only item at the baseline; 0 where there is none."""
        return self.bases[0] if self.bases else 0.0

    @property
    def ledger(self) -> tuple[LedgerEntry, ...]:
        """The ledger of the only item."""
        (ledger,) = self.ledgers
        return ledger


class Watching(Protocol):
    """What interprets a forward pass: by the rules of lrp, or of an input and its baseline at once."""

    tape: Tape
    ledger: Ledger
    keeper: Keeper
    lookups: list[Lookup]
    owing: list[Owed]
    item: int | None

    @property
    def source(self) -> Callable[..., Tensor]:
        """Begins a tensor whose relevance will be known."""


class Recording:
    """A forward pass that was watched, from which any scalar computed under `watched` can be explained.

    Nothing is left on the model: parameters take part as constants, and no hook is set.
    """

    def __init__(self, run: Watching) -> None:
        self._run = run

    def watched(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `function` under the tape."""
        with torch.inference_mode(False), torch.enable_grad():
            return self._run.tape.under(function, *args, **kwargs)

    def asked(self, function: Callable[..., Any], outputs: list[Any], item: int) -> Any:
        """Call `function` under the tape about one item of the batch, whose are the leaks of all it computes."""
        self._run.item = item
        try:
            return self.watched(function, outputs, item)
        finally:
            self._run.item = None

    def source(self, *values: Tensor) -> Tensor:
        """A copy of a float tensor to compute with, whose relevance will be known; behind it, its baseline's."""
        with torch.inference_mode(False), torch.enable_grad():
            return self._run.source(*values)

    @property
    def lookups(self) -> list[Lookup]:
        """The sources met so far."""
        return self._run.lookups

    def explain(self, *values: Tensor, keep: bool = False) -> Propagation:
        """Send scalars back to the sources, one for each item of the batch.

        `keep` allows others of the same recording after them. Raises UsageError for what is no scalar, ModelError if
        one does not depend on any source.
        """
        for value in values:
            self._require_dependent(value)
        self._run.ledger.clear()
        self._run.keeper.last = not keep
        lookups, owing = self._run.lookups, self._run.owing
        straight = [lookup for lookup in lookups if lookup.own is not None]
        leaves = [owed.leaf for owed in owing] + [lookup.leaf for lookup in lookups]
        leaves += [each.own for each in straight if each.own is not None]
        with torch.inference_mode(False), torch.enable_grad():
            whole = values[0] if len(values) == 1 else torch.stack([value.reshape(()) for value in values]).sum()
            found = self._pulled(whole, leaves, keep=keep)
        for owed, gradient in zip(owing, found, strict=False):
            if gradient is not None:  # a call that nothing reached has no place in the books
                wide = torch.promote_types(gradient.dtype, torch.float32)
                self._run.ledger.book(owed.cause, owed.place, owed.leaf.detach().to(wide) * gradient)
        gradients = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]
        gradients = gradients[len(owing) :]
        own = {id(lookup): each for lookup, each in zip(straight, gradients[len(lookups) :], strict=True)}
        sources = tuple(
            _source(lookup, gradient, own.get(id(lookup))) for lookup, gradient in zip(lookups, gradients, strict=False)
        )
        return Propagation(tuple(float(v.detach()) for v in values), sources, self._run.ledger.entries())

    def _require_dependent(self, value: Tensor) -> None:
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(f"A target must be a scalar tensor; found {shape}. Pick one entry, or sum.")
        if not value.requires_grad or not self._run.lookups:
            raise ModelError(
                "The explained value must depend on the input by differentiable operations; no gradient reaches any "
                "input or embedding. Is the model computing under `torch.no_grad()`, with integer arithmetic, or only "
                "with operations whose rule makes them constants (`exp`, `1/x`, norms)?"
            )

    def _pulled(self, value: Tensor, leaves: list[Tensor], *, keep: bool) -> tuple[Tensor | None, ...]:
        try:
            with rooms():
                return torch.autograd.grad(value.reshape(()), leaves, retain_graph=keep, allow_unused=True)
        except RuntimeError as error:
            raise ModelError(
                f"Relevance cannot be sent back through this model: {error}. Gradient checkpointing and code that "
                "torch cannot differentiate twice over are not supported; switch them off."
            ) from error


def _source(lookup: Lookup, gradient: Tensor, own: Tensor | None) -> Source:
    """What one lookup collected."""
    return Source(
        value=lookup.leaf.detach(),
        gradient=gradient,
        name=lookup.name,
        indices=lookup.indices,
        first=lookup.first,
        length=lookup.length,
        base=lookup.base,
        own=own,
    )


def propagate(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], settings: Settings, *, model: nn.Module | None = None
) -> Propagation:
    """The relevance of `inputs`, and of every embedding lookup, for the scalar `function(*inputs)`.

    `model` names the modules in the ledger. Raises what `Recording.explain` raises, and UnruledOperationError.

    >>> import torch
    >>> from clearhead.config import Settings
    >>> weight = torch.tensor([[2.0, -1.0]])
    >>> p = propagate(lambda x: (x @ weight.T).sum(), [torch.tensor([[3.0, 4.0]])], Settings(preset="cp-lrp", rule="0"))
    >>> p.value, p.sources[0].relevance.tolist()
    (2.0, [[6.0, -4.0]])
    """
    return replay(Run(settings, model, ROWS), function, inputs)


def replay(run: Run, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Propagation:
    """`propagate`, on a run of one's own."""
    recording = Recording(run)
    return recording.explain(recording.watched(function, *[recording.source(x) for x in inputs]))
