"""What methods that look at attention cost, relative to one forward pass of the same model.

    python -m bench.attention                      # every method, three shapes, T = 128 and 512
    python -m bench.attention --long 8192          # one row of a rollout at a length where T x T does not fit
    python -m bench.attention --matrix 512         # memory of the whole matrix, and of storing every layer

Random weights, 12 layers, 12 heads of 64, one sequence, float32 on the CPU, cross-checks off. All rows of a cell are
measured in turns and each figure is the median over rounds; `x` is the ratio to the forward pass of the same rounds.
Memory is by how much a row raises the peak of a fresh process above what the model itself takes (Linux); for long
inputs glibc is told to give blocks of 4 MB and more back at once, so that the figure is what is in use and not what the
allocator keeps in reserve.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import transformers
from torch import Tensor, nn

from bench.shapes import SHAPES, build, high_water, ids, reset_high_water
from clearhead import AttentionVisualizer
from clearhead.methods import METHODS

SLOW = {"value-zeroing": 128, "flow": 128}  # the longest input that they are measured at


def forward(model: nn.Module, length: int) -> Callable[[], object]:
    """One forward pass, as it is made while explaining: without gradients and without a cache."""
    more = {} if hasattr(model, "classifier") else {"use_cache": False}

    def run() -> object:
        with torch.no_grad():
            return model(input_ids=ids(length), **more)

    return run


def explaining(model: nn.Module, length: int, method: str) -> Callable[[], object]:
    """One explanation of the first class, or of a token at the last position."""
    forced = {"force": True} if "force" in METHODS[method].takes else {}
    av = AttentionVisualizer(model, method=method, cross_check=False, **forced)
    return lambda: av.explain({"input_ids": ids(length)}, target=1)


def table(lengths: list[int], rounds: int) -> None:
    """Print the cost of each method, one column per shape and length."""
    cells = {(shape, length): measure(shape, length, rounds) for shape in SHAPES for length in lengths}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {rounds} rounds\n")
    print("| x forward | " + " | ".join(f"{shape}, T = {length}" for shape, length in cells) + " |")
    print("|---|" + "---|" * len(cells))
    print("| forward, ms | " + " | ".join(f"{cell['forward']:.0f}" for cell in cells.values()) + " |")
    for method in METHODS:
        shown = (f"{cell[method] / cell['forward']:.2f}" if method in cell else "" for cell in cells.values())
        print(f"| {method} | " + " | ".join(shown) + " |")


def measure(shape: str, length: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of the forward pass and of each method, measured in turns."""
    model = build(shape)
    work = {"forward": forward(model, length)}
    work.update({m: explaining(model, length, m) for m in METHODS if length <= SLOW.get(m, length)})
    taken: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, run in work.items():
            if turn and name in SLOW:  # many times the others: once is enough
                continue
            start = time.perf_counter()
            run()
            if turn or name in SLOW:
                taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


# ---- long inputs, and memory ---------------------------------------------------------------------------------------


def base(length: int) -> nn.Module:
    """Twelve blocks with rotary positions and no head, so that no table of logits hides what attention takes."""
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    config = transformers.LlamaConfig(
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        vocab_size=5000,
        max_position_embeddings=max(length, 2048),
    )
    return transformers.LlamaModel(config).eval().requires_grad_(False)


def last(output: object) -> Tensor:
    """A scalar that is read at the last position."""
    state: Tensor = output.last_hidden_state  # type: ignore[attr-defined]
    return state[0, -1, 0]


def long_row(length: int, what: str) -> Callable[[], object]:
    """The forward pass, or the row of a rollout through all layers."""
    model = base(length)
    if what == "forward":
        return forward(model, length)
    av = AttentionVisualizer(model, method="rollout", cross_check=False)
    return lambda: av.explain({"input_ids": ids(length)}, target=last)


def matrix_row(length: int, what: str) -> Callable[[], object]:
    """The forward pass, storing every layer's weights as the model itself offers it, or the matrix of a rollout."""
    model = build("BERT").bert
    if what == "forward":
        return forward(model, length)
    if what == "storing":
        model.set_attn_implementation("eager")

        def stored() -> object:
            with torch.no_grad():
                return model(input_ids=ids(length), output_attentions=True).attentions

        return stored
    av = AttentionVisualizer(model)
    return lambda: av.attention({"input_ids": ids(length)}, target=last).maps["encoder"].rollout()  # noqa: PLW0108  # not before it is timed


CHILDREN: dict[str, Callable[[int, str], Callable[[], object]]] = {"long": long_row, "matrix": matrix_row}


def child(kind: str, length: int, what: str) -> None:
    """The child's side: warm up briefly, reset the kernel's high-water mark, run, print seconds and megabytes."""
    run = CHILDREN[kind](length, what)
    if kind == "matrix":
        CHILDREN[kind](32, what)()
    else:
        long_row(64, what)()
    gc.collect()
    reset_high_water()
    before, start = high_water(), time.perf_counter()
    run()
    print(json.dumps([time.perf_counter() - start, (high_water() - before) / 1024]))


def compare(kind: str, length: int, rows: tuple[str, ...], rounds: int) -> None:
    """Print seconds and peak memory of some rows, each in processes of its own, in turns."""
    taken: dict[str, list[list[float]]] = {what: [] for what in rows}
    for _ in range(rounds):
        for what in rows:
            command = [sys.executable, "-m", "bench.attention", "--child", kind, str(length), what]
            environment = {**os.environ, **({"MALLOC_MMAP_THRESHOLD_": str(2**22)} if kind == "long" else {})}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            taken[what].append(json.loads(done.stdout.splitlines()[-1]))
    first = statistics.median(seconds for seconds, _ in taken[rows[0]])
    print(f"| {kind}, T = {length}, {rounds} rounds | s | x {rows[0]} | peak MB |\n|---|---|---|---|")
    for what, found in taken.items():
        seconds, size = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {what} | {seconds:.2f} | {seconds / first:.2f} | {size:.0f} |", flush=True)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--long", type=int, metavar="T")
    parser.add_argument("--matrix", type=int, metavar="T")
    parser.add_argument("--child", nargs=3, metavar=("KIND", "LENGTH", "ROW"))
    given = parser.parse_args()
    torch.set_num_threads(2)
    if given.child:
        child(given.child[0], int(given.child[1]), given.child[2])
    elif given.long:
        compare("long", given.long, ("forward", "rollout"), given.rounds)
    elif given.matrix:
        compare("matrix", given.matrix, ("forward", "storing", "rollout"), given.rounds)
    else:
        table(given.lengths, given.rounds)


if __name__ == "__main__":
    main()
