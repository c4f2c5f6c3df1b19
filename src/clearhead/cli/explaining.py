"""One call of the library for each input, or for many together, as the command line streams them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearhead.cli.command import say
from clearhead.cli.output import quiet, status
from clearhead.errors import ClearheadError

if TYPE_CHECKING:
    from clearhead.visualizer import AttentionVisualizer

TOGETHER = 64  # inputs that are explained before the first of them is printed


def load(
    model: str,
    task: str | None = None,
    pooling: str | None = None,
    device_map: str | None = None,
    *,
    remote: bool = False,
) -> AttentionVisualizer:
    """The model, with one moving line while it is read."""
    loading: dict[str, Any] = {"device_map": device_map, "trust_remote_code": remote}
    with quiet(), status(f"loading {Path(model).name}"):
        from clearhead.visualizer import AttentionVisualizer

        return AttentionVisualizer.from_pretrained(model, task=task, pooling=pooling, **loading)


def explained(
    visualizer: AttentionVisualizer, inputs: Sequence[Any], asked: Mapping[str, Any], *, rows: bool = False
) -> Iterator[Any]:
    """One result after the other, so that a long input streams, with `rows` each map of a generation by itself."""
    for first in range(0, len(inputs), TOGETHER):
        some = inputs[first : first + TOGETHER]
        with quiet():  # a list has a bar of its own
            found = _together(visualizer, some, asked) if len(some) > 1 else None
        if found is not None:
            yield from (row for each in found for row in (getattr(each, "rows", [each]) if rows else [each]))
            continue
        for n, each in enumerate(some, first + 1):
            place = f"input {n} of {len(inputs)}: " if len(inputs) > 1 else ""
            yield from _one(visualizer, each, asked, rows=rows, place=place)


def _together(visualizer: AttentionVisualizer, some: Sequence[Any], asked: Mapping[str, Any]) -> list[Any] | None:
    """The results for some inputs; None if something is wrong with one of them, which explaining each will tell."""
    try:
        found: list[Any] = visualizer.explain(list(some), **asked)
        return found
    except ClearheadError:
        return None


def _one(
    visualizer: AttentionVisualizer, one: Any, asked: Mapping[str, Any], *, rows: bool, place: str
) -> Iterator[Any]:
    """The result for one input, or its rows as they come; `place` says in an error which input it is about."""
    results = visualizer.stream(one, **asked) if rows else (visualizer.explain(each, **asked) for each in [one])
    many = {"generate", "continuation"} & asked.keys() or visualizer.task == "encoder-decoder"
    while True:
        try:
            with quiet(), status("" if many else "explaining"):  # many rows have a bar of their own
                result = next(results, None)
        except ClearheadError as error:
            raise type(error)(f"{place}{error}") from error
        if result is None:
            return
        yield result


def looked(visualizer: AttentionVisualizer, one: Any, asked: Mapping[str, Any]) -> Iterator[Any]:
    """The attention of one input."""
    with quiet(), status("looking"):
        found = visualizer.attention(one, **asked)
    yield found


def compared(visualizer: AttentionVisualizer, both: tuple[Any, Any], asked: Mapping[str, Any]) -> Iterator[Any]:
    """What changed between two inputs."""
    with quiet(), status("comparing"):
        found = visualizer.compare(*both, **asked)
    yield found


def validated(visualizer: AttentionVisualizer, one: Any, asked: Mapping[str, Any]) -> Iterator[Any]:
    """How far to trust the explanations of one prediction."""
    with quiet(), status("validating"):
        found = visualizer.validate(one, **asked)
    yield found


def evaluated(visualizer: AttentionVisualizer, data: Path, asked: Mapping[str, Any]) -> Iterator[Any]:
    """How far to trust methods on a data set."""
    with quiet():  # with a bar of its own
        found = visualizer.evaluate(data, **asked)
    yield found


def chosen(visualizer: AttentionVisualizer, data: Path, asked: Mapping[str, Any]) -> Iterator[Any]:
    """What was measured to choose a method, and the choice."""
    with quiet():
        found = visualizer.choose(data, **asked)
    yield found


def judged(
    visualizer: AttentionVisualizer, data: Path, asked: Mapping[str, Any], *, prune: bool, resume: Path | None
) -> Iterator[Any]:
    """The report of the heads over a data set, with a pruning curve if it is wanted."""
    with quiet(), _kept(resume):
        found = visualizer.heads(data, resume=resume, **asked)
        if prune:
            found = replace(found, pruning=visualizer.pruning_curve(data, resume=resume, **asked))
    yield found


@contextmanager
def _kept(folder: Path | None) -> Iterator[None]:
    """Whoever interrupts hears that finished work is kept in the folder, if there is one."""
    try:
        yield
    except KeyboardInterrupt:
        if folder is not None:
            say(f"clearhead: interrupted; finished work is kept in {folder}. Give the same command again to go on.")
        raise
