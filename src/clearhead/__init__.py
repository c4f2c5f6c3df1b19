"""clearhead explains transformer predictions, and shows that its books balance."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clearhead.attentions import AttentionMaps
    from clearhead.attributor import FeatureAttributor
    from clearhead.comparisons import Comparison
    from clearhead.config import Settings
    from clearhead.errors import ClearheadError
    from clearhead.generations import GenerationMap
    from clearhead.headreports import HeadReport
    from clearhead.maps import LedgerEntry, Recipe, RelevanceMap, Target
    from clearhead.units import Unit
    from clearhead.visualizer import AttentionVisualizer

    __version__: str
else:

    def __getattr__(name: str) -> object:
        """A public name, imported when it is first used, so that `import clearhead` stays light."""
        if name == "__version__":
            from importlib.metadata import version

            value: object = version("clearhead")
        elif name in _HOME:
            value = getattr(import_module(_HOME[name]), name)
        else:
            raise AttributeError(f"module 'clearhead' has no attribute {name!r}")
        globals()[name] = value
        return value


_HOME = {
    "AttentionMaps": "clearhead.attentions",
    "AttentionVisualizer": "clearhead.visualizer",
    "ClearheadError": "clearhead.errors",
    "Comparison": "clearhead.comparisons",
    "FeatureAttributor": "clearhead.attributor",
    "GenerationMap": "clearhead.generations",
    "HeadReport": "clearhead.headreports",
    "LedgerEntry": "clearhead.maps",
    "Recipe": "clearhead.maps",
    "RelevanceMap": "clearhead.maps",
    "Settings": "clearhead.config",
    "Target": "clearhead.maps",
    "Unit": "clearhead.units",
}

__all__ = [
    "AttentionMaps",
    "AttentionVisualizer",
    "ClearheadError",
    "Comparison",
    "FeatureAttributor",
    "GenerationMap",
    "HeadReport",
    "LedgerEntry",
    "Recipe",
    "RelevanceMap",
    "Settings",
    "Target",
    "Unit",
    "__version__",
]


def __dir__() -> list[str]:
    return sorted(__all__)
