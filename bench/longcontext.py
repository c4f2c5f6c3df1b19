"""What a long context takes: the peak of a whole process that explains one prediction behind T tokens.

    python -m bench.longcontext --write               # T = 8192, 12 layers: minutes
    python -m bench.longcontext --length 512 --layers 2

Random weights of a Llama shape (768 wide, 12 heads, 5000 tokens), one sequence, float32 on the CPU, the explained
scalar at the last position. Every row runs in a process of its own; memory is the largest resident size that this ever
had (Linux), with the model, torch and all else. Where other work runs beside it, the processor's seconds tell more.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from bench.shapes import build, gradient, high_water, scalar, tokens, uncached

ROWS = ("forward", "forward + gradient", "explain", "explain, checkpoint")
METHODS = ("lrp", "secant")
TOLD = (__doc__ or "").split("\n\n")[2].strip()  # what was measured, for whoever reads the result
OUT = Path(__file__).parent / "results" / "longcontext.md"


def work(row: str, model: nn.Module, length: int, settings: dict[str, Any]) -> Callable[[], object]:
    """What a row runs."""
    if row == "forward":
        return lambda: _forward(model, length)
    if row == "forward + gradient":
        return gradient(model, length)
    from clearhead import AttentionVisualizer

    av = AttentionVisualizer(model, checkpoint=row == "explain, checkpoint", **settings)
    return lambda: av.explain({"input_ids": tokens(model, length)}, target=scalar)


def _forward(model: nn.Module, length: int) -> object:
    with torch.no_grad():
        return scalar(model(input_ids=tokens(model, length), **uncached(model)))


def measure(row: str, given: argparse.Namespace) -> dict[str, Any] | None:
    """Seconds and those of the processor, the largest resident size in MB, and the residual; None if it failed."""
    command = [sys.executable, "-m", "bench.longcontext", "--row", row, "--length", str(given.length)]
    command += ["--layers", str(given.layers), "--preset", given.preset, "--method", given.method]
    done = subprocess.run([*command, "--threads", str(given.threads)], capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def print_row(row: str, given: argparse.Namespace) -> None:
    """The child's side of `measure`."""
    model = build("Llama", given.length, layers=given.layers)
    settings = {"method": given.method} if given.preset == "default" else {"preset": given.preset}
    run = work(row, model, given.length, settings)
    start, busy = time.perf_counter(), time.process_time()
    found = run()
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    residual = getattr(found, "residual", None)
    print(json.dumps({"mb": high_water() / 1024, "seconds": seconds, "busy": busy, "residual": residual}))


def table(given: argparse.Namespace) -> str:
    """The table in Markdown, and what it was measured with."""
    what = f"{given.method}, preset {given.preset}, T = {given.length}, {given.layers} layers"
    lines = [f"| {what} | peak MB | s | processor s | residual |", "|---|---|---|---|---|"]
    for row in given.rows:
        found = measure(row, given)
        if found is None:
            lines.append(f"| {row} | failed | - | - | - |")
            continue
        residual = "-" if found["residual"] is None else f"{found['residual']:.1e}"
        lines.append(f"| {row} | {found['mb']:.0f} | {found['seconds']:.0f} | {found['busy']:.0f} | {residual} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def machine(threads: int) -> str:
    """Date, versions and machine."""
    text = Path("/proc/cpuinfo").read_text()
    model = next((line.split(": ")[1] for line in text.splitlines() if line.startswith("model name")), "")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return (
        f"{datetime.date.today()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{platform.machine()}, {model or 'CPU'}, {threads} threads, {memory:.0f} GB"
    )


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--method", choices=METHODS, default="lrp")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--write", action="store_true", help=f"into {OUT.name}")
    parser.add_argument("--row", choices=ROWS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.row:
        print_row(given.row, given)
        return
    found = f"{machine(given.threads)}\n\n{table(given)}\n"
    print(found)
    if given.write:
        OUT.write_text(f"# Long contexts\n\n{TOLD}\n\n{found}", encoding="utf-8")


if __name__ == "__main__":
    main()
