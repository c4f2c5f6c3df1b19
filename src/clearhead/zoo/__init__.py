"""Small real models in the box: trained on real data, small enough to ship, loaded like any other folder."""

from __future__ import annotations

from pathlib import Path

from clearhead.errors import ModelError, suggest
from clearhead.zoo.assemble import assemble, is_delta

PREFIX = "clearhead/"
_HERE = Path(__file__).parent
NAMES = tuple(sorted(PREFIX + card.parent.name for card in _HERE.glob("*/README.md")))


def folder(name: str) -> Path:
    """The ordinary model folder behind a name such as `clearhead/sentiment`.

    A model that ships only what differs from a base is assembled on first use, into the user's cache. Raises
    ModelError for an unknown name, and where the base is missing or another one.

    >>> folder("clearhead/digits").name
    'digits'
    """
    if name not in NAMES:
        raise ModelError(f"The models in the box are {', '.join(NAMES)}; found {name!r}.{suggest(name, NAMES)}")
    found = _HERE / name.removeprefix(PREFIX)
    if not is_delta(found):
        return found
    try:
        return assemble(found)
    except (ModuleNotFoundError, ValueError, OSError) as error:
        raise ModelError(f"{name} cannot be put together: {error}") from error
