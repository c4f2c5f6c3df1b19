"""Where verdicts should turn: thresholds chosen on one half of the inputs, and how often they are right on the other.

    python -m bench.calibration --sst2 ../shared/data/sst2 --kept kept

Truth is what the whole half says of a method, with both ways of removing: good ones have at least 0.9 of the largest
mean dA, bad ones at most 0.3 of it. A verdict on one prediction is right if it trusts a good method, and does not trust
a bad one; a threshold is chosen to make the mean of both rates largest on inputs at even places. What `bench.methods`
kept in the same folder is not measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from bench.methods import CHEAP, CHOICES, Task, judged, tasks
from clearhead.checks import evaluation
from clearhead.checks.validating import verdicts
from clearhead.validations import Evaluation, Thresholds, Validation

GOOD, BAD = 0.9, 0.3  # of the largest mean dA
RANDOM = (0.0, 0.5, 0.84, 1.0, 1.28, 1.645, 2.0)
FAITHFUL = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)
UNFAITHFUL = (0.1, 0.25, 0.4, 0.5)
AGREES = (0.2, 0.3, 0.4, 0.5)


def truth(found: Evaluation) -> dict[str, str]:
    """Which methods are good and which bad on a data set; neither for those between."""
    share = dict.fromkeys(found.methods, 0.0)
    for way in found.faithfulness:
        means = {row.method: row.figures["dA"].value or 0.0 for row in way.rows}
        best = max(means[name] for name in found.methods)
        for name in found.methods:
            share[name] += means[name] / best / len(found.faithfulness)
    words = {name: "good" if value >= GOOD else "bad" if value <= BAD else "" for name, value in share.items()}
    return {name: word for name, word in words.items() if word}


def rates(found: Sequence[Validation], known: dict[str, str], bar: Thresholds) -> dict[str, float]:
    """How often a good method is trusted or rejected, and a bad one."""
    words = [
        (known[each.method], each.word)
        for one in found
        for each in verdicts(replace(one, thresholds=bar))
        if each.method in known
    ]
    counts = {
        (kind, word): np.mean([said == word for own, said in words if own == kind])
        for kind, word in product(("good", "bad"), ("trust", "care", "reject"))
    }
    return {f"{kind} {word}": float(value) for (kind, word), value in counts.items()}


def score(found: dict[str, float]) -> float:
    """Good ones trusted and bad ones not, and bad ones rejected rather than good ones."""
    return (found["good trust"] + 1 - found["bad trust"] + found["bad reject"] - found["good reject"]) / 2


def chosen(found: Sequence[Validation], known: dict[str, str]) -> Thresholds:
    """The thresholds with the largest score; of equal ones the strictest."""
    bars = [
        Thresholds(random=z, faithful=f, unfaithful=u) for z, f, u in product(RANDOM, FAITHFUL, UNFAITHFUL) if u <= f
    ]
    return max(bars, key=lambda bar: (round(score(rates(found, known, bar)), 4), bar.faithful, bar.random, bar.agrees))


def reported(task: Task, found: Sequence[Validation]) -> None:
    """Choose on one half, print both."""
    even, odd = found[::2], found[1::2]
    known = truth(evaluation(even))
    bars = {"now": Thresholds(), "chosen on the even half": chosen(even, known)}
    good, bad = ([name for name, word in known.items() if word == kind] for kind in ("good", "bad"))
    print(f"### clearhead/{task.model}, {len(found)} inputs; good: {', '.join(good)}; bad: {', '.join(bad)}\n")
    heads = ["thresholds", "half", "good trusted", "good rejected", "bad trusted", "bad rejected", "score"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, bar in bars.items():
        values = {each: getattr(bar, each) for each in ("random", "faithful", "unfaithful", "agrees")}
        said = f"{name}: {', '.join(f'{each} {value:g}' for each, value in values.items())}"
        for half, members in (("even", even), ("odd", odd)):
            own = rates(members, known, bar)
            cells = [f"{own[key]:.2f}" for key in ("good trust", "good reject", "bad trust", "bad reject")]
            print(f"| {said} | {half} | {' | '.join(cells)} | {score(own):.2f} |")
    print(flush=True)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sst2", type=Path, help="the folder with dev.tsv")
    parser.add_argument("--multi30k", type=Path, help="the folder with test_2016_flickr.en.gz")
    parser.add_argument("--inputs", type=int, default=100, help="of each model")
    parser.add_argument("--only", help="one model: sentiment, digits or translate")
    parser.add_argument("--kept", type=Path, metavar="FOLDER", help="finished work lies here")
    given = parser.parse_args()
    given.sentences, given.digits, given.translations, given.dear = given.inputs, given.inputs, given.inputs // 4, 0
    torch.set_num_threads(1)
    for task in tasks(given):
        if given.only in (None, task.model):
            reported(task, judged(task, CHEAP, len(task.inputs), given.kept, CHOICES))


if __name__ == "__main__":
    main()
