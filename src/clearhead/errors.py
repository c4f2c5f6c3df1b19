"""What clearhead raises: every message states the rule, the finding and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ClearheadError(Exception):
    """Everything clearhead raises on purpose; the command line turns it into one message and exit code 2."""


class UsageError(ClearheadError, ValueError):
    """Something asked for that cannot be: an unknown name, an empty text, a value out of range."""


class ModelError(ClearheadError):
    """A model that cannot be loaded, driven or explained as asked."""


class UnruledOperationError(ClearheadError):
    """`strict=True` met an operation that no row of the rule table covers."""


class NonFiniteError(ClearheadError):
    """NaN or infinity, in the forward pass or in the relevance, with the first module where it appeared."""


class OutputError(ClearheadError):
    """A file that cannot be written or read."""


def suggest(word: str, options: Iterable[str]) -> str:
    """The end of a message, with a space before it: Did you mean 'rollout'? Empty if nothing is near."""
    near = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def choice(name: str, value: object, options: Iterable[str]) -> UsageError:
    """The error for a word outside its list: rule, finding, next step."""
    listed = list(options)
    return UsageError(f"`{name}` must be one of {', '.join(listed)}; found {value!r}.{suggest(str(value), listed)}")
