"""Results as tables: a row per head of a report, or per input, method, way of removing and metric of verdicts.

Columns stay the same whatever was asked for.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from clearhead.validations import METRICS, Evaluation, Validation
from clearhead.validations.judged import Judged

if TYPE_CHECKING:
    from clearhead.headreports import HeadReport
    from clearhead.validations import Faithfulness, Row

MEASURED = ("value", "chance", "chance_low", "chance_high")
VERDICTS = ("input", "method", "reference", "removal", "scale", "metric", "better", *MEASURED, "seconds", "verdict")
WHOLE = ("layer", "head", "group", "cluster", "input")
TEXT = ("stream", "module", "pattern", "method", "removal", "scale", "metric", "better", "verdict")
TRUTH = ("reference",)


def written(found: HeadReport | Judged, kind: str) -> bytes:
    """The table as the bytes of a `csv` or `parquet` file, of Parquet with what was measured in its metadata."""
    made = judged(found) if isinstance(found, Judged) else columns(found)
    return _parquet(made, _about(found)) if kind == "parquet" else _csv(made)


# ---- verdicts ------------------------------------------------------------------------------------------------------


def judged(found: Judged) -> dict[str, list[Any]]:
    """A row per input, method or reference, way of removing and metric.

    Inputs count from 0 in the order in which they were measured. `chance` is the mean over random orders and
    `chance_low` to `chance_high` what they reach; over several inputs, random orders have rows of their own.
    """
    rows = [row for each in found.faithfulness for held in each.rows for row in _rows(found, each, held)]
    return {name: [row.get(name) for row in rows] for name in VERDICTS}


def _rows(found: Judged, each: Faithfulness, row: Row) -> Iterator[dict[str, Any]]:
    verdicts = {verdict.method: verdict.word for verdict in found.verdicts}
    about = {"method": row.method, "reference": row.reference, "removal": each.removal, "scale": each.scale}
    about |= {"seconds": found.seconds.get(row.method), "verdict": verdicts.get(row.method)}
    for name, figure in row.figures.items():
        own = {**about, "metric": name, "better": METRICS[name].better}
        if isinstance(found, Validation):
            yield {**own, "input": 0, **{key: getattr(figure, key) for key in MEASURED}}
        for n, value in enumerate(row.values.get(name, ())):
            yield {**own, "input": n, "value": float(value) if np.isfinite(value) else None}


# ---- heads ---------------------------------------------------------------------------------------------------------


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


def _about(found: HeadReport | Judged) -> dict[str, str]:
    """What was measured, in texts."""
    about = {"model": found.model, "task": found.task}
    if isinstance(found, Judged):
        about |= {"against": found.against or "", "verdicts": "\n".join(map(str, found.verdicts))}
        about |= {"target": str(found.target)} if isinstance(found, Validation) else {}
        return {**about, "inputs": str(found.inputs)} if isinstance(found, Evaluation) else about
    return {**about, "documents": str(found.documents), "of": found.of}


# ---- files ---------------------------------------------------------------------------------------------------------


def _parquet(made: dict[str, list[Any]], about: dict[str, str]) -> bytes:
    import pyarrow
    from pyarrow import parquet as files

    kinds = {**dict.fromkeys(WHOLE, pyarrow.int64()), **dict.fromkeys(TEXT, pyarrow.string())}
    kinds |= dict.fromkeys(TRUTH, pyarrow.bool_())
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in made])
    metadata = {key: each.encode("utf-8", "backslashreplace") for key, each in about.items()}
    plain = {name: [_plain(each) for each in column] for name, column in made.items()}
    data = io.BytesIO()
    files.write_table(pyarrow.table(plain, schema=schema.with_metadata(metadata)), data)
    return data.getvalue()


def _csv(made: dict[str, list[Any]]) -> bytes:
    """Commas and a line of names; what is no number is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(made)
    writer.writerows(zip(*([_plain(each) for each in column] for column in made.values()), strict=True))
    return text.getvalue().encode("utf-8")


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
