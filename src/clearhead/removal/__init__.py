"""Removing units from an input, one object for methods that explain and for metrics that judge."""

from clearhead.removal.forward import called, repeated
from clearhead.removal.regions import Region, regions
from clearhead.removal.removal import Removal

WORDS = ("mask", "pad", "zero", "mean", "blur", "attention-mask", "delete")  # all ways to remove that have a name

__all__ = ["WORDS", "Region", "Removal", "called", "regions", "repeated"]
