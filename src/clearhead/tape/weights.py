"""Which weight of a model a tensor is, told by where its memory lies; and what weights are made of."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

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
        self._loaded = model is not None and any(each.is_meta for each in model.parameters())
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
        if self._known is None or self._loaded:
            state = (*self._model.named_buffers(), *self._model.named_parameters())
            self._known = {at: name for name, tensor in state if (at := address(tensor))}
        return self._known


def parts(weight: Tensor) -> Iterator[Tensor]:
    """The plain tensors that a weight is made of: itself, or those that a subclass, such as of packed values, holds."""
    if not is_traceable_wrapper_subclass(weight):
        yield weight
        return
    for name in weight.__tensor_flatten__()[0]:
        yield from parts(getattr(weight, name))
