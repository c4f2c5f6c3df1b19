"""What the four training scripts share: arguments, seeds, token-sized batches, the loop, half-precision folders.

A script describes a model, its batches and its loss; :func:`fit` trains it with warm-up and cosine decay, writes one
checkpoint per epoch and resumes from the last one when it is started again; :func:`best_weights` then takes the best
of the single epochs and the average of the last few, by the validation loss.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

Batch = dict[str, torch.Tensor]
IGNORED = -100  # the label that torch's cross entropy leaves out


def say(text: str) -> None:
    """Write one line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def arguments(description: str, *, epochs: int, evaluates: str, needs_data: bool = True) -> argparse.Namespace:
    """The command line every script has; ``--evaluate FOLDER`` scores a trained folder and trains nothing."""
    parser = argparse.ArgumentParser(description=description)
    hint = "folder with the data set" if needs_data else "not needed: the data come with scikit-learn"
    parser.add_argument("--data", type=Path, default=None, help=hint)
    parser.add_argument("--out", type=Path, help="folder for the trained model; checkpoints go to OUT.checkpoints")
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER", help=f"only print the score of {evaluates}")
    parser.add_argument("--card", action="store_true", help="with --evaluate: write the model card anew")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; one makes a run repeatable bit by bit")
    given = parser.parse_args()
    if needs_data and given.data is None:
        parser.error("--data is needed")
    if (given.out is None) == (given.evaluate is None):
        parser.error("give either --out (train) or --evaluate (score a trained folder)")
    torch.set_num_threads(given.threads)
    seed_all(given.seed)
    return given


def seed_all(seed: int) -> None:
    """Seed every source of chance that a training uses."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def read_lines(path: Path) -> list[str]:
    """The lines of a gzipped text file, blanks collapsed."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [" ".join(line.split()) for line in file]


def pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Rows of token numbers as one matrix, filled up on the right."""
    width = max(len(row) for row in rows)
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows])


def token_batches(lengths: Sequence[int], budget: int, chance: random.Random | None) -> list[list[int]]:
    """Group items of similar length so that rows x longest row stays within `budget`; shuffled if given a `chance`."""
    noise = [chance.random() for _ in lengths] if chance else [0.0] * len(lengths)
    order = sorted(range(len(lengths)), key=lambda item: (lengths[item], noise[item]))
    batches: list[list[int]] = [[]]
    for item in order:  # ascending, so the newest item is the longest of its batch
        if batches[-1] and lengths[item] * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(item)
    if chance:
        chance.shuffle(batches)
    return batches


@dataclass(frozen=True)
class Plan:
    """How to train: `epochs`, the highest learning rate, the share of steps that warm up, and Adam's settings."""

    epochs: int
    rate: float
    warmup: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    decay: float = 0.01
    clip: float = 1.0
    bfloat16: bool = False  # matrix products in bfloat16: faster where the CPU has them

    def factor(self, progress: float) -> float:
        """The learning rate's factor at `progress` in 0..1: a linear rise, then half a cosine down to 1 %."""
        if progress < self.warmup:
            return progress / self.warmup
        rest = min((progress - self.warmup) / (1 - self.warmup), 1.0)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * rest))


