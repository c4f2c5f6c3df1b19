"""Clearhead beside LXT, captum and zennit: the same weights and inputs, each library in its own environment.

    python -m bench.peers                                         # everything; goes on where it stopped
    python -m bench.peers --shapes BERT --lengths 128 --rounds 3  # a part of it
    python -m bench.peers --parts toy stacks --fresh --threads 1
    python -m bench.peers --out bench/results                     # and writes peers.md there

A worker process per library stands up the same model, with weights that depend on nothing but their names, and times
one call when asked. The parent asks all of them in turns, round by round, so that a busy machine slows all alike; each
environment has its own forward + gradient in these rounds. A figure is the median over rounds of the ratio within a
round. What was measured is kept in .peers/kept.json as long as code, threads, rounds and processor stay the same;
`--minutes` bounds how long new cells are begun.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.peertables import GRADIENT, INTEGRATED, ONE_BATCH, Cells, report
from bench.shapes import SHAPES, STACKS, TOY
from bench.workers.environments import HOME, UnavailableError, ready
from bench.workers.pipes import ROOT, GoneError, RefusedError, Worker

PARTS = ("toy", "stacks", "agreement", "memory", "time")
# worker: the environment it runs in, and the module of rows that it serves
WORKERS = {
    "clearhead": ("", "clearhead"),
    "lxt": ("lxt", "lxt"),
    "lxt, unpatched": ("lxt", "plain"),
    "captum": ("captum", "captum"),
    "zennit": ("zennit", "zennit"),
}
Row = tuple[str, str]  # a worker and what it is asked for
TIMED: list[Row] = [
    ("clearhead", GRADIENT),
    ("clearhead", "attnlrp"),
    ("clearhead", "explain, attnlrp"),
    ("clearhead", "explain, default"),
    ("lxt, unpatched", GRADIENT),
    ("lxt", "attnlrp"),
]
DEAR: list[Row] = [("captum", GRADIENT), ("captum", INTEGRATED)]  # twenty times as long: in the first rounds only
WEIGHED: list[Row] = [("captum", INTEGRATED), ("captum", ONE_BATCH)]  # at the shortest length, beside those timed
SHORT: list[Row] = [("clearhead", GRADIENT), ("clearhead", "tape without rules"), ("clearhead", "attnlrp")]
SHORT += [("clearhead", name) for name in ("default, pass alone", "explain, attnlrp", "explain, default")]
STACKED: list[Row] = [("clearhead", GRADIENT), ("clearhead", "epsilon"), ("zennit", GRADIENT), ("zennit", "epsilon")]
AGREEING: list[Row] = [("clearhead", "attnlrp"), ("lxt", "attnlrp"), ("lxt, unpatched", GRADIENT)]
# Blocks go back to the system at once, so that what is resident is what is in use.
RETURNING = {f"MALLOC_{name}_THRESHOLD_": "65536" for name in ("MMAP", "TRIM")}


class Pool:
    """The workers of one shape: started when first asked, and what cannot be had remembered with its reason."""

    def __init__(self, shape: str, positions: int, given: argparse.Namespace, *, returning: bool = False) -> None:
        self._shape, self._positions, self._given = shape, positions, given
        self._variables = RETURNING if returning else {}
        self._workers: dict[str, Worker] = {}
        self._missing: dict[str, str] = {}
        self._open = ExitStack()
        self.versions: dict[str, dict[str, str]] = {}
        self.weights: dict[str, float] = {}

    def ask(self, worker: str, do: str, **request: Any) -> Any:
        """The answer to a request, a number or a list. Raises RefusedError with the reason if there is none."""
        if worker in self._missing:
            raise RefusedError(self._missing[worker])
        try:
            if worker not in self._workers:
                self._begin(worker)
            return next(iter(self._workers[worker].ask(do, **request).values()))
        except (GoneError, UnavailableError) as error:
            self._missing[worker] = str(error)
            raise RefusedError(str(error)) from error

    def _begin(self, worker: str) -> None:
        environment, library = WORKERS[worker]
        arguments = self._given.pip_args
        python = Path(sys.executable) if not environment else ready(environment, arguments=arguments)
        started = self._open.enter_context(
            Worker([str(python), "-m", "bench.workers.serve", library], environment=self._variables)
        )
        try:
            built = started.ask("build", shape=self._shape, positions=self._positions, threads=self._given.threads)
        except RefusedError as error:
            raise GoneError(f"no model: {error}") from error
        self._workers[worker] = started
        self.versions[worker], self.weights[worker] = built["versions"], built["weights"]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def timed(pool: Pool, length: int, rows: list[Row], rounds: int, dear: int = 0) -> dict[str, Any]:
    """Milliseconds of each row in each round, in turns that begin at another row each; dear rows in the first alone."""
    taken: dict[str, Any] = {f"{worker}: {row}": [] for worker, row in rows + (DEAR if dear else [])}
    for turn in range(-1, rounds):  # the first is not counted
        seldom = DEAR[:1] if turn < 0 else DEAR if turn < dear else []
        for worker, row in turned(rows + (seldom if dear else []), turn):
            times = taken[f"{worker}: {row}"]
            if isinstance(times, str):
                continue
            try:
                ms = pool.ask(worker, "run", row=row, length=length)
            except RefusedError as error:
                taken[f"{worker}: {row}"] = str(error)
                continue
            if turn >= 0:
                times.append(ms)
    return taken


def turned(rows: list[Row], turn: int) -> list[Row]:
    """The rows from another one on each time, so that none is always behind the same one."""
    at = turn % len(rows)
    return rows[at:] + rows[:at]


def asked(pool: Pool, do: str, length: int, rows: Iterable[Row]) -> dict[str, Any]:
    """One answer of each row, or why there is none."""
    found: dict[str, Any] = {}
    for worker, row in rows:
        try:
            found[f"{worker}: {row}"] = pool.ask(worker, do, row=row, length=length)
        except RefusedError as error:
            found[f"{worker}: {row}"] = str(error)
    return found


Work = tuple[str, int, Callable[[Pool], Any]]  # a part, a length, and what is done


class Measuring:
    """What is measured, kept cell by cell."""

    def __init__(self, given: argparse.Namespace, path: Path = HOME / "kept.json") -> None:
        self._given, self._path = given, path
        self._until = time.monotonic() + 60 * given.minutes
        self._mark = mark(given)
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() and not given.fresh else {}
        self.cells: Cells = kept.get("cells", {}) if kept.get("mark") == self._mark else {}
        if kept and not self.cells:
            print("What was kept was measured with other code, threads, rounds or processor: anew.", file=sys.stderr)

    def everything(self) -> None:
        """All parts that were asked for, cheap ones first."""
        given, longest = self._given, max(self._given.lengths)
        if "toy" in given.parts:
            self._part(TOY, 0, [("toy", 8, lambda pool: timed(pool, 8, SHORT, 20 * given.rounds))])
        for shape in STACKS if "stacks" in given.parts else ():
            self._part(
                shape,
                0,
                [
                    ("time", 128, lambda pool: timed(pool, 128, STACKED, given.rounds)),
                    ("agreement", 128, lambda pool: asked(pool, "relevance", 128, STACKED)),
                ],
            )
        for shape in given.shapes:
            if "memory" in given.parts:
                self._part(shape, longest, [self._weighed(length) for length in given.lengths], returning=True)
            work = [self._agreed(min(given.lengths))] if "agreement" in given.parts else []
            work += [self._raced(length) for length in given.lengths] if "time" in given.parts else []
            self._part(shape, longest, work)

    def _agreed(self, length: int) -> Work:
        return "agreement", length, lambda pool: asked(pool, "relevance", length, AGREEING)

    def _weighed(self, length: int) -> Work:
        more = WEIGHED if length == min(self._given.lengths) else []
        return "memory", length, lambda pool: asked(pool, "peak", length, [*TIMED, *more])

    def _raced(self, length: int) -> Work:
        dear = 0 if length > self._given.longest_ig else min(self._given.rounds, max(1, 384 // length))
        return "time", length, lambda pool: timed(pool, length, TIMED, self._given.rounds, dear)

    def _part(self, shape: str, positions: int, work: list[Work], *, returning: bool = False) -> None:
        left = [each for each in work if f"{each[0]} {shape} {each[1]}" not in self.cells]
        if not left or time.monotonic() > self._until:
            return
        with Pool(shape, positions, self._given, returning=returning) as pool:
            for part, length, measured in left:
                if time.monotonic() > self._until:
                    return
                print(f"{datetime.datetime.now():%H:%M:%S} {part}, {shape}, T = {length}", file=sys.stderr, flush=True)
                load, rows = os.getloadavg()[0], measured(pool)
                self.cells[f"{part} {shape} {length}"] = {
                    "rows": rows,
                    "load": load,
                    "versions": pool.versions,
                    "weights": pool.weights,
                }
                self._keep()

    def _keep(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        self._path.write_text(json.dumps({"mark": self._mark, "cells": self.cells}), encoding="utf-8")


def mark(given: argparse.Namespace) -> dict[str, Any]:
    """What must stay the same for a kept figure to count."""
    code = hashlib.sha256()
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "bench" / "workers").glob("*.py"), ROOT / "bench" / "shapes.py"]
    for path in sorted(files):
        code.update(path.read_bytes())
    return {"code": code.hexdigest(), "threads": given.threads, "rounds": given.rounds, "processor": processor()}


def processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512, 1024])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=cores)
    parser.add_argument("--longest-ig", type=int, default=512, help="no 20 steps of integrated gradients above this")
    parser.add_argument("--minutes", type=float, default=20, help="begin no new cell after so long; run again to go on")
    parser.add_argument("--fresh", action="store_true", help="measure again what is kept")
    parser.add_argument("--out", type=Path, help="a folder for peers.md")
    parser.add_argument("--pip-args", default="", help="handed to pip when an environment is made")
    given = parser.parse_args()
    given.lengths = sorted(given.lengths)
    return given


def main() -> None:
    """Make the environments first, so that no installation runs beside a measurement; then measure and report."""
    given = arguments()
    needed = {"stacks": ["zennit"], "toy": [], "agreement": ["lxt"]}
    for name in dict.fromkeys(name for part in given.parts for name in needed.get(part, ["lxt", "captum"])):
        try:
            ready(name, arguments=given.pip_args)
        except UnavailableError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    measuring = Measuring(given)
    measuring.everything()
    machine = f"{processor()}, {os.cpu_count()} cores, {given.threads} threads"
    head = f"{datetime.date.today()}, {machine}, {given.rounds} rounds"
    text = report(measuring.cells, given.shapes, given.lengths, head)
    print(text)
    if given.out:
        (given.out / "peers.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
