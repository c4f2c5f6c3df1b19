"""How exactly secants add up: the largest gap between a value and its baseline's with all relevance, on every model.

python -m bench.books --sst2 ../shared/data/sst2 --multi30k ../shared/data/multi30k

The bar is |base_value + sum R - f| <= max(1e-4 |f|, 1e-6 sum |R|); `of the bar` is the largest gap relative to it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.tasks import captions, held_out, sentences
from clearhead import AttentionVisualizer, GenerationMap, RelevanceMap

SENTENCES = 500
PROMPTS = 50
WORDS = ("mask", "pad", "zero", "mean")
PICTURES = ("mean", "zero", "blur")


def rows(found: Iterable[Any]) -> list[RelevanceMap]:
    """The maps of all produced tokens, or of all inputs."""
    return [row for each in found for row in (each.rows if isinstance(each, GenerationMap) else (each,))]


def of_the_bar(found: RelevanceMap) -> float:
    """The gap relative to what is allowed."""
    allowed = max(1e-4 * abs(found.value), 1e-6 * float(np.abs(found.relevance).sum()))
    return abs(found.base_value + float(found.relevance.sum()) - found.value) / allowed


def measured(name: str, inputs: Sequence[Any], baselines: Sequence[str], **asked: Any) -> None:
    """Print a line for each baseline."""
    av = AttentionVisualizer.from_pretrained(f"clearhead/{name}", method="secant")
    for word in baselines:
        found = rows(av.explain(list(inputs), baseline=word, **asked))
        worst, over = max(map(of_the_bar, found)), sum(of_the_bar(each) > 1 for each in found)
        leaks = sum(bool(each.ledger) for each in found)
        print(
            f"{name:>9}, {word:>4}: {len(found):4} maps, at most {worst:.1e} of the bar, {over} beyond it; "
            f"median error {np.median([each.conservation_error for each in found]):.0e}, {leaks} with leaks",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sst2", type=Path, help="the folder of the data set; a sample without it")
    parser.add_argument("--multi30k", type=Path, help="the folder of the data set; a sample without it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    measured("sentiment", sentences(given.sst2)[:SENTENCES], WORDS)
    measured("digits", held_out()[0], PICTURES)
    texts = captions(given.multi30k)
    measured("translate", texts, ("mean", "zero", "pad"))
    prompts = [" ".join(text.split()[:4]) for text in texts[:PROMPTS]]
    measured("captions", prompts, ("mean", "zero"), generate=8)


if __name__ == "__main__":
    main()
