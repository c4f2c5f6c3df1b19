"""Results on their way out: standard output is theirs, everything else goes to standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from clearhead.cli.command import CHECK_FAILED, say
from clearhead.errors import UsageError

if TYPE_CHECKING:
    from clearhead.generations import GenerationMap
    from clearhead.maps import RelevanceMap


def one_of(as_json: bool, out: Path | None, name: str) -> None:
    """Raise UsageError if results are to be printed and written at once; `name` is a file that would hold them."""
    if as_json and out:
        raise UsageError(f"`--json` prints and `--out` writes a file: give one of them. `--out {name}` writes JSON.")


def check_out(out: Path | None, count: int, *, heads: bool = False) -> None:
    """Refuse an output that cannot be written before anything slow starts."""
    if out is not None:
        from clearhead import render

        render.check_writable(out, count=count, heads=heads)


def deliver(stream: Iterator[Any], *, as_json: bool, out: Path | None) -> list[Any]:
    """Print or write what was asked for, and give the maps back."""
    if as_json:
        return [_printed(each) for each in stream]
    from clearhead import render

    maps = list(stream)
    if out is None:
        render.show(maps)
        return maps
    written = render.save(maps, out)
    for warning in (warning for each in maps for warning in getattr(each, "warnings", ())):
        say(f"warning: {warning}")
    say(f"wrote {written}")
    return maps


def _printed(each: RelevanceMap) -> RelevanceMap:
    """Print a map as one line of JSON."""
    escape = "utf" not in (sys.stdout.encoding or "").lower()
    typer.echo(json.dumps(each.to_dict(), ensure_ascii=escape, allow_nan=False))
    return each


def judge(maps: Sequence[RelevanceMap | GenerationMap], threshold: float) -> None:
    """Exit with 1 if the books of any map do not balance within the threshold."""
    failed = [n for n, each in enumerate(maps, 1) if not each.conserves(threshold)]
    for n in failed:
        say(f"check failed: conservation_error {maps[n - 1].conservation_error:.2g} > {threshold:g} (input {n})")
    if failed:
        raise typer.Exit(CHECK_FAILED)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep standard output for results: libraries that print there, and their progress bars, are sent elsewhere."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def status(message: str) -> Iterator[None]:
    """One moving line on standard error, for a person who waits; nothing when it is not a terminal."""
    if not sys.stderr.isatty() or not message:
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(message)):
        yield
