"""The table of secants: a row for every operation that lrp has a row for, from one file per family."""

from __future__ import annotations

from clearhead.relevance import table
from clearhead.relevance.run import OTHER, Row
from clearhead.relevance.secant import attention, linear, norms, pointwise, products, sources
from clearhead.relevance.secant.meter import unruled

_OTHER = {OTHER: Row(unruled, "torch's gradient, and the leak meter says whether that was right", ("unruled",))}
ROWS = table.joined(
    _OTHER,
    linear.ROWS,
    norms.ROWS,
    pointwise.ROWS,
    products.ROWS,
    attention.ROWS,
    sources.ROWS,
    table.APART,
)
