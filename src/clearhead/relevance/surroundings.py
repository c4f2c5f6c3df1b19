"""What a call goes by beside its arguments, to be had again later: random numbers, and types under autocast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The states of random numbers by device, and by its kind whether autocast is on and to which type."""

    drawn: Mapping[torch.device, Tensor]
    cast: Mapping[str, Any]

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Surroundings:
        """As they are now, where the tensors are and on the CPU.

        >>> held = Surroundings.of([])
        >>> first = torch.rand(2)
        >>> with held.restored():
        ...     print(torch.equal(torch.rand(2), first))
        True
        """
        devices = {_CPU, *(x.device for x in tensors if x.device.type != "meta")}
        kinds = {device.type for device in devices if torch.amp.is_autocast_available(device.type)}
        cast = {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds}
        return cls(_drawn(devices), cast)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """As they were, for a while."""
        now = _drawn(self.drawn)
        with ExitStack() as stack:
            for kind, (enabled, dtype) in self.cast.items():
                stack.enter_context(torch.autocast(kind, enabled=enabled, dtype=dtype))
            stack.callback(_draw, now)
            _draw(self.drawn)
            yield


def _drawn(devices: Any) -> dict[torch.device, Tensor]:
    return {device: _generator(device).get_rng_state(*_named(device)) for device in devices}


def _draw(states: Mapping[torch.device, Tensor]) -> None:
    for device, state in states.items():
        _generator(device).set_rng_state(state, *_named(device))


def _generator(device: torch.device) -> Any:
    """Where the random numbers of a device come from."""
    return torch if device.type == "cpu" else torch.get_device_module(device)


def _named(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "cpu" else (device,)
