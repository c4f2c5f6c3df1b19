"""What a user wants explained, beside the input itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from clearhead.errors import UsageError

Score = str | int | Callable[[Any], Tensor] | None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The target of one explanation; every field may be left out, and each task takes some of them.

    Every task takes a `baseline`, which holds tensors or images and is not compared.
    """

    target: Score = None
    contrast: str | int | None = None
    position: int | str | None = None
    generate: int | None = None
    continuation: str | None = None
    first_piece: bool = False
    baseline: Any = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.generate is not None and (isinstance(self.generate, bool) or not isinstance(self.generate, int)):
            raise UsageError(f"`generate` is a number of tokens; found {self.generate!r}.")
        if self.generate is not None and self.generate < 1:
            raise UsageError(f"`generate` must be 1 or larger; found {self.generate}.")
        if self.continuation is not None and not isinstance(self.continuation, str):
            raise UsageError(f"`continuation` must be a text; found {type(self.continuation).__name__}.")
        if self.generate is not None and self.continuation is not None:
            raise UsageError("A continuation is generated or given; found both. Leave one out.")
        if self.contrast is not None and callable(self.target):
            raise UsageError("A target function says all there is to say; `contrast` must be left out.")

    def check(self, task: str, takes: Sequence[str]) -> None:
        """Raise UsageError for a field that the task does not take."""
        for each in fields(self):
            if each.compare and getattr(self, each.name) != each.default and each.name not in takes:
                can = f"it takes {', '.join(f'`{name}`' for name in takes)}" if takes else "it has one target, a number"
                raise UsageError(f"The task {task} does not take `{each.name}`; {can}. Leave it out.")


def single(target: Any) -> Any:
    """A target for one input. Raises UsageError for a list."""
    if isinstance(target, list):
        raise UsageError("A list of targets is for a list of inputs; found one input. Give one target.")
    return target


def one_each(target: Any, count: int) -> list[Any]:
    """A target for each of a list's inputs; one that is no list is meant for all. Raises UsageError."""
    if not isinstance(target, list):
        return [target] * count
    if len(target) != count:
        raise UsageError(f"A list of targets needs one for each input; found {len(target)} for {count} inputs.")
    return target
