"""Finished work: numbers by name, in memory or in a file where a later run finds them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clearhead.errors import OutputError

Numbers = NDArray[np.float64]


class Store:
    """Numbers by name; with a path also in a file there, a line of JSON for each name, as soon as they are known.

    What the file holds is known from the start. Raises OutputError where it cannot be read or written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known = {} if path is None else _opened(path)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __getitem__(self, name: str) -> Numbers:
        return self._known[name]

    def keep(self, found: Mapping[str, Numbers]) -> None:
        """Add numbers under new names, all in one write. Raises OutputError."""
        self._known.update(found)
        if self._path is None:
            return
        lines = (json.dumps([name, numbers.tolist()]) + "\n" for name, numbers in found.items())
        try:
            with self._path.open("ab") as file:
                file.write("".join(lines).encode("ascii"))
        except OSError as error:
            raise _unusable(self._path, error) from error

    def of(self, name: str, make: Callable[[], Numbers]) -> Numbers:
        """The numbers under a name, made if there are none yet. Raises OutputError."""
        if name not in self:
            self.keep({name: make()})
        return self[name]


def _opened(path: Path) -> dict[str, Numbers]:
    """What a file holds; a last line that was cut short, where a run was killed, is ended, so that more may follow."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            whole = file.read()
            file.write(b"\n" if whole and not whole.endswith(b"\n") else b"")
    except OSError as error:
        raise _unusable(path, error) from error
    return dict(pair for line in whole.splitlines() if (pair := _pair(line)) is not None)


def _pair(line: bytes) -> tuple[str, Numbers] | None:
    """A name and its numbers; None for a line that is not whole."""
    try:
        name, numbers = json.loads(line)
        return name, np.array(numbers, dtype=np.float64)
    except (ValueError, TypeError):
        return None


def _unusable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"Finished work is kept in a folder that can be read and written; found {str(path.parent)!r}: {error}. "
        "Choose another with resume=... (--resume)."
    )
