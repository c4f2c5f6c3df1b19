"""Values kept for the way back, safe from a model that overwrites them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


def address(tensor: Tensor) -> int:
    """Where the memory of a tensor lies; 0 for one that has none of its own.

    Such are those inside `torch.vmap`, and subclasses that only hold other tensors.
    """
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


class Kept:
    """A value as it was when it was kept: itself, or what makes it again."""

    __slots__ = ("__weakref__", "_again", "_keeper", "_shape", "_value")

    def __init__(self, value: Tensor, keeper: Keeper | None = None, again: Again | None = None) -> None:
        self._keeper, self._again, self._shape = keeper, again, value.shape
        self._value = value if again is None else None

    @property
    def value(self) -> Tensor:
        """The value."""
        found = self._again.read().reshape(self._shape) if self._again is not None else self._value
        if found is None:
            raise RuntimeError("A value that was taken for the last time is read again.")
        return found

    def take(self) -> Tensor:
        """The value, for the only time on a way back; on the last one it is forgotten."""
        found = self.value
        if self._keeper is not None and self._keeper.last:
            self._value = None
        return found

    def spare(self) -> None:
        """Copy the value: its memory is about to be overwritten."""
        if self._value is not None:
            self._value = self._value.clone()


class Again:
    """A value that is sooner computed from what is kept anyway than kept: once on a way back, for all its readers."""

    def __init__(self, make: Callable[..., Tensor], given: tuple[Kept, ...], value: Tensor) -> None:
        self._make, self._given, self._version = make, given, value._version
        self._readers, self._left = 0, 0
        self._value: Tensor | None = None

    def kept(self, tensor: Tensor) -> Kept | None:
        """One more who keeps it, under the shape of `tensor`; None if the model has overwritten it since."""
        if tensor._version != self._version:
            return None
        self._readers += 1
        return Kept(tensor, again=self)

    def read(self) -> Tensor:
        """Made when the first of its readers asks, forgotten after the last."""
        if self._value is None:
            self._left = self._readers
            with torch.no_grad():
                self._value = self._make(*(kept.value for kept in self._given))
        value, self._left = self._value, self._left - 1
        if self._left <= 0:
            self._value = None
        return value


class Keeper:
    """Copies on write: rules keep plain aliases, and an alias becomes a copy only when a model overwrites it.

    Torch itself forbids to overwrite what it saved; rules save more than torch does, so models may overwrite it.
    """

    def __init__(self) -> None:
        self.last = False  # is the way back that begins now the last one?
        self._by_storage: dict[int, WeakSet[Kept]] = {}
        self._made: Any = WeakTensorKeyDictionary()

    def keep(self, tensor: Tensor) -> Kept:
        """Keep the present value of a tensor."""
        again = self._again(tensor) if self._made else None
        kept = again.kept(tensor) if again else None
        if kept is None:
            kept = Kept(tensor.detach(), self)
            self._by_storage.setdefault(address(tensor), WeakSet()).add(kept)
        return kept

    def make(self, result: Tensor, make: Callable[..., Tensor], *given: Kept) -> None:
        """From now on, who keeps `result` or a view of all of it keeps what is `given` instead: it is made of that."""
        self._made[result] = Again(make, given, result)

    def spare(self, written: object) -> None:
        """Called before `written` is overwritten: whatever is kept of its memory is copied first."""
        if isinstance(written, Tensor):
            for kept in self._by_storage.pop(address(written), ()):
                kept.spare()

    def _again(self, tensor: Tensor) -> Again | None:
        """What makes a tensor, or what it is a view of, in its order."""
        base = tensor._base
        if base is None or tensor.numel() != base.numel() or not (tensor.is_contiguous() and base.is_contiguous()):
            base = tensor
        found: Again | None = self._made.get(base)
        return found
