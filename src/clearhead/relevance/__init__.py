"""Layer-wise relevance propagation as a modified gradient, with a ledger that closes."""

from clearhead.relevance.audit import Imbalance, audit
from clearhead.relevance.engine import Propagation, Recording, Source, propagate

__all__ = ["Imbalance", "Propagation", "Recording", "Source", "audit", "propagate"]
