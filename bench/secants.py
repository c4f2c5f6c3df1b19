"""Ways of secants from a baseline to an input, by removing what is said to matter: which are most faithful.

    python -m bench.secants                                    # small samples of tests/data
    python -m bench.secants --sst2 ../shared/data/sst2 --multi30k ../shared/data/multi30k --kept FOLDER
    python -m bench.secants --table-only --kept FOLDER         # the table of what is kept

For each input, or each of some tokens of a translation, all ways explain the same value from the same baseline, and
units are removed in two ways, in eleven steps, the most relevant first and the least relevant first. `dA` is the area
between both curves, given as a share of that of 20 steps of integrated gradients from the same baseline in the same
run, with the 95 % interval of the bootstrap over inputs. Inputs at even places are those on which was chosen, those at
odd places were held out. Of a translation only source tokens are removed and ranked. With `--kept` a run goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from bench.tasks import captions, held_out, sentences
from clearhead import AttentionVisualizer, Settings
from clearhead.checks.removing import Scored, among, curve
from clearhead.errors import ClearheadError
from clearhead.methods import METHODS
from clearhead.question import Question
from clearhead.removal import Removal
from clearhead.subjects import Wanted

REFERENCE = "integrated-gradients, 20 steps"
LEAST, TOKENS, FEW, ROUNDS = 3, 3, 4, 10_000  # units, tokens of a translation, cheap ways, draws of the bootstrap
WAYS: dict[str, Mapping[str, Any]] = {
    REFERENCE: {"method": "integrated-gradients", "steps": 20},
    "secant": {"method": "secant"},
    "secant, 1 halving": {"method": "secant", "halvings": 1},
    "secant, 2 halvings": {"method": "secant", "halvings": 2},
    "secant, all halvings": {"method": "secant", "halvings": 9},
}
Found = dict[str, dict[str, float]]  # of each way of removing, the dA of each row


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model, what it reads, what it is compared with, and how units are removed."""

    model: str
    inputs: Sequence[Any]
    baselines: tuple[Any, ...]
    removals: tuple[str, ...]
    ways: int = len(WAYS)


def measured(av: AttentionVisualizer, task: Task, given: Any) -> Iterator[Found]:
    """The dA of every way, for each value of an input that is explained."""
    asked = av._subject.question(
        given, Wanted(baseline=[*_single(task.baselines), *task.removals]), Settings(method="secant")
    )
    aims = len(asked.items[0].aims)
    for n in sorted({round(k) for k in np.linspace(0, aims - 1, TOKENS)}) if aims > 1 else [0]:
        (item,) = asked.items
        question = replace(asked, items=(replace(item, aims=(item.aims[n],)),))
        removals = {each.label: each for each in question.baselines[-len(task.removals) :]}
        bare = replace(question, baselines=())
        ways = {label: Removal(bare, baseline) for label, baseline in removals.items()}
        judged = np.logical_and.reduce([_own(question), *(each.removable for each in ways.values())])
        if judged.sum() >= LEAST:
            yield _spreads(question, _relevances(question, task), ways, judged)


def _single(baselines: Sequence[Any]) -> list[str]:
    """The words of all baselines, each once."""
    return list(dict.fromkeys(word for each in baselines for word in _words(each)))


def _words(baseline: Any) -> tuple[str, ...]:
    return baseline if isinstance(baseline, tuple) else (baseline,)


def _own(question: Question) -> NDArray[np.bool_]:
    """The units that are ranked: neither special nor produced by the model."""
    return np.array([not unit.special and unit.stream != "decoder" for unit in question.items[0].units])


def _relevances(question: Question, task: Task) -> dict[str, NDArray[np.float64]]:
    """The relevance of units by every way from every baseline, and by lrp."""
    count, words = len(question.items[0].units), _single(task.baselines)
    found = {
        "lrp": _padded(next(METHODS["lrp"].function(replace(question, baselines=()), Settings(method="lrp")))[1], count)
    }
    for baseline in task.baselines:
        chosen = tuple(question.baselines[words.index(word)] for word in _words(baseline))
        for name, given in list(WAYS.items())[: task.ways if baseline == task.baselines[0] else FEW]:
            settings = Settings(**given)
            ((_, found_map),) = METHODS[settings.method].function(replace(question, baselines=chosen), settings)
            found[f"{name}, from {' and '.join(_words(baseline))}"] = _padded(found_map, count)
    return found


def _padded(found: Any, count: int) -> NDArray[np.float64]:
    """A number for each unit: those that the value cannot depend on have 0, learned vectors are left out."""
    whole = np.zeros(count)
    given = found.relevance[: sum(unit.index < count for unit in found.units)][:count]
    whole[: len(given)] = given
    return whole


