"""Does relevance add up to what is explained?"""

from __future__ import annotations

from dataclasses import replace

from clearhead.maps import LedgerEntry, RelevanceMap

SHOWN = 3  # how many leaks a warning names


def judged(found: RelevanceMap, threshold: float) -> RelevanceMap:
    """The map, with a warning that names the largest leaks if it does not conserve although it claims to."""
    if not found.additive or found.conserves(threshold):
        return found
    note = (
        f"Relevance does not add up to the explained value: conservation error {found.conservation_error:.1e}, "
        f"threshold {threshold:.0e}."
    )
    leaks = sorted((e for e in found.ledger if not e.returned), key=lambda e: -abs(e.relevance))[:SHOWN]
    if leaks:
        note += f" Largest leaks: {', '.join(map(_told, leaks))}."
    return replace(found, warnings=(*found.warnings, note))


def _told(entry: LedgerEntry) -> str:
    what = f"`{entry.operation}` without a rule" if entry.cause == "unruled" else entry.cause
    return f"{what} {entry.relevance:+.4g} in {entry.module or entry.operation}"
