"""No library: forward + gradient alone, in the environment of another one that leaves none in its process."""

from __future__ import annotations

import importlib.util
from typing import Any

from bench.workers.vision import importable


def prepare(shape: str) -> None:
    """What another library's environment holds must be importable before transformers looks for it."""
    if importlib.util.find_spec("torchvision"):
        importable()


def rows(model: object, length: int) -> dict[str, Any]:
    """Nothing to add."""
    return {}
