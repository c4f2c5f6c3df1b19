"""How faithful every method is, by removing what it says matters: the table of the README, by one command.

    python -m bench.methods                                  # small samples of tests/data, minutes
    python -m bench.methods --sst2 ../shared/data/sst2 --multi30k ../shared/data/multi30k --out bench/results

For each input all methods explain the same value, and units are removed in two ways, in eleven steps, the most relevant
first and the least relevant first. `dA` is the area between the two curves, in the unit of what is explained; random
orders are near 0. Inputs at even places are those on which defaults were chosen, those at odd places were held out.
Methods that draw hundreds of samples, or solve a flow, explain the first inputs only. With `--kept` a run that is
interrupted goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from bench.tasks import captions, held_out, sentences
from clearhead import AttentionVisualizer
from clearhead.checks import Choices, evaluation
from clearhead.errors import ClearheadError
from clearhead.validations import Evaluation, Figure, Validation

REFERENCE = "integrated-gradients"
CHOICES = Choices(orders=4, bins=(0.5,), steps=0, sets=0)
CHEAP: dict[str, Mapping[str, Any]] = {
    "secant": {"method": "secant"},
    "secant, halvings=2": {"method": "secant", "halvings": 2},
    "lrp": {"method": "lrp"},
    "lrp:attnlrp": {"method": "lrp", "preset": "attnlrp"},
    "lrp:cp-lrp": {"method": "lrp", "preset": "cp-lrp"},
    REFERENCE: {"method": REFERENCE, "steps": 20},
    "gradient-attention": {"method": "gradient-attention"},
    "gradcam": {"method": "gradcam"},
    "rollout": {"method": "rollout"},
    "attention": {"method": "attention"},
    "input-x-gradient": {"method": "input-x-gradient"},
    "saliency": {"method": "saliency"},
    "occlusion": {"method": "occlusion"},
}
DEAR: dict[str, Mapping[str, Any]] = {
    name: {"method": name}
    for name in (
        "gradient-shap",
        "kernel-shap",
        "shapley-sampling",
        "lime",
        "partition-shap",
        "value-zeroing",
        "flow",
        "deeplift",
    )
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model, what it reads, and how many of its inputs the dear methods explain."""

    model: str
    inputs: Sequence[Any]
    removals: tuple[str, ...]
    dear: int


def judged(
    task: Task, methods: Mapping[str, Any], count: int, kept: Path | None, choices: Choices = CHOICES
) -> list[Validation]:
    """The validations of the first inputs, those that are kept already from their files."""
    av = AttentionVisualizer.from_pretrained(f"clearhead/{task.model}")
    folder = kept / f"{task.model}-{len(methods)}-{choices.orders}" if kept else None
    found = []
    for n, given in enumerate(tqdm(task.inputs[:count], desc=task.model, leave=False)):
        path = folder / f"{n}.json" if folder else None
        if path is not None and path.exists():
            found.append(Validation.load(path))
            continue
        try:
            one = av.validate(given, methods, removals=task.removals, against=REFERENCE, choices=choices, sanity=False)
        except ClearheadError as error:
            print(f"input {n} of {task.model} was skipped: {error}", flush=True)
            continue
        found.append(one)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            one.save(path)
    return [each for each in found if each.units >= each.thresholds.fewest_units]


def able(task: Task, methods: Mapping[str, Any]) -> dict[str, Any]:
    """The methods that can explain the task, tried on its first input."""
    av = AttentionVisualizer.from_pretrained(f"clearhead/{task.model}")
    found = {}
    for name, given in methods.items():
        try:
            av.validate(task.inputs[0], {name: given}, removals=task.removals[:1], choices=CHOICES, sanity=False)
        except ClearheadError as error:
            print(f"* `{name}` is left out for {task.model}: {error}\n", flush=True)
        else:
            found[name] = given
    return found


# ---- written -------------------------------------------------------------------------------------------------------


