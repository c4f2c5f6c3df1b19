"""When memory runs out: the same with half as many at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from clearhead.errors import ModelError

RUNS_OUT = (RuntimeError, MemoryError, ModelError)  # torch's own is the first; a failing model says in words why
SHARE = 0.5  # of the free memory may be used
LAYERS_KEPT = 3  # tensors kept for the way back, for each that a layer reads or writes
UNKNOWN_MEMORY = 2**30  # bytes, where the system does not say
T = TypeVar("T")
R = TypeVar("R")


def halved(
    waiting: Sequence[T],
    count: Callable[[Sequence[T]], int],
    make: Callable[[Sequence[T]], R],
    size: Callable[[T], int],
) -> Iterator[tuple[Sequence[T], R, str]]:
    """What is made of the first `count` of those that wait, until none is left, and a note if memory ran out.

    A batch for which memory does not suffice is halved, and those after it stay as small. Raises ModelError, with the
    `size` in units, where it does not suffice for one.
    """
    most, note = len(waiting), ""
    while waiting:
        batch = waiting[: min(most, count(waiting))]
        try:
            made = [make(batch)]
        except RUNS_OUT as error:
            if not out_of_memory(error):
                raise
            if len(batch) == 1:
                raise too_large(size(batch[0])) from error
            made = []
        if not made:  # outside of the handler, which would hold the frames and their tensors
            most = len(batch) // 2
            note = f"Memory ran out with {len(batch)} inputs at a time; they were explained {most} at a time."
            release()
            continue
        waiting = waiting[len(batch) :]
        yield batch, made[0], note


def shrinking(make: Callable[[int], R], most: int, size: int) -> tuple[R, str]:
    """What is made with at most so many rows at a time, and a note if memory did not suffice for these.

    Raises ModelError, with the `size` in units, where it does not suffice for one.
    """
    rows = most
    while True:
        try:
            found = [make(rows)]
        except RUNS_OUT as error:
            if not out_of_memory(error):
                raise
            if rows == 1:
                raise too_large(size) from error
            found = []
        if found:
            return found[0], f"Memory ran out with {most} rows at a time; {rows} were taken." if rows < most else ""
        rows //= 2
        release()


def out_of_memory(error: BaseException) -> bool:
    """Does an error say that memory ran out?"""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "not enough memory" in str(error) or "out of memory" in str(error)


def too_large(units: int) -> ModelError:
    """The error for one input that memory does not suffice for."""
    return ModelError(
        f"Memory ran out for one input of {units} units. Shorten it, or load the model in a narrower float type."
    )


def release() -> None:
    """Hand memory back that nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---- how many fit --------------------------------------------------------------------------------------------------


def fitting(model: nn.Module, positions: int, most: int) -> int:
    """How many rows of so many positions fit into memory with what they keep for the way back; at least one."""
    return max(1, min(most, int(SHARE * free_memory(model) / (positions * bytes_per_position(model)))))


def bytes_per_position(model: nn.Module) -> int:
    """About how many bytes one position keeps until the way back: what each layer reads and writes, some times over."""
    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    sizes = [
        (p.shape[0] + p.numel() // max(1, p.shape[0])) * p.element_size()
        for p in model.parameters()
        if p.dim() >= 2 and id(p) not in looked_up
    ]
    return LAYERS_KEPT * sum(sizes) + 1


def home(model: nn.Module) -> torch.device:
    """Where inputs go: the device of the first weight that is there; the CPU where hooks load all of them."""
    weights = chain(model.parameters(), model.buffers())
    return next((weight.device for weight in weights if not weight.is_meta), torch.device("cpu"))


def free_memory(model: nn.Module) -> int:
    """The bytes that are free where the model is."""
    device = home(model)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return UNKNOWN_MEMORY
