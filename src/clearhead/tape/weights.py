"""Which weight of a model a tensor is, told by where its memory lies."""

from __future__ import annotations

from torch import Tensor, nn

from clearhead import inventory
from clearhead.tape.keeping import address


class Names:
    """The names of a model's parameters and buffers, by their memory; read when first asked for.

    Weights that a hook loads for the time of one call lie elsewhere at each, so these are looked for anew.

    >>> layer = nn.Linear(2, 3)
    >>> Names(layer).of(layer.weight[1:])
    'weight'
    """

    def __init__(self, model: nn.Module | None) -> None:
        self._model = model
        self._known: dict[int, str] | None = None

    def of(self, tensor: Tensor) -> str | None:
        """The name of the weight that a tensor is, or is a view of; None if it is none."""
        return self._read().get(address(tensor))

    def __contains__(self, place: object) -> bool:
        """Does the memory of a weight begin there?"""
        return place in self._read()

    def _read(self) -> dict[int, str]:
        if self._model is None:
            return {}
        if self._known is not None:
            return self._known
        held = inventory.tensors(self._model).items()
        known = {at: name for name, tensor in held if (at := address(tensor))}
        if not any(tensor.is_meta for _, tensor in held):
            self._known = known
        return known
