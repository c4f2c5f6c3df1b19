"""A report on heads as a table: one row per head, in columns that stay the same whatever was asked for."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from clearhead.headreports import HeadReport


def columns(found: HeadReport) -> dict[str, list[Any]]:
    """The columns of a report, each with an entry per head; what was not asked for or is no number is None."""
    known = len(found.patterns) == len(found.heads)
    patterns = {
        name: [getattr(each, name) for each in found.patterns] if known else _nothing(found)
        for name in ("name", "confidence", "entropy", "distance", "sink")
    }
    return {
        **{name: [getattr(head, name) for head in found.heads] for name in ("stream", "layer", "head")},
        **{name: [getattr(head, name) for head in found.heads] for name in ("module", "group")},
        **{name: _numbers(found, name) for name in ("importance", "error", "weighted", "relevance")},
        "pattern": patterns.pop("name"),
        **patterns,
        "cluster": _clusters(found),
    }


def parquet(found: HeadReport) -> bytes:
    """The table as a Parquet file, with what was measured in its metadata."""
    import pyarrow
    from pyarrow import parquet as files

    whole, real, text = pyarrow.int64(), pyarrow.float64(), pyarrow.string()
    kinds = {"stream": text, "layer": whole, "head": whole, "module": text, "group": whole, "pattern": text}
    made = columns(found)
    schema = pyarrow.schema([(name, kinds.get(name, whole if name == "cluster" else real)) for name in made])
    about = {"model": found.model, "task": found.task, "documents": str(found.documents), "of": found.of}
    written = {key: each.encode("utf-8", "backslashreplace") for key, each in about.items()}
    plain = {name: [_plain(each) for each in each_column] for name, each_column in made.items()}
    table = pyarrow.table(plain, schema=schema.with_metadata(written))
    data = io.BytesIO()
    files.write_table(table, data)
    return data.getvalue()


def _plain(value: Any) -> Any:
    # Half a character of a byte-level tokenizer has no UTF-8.
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value


def _nothing(found: HeadReport) -> list[None]:
    return [None] * len(found.heads)


def _numbers(found: HeadReport, name: str) -> list[float | None]:
    values = getattr(found, name)
    if values is None:
        return list(_nothing(found))
    return [float(each) if np.isfinite(each) else None for each in values]


def _clusters(found: HeadReport) -> list[int | None]:
    """The number of each head's cluster in its stream."""
    made: list[int | None] = list(_nothing(found))
    for each in found.clusters:
        for member, label in zip(each.members, each.labels, strict=True):
            made[member] = int(label)
    return made
