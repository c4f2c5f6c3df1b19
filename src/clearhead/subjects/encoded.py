"""One input as a model takes it in one call, before anything is asked about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clearhead.question import Layout, Pass
from clearhead.units import Unit


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """The tensors of one call, where its units lie in them, what was read, and notes about how."""

    part: Pass
    layout: Layout
    texts: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units, in order."""
        return self.layout.units
