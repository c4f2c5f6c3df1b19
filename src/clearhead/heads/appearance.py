"""What the heads of a model look at and which are alike, over some documents of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from clearhead.attention.looking import look
from clearhead.errors import ModelError
from clearhead.headreports import Clusters, Head, Pattern
from clearhead.heads import clusters, patterns
from clearhead.heads.listing import heads_of
from clearhead.question import Question

MOST = 32  # documents that are looked at: names and distances are means, which change little beyond


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """A name for each head and the groups of each stream, in the order of the heads, and what there is to say."""

    patterns: tuple[Pattern, ...] = ()
    clusters: tuple[Clusters, ...] = ()
    notes: tuple[str, ...] = ()


def seen(questions: Sequence[Question], heads: Sequence[Head], number: int | None = None) -> Appearance:
    """How heads look over at most `MOST` of the documents, evenly chosen; `number` of groups, or as many as fit.

    Heads are looked at in one layer of one document at a time. Raises UsageError for a number that cannot be.
    """
    chosen = [questions[n] for n in np.unique(np.linspace(0, len(questions) - 1, MOST).round().astype(int))]
    maps = [look(each) for each in tqdm(chosen, desc="looking", unit="document", leave=False, disable=None)]
    try:
        order = _order(heads_of(maps), heads)
    except (ValueError, KeyError, ModelError) as error:
        return Appearance(notes=(f"Patterns and clusters were left out: {error}",))
    named, grouped = patterns.of(maps), clusters.of(maps, number=number)
    note = f"Patterns and clusters were read from {len(chosen)} of {len(questions)} documents."
    reduced = tuple(f"{each.stream}: {each.reduced}" for each in grouped if each.reduced)
    return Appearance(
        patterns=tuple(named[order.index(n)] for n in range(len(heads))),
        clusters=tuple(_renumbered(each, order) for each in grouped),
        notes=(note, *reduced),
    )


def _order(found: Sequence[Head], heads: Sequence[Head]) -> list[int]:
    """For each head that was seen its number in the report. Raises KeyError for one that the report does not have."""
    places = {(head.stream, head.layer, head.head): n for n, head in enumerate(heads)}
    return [places[head.stream, head.layer, head.head] for head in found]


def _renumbered(each: Clusters, order: Sequence[int]) -> Clusters:
    """A grouping in the numbers of the report."""
    own: dict[str, Any] = {
        "members": tuple(order[n] for n in each.members),
        "medoids": tuple(order[n] for n in each.medoids),
    }
    return Clusters(stream=each.stream, labels=each.labels, places=each.places, silhouette=each.silhouette, **own)
