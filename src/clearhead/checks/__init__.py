"""Judging maps: nothing here knows how they were made."""

from clearhead.checks.agreement import agreement, agreements
from clearhead.checks.choosing import chosen
from clearhead.checks.conservation import judged
from clearhead.checks.measuring import Choices
from clearhead.checks.removing import Scores
from clearhead.checks.validating import evaluation, validation

__all__ = ["Choices", "Scores", "agreement", "agreements", "chosen", "evaluation", "judged", "validation"]
