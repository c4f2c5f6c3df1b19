"""The rule table: one row per operation, from one file per family."""

from __future__ import annotations

from clearhead.relevance import recurrent, written
from clearhead.relevance.rules import attention, convolution, linear, norms, packed, pointwise, products, sources
from clearhead.relevance.run import OTHER, Row


def joined(*families: dict[str, Row]) -> dict[str, Row]:
    """One table of all families. Raises RuntimeError for an operation that has two rows."""
    table: dict[str, Row] = {}
    for family in families:
        twice = table.keys() & family.keys()
        if twice:
            raise RuntimeError(f"An operation has one row; {', '.join(sorted(twice))} would have two.")
        table.update(family)
    return table


# Rows of both tables: what is taken apart into operations that have rows of their own.
APART = joined(written.ROWS, recurrent.ROWS)
_OTHER = {OTHER: Row(packed.other, "torch's gradient, and the leak meter says whether that was right", ("unruled",))}
ROWS = joined(
    _OTHER,
    linear.ROWS,
    convolution.ROWS,
    norms.ROWS,
    pointwise.ROWS,
    products.ROWS,
    attention.ROWS,
    sources.ROWS,
    APART,
)
