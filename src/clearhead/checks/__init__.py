"""Judging maps: nothing here knows how they were made."""

from clearhead.checks.agreement import agreement
from clearhead.checks.conservation import judged

__all__ = ["agreement", "judged"]
