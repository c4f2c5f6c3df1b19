"""Records of a survey as a table, and how many of them keep what is promised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clearhead.coverage.survey import ASKED, Books, Record

RESIDUAL, CONSERVED, UNRULED, DOUBLE = 1e-5, 1e-4, 1e-6, 1e-9  # what is promised, relative to what is explained
SAME = {"float32": 1e-5, "float64": 1e-9}  # of the largest number of an answer
ADDING = ("lrp", "secant")  # ways that give all of the value to the input


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Where a record does not keep what is promised."""

    dtype: str
    way: str
    said: str


def faults(record: Record) -> list[Fault]:
    """All that a record does not keep; none for one that did not run."""
    return [
        Fault(dtype=dtype, way=way, said=said)
        for dtype, found in record.books.items()
        for way, books in found.items()
        for said in _faults(books, way, dtype, record)
    ]


def _faults(books: Books, way: str, dtype: str, record: Record) -> Iterator[str]:
    if books.error:
        yield books.error
        return
    exact = dtype == "float64" and not record.narrow
    checks = {
        "residual": (books.residual, DOUBLE if exact else RESIDUAL),
        "conservation error": (books.conservation_error, DOUBLE if exact else CONSERVED),
    }
    if way not in ADDING:
        del checks["conservation error"]
    for name, (value, bar) in checks.items():
        if value is None or not value <= bar:
            causes = ", ".join(f"{cause} {amount:.1e}" for cause, amount in (books.causes | books.unruled).items())
            yield f"{name} {value:.1e}" + (f" ({causes})" if causes else "")
    lost = {name: amount for name, amount in books.unruled.items() if not abs(amount) <= UNRULED}
    if lost:
        yield "without a rule: " + ", ".join(f"`{name}` loses {amount:.1e}" for name, amount in lost.items())
    if books.difference and books.difference > SAME[dtype]:
        yield f"the answer under the tape differs by {books.difference:.1e}"


def markdown(records: Sequence[Record]) -> str:
    """The figures first, then what falls short, then every type by itself."""
    ran = [each for each in records if each.books]
    short = [each for each in ran if faults(each)]
    lines = [
        f"{len(records)} model types of {len({each.kind for each in records})} kinds; {len(ran)} can be built from "
        f"their configuration alone and run by themselves. Promised are a residual <= {RESIDUAL:.0e} and a "
        f"conservation error <= {CONSERVED:.0e} (float64: {DOUBLE:.0e}), no operation without a rule that loses more "
        f"than {UNRULED:.0e}, and the same answer under the tape. All of it is kept for:",
        "",
        *[f"* {way}: {_share(ran, way)}" for way in ASKED],
        "",
        *_section("Fall short", ["type", "kind", "what"], _short(short)),
        *_section("Explained", ["type", "kind", *_heads(), "seconds"], [_row(each) for each in ran]),
        *_section(
            "Not run", ["type", "kind", "reason"], [[e.model_type, e.kind, e.reason] for e in records if not e.books]
        ),
    ]
    return "\n".join(lines) + "\n"


def _share(ran: Sequence[Record], way: str) -> str:
    kept = sum(not any(fault.way == way for fault in faults(each)) for each in ran)
    return f"{kept} of {len(ran)}, {100 * kept / max(1, len(ran)):.1f} %"


def _section(title: str, heads: list[str], rows: list[list[str]]) -> list[str]:
    cells = [heads, ["---"] * len(heads), *[[each.replace("|", "\\|") for each in row] for row in rows]]
    return [f"### {title} ({len(rows)})", "", *[f"| {' | '.join(row)} |" for row in cells], ""]


def _short(records: Sequence[Record]) -> list[list[str]]:
    return [
        [each.model_type, each.kind, "; ".join(f"{fault.way}, {fault.dtype}: {fault.said}" for fault in faults(each))]
        for each in records
    ]


def _heads() -> list[str]:
    return [f"{way}: residual, conservation error" for way in ASKED]


def _row(record: Record) -> list[str]:
    books = record.books["float32"]
    cells = [_figures(books[way]) for way in ASKED]
    seconds = sum(each.seconds or 0.0 for each in books.values())
    return [record.model_type, record.kind, *cells, f"{seconds:.2f}"]


def _figures(books: Books) -> str:
    return "–" if books.error else f"{books.residual:.0e}, {books.conservation_error:.0e}"
