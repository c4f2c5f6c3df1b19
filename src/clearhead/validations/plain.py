"""Frozen rows as plain data and back, as JSON files, and as columns of text."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from clearhead.errors import OutputError, UsageError

SCHEMA = 1
Made = TypeVar("Made")


# ---- plain data ----------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A row, with all that is in it, as dictionaries, lists, texts and numbers; what is not finite is None.

    >>> from clearhead.validations import Figure
    >>> plain(Figure(value=0.5))["value"], plain((1, np.array([2.0, np.nan])))
    (0.5, [1, [2.0, None]])
    """
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def built(kind: type[Made], data: Any) -> Made:
    """The row of a kind that `plain` took apart; raises TypeError or KeyError for data of another form."""
    if not isinstance(data, Mapping):
        raise TypeError(f"{kind.__name__} is a JSON object; found a {type(data).__name__}")
    hints = get_type_hints(kind)
    known = [each for each in fields(kind) if each.init]  # type: ignore[arg-type]
    strangers = set(data) - {each.name for each in known}
    if strangers:
        raise TypeError(f"{kind.__name__} has no {', '.join(sorted(strangers))}")
    for each in known:
        if each.name not in data and each.default is MISSING and each.default_factory is MISSING:
            raise KeyError(each.name)
    return kind(**{each.name: _read(hints[each.name], data[each.name]) for each in known if each.name in data})


def _read(hint: Any, value: Any) -> Any:
    """A value as its annotation wants it."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        (kind,) = [each for each in inside if each is not type(None)]
        return None if value is None else _read(kind, value)
    if is_dataclass(hint):
        return built(hint, value)  # type: ignore[arg-type]
    if origin is np.ndarray:
        return np.array(value, dtype=np.float64)
    if origin is tuple:
        return tuple(_read(inside[0], each) for each in _listed(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _read(inside[1], each) for key, each in dict(value).items()}
    if origin is Literal and value not in inside:
        raise TypeError(f"one of {', '.join(map(str, inside))} was expected; found {value!r}")
    if isinstance(hint, type) and not isinstance(value, (int, float) if hint is float else hint):
        raise TypeError(f"a {hint.__name__} was expected; found {value!r}")
    return value


def _listed(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a list was expected; found a {type(value).__name__}")
    return value


# ---- documents -----------------------------------------------------------------------------------------------------


def document(kind: str, value: Any) -> dict[str, Any]:
    """A whole result as plain data that says what it is: its schema and its kind."""
    return {"schema": SCHEMA, "kind": kind, **plain(value)}


def read(kind: str, made: type[Made], data: Any) -> Made:
    """The result that `document` made plain; raises UsageError for another kind or schema, TypeError or KeyError."""
    found = data.get("kind") if isinstance(data, Mapping) else type(data).__name__
    if not isinstance(data, Mapping) or found != kind:
        raise UsageError(f"A saved {kind} is a JSON object of kind {kind!r}; found {found!r}. Read it as what it is.")
    if data.get("schema") != SCHEMA:
        raise UsageError(
            f"This version reads schema {SCHEMA}; found {data.get('schema')!r}. Make the {kind} again to renew it."
        )
    return built(made, {name: value for name, value in data.items() if name not in ("schema", "kind")})


def load(kind: str, made: type[Made], path: str | Path) -> Made:
    """Read a document that was saved as JSON; raises OutputError if it cannot be read or is something else."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"A saved {kind} is a JSON file; {path} cannot be read as one: {error}.") from error
    try:
        return read(kind, made, data)
    except (KeyError, TypeError, ValueError) as error:
        raise OutputError(f"{path} is not a saved {kind}: {type(error).__name__}: {error}.") from error


# ---- columns of text -----------------------------------------------------------------------------------------------


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns of text, the first to the left and the others to the right.

    >>> print(columns([["method", "dA"], ["lrp", "5.32"]]))
    method    dA
    lrp     5.32
    """
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([f"{row[0]:<{widths[0]}}", *cells[1:]]).rstrip())
    return "\n".join(lines)


def number(value: float | None, digits: int = 2) -> str:
    """A number for a table, a dash where there is none.

    >>> number(0.126), number(None), number(-0.001)
    ('0.13', '–', '0.00')
    """
    if value is None:
        return "–"
    rounded = round(value, digits)
    return f"{rounded or 0.0:.{digits}f}"
