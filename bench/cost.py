"""What an explanation costs, relative to the forward pass and input gradient that any gradient method needs.

    python -m bench.cost                 # the table of the README
    python -m bench.cost --rounds 3 --lengths 32

Random weights, 12 layers, 768 wide, one sequence, float32 on the CPU. All rows of a cell are measured in turns, round
by round, and each figure is the median over rounds, so that a busy machine slows all of them alike; `x` is the ratio
to `forward + gradient` of the same rounds. Rows of rules are one pass under them; `by explain` is all that a user waits
for: the question, the passes, the map and its books, once the model is known. Memory is by how much the row raises the
resident size of a fresh process above what the model itself takes (Linux).
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import transformers
from torch import nn

from bench.shapes import (
    SHAPES,
    build,
    gradient,
    high_water,
    question,
    reset_high_water,
    scalar,
    tokens,
    uncached,
)
from clearhead import AttentionVisualizer
from clearhead.config import Settings
from clearhead.relevance import propagate
from clearhead.relevance.secant import difference

STEPS = 20


def rows(model: nn.Module, length: int) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    read, more, plain = tokens(model, length), uncached(model), gradient(model, length)
    answer, vectors = question(model, length)

    def forward() -> object:
        with torch.no_grad():
            return scalar(model(input_ids=read, **more))

    def rules(preset: str) -> Callable[[], object]:
        settings, _ = Settings.resolve(preset=preset)
        return lambda: propagate(lambda: scalar(model(input_ids=read, **more)), [], settings, model=model)

    av = AttentionVisualizer(model, method="lrp")

    def explain() -> object:
        return av.explain({"input_ids": read}, target=scalar)

    def compare() -> object:
        settings, x = Settings(method="secant"), vectors()
        return difference(lambda x: scalar(answer(x)), [x], [torch.zeros_like(x)], settings, model=model)

    return {
        "forward": forward,
        "forward + gradient": plain,
        "lrp, attnlrp": rules("attnlrp"),
        "lrp, cp-lrp": rules("cp-lrp"),
        "lrp, default, by explain": explain,
        "secant": compare,
        f"integrated gradients, {STEPS} steps": lambda: [plain(k / STEPS) for k in range(1, STEPS + 1)],
    }


def measure(shape: str, length: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of each row, measured in turns."""
    work = rows(build(shape), length)
    taken: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, run in work.items():
            if turn != 1 and name.startswith("integrated"):  # twenty times the row above it: once is enough
                continue
            start = time.perf_counter()
            run()
            if turn:
                taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


def peak(shape: str, length: int, name: str) -> float:
    """Megabytes by which the row raises the process's peak, measured in a process of its own."""
    command = [sys.executable, "-m", "bench.cost", "--peak", shape, str(length), name]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def print_peak(shape: str, length: int, name: str) -> None:
    """The child's side of `peak`: reset the kernel's high-water mark once the model stands, then run the row."""
    work = rows(build(shape), length)
    work["forward"]()
    gc.collect()
    reset_high_water()
    before = high_water()
    work[name]()
    print(json.dumps((high_water() - before) / 1024))


def table(lengths: list[int], rounds: int, memory: bool) -> None:
    """Print one Markdown table per shape and length."""
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}, ", end="")
    print(f"{torch.get_num_threads()} threads, median of {rounds} rounds\n")
    for shape in SHAPES:
        for length in lengths:
            times = measure(shape, length, rounds)
            base = times["forward + gradient"]
            print(f"| {shape}, T = {length} | ms | x | peak MB |\n|---|---|---|---|")
            for name, ms in times.items():
                size = f"{peak(shape, length, name):.0f}" if memory and not name.startswith("integrated") else "-"
                print(f"| {name} | {ms:.1f} | {ms / base:.2f} | {size} |", flush=True)
            print()


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak", nargs=3, metavar=("SHAPE", "LENGTH", "ROW"))
    given = parser.parse_args()
    torch.set_num_threads(2)
    if given.peak:
        print_peak(given.peak[0], int(given.peak[1]), given.peak[2])
    else:
        table(given.lengths, given.rounds, not given.no_memory)


if __name__ == "__main__":
    main()
