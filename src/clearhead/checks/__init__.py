"""Judging maps: nothing here knows how they were made."""

from clearhead.checks.conservation import judged

__all__ = ["judged"]
