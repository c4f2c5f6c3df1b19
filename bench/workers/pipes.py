"""The parent's side of a worker: start a process, send it requests, tell its failures apart."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
LIMIT = 600.0  # seconds for one answer


class RefusedError(Exception):
    """The worker could not do what it was asked; it lives on."""


class GoneError(Exception):
    """The worker ended, or does not answer; what it said last is in the message."""


class Worker:
    """A child process that answers lines of JSON."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # lives as long
        variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", **(environment or {})}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    def ask(self, do: str, *, limit: float = LIMIT, **request: Any) -> dict[str, Any]:
        """The answer to one request. Raises RefusedError if there is an error in it, GoneError if there is none."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise GoneError(self._last_words()) from error
        ready, _, _ = select.select([process.stdout], [], [], limit)
        if not ready:
            self.close(patience=0)
            raise GoneError(f"no answer in {limit:.0f} s")
        line = process.stdout.readline()
        if not line:
            process.wait(10)
            raise GoneError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer

    def close(self, *, patience: float = 5.0) -> None:
        """End the process, and what it holds with it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().splitlines() if line.strip()]
        return lines[-1] if lines else f"ended with {self._process.returncode} and said nothing"
