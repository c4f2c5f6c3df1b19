"""How faithful the settings of lrp are, next to secants: half of the inputs chose them, the other half judges.

    python -m bench.lrp --sst2 ../shared/data/sst2 --sentences 872 --digits 180

Units are removed in eleven steps, the most relevant first and the least relevant first; `dA` is the area between the
two curves of what is explained. A row's `x` is the ratio of its mean dA to that of secants on the same inputs (from
`[MASK]`, of an image from its mean colour), with the 95 % interval of the ratio by the paired bootstrap. Sentences lose
tokens to [MASK] and to the zero vector, images lose patches to their mean colour and to black, the colour of what lies
behind a digit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from bench.tasks import held_out, sentences
from clearhead import AttentionVisualizer, Settings
from clearhead.checks.removing import Scored, among, curve
from clearhead.removal import Removal
from clearhead.subjects import Wanted

ROUNDS = 2000  # of the bootstrap
TEXT, PICTURE = ("mask", "zero"), ("mean", "black")  # what stands for what is gone; secants start at the first
HALVES = ("chose", "judge")  # inputs of even and of odd number
ROWS: dict[str, dict[str, Any]] = {
    "secant": {"method": "secant"},
    "default": {"method": "lrp"},
    "default, reference zero": {"reference": "zero"},
    "default, epsilon 0": {"epsilon": 0.0},
    "default, epsilon 0.03": {"epsilon": 0.03},
    "default, epsilon 0.1": {"epsilon": 0.1},
    "default, attention attnlrp": {"attention": "attnlrp"},
    "default, leaks recorded": {"leak": "record"},
    "attnlrp": {"preset": "attnlrp"},
    "cp-lrp": {"preset": "cp-lrp"},
}
Areas = dict[tuple[str, str], list[float]]  # dA of each input by row and removal


def areas(name: str, given: Sequence[Any], removals: Sequence[str], rows: Sequence[str]) -> tuple[Areas, list[float]]:
    """The dA of each input for each row and removal, and how far off the books of the default are."""
    av = AttentionVisualizer.from_pretrained(f"clearhead/{name}")
    av.model.requires_grad_(False)
    found: Areas = {}
    errors = []
    for each in tqdm(given, desc=name):
        wanted = Wanted(baseline=[Image.new("RGB", each.size) if word == "black" else word for word in removals])
        question = av._subject.question(each, wanted, Settings(method="secant"))
        gone = [Removal(question, baseline) for baseline in question.baselines]
        judged = [
            removal.removable & np.array([not unit.special for unit in removal.units[: len(removal.removable)]])
            for removal in gone
        ]
        scores = [Scored(among(removal.scores, own), int(own.sum())) for removal, own in zip(gone, judged, strict=True)]
        for row in rows:
            more = {"baseline": removals[0]} if row == "secant" else {}
            explained = av.explain(each, **{"method": "lrp", **ROWS[row]}, **more)
            if row == "default":
                errors.append(explained.conservation_error)
            for removal, own, score in zip(removals, judged, scores, strict=True):
                relevance = explained.relevance[: len(own)][own]
                area = {word: curve(relevance, score, word).area for word in ("most", "least")}
                found.setdefault((row, removal), []).append(area["least"] - area["most"])
    return found, errors


def ratio(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[float, float, float]:
    """The ratio of two means over the same inputs, and its 95 % interval by the bootstrap."""
    drawn = np.random.default_rng(0).integers(0, len(ours), (ROUNDS, len(ours)))
    low, high = np.quantile(ours[drawn].mean(1) / theirs[drawn].mean(1), [0.025, 0.975])
    return float(ours.mean() / theirs.mean()), float(low), float(high)


def table(name: str, found: Areas, removals: Sequence[str], errors: Sequence[float]) -> None:
    """Print a row for each setting, a column for each removal and half."""
    heads = [f"{removal}, {half}" for removal in removals for half in HALVES]
    count = len(next(iter(found.values())))
    print(f"\n{name}, {count} inputs: dA, and its ratio to secants with 95 % interval\n\n| | {' | '.join(heads)} |")
    print(f"|---|{'---|' * len(heads)}")
    for row in dict.fromkeys(row for row, _ in found):
        cells = []
        for removal in removals:
            for half in range(len(HALVES)):
                ours, theirs = (np.array(found[each, removal][half::2]) for each in (row, "secant"))
                share, low, high = ratio(ours, theirs)
                cells.append(f"{ours.mean():.3f}, x {share:.3f} ({low:.2f} to {high:.2f})")
        print(f"| {row} | {' | '.join(cells)} |", flush=True)
    print(f"\nconservation error of the default: median {np.median(errors):.1e}, at most {max(errors):.1e}")


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sst2", type=Path, help="the folder with dev.tsv; a sample without it")
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--digits", type=int, default=100)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(dict.fromkeys(["secant", "default", *given.rows]))
    if given.digits:
        table("digits", *_measured("digits", held_out()[0][: given.digits], PICTURE, rows))
    if given.sentences:
        table("sentiment", *_measured("sentiment", sentences(given.sst2)[: given.sentences], TEXT, rows))


def _measured(
    name: str, given: Sequence[Any], removals: Sequence[str], rows: Sequence[str]
) -> tuple[Areas, Sequence[str], list[float]]:
    found, errors = areas(name, given, removals, rows)
    return found, removals, errors


if __name__ == "__main__":
    main()
