"""Which scene draws what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from clearhead.render.changes import Changes, changes
from clearhead.render.generation import Generation, generation
from clearhead.render.headsheet import Sheet, sheet
from clearhead.render.judgement import Judgement, judgement
from clearhead.render.looks import Looks, looks
from clearhead.render.scene import Scene, scene

if TYPE_CHECKING:
    from clearhead.attentions import AttentionMaps
    from clearhead.comparisons import Comparison
    from clearhead.generations import GenerationMap
    from clearhead.headreports import HeadReport
    from clearhead.maps import RelevanceMap
    from clearhead.validations.judged import Judged

    Item: TypeAlias = RelevanceMap | GenerationMap | AttentionMaps | HeadReport | Comparison | Judged

Drawing: TypeAlias = "Scene | Generation | Looks | Sheet | Changes | Judgement"


def drawing(found: Item) -> Drawing:
    """The scene of a map, of a generation, of attention, of a report on heads, of a comparison or of verdicts."""
    from clearhead.attentions import AttentionMaps
    from clearhead.comparisons import Comparison
    from clearhead.generations import GenerationMap
    from clearhead.headreports import HeadReport
    from clearhead.validations.judged import Judged

    if isinstance(found, Judged):
        return judgement(found)
    if isinstance(found, Comparison):
        return changes(found)
    if isinstance(found, HeadReport):
        return sheet(found)
    if isinstance(found, AttentionMaps):
        return looks(found)
    return generation(found) if isinstance(found, GenerationMap) else scene(found)


def drawings(found: Sequence[Item]) -> list[Drawing]:
    """The scenes of several, in order."""
    return [drawing(each) for each in found]
