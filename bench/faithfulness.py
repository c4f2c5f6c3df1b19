"""How faithful secants are: against integrated gradients from the same baseline, by removing what is said to matter.

    python -m bench.faithfulness                                             # the 200 sentences of tests/data
    python -m bench.faithfulness --sst2 ../shared/data/sst2 --sentences 600
    python -m bench.faithfulness --digits 200

Units are removed in eleven steps, the most relevant first and the least relevant first: tokens become [MASK], parts of
an image its mean colour; special tokens stay. `dA` is the area between the two curves of the explained logit, in
logits times the share removed, so higher is better. Integrated gradients take the middles of equal steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from bench.gradcam import interval
from bench.tasks import held_out, sentences
from clearhead import AttentionVisualizer, Settings
from clearhead.question import Question
from clearhead.relevance.secant import difference
from clearhead.relevance.secant.sources import looked_up
from clearhead.subjects import Wanted

POINTS, STEPS = 11, (1, 2, 4, 20)
TEXT, PICTURE = ("mask", "zero", "pad", "mean"), ("mean", "zero", "blur")  # baselines
SETTINGS = Settings(method="secant")
Key = tuple[str, str]  # the baseline and the method
Removed = Callable[[Sequence[Sequence[int]]], NDArray[np.float64]]  # from units that are gone to what is explained
Scalar = Callable[[Tensor], Tensor]  # from inputs [batch, ...] to what is explained [batch]
Shared = Callable[[Tensor], NDArray[np.float64]]  # from the relevance of every entry [1, ...] to that of units


def spreads(found: dict[Key, NDArray[np.float64]], removed: Removed) -> dict[Key, float]:
    """Of each method dA: the area under the curve with the least relevant units first, less the other."""
    paths = {key: (_path(-relevance), _path(relevance)) for key, relevance in found.items()}
    sets = list(dict.fromkeys(gone for most_and_least in paths.values() for path in most_and_least for gone in path))
    value = dict(zip(sets, removed([sorted(gone) for gone in sets]), strict=True))

    def area(path: list[frozenset[int]]) -> float:
        return float(np.trapezoid([value[gone] for gone in path], dx=1 / (POINTS - 1)))

    return {key: area(least) - area(most) for key, (most, least) in paths.items()}


def _path(scores: NDArray[np.float64]) -> list[frozenset[int]]:
    """What is gone at each step, the smallest scores first."""
    order = np.argsort(scores, kind="stable").tolist()
    return [frozenset(order[:count]) for count in np.linspace(0, len(order), POINTS).round().astype(int)]


def compared(x: Tensor, baseline: Tensor, scalar: Scalar, units: Shared) -> dict[str, NDArray[np.float64]]:
    """The relevance of units by secants and by integrated gradients of some steps, from one baseline."""
    found = difference(lambda value: scalar(value)[0], [x], [baseline], SETTINGS)
    rows = {"secant": units(found.sources[0].relevance)}
    for steps in STEPS:
        shares = ((torch.arange(steps) + 0.5) / steps).reshape(-1, *[1] * (x.dim() - 1))
        points = (baseline + shares * (x - baseline)).requires_grad_()
        (gradient,) = torch.autograd.grad(scalar(points).sum(), points)
        rows[f"integrated gradients, {steps} steps"] = units((x - baseline).double() * gradient.double().mean(0))
    return rows


def table(what: str, found: dict[Key, list[float]]) -> None:
    """Print the mean of each row and baseline, and its ratio to 20 steps of integrated gradients."""
    names, rows = (list(dict.fromkeys(key[n] for key in found)) for n in (0, 1))
    print(f"\n{what}: dA, mean and 95 % interval\n\n| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for row in rows:
        cells = []
        for name in names:
            low, high = interval(found[name, row])
            ratio = np.mean(found[name, row]) / np.mean(found[name, f"integrated gradients, {max(STEPS)} steps"])
            cells.append(f"{np.mean(found[name, row]):.3f} ({low:.2f} to {high:.2f}), x {ratio:.2f}")
        print(f"| {row} | {' | '.join(cells)} |", flush=True)


# ---- sentences -----------------------------------------------------------------------------------------------------


def text(texts: Sequence[str]) -> None:
    """The sentiment model, from its mask, its padding, the zero vector and the mean vector."""
    av = AttentionVisualizer.from_pretrained("clearhead/sentiment")
    av.model.requires_grad_(False)
    found: dict[Key, list[float]] = {}
    for sentence in tqdm(texts, desc="sentences"):
        questions = {word: av._subject.question(sentence, Wanted(baseline=word), SETTINGS) for word in TEXT}
        for key, score in _text(questions, av._subject._loaded.processor.mask_token_id).items():
            found.setdefault(key, []).append(score)
    table(f"{len(texts)} sentences", found)


def _text(questions: dict[str, Question], mask: int) -> dict[Key, float]:
    question = questions["mask"]
    (part,), (item,) = question.passes, question.items
    ids, model = part.tensors["input_ids"], question.model
    weight = model.get_input_embeddings().weight
    others = {name: tensor for name, tensor in part.tensors.items() if name != "input_ids"}
    with torch.no_grad():
        label = int(model(**part.tensors).logits[0].argmax())
    own = [i for i, unit in enumerate(item.units) if not unit.special]

    def logits(**given: Tensor) -> Tensor:
        count = len(next(iter(given.values())))
        scores = model(**given, **{name: tensor.expand(count, -1) for name, tensor in others.items()}).logits
        return scores[:, label] - scores[:, 1 - label]

    def removed(sets: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        rows = ids.repeat(len(sets), 1)
        for row, gone in zip(rows, sets, strict=True):
            row[[own[n] for n in gone]] = mask
        with torch.no_grad():
            return logits(input_ids=rows).double().numpy()

    found: dict[Key, NDArray[np.float64]] = {}
    for word, other in questions.items():
        (baseline,) = other.baselines
        x, b = (looked_up(each, weight, baseline.vector) for each in (ids, baseline.tensors[0]["input_ids"]))
        rows = compared(x, b, lambda vectors: logits(inputs_embeds=vectors), lambda each: each[0].sum(-1).numpy()[own])
        found.update({(word, row): relevance for row, relevance in rows.items()})
    return spreads(found, removed)


# ---- digits --------------------------------------------------------------------------------------------------------


def digits(count: int) -> None:
    """The digits model, from the mean colour of an image, from zero and from a blurred copy."""
    av = AttentionVisualizer.from_pretrained("clearhead/digits")
    av.model.requires_grad_(False)
    found: dict[Key, list[float]] = {}
    for image in tqdm(held_out()[0][:count], desc="images"):
        questions = {word: av._subject.question(image, Wanted(baseline=word), SETTINGS) for word in PICTURE}
        for key, score in _image(questions).items():
            found.setdefault(key, []).append(score)
    table(f"{count} digits", found)


def _image(questions: dict[str, Question]) -> dict[Key, float]:
    question = questions["mean"]
    (part,), (item,) = question.passes, question.items
    mean = question.baselines[0].tensors[0]["pixel_values"]
    x, model, grid = part.tensors["pixel_values"], question.model, item.layouts[0].grid
    if grid is None:
        raise ValueError("A picture has a grid.")
    tall, wide = x.shape[2] // grid.rows, x.shape[3] // grid.columns
    with torch.no_grad():
        label = int(model(pixel_values=x).logits[0].argmax())

    def logits(values: Tensor) -> Tensor:
        scores = model(pixel_values=values).logits
        return scores[:, label] - (scores.sum(1) - scores[:, label]) / (scores.shape[1] - 1)

    def removed(sets: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        rows = x.repeat(len(sets), 1, 1, 1)
        for row, gone in zip(rows, sets, strict=True):
            for n in gone:
                top, left = n // grid.columns * tall, n % grid.columns * wide
                row[:, top : top + tall, left : left + wide] = mean[0, :, top : top + tall, left : left + wide]
        with torch.no_grad():
            return logits(rows).double().numpy()

    def units(relevance: Tensor) -> NDArray[np.float64]:
        parts = relevance[0].sum(0).reshape(grid.rows, tall, grid.columns, wide)
        return np.asarray(parts.sum((1, 3)).flatten().numpy())

    found: dict[Key, NDArray[np.float64]] = {}
    for word, other in questions.items():
        rows = compared(x, other.baselines[0].tensors[0]["pixel_values"], logits, units)
        found.update({(word, row): relevance for row, relevance in rows.items()})
    return spreads(found, removed)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sst2", type=Path, help="the folder with dev.tsv")
    parser.add_argument("--sentences", type=int, default=600)
    parser.add_argument("--digits", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.sentences:
        text(sentences(given.sst2)[: given.sentences])
    if given.digits:
        digits(given.digits)


if __name__ == "__main__":
    main()
