"""The rule table: one row per operation, from one file per family."""

from __future__ import annotations

from clearhead.relevance.rules import attention, linear, norms, pointwise, products, sources
from clearhead.relevance.run import Row


def _joined(*families: dict[str, Row]) -> dict[str, Row]:
    table: dict[str, Row] = {}
    for family in families:
        twice = table.keys() & family.keys()
        if twice:
            raise RuntimeError(f"An operation has one row; {', '.join(sorted(twice))} would have two.")
        table.update(family)
    return table


ROWS = _joined(linear.ROWS, norms.ROWS, pointwise.ROWS, products.ROWS, attention.ROWS, sources.ROWS)
