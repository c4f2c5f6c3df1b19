"""Layer-wise relevance propagation as a modified gradient, with a ledger that closes."""

from clearhead.relevance.engine import Propagation, Recording, Source, propagate

__all__ = ["Propagation", "Recording", "Source", "propagate"]
