"""Secant propagation: the difference of an input to a baseline, shared out exactly in one pass."""

from clearhead.relevance.secant.engine import difference
from clearhead.relevance.secant.method import secant

__all__ = ["difference", "secant"]
