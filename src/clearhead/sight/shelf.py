"""Where tensors wait until they are looked at again: in memory while there are few, in a file that nobody sees else."""

from __future__ import annotations

import tempfile
import weakref

import torch
from torch import Tensor

from clearhead.sight.sites import Fused, Holder, Site

MOST = 2**24  # bytes that stay in memory; what comes after them goes to a temporary file


class _Spool:
    """A temporary file that is closed, and so gone, with the last tensor that waits in it."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix="clearhead-")  # noqa: SIM115
        weakref.finalize(self, self.file.close)


class Waiting:
    """A tensor in a file, read when asked for."""

    def __init__(self, spool: _Spool, tensor: Tensor) -> None:
        whole = tensor.detach().contiguous()
        self._shape, self._dtype, self._spool = tuple(whole.shape), whole.dtype, spool
        self._start, self._bytes = spool.file.seek(0, 2), whole.numel() * whole.element_size()
        spool.file.write(whole.reshape(-1).view(torch.uint8).numpy().data)

    @property
    def value(self) -> Tensor:
        """The tensor."""
        self._spool.file.seek(self._start)
        read = bytearray(self._spool.file.read(self._bytes))
        return torch.frombuffer(read, dtype=self._dtype).reshape(self._shape)


class Shelf:
    """Takes queries and keys off memory, once there are more of them than `most` bytes; those of a GPU stay there."""

    def __init__(self, most: int = MOST) -> None:
        self._most, self._used = most, 0
        self._spool: _Spool | None = None

    def put(self, site: Site) -> None:
        """Let the operands of a fused attention wait; its values are not kept."""
        site.held_value = None
        if isinstance(site, Fused):
            site.query, site.key = self._waiting(site.query), self._waiting(site.key)

    def _waiting(self, held: Holder) -> Holder:
        tensor = held.value
        self._used += tensor.numel() * tensor.element_size()
        if self._used <= self._most or tensor.device.type != "cpu":
            return held
        self._spool = self._spool or _Spool()
        return Waiting(self._spool, tensor)