def optimizer_for(model: torch.nn.Module, plan: Plan) -> torch.optim.AdamW:
    """AdamW over what is trainable; weight decay on matrices only."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": plan.decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=plan.betas, eps=1e-9)


def fit(
    model: torch.nn.Module,
    *,
    batches: Callable[[int], list[Any]],
    loss: Callable[[Any], torch.Tensor],
    validate: Callable[[], float],
    plan: Plan,
    folder: Path,
    seed: int = 0,
) -> None:
    """Train `model`: `batches(epoch)` lists an epoch's batches, `loss(batch)` scores one, `validate()` is better lower.

    Leaves ``epoch-NN.safetensors`` and ``history.json`` in `folder`, and ``last.pt`` from which it resumes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = optimizer_for(model, plan)
    first, history = _resume(model, optimizer, folder)
    for epoch in range(first, plan.epochs):
        seed_all(1000 * seed + epoch)  # so that a resumed run draws what an uninterrupted one would
        start, model_loss = time.perf_counter(), 0.0
        model.train()
        todo = batches(epoch)
        for number, batch in enumerate(tqdm(todo, desc=f"epoch {epoch + 1}/{plan.epochs}", mininterval=5)):
            for group in optimizer.param_groups:
                group["lr"] = plan.rate * plan.factor((epoch + (number + 1) / len(todo)) / plan.epochs)
            with torch.autocast("cpu", torch.bfloat16, enabled=plan.bfloat16):
                value = loss(batch)
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            model_loss += value.item() / len(todo)
        model.eval()
        with torch.inference_mode():
            checked = validate()
        seconds = time.perf_counter() - start
        history.append({"epoch": epoch + 1, "loss": model_loss, "validation": checked, "seconds": seconds})
        _store(model, optimizer, folder, history)
        say(f"epoch {epoch + 1}: training loss {model_loss:.4f}, validation {checked:.4f}, {seconds:.0f} s")


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the trainable weights by name, each tied weight once."""
    return {name: p.detach().clone().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def _store(model: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path, history: list[Any]) -> None:
    """Write one epoch's files; ``last.pt`` is replaced in one step, so an interruption leaves the one before."""
    save_file(trained_state(model), folder / f"epoch-{len(history):02d}.safetensors")
    (folder / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    fresh = folder / "last.pt.new"
    torch.save({"model": trained_state(model), "optimizer": optimizer.state_dict(), "history": history}, fresh)
    fresh.replace(folder / "last.pt")


def _resume(model: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> tuple[int, list[Any]]:
    """The epoch to begin with and the history so far, the weights loaded."""
    last = folder / "last.pt"
    if not last.exists():
        return 0, []
    state = torch.load(last, weights_only=True)
    model.load_state_dict(state["model"], strict=False)
    optimizer.load_state_dict(state["optimizer"])
    say(f"resuming after epoch {len(state['history'])}")
    return len(state["history"]), state["history"]


def best_weights(model: torch.nn.Module, folder: Path, validate: Callable[[], float], average: int = 4) -> float:
    """Load the best of the best single epoch and the mean of the last `average` epochs; returns its validation loss."""
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    files = [folder / f"epoch-{entry['epoch']:02d}.safetensors" for entry in history]
    single = min(range(len(files)), key=lambda index: history[index]["validation"])
    last = [load_file(file) for file in files[-average:]]
    mean = {name: torch.stack([state[name] for state in last]).mean(0) for name in last[0]}
    model.eval()
    scores = []
    for state in (load_file(files[single]), mean):
        model.load_state_dict(state, strict=False)
        with torch.inference_mode():
            scores.append(validate())
    say(f"validation: epoch {single + 1} {scores[0]:.4f}, mean of the last {len(last)} epochs {scores[1]:.4f}")
    if scores[0] < scores[1]:
        model.load_state_dict(load_file(files[single]), strict=False)
    return min(scores)


def save_half(model: Any, out: Path, *parts: Any) -> None:
    """Write an ordinary Hugging Face folder: weights in float16, `parts` (tokenizer, image processor) beside them.

    ``config.json`` keeps ``dtype: float32``, so that a plain ``from_pretrained`` computes in single precision.
    """
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    write_json(out / "config.json", config)
    (out / "model.safetensors").chmod(0o644)
    for part in parts:
        part.save_pretrained(out)


def write_json(path: Path, value: Any) -> None:
    """A JSON file with a line end, keys sorted."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_card(folder: Path, card: str, scores: dict[str, Any]) -> None:
    """Write the model card: `card` with the `scores` that :func:`evaluate` of a script found put in."""
    (folder / "README.md").write_text(card.strip().format_map(scores) + "\n", encoding="utf-8")


def size_in_mb(folder: Path) -> float:
    """The size of all files of a folder, in 10^6 bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """`items` in runs of `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def run(
    description: str,
    *,
    epochs: int,
    card: str,
    train: Callable[[Any, Path, int, int], None],
    evaluate: Callable[[Path, Any], dict[str, Any]],
    evaluates: str = "a trained folder",
    needs_data: bool = True,
) -> None:
    """Train or evaluate, as asked on the command line, and write the card with the scores."""
    given = arguments(description.splitlines()[0], epochs=epochs, evaluates=evaluates, needs_data=needs_data)
    data = getattr(given, "data", None)
    if given.out:
        train(data, given.out, given.seed, given.epochs)
    folder = given.evaluate or given.out
    scores = evaluate(folder, data)
    if given.out or given.card:
        write_card(folder, card, scores)
