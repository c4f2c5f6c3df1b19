"""Which scene draws what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from clearhead.render.generation import Generation, generation
from clearhead.render.headsheet import Sheet, sheet
from clearhead.render.looks import Looks, looks
from clearhead.render.scene import Scene, scene

if TYPE_CHECKING:
    from clearhead.attentions import AttentionMaps
    from clearhead.generations import GenerationMap
    from clearhead.headreports import HeadReport
    from clearhead.maps import RelevanceMap

    Item: TypeAlias = RelevanceMap | GenerationMap | AttentionMaps | HeadReport

Drawing: TypeAlias = "Scene | Generation | Looks | Sheet"


def drawing(found: Item) -> Drawing:
    """The scene of a map, of a generation, of attention or of a report on heads."""
    from clearhead.attentions import AttentionMaps
    from clearhead.generations import GenerationMap
    from clearhead.headreports import HeadReport

    if isinstance(found, HeadReport):
        return sheet(found)
    if isinstance(found, AttentionMaps):
        return looks(found)
    return generation(found) if isinstance(found, GenerationMap) else scene(found)


def drawings(found: Sequence[Item]) -> list[Drawing]:
    """The scenes of several, in order."""
    return [drawing(each) for each in found]
