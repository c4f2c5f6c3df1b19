"""A child process that builds a model and runs rows of one library when asked: one line of JSON each way.

    python -m bench.workers.serve plain     # forward + gradient alone; or captum, clearhead, lxt, zennit

Requests name what to do: `build` (shape, positions, threads), `run` (row, length) for milliseconds, `peak` (row,
length) for megabytes above what was resident, `relevance` (row, length) for the numbers. A request that fails is
answered with `error`; the process lives on. It ends when its input does.

A library is a module of this package with `rows(model, length)`; `prepare(shape)`, if there, is called before a model
is built, and `PATCHES` says that what it does to a process leaves no plain gradient in it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import IO, Any

import torch

from bench.shapes import build, fill, gradient, high_water, reset_high_water

GRADIENT = "forward + gradient"
LIBRARIES = ("captum", "clearhead", "lxt", "zennit")
Row = Callable[[], Any]


class Session:
    """What a worker holds: one model, and the rows for each length asked for."""

    def __init__(self, library: str) -> None:
        self._library = importlib.import_module(f"bench.workers.{library}_rows")
        self._versions = versions()
        self._rows: dict[int, dict[str, Row]] = {}

    def build(self, shape: str, positions: int = 0, threads: int = 1) -> dict[str, Any]:
        """Stand a model up; its weights depend on nothing but their names."""
        torch.set_num_threads(threads)
        if hasattr(self._library, "prepare"):
            self._library.prepare(shape)
        self._model = fill(build(shape, positions))
        self._rows.clear()
        total = sum(x.double().sum() for x in self._model.parameters())
        return {"versions": self._versions, "weights": float(total)}

    def run(self, row: str, length: int) -> dict[str, Any]:
        """Milliseconds of one call."""
        call = self._row(row, length)
        start = time.perf_counter()
        call()
        return {"ms": 1e3 * (time.perf_counter() - start)}

    def peak(self, row: str, length: int) -> dict[str, Any]:
        """Megabytes by which one call raises the peak, once a short call has allocated what stays."""
        self._row(row, 16)()
        call = self._row(row, length)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        reset_high_water()
        before = high_water()
        call()
        return {"mb": (high_water() - before) / 1024}

    def relevance(self, row: str, length: int) -> dict[str, Any]:
        """The relevance of each position."""
        return {"relevance": self._row(row, length)().flatten().double().tolist()}

    def _row(self, row: str, length: int) -> Row:
        if length not in self._rows:
            found: dict[str, Row] = dict(self._library.rows(self._model, length))
            if not getattr(self._library, "PATCHES", False):
                found[GRADIENT] = gradient(self._model, length)
            self._rows[length] = found
        return self._rows[length][row]


def versions() -> dict[str, str]:
    """Of Python and of what is installed among the libraries that matter."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", *LIBRARIES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def serve(session: Any, lines: IO[str], replies: IO[str]) -> None:
    """Answer each line by the method that it names."""
    for line in lines:
        request = json.loads(line)
        try:
            reply = getattr(session, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001  # whatever a library raises is an answer, in the table
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    """Keep the pipe for replies, and send what libraries print to the error output."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(Session(sys.argv[1]), sys.stdin, replies)


if __name__ == "__main__":
    main()
