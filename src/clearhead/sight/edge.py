"""Where a model leaves its last block: what it hands on there tells which positions an answer is read from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.sight.sites import Site
from clearhead.tape import Operation, is_tensor, mapped, picked, writes_in_place

Call = tuple[tuple[Any, ...], dict[str, Any]]


class Edge:
    """Records no gradients up to the last block of a model, and from there on those of what the block gave out.

    A forward pass holds little more than without gradients then: behind its last block a model has but its head.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._inside: str | None = None
        self._site: Site | None = None
        self._begun: dict[int, Tensor] = {}

    def attention(self, site: Site) -> None:
        """An attention was met: what follows it in the last block is waited for."""
        torch.set_grad_enabled(False)
        self._inside, self._site = self._last(site.place.module), site

    def crossed(
        self,
        path: Callable[[], str],
        operation: Operation,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        marks: MutableMapping[Tensor, Any],
    ) -> Call:
        """A call, with what the last block gave out as a tensor of which gradients are recorded.

        What depends on the input is in `marks`, and so will be what takes its place; a call that overwrites is no
        place to begin.
        """
        waiting = self._inside is not None and not writes_in_place(operation, args, kwargs)
        if waiting and not f"{path()}.".startswith(f"{self._inside}."):
            tensors = picked((*args, *kwargs.values()), is_tensor)
            self._begin(tensor for tensor in tensors if tensor in marks and marks[tensor].origins)
        if not self._begun:
            return args, kwargs
        return (
            tuple(self._recorded(each, marks) for each in args),
            {name: self._recorded(each, marks) for name, each in kwargs.items()},
        )

    def finish(self, output: Any) -> None:
        """The pass is over: a model without a head gives out what its last block did."""
        if self._inside is not None:
            values = output.values() if isinstance(output, Mapping) else (output,)
            self._begin(picked(tuple(values), is_tensor))

    def _begin(self, tensors: Iterable[Tensor]) -> None:
        """Record gradients from the first tensor on that has a row for each position that asked."""
        if self._site is None:
            return
        for tensor in tensors:
            if tensor.is_leaf and tensor.is_floating_point() and axis_of(tensor, self._site.queries) is not None:
                self._begun[id(tensor)] = self._site.edge = tensor.requires_grad_()
                self._inside = None
                torch.set_grad_enabled(True)
                return

    def _recorded(self, value: Any, marks: MutableMapping[Tensor, Any]) -> Any:
        """A value in which leaves are replaced by views of them: a leaf itself would count as a parameter."""

        def view(tensor: Tensor) -> Tensor:
            with torch.enable_grad():
                seen = tensor.view_as(tensor)
            if tensor in marks:
                marks[seen] = marks[tensor]
            return seen

        return mapped(value, view, where=lambda each: id(each) in self._begun)

    def _last(self, path: str) -> str | None:
        """The path of the block that an attention lies in if it is the last of its list, or lies in no list."""
        parts = path.split(".")
        for i, part in enumerate(parts):
            if part.isdecimal():
                container = self._model.get_submodule(".".join(parts[:i]))
                if isinstance(container, (nn.ModuleList, nn.Sequential)):
                    return ".".join(parts[: i + 1]) if int(part) == len(container) - 1 else None
        return path or None


def axis_of(tensor: Tensor, count: int) -> int | None:
    """Along which axis the positions of one input lie in a table [1, positions, width] or [positions, 1, width]."""
    if tensor.dim() != 3:
        return None
    return next((axis for axis in (1, 0) if tensor.shape[axis] == count and tensor.shape[1 - axis] == 1), None)