def table(whole: Evaluation, chosen: Evaluation, other: Evaluation) -> str:
    """A row for each method, the best first: dA with its interval, on both halves as a share of the reference's."""
    labels = [way.removal for way in whole.faithfulness]
    heads = ["method", *(f"dA, removed: {label}" for label in labels)]
    heads += [f"of {REFERENCE}, {half} half, {n}" for half in ("even", "odd") for n in range(1, len(labels) + 1)]
    heads += [f"Spearman with {REFERENCE}", "conservation error", "ms"]
    lines = [heads, ["---"] * len(heads)]
    for name in sorted(named(whole), key=lambda name: -(spread(whole, 0, name).value or 0)):
        cells = [str(spread(whole, n, name)) for n in range(len(labels))]
        cells += [share(half, n, name) for half in (chosen, other) for n in range(len(labels))]
        books, seconds = whole.conservation.get(name), whole.seconds.get(name)
        cells.append(agreed(whole, name))
        cells.append(f"{books.error:.0e}" if books and books.additive and books.error is not None else "–")
        cells.append("–" if seconds is None else f"{1000 * seconds:.0f}")
        lines.append([name, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def named(found: Evaluation) -> list[str]:
    """All methods, and the references beside them."""
    return [row.method for row in found.faithfulness[0].rows]


def spread(found: Evaluation, way: int, name: str) -> Figure:
    """The dA of a method by a way of removing."""
    return next(row for row in found.faithfulness[way].rows if row.method == name).figures["dA"]


def share(found: Evaluation, way: int, name: str) -> str:
    """The dA of a method as a share of the reference's on the same inputs."""
    own, reference = spread(found, way, name).value, spread(found, way, REFERENCE).value
    return "–" if own is None or not reference else f"{own / reference:.2f}"


def agreed(found: Evaluation, name: str) -> str:
    """The mean rank correlation with the reference."""
    if name == REFERENCE or name not in found.methods:
        return "–"
    return str(found.agreement.pair(name, REFERENCE).figures.get("spearman", Figure(value=None)))


def written(task: Task, methods: Mapping[str, Any], count: int, kept: Path | None) -> str:
    """The section of a task."""
    found = judged(task, able(task, methods), count, kept)
    whole, even, odd = (evaluation(each) for each in (found, found[::2], found[1::2]))
    units = np.mean([each.units for each in found])
    scale = whole.faithfulness[0].scale
    said = f"clearhead/{task.model}: {whole.inputs} inputs, {units:.0f} units in the mean, dA in units of a {scale}"
    return f"### {said}\n\n{table(whole, even, odd)}\n"


def tasks(given: argparse.Namespace) -> list[Task]:
    """The three models with their data."""
    images, _ = held_out()
    return [
        Task(
            model="sentiment",
            inputs=sentences(given.sst2)[: given.sentences],
            removals=("mask", "attention-mask"),
            dear=given.dear,
        ),
        Task(model="digits", inputs=images[: given.digits], removals=("mean", "blur"), dear=given.dear),
        Task(
            model="translate",
            inputs=captions(given.multi30k)[: given.translations],
            removals=("mean", "attention-mask"),
            dear=min(given.dear, 10),
        ),
    ]


def main() -> None:
    """Read the arguments, print the tables, and write them if a folder is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sst2", type=Path, help="the folder with dev.tsv")
    parser.add_argument("--multi30k", type=Path, help="the folder with test_2016_flickr.en.gz")
    parser.add_argument("--sentences", type=int, default=872)
    parser.add_argument("--digits", type=int, default=360)
    parser.add_argument("--translations", type=int, default=50)
    parser.add_argument("--dear", type=int, default=40, help="inputs for methods that draw")
    parser.add_argument("--only", help="one model: sentiment, digits or translate")
    parser.add_argument("--kept", type=Path, metavar="FOLDER", help="finished work lies here")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write methods.md there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    parts = []
    for task in tasks(given):
        if given.only in (None, task.model):
            parts.append(written(task, CHEAP, len(task.inputs), given.kept))
            print(parts[-1], flush=True)
            parts.append(written(task, {**CHEAP, **DEAR}, task.dear, given.kept))
            print(parts[-1], flush=True)
    if given.out:
        (given.out / "methods.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
