"""Values kept for the way back, safe from a model that overwrites them."""

from __future__ import annotations

from weakref import WeakSet

from torch import Tensor


def address(tensor: Tensor) -> int:
    """Where the memory of a tensor lies; 0 for one that has none of its own.

    Such are those inside `torch.vmap`, and subclasses that only hold other tensors.
    """
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


class Kept:
    """A value as it was when it was kept."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: Tensor) -> None:
        self.value = value


class Keeper:
    """Copies on write: rules keep plain aliases, and an alias becomes a copy only when a model overwrites it.

    Torch itself forbids to overwrite what it saved; rules save more than torch does, so models may overwrite it.
    """

    def __init__(self) -> None:
        self._by_storage: dict[int, WeakSet[Kept]] = {}

    def keep(self, tensor: Tensor) -> Kept:
        """Keep the present value of a tensor."""
        kept = Kept(tensor.detach())
        self._by_storage.setdefault(address(tensor), WeakSet()).add(kept)
        return kept

    def spare(self, written: object) -> None:
        """Called before `written` is overwritten: whatever is kept of its memory is copied first."""
        if isinstance(written, Tensor):
            for kept in self._by_storage.pop(address(written), ()):
                kept.value = kept.value.clone()
