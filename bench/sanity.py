"""How alike every method's maps stay as weights, target and input change, on the models in the box.

    python -m bench.sanity --model sentiment --inputs 10
    python -m bench.sanity --model digits --inputs 10 --json similarities.json

A row per method and change: the mean of Spearman's rank correlation over inputs, with the smallest and the largest one.
It is with sign where the method has one, of sizes where it has none, and for weights the larger of the two, as
`checks.sanity.findings` takes them; of inputs nearby it is max-sensitivity. Where thresholds lie can be read off it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.tasks import held_out
from clearhead import AttentionVisualizer, RelevanceMap, Settings
from clearhead.checks import sanity as compared
from clearhead.checks.faithfulness import max_sensitivity
from clearhead.errors import ClearheadError
from clearhead.methods import METHODS
from clearhead.probing import explained
from clearhead.question import Question
from clearhead.sanity import layers, near, other, randomised, settled, targets
from clearhead.subjects import Wanted

DATA = Path(__file__).parents[1] / "tests" / "data" / "sst2_dev_200.tsv"
QUICK = {"steps": 20, "samples": 256}  # whose ranks need no more
SLOW = ("kernel-shap", "shapley-sampling", "lime", "partition-shap", "gradient-shap")
NEAR, DRAWS, CUTS, FEWEST = 3, 2, 4, 8


def inputs(model: str, count: int) -> list[Any]:
    """Sentences of the development set, not the shortest, or digits that were never trained on."""
    if model == "digits":
        return held_out()[0][:count]
    lines = [row.split("\t")[0] for row in DATA.read_text(encoding="utf-8").splitlines()]
    return [each for each in lines if FEWEST <= len(each.split()) <= 3 * FEWEST][:count]


def settings(name: str) -> Settings:
    """A method as it is tested."""
    quick = {key: value for key, value in QUICK.items() if key in METHODS[name].takes}
    return Settings(method=name, cross_check=False, **quick)


def changes(question: Question) -> Iterator[tuple[str, str, Any]]:
    """What is changed, by kind and name, and the question to answer while it is: a context for each."""
    groups, fixed = layers(question), settled(question)
    names = list(groups)
    for last in sorted({math.ceil(len(names) * n / CUTS) for n in range(1, CUTS + 1)}):
        within = [p for name in names[:last] for p in groups[name]]
        yield "cascade", f"{last}/{len(names)}: to {names[last - 1]}", (randomised(within, 0), fixed)
    for n in range(DRAWS):
        yield "all", f"draw {n}", (randomised(question.model.parameters(), 1 + n), fixed)


def maps(question: Question, names: Sequence[str]) -> dict[str, RelevanceMap]:
    """The maps by all methods that can make one."""
    found = {}
    for name in names:
        with suppress(ClearheadError):
            found[name] = explained(question, settings(name))
    return found


def measured(question: Question, names: Sequence[str], tokenizer: Any) -> Iterator[tuple[str, str, str, float]]:
    """Method, kind of change, its name, and how alike the maps are."""
    before = maps(question, names)
    for kind, change, (random, fixed) in changes(question):
        with random:
            yield from _alike(before, maps(fixed, names), kind, change)
    for change, each in targets(question).items():
        yield from _alike(before, maps(each, names), "class", change)
    for n in range(DRAWS):
        yield from _alike(before, maps(other(question, n, tokenizer=tokenizer), names), "input", f"input {n}")
    close = []
    for n in range(NEAR):
        with near(question, n) as each:
            close.append(maps(each, names))
    for name, found in before.items():
        nearby = [each[name].relevance for each in close if name in each]
        sensitivity = max_sensitivity(found.relevance, nearby.__getitem__, near=len(nearby))
        if sensitivity is not None:
            yield name, "near", "max-sensitivity", sensitivity


def _alike(
    before: Mapping[str, RelevanceMap], after: Mapping[str, RelevanceMap], kind: str, change: str
) -> Iterator[tuple[str, str, str, float]]:
    compare = {"class": compared.other_targets, "input": compared.other_inputs}.get(kind)
    for name, found in after.items():
        if name not in before:
            continue
        if compare is None:
            (step,) = compared.randomised(before[name], {change: found})
            known = [each for each in (step.signed, step.size) if each is not None]
            value = max(known, default=None)
        else:
            (step,) = compare(before[name], {change: found})
            value = step.size if step.signed is None else step.signed
        if value is not None:
            yield name, kind, change, value


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sentiment", choices=("sentiment", "digits"))
    parser.add_argument("--inputs", type=int, default=10)
    parser.add_argument("--slow", type=int, default=3, help="inputs for methods that sample or integrate")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    av = AttentionVisualizer.from_pretrained(f"clearhead/{asked.model}")
    tokenizer = av._subject.tokenizer
    held: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for n, given in enumerate(tqdm(inputs(asked.model, asked.inputs), disable=None)):
        names = [name for name in asked.methods if n < asked.slow or name not in SLOW]
        question = replace(av._subject.question(given, Wanted(), Settings(method="secant")))
        for method, kind, change, value in measured(question, names, tokenizer):
            held[method][kind][change].append(value)
        if asked.json:
            asked.json.write_text(json.dumps(held, indent=1), encoding="utf-8")
    for method, kinds in held.items():
        for kind, names in kinds.items():
            for change, values in names.items():
                low, mean, high = min(values), float(np.mean(values)), max(values)
                print(f"{method:22} {kind:8} {change:40} {mean:6.2f} ({low:5.2f} to {high:5.2f}) of {len(values)}")


if __name__ == "__main__":
    main()
