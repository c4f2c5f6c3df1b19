"""What is claimed of heads, measured: cost of importance, pruning against random orders, one head left out at a time.

    python -m bench.heads                                  # the 200 sentences and 40 captions in tests/data
    python -m bench.heads --sst2 ../shared/data/sst2 --out pruning.png --resume points
    python -m bench.heads --cost                           # importance against forward + backward, T = 128 and 512

Finished points are kept in the folder `--resume`, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench.shapes import build
from clearhead import AttentionVisualizer
from clearhead.headreports import HeadReport, Pruning
from clearhead.heads import importance as measures
from clearhead.heads import pruning
from clearhead.heads.cases import posed, recipe
from clearhead.heads.store import Store
from clearhead.subjects.documents import read

EVEN = math.log(2)  # the loss below which one of two classes is right
SAMPLES = Path(__file__).parents[1] / "tests" / "data"


# ---- cost ----------------------------------------------------------------------------------------------------------


def cost(lengths: list[int], rounds: int) -> None:
    """All heads' importance against one forward and one backward pass to the embeddings, in turns."""
    model = build("BERT")
    print(f"12 layers, 12 heads of 64, {torch.get_num_threads()} threads, median of {rounds} rounds")
    for length in lengths:
        work = {"forward + backward": plain(model, length), "importance": importance(model, length)}
        taken: dict[str, list[float]] = {name: [] for name in work}
        for turn in range(rounds + 1):
            for name, run in work.items():
                start = time.perf_counter()
                run()
                if turn:
                    taken[name].append(1e3 * (time.perf_counter() - start))
        both = list(zip(taken["importance"], taken["forward + backward"], strict=True))
        ratio = statistics.median(mine / theirs for mine, theirs in both)
        shown = ", ".join(f"{name} {statistics.median(times):.0f} ms" for name, times in taken.items())
        print(f"  T = {length}: {shown}, ratio {ratio:.2f}", flush=True)


def ids(length: int) -> torch.Tensor:
    """So many tokens."""
    return torch.arange(length).unsqueeze(0) % 4000 + 5


def plain(model: nn.Module, length: int) -> Callable[[], object]:
    """The gradient of a logit by the embeddings, without those of weights."""

    def run() -> object:
        vectors = model.get_input_embeddings()(ids(length)).requires_grad_()
        scores = model(inputs_embeds=vectors).logits[0]
        return torch.autograd.grad(scores[1] - scores[0], vectors)

    return run


def importance(model: nn.Module, length: int) -> Callable[[], object]:
    """The slopes of all gates."""
    av = AttentionVisualizer(model)
    (case,) = posed(av._subject, [{"input_ids": ids(length)}], None, "target", av.settings)
    catalogue = av._heads.learn(case.question)
    return lambda: measures.slopes(catalogue, case.question, [case])


# ---- sentiment -----------------------------------------------------------------------------------------------------


def sentiment(folder: Path | None, out: Path | None, resume: Path | None, steps: int) -> None:
    """The pruning curve with its band, and each head's importance against the accuracy without it."""
    av = AttentionVisualizer.from_pretrained("clearhead/sentiment")
    texts, labels = read(folder / "dev.tsv" if folder else SAMPLES / "sst2_dev_200.tsv", None)
    start = time.perf_counter()
    found = av.pruning_curve(texts, labels, steps=steps, resume=resume)
    print(f"sentiment: {len(texts)} sentences, {sum(each.metric.size for each in found.curves)} points, ", end="")
    print(f"{time.perf_counter() - start:.0f} s")
    print(found.table())
    print(f"{100 * found.free:.0f} % of heads can go with no significant loss ({found.test}). {found.notes[0]}")
    if out is not None:
        draw(found, out)
    alone(av, texts, labels or [], resume)


def alone(av: AttentionVisualizer, texts: list[str], labels: list[str], resume: Path | None) -> None:
    """One head left out at a time: what that costs, against what its gate says."""
    start = time.perf_counter()
    cases = posed(av._subject, texts, labels, "loss", av.settings)
    catalogue = av._heads.learn(cases[0].question)
    scores = pruning.Scores(
        subject=av._subject,
        catalogue=catalogue,
        cases=cases,
        metric="loss",
        store=Store(resume and resume / f"{recipe(av._subject, cases, 'loss', 'loss')}.jsonl"),
    )
    whole, own = scores.of(()), scores.importance((), "example", False)
    without = np.stack([scores.of((n,)) for n in range(len(catalogue))])
    fallen = np.mean(whole < EVEN) - (without < EVEN).mean(1)
    changed = ((without < EVEN) != (whole < EVEN)).mean(1)
    print(f"one head left out at a time, all {len(catalogue)}, {time.perf_counter() - start:.0f} s")
    print(
        f"  accuracy falls by {100 * fallen.min():.1f} to {100 * fallen.max():.1f} points; Spearman of importance with"
    )
    print(
        f"  that fall {spearman(own, fallen):.2f}, the share of answers that change {spearman(own, changed):.2f}, ",
        end="",
    )
    print(f"the mean absolute change of the loss {spearman(own, np.abs(without - whole).mean(1)):.2f}")


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of ranks; equal values share theirs."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[where]

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def draw(found: Pruning, out: Path) -> None:
    """The curves as a picture."""
    from matplotlib.figure import Figure

    axes = (figure := Figure(figsize=(7, 4), layout="constrained")).subplots()
    for curve in found.curves:
        if curve.metric.ndim > 1:
            axes.fill_between(100 * curve.removed, curve.metric.min(0), curve.metric.max(0), alpha=0.25, color="grey")
            axes.plot(
                100 * curve.removed,
                np.median(curve.metric, 0),
                color="grey",
                label=f"{len(curve.metric)} random orders",
            )
        else:
            axes.plot(100 * curve.removed, curve.metric, marker=".", label=curve.order)
    axes.set(xlabel="heads removed, %", ylabel=found.curves[0].metric_name)
    axes.legend()
    figure.savefig(out, dpi=150)


# ---- translation ---------------------------------------------------------------------------------------------------


def translation(count: int) -> None:
    """The heads of the encoder, the decoder and between both, apart."""
    av = AttentionVisualizer.from_pretrained("clearhead/translate")
    texts, labels = read(SAMPLES / "multi30k_test_40.tsv", None)
    labels = labels or []
    report = av._heads.report(texts[:count], labels[:count], av.settings, of="loss", weighted=False, relevance=False)
    print(f"translation: importance of heads by the loss of {report.documents} captions", flush=True)
    for stream in report.streams:
        rows(report, stream)


def rows(report: HeadReport, stream: str) -> None:
    """The heads of a stream, a line per layer."""
    own = [n for n, head in enumerate(report.heads) if head.stream == stream]
    print(f"  {stream}: {report.importance[own].sum() / report.importance.sum():.0%} of the total")
    for layer in sorted({report.heads[n].layer for n in own}):
        shown = (f"{report.importance[n]:.3f} ± {report.error[n]:.3f}" for n in own if report.heads[n].layer == layer)
        print(f"    layer {layer}: {'  '.join(shown)}")


def main() -> None:
    """Read the flags and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sst2", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--captions", type=int, default=40)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    if chosen.cost:
        cost(chosen.lengths, chosen.rounds)
        return
    translation(chosen.captions)
    sentiment(chosen.sst2, chosen.out, chosen.resume, chosen.steps)


if __name__ == "__main__":
    main()
