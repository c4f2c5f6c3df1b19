"""Maps as files: the suffix says what is written, and nothing is left half-written."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clearhead.errors import OutputError, UsageError, suggest

if TYPE_CHECKING:
    from clearhead.render.drawings import Item


@dataclass(frozen=True, kw_only=True)
class Output:
    """A kind of file: what makes its bytes, whether it holds several maps, and what it needs installed.

    A `table` holds a report on heads, a validation or an evaluation. `extra` is the name under which clearhead
    installs what is needed.
    """

    make: Callable[[Sequence[Item]], bytes]
    several: bool = True
    table: bool = False
    needs: str | None = None
    extra: str = "plot"


def _json(maps: Sequence[Item]) -> bytes:
    found = [each.to_dict() for each in maps]
    # ASCII, because half a character of a byte-level tokenizer has no UTF-8.
    return (json.dumps(found[0] if len(found) == 1 else found, indent=1) + "\n").encode("ascii")


def _html(maps: Sequence[Item]) -> bytes:
    from clearhead.render import html

    return html.page(maps).encode("utf-8")


def _figure(kind: str) -> Callable[[Sequence[Item]], bytes]:
    def make(maps: Sequence[Item]) -> bytes:
        from clearhead.render import figure

        return figure.image(maps[0], kind)

    return make


def _table(kind: str) -> Callable[[Sequence[Item]], bytes]:
    def make(maps: Sequence[Item]) -> bytes:
        from clearhead.render import tables

        found = maps[0]
        if not _has_table(found):
            raise UsageError(f"A .{kind} file holds a table; found what is none. Save it as .json.")
        return tables.written(found, kind)  # type: ignore[arg-type]

    return make


def _has_table(found: Item) -> bool:
    """Whether something is a table: a row per head, or per input, method, way of removing and metric."""
    from clearhead.headreports import HeadReport
    from clearhead.validations.judged import Judged

    return isinstance(found, (HeadReport, Judged))


SUFFIXES: dict[str, Output] = {
    ".json": Output(make=_json),
    ".html": Output(make=_html),
    ".png": Output(make=_figure("png"), several=False, needs="matplotlib"),
    ".svg": Output(make=_figure("svg"), several=False, needs="matplotlib"),
    ".pdf": Output(make=_figure("pdf"), several=False, needs="matplotlib"),
    ".csv": Output(make=_table("csv"), several=False, table=True),
    ".parquet": Output(make=_table("parquet"), several=False, table=True, needs="pyarrow", extra="corpus"),
}


def save(maps: Sequence[Item], path: str | Path) -> Path:
    """Write the maps and give back where: `.json` (lossless), `.html`, and for a single map `.png`, `.svg` or `.pdf`.

    What is a table, a report on heads, a validation or an evaluation, may also be `.csv` or `.parquet`. Raises
    UsageError for a suffix that is not one of these or holds one map only, OutputError if the file cannot be written;
    a file that is there already stays as it was then.
    """
    if not maps:
        raise UsageError("A file holds at least one map; found none. Explain something first.")
    table = all(map(_has_table, maps))
    check_writable(path, count=len(maps), heads=table)
    target = Path(path)
    _replace(target, _output(target, table=table).make(maps))
    return target


def check_writable(path: str | Path, *, count: int = 1, heads: bool = False) -> None:
    """Raise what `save` would raise for so many maps, or for what is a table (`heads`), before anything slow starts."""
    target = Path(path)
    output = _output(target, table=heads)
    if count > 1 and not output.several:
        raise UsageError(
            f"A {target.suffix} file shows one map; found {count}. Save them one by one, or together as .html or .json."
        )
    if output.needs and importlib.util.find_spec(output.needs) is None:
        raise UsageError(
            f"A {target.suffix} file needs {output.needs}, which is not installed. "
            f"Run: pip install 'clearhead[{output.extra}]'"
        )
    _check_place(target)


def _output(target: Path, *, table: bool) -> Output:
    known = {suffix: output for suffix, output in SUFFIXES.items() if table or not output.table}
    output = known.get(target.suffix.lower())
    if output is None:
        raise UsageError(
            f"A file name must end in one of {', '.join(known)}; found {target.name!r}."
            f"{suggest(target.suffix.lower(), known)}"
        )
    return output


def _check_place(target: Path) -> None:
    folder = target.parent
    if target.is_dir():
        raise OutputError(f"A file is written to a file name; {target} is a folder. Name a file in it.")
    if not folder.exists():
        raise OutputError(f"A file is written into a folder that exists; {folder} does not. Make it first.")
    if not folder.is_dir():
        raise OutputError(f"A file is written into a folder; {folder} is not one. Choose another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"A file is written into a folder that can be written to; {folder} cannot. Choose another.")


def _replace(target: Path, content: bytes) -> None:
    """Write beside the target, then take its place in one step; a link is followed, so that it stays a link."""
    final = target.resolve()
    beside = final.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        # `open` makes the file with the permissions the user's umask gives, which a private temporary file has not.
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(final)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}. Choose another place.") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