def _spreads(
    question: Question,
    relevances: Mapping[str, NDArray[np.float64]],
    ways: Mapping[str, Removal],
    judged: NDArray[np.bool_],
) -> Found:
    found: Found = {}
    for label, removal in ways.items():
        scores = Scored(among(removal.scores, judged), int(judged.sum()))
        found[label] = {}
        for name, relevance in relevances.items():
            least, most = (curve(relevance[judged], scores, order).area for order in ("least", "most"))
            found[label][name] = least - most
    return found


# ---- what is kept --------------------------------------------------------------------------------------------------


def collected(task: Task, half: int, kept: Path | None, compute: bool) -> list[Found]:
    """The results for one half of the inputs, each the mean over the values of an input; those kept are read."""
    path = kept / f"{task.model}-{'odd' if half else 'even'}.jsonl" if kept else None
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
    known: dict[int, list[Found]] = {entry["input"]: entry["found"] for entry in map(json.loads, lines)}
    if compute:
        av = AttentionVisualizer.from_pretrained(f"clearhead/{task.model}")
        for n in tqdm(range(half, len(task.inputs), 2), desc=f"{task.model}, half {half}", leave=False):
            if n in known:
                continue
            try:
                known[n] = list(measured(av, task, task.inputs[n]))
            except ClearheadError as error:
                print(f"input {n} of {task.model} was skipped: {error}", flush=True)
                continue
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"input": n, "found": known[n]}) + "\n")
    return [_mean(found) for _, found in sorted(known.items()) if found]


def _mean(found: Sequence[Found]) -> Found:
    return {way: {row: float(np.mean([each[way][row] for each in found])) for row in found[0][way]} for way in found[0]}


# ---- the table -----------------------------------------------------------------------------------------------------


def table(task: Task, halves: Sequence[list[Found]]) -> str:
    """A row for each way and baseline: dA as a share of the reference's, by half and by what removes."""
    labels = list(halves[0][0])
    heads = [f"{half} half, removed: {label}" for half in ("even", "odd") for label in labels]
    lines = [["", *heads], ["---"] * (1 + len(heads))]
    rows = [row for row in halves[0][0][labels[0]] if all(row in found[labels[0]] for half in halves for found in half)]
    lines += [[row, *(_cell(found, label, row, task) for found in halves for label in labels)] for row in rows]
    counts = " and ".join(str(len(each)) for each in halves)
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### clearhead/{task.model}: {counts} inputs\n\n{body}\n"


def _cell(found: Sequence[Found], label: str, row: str, task: Task) -> str:
    """The mean, and its share of the reference's mean with the interval of that share."""
    baseline = row.rpartition(", from ")[2] if ", from " in row else " and ".join(_words(task.baselines[0]))
    reference = np.array([each[label][f"{REFERENCE}, from {baseline}"] for each in found])
    own = np.array([each[label][row] for each in found])
    draw = np.random.default_rng(0).integers(0, len(own), (ROUNDS, len(own)))
    low, high = np.quantile(own[draw].mean(1) / reference[draw].mean(1), [0.025, 0.975])
    return f"{own.mean():.2f}, x {own.mean() / reference.mean():.2f} ({low:.2f} to {high:.2f})"


def tasks(given: argparse.Namespace) -> list[Task]:
    """The three models with their data."""
    images, _ = held_out()
    return [
        Task(
            model="sentiment",
            inputs=sentences(given.sst2)[: given.sentences],
            baselines=("mask", "zero"),
            removals=("mask", "attention-mask"),
        ),
        Task(model="digits", inputs=images[: given.digits], baselines=("mean", "blur"), removals=("mean", "blur")),
        Task(
            model="translate",
            inputs=captions(given.multi30k)[: given.translations],
            baselines=("mean",),
            removals=("mean", "attention-mask"),
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
    parser.add_argument("--only", help="one model: sentiment, digits or translate")
    parser.add_argument("--half", type=int, choices=(0, 1), help="explain one half only: 0 even, 1 odd places")
    parser.add_argument("--kept", type=Path, metavar="FOLDER", help="finished work lies here")
    parser.add_argument("--table-only", action="store_true", help="explain nothing, print what is kept")
    parser.add_argument("--short", action="store_true", help="from the first baseline only, and not all halvings")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for whole in tasks(given):
        task = replace(whole, baselines=whole.baselines[:1], ways=FEW) if given.short else whole
        if given.only in (None, task.model):
            halves = [
                collected(task, half, given.kept, not given.table_only and given.half in (None, half))
                for half in (0, 1)
            ]
            if all(halves):
                print(table(task, halves), flush=True)


if __name__ == "__main__":
    main()
