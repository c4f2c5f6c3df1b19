"""Work that may crash or hang, in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

Task = tuple[str, ...]
Work = Callable[..., Any]


def carried_out(work: Work, tasks: Sequence[Task], seconds: float) -> Iterator[tuple[Task, Any, str]]:
    """Each task with what `work(*task)` returned, or with the reason why it did not return within so many seconds.

    A process that crashed or hangs is replaced by a new one.
    """
    worker: tuple[BaseProcess, Connection] | None = None
    for task in tasks:
        worker = worker or _started(work)
        process, pipe = worker
        pipe.send(task)
        answer, reason = None, f"took longer than {seconds:g} seconds"
        if pipe.poll(seconds):
            try:
                answer, reason = pipe.recv()
            except (EOFError, OSError):
                process.join()
                reason = f"the process ended with exit code {process.exitcode}"
                _stopped(worker)
                worker = None
        else:
            _stopped(worker)
            worker = None
        yield task, answer, reason
    if worker is not None:
        _stopped(worker)


def _started(work: Work) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_working, args=(work, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, mine


def _stopped(worker: tuple[BaseProcess, Connection]) -> None:
    process, pipe = worker
    pipe.close()
    process.kill()
    process.join()


def _working(work: Work, pipe: Connection) -> None:
    """What the process does until the other end is closed."""
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((work(*task), ""))
        except Exception as error:  # told, not raised: the next task may do better
            pipe.send((None, f"{type(error).__name__}: {error}"))
