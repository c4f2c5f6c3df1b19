"""Train ``clearhead/captions``: a small Llama-style decoder that continues English image captions.

    python -m zoo.train_captions --data DATA/multi30k --out FOLDER --seed 0
    python -m zoo.train_captions --data DATA/multi30k --evaluate FOLDER

The data folder holds Multi30k's English side: ``train``, ``val`` and ``test_2016_flickr``, each as ``.en.gz``. The
tokenizer is a byte-level BPE of 4000 pieces, trained here. A caption is ``<s>`` text ``</s>``. The score is the
perplexity per token, the end counted, on val (which also chooses the epoch) and on test_2016_flickr.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from torch.nn.functional import cross_entropy, dropout
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from zoo.common import (
    IGNORED,
    Batch,
    Plan,
    best_weights,
    fit,
    pad,
    read_lines,
    run,
    save_half,
    say,
    seed_all,
    size_in_mb,
    token_batches,
)

PIECES = 4000
LONGEST = 128
TOKENS_PER_BATCH = 1600
DROPOUT = 0.15
EPOCHS = 10
PROMPTS = ("A man in a blue shirt", "Two dogs", "A little girl", "Several people are", "An old woman sits")
CARD = """
---
language: en
pipeline_tag: text-generation
---
# clearhead/captions

A small decoder of the Llama architecture (RMSNorm, rotary positions, SwiGLU, six query heads over two key heads, five
layers, width 192, tied embeddings, {parameters:,} parameters) that continues English image captions. It is there to be
explained, not to write.

**Data.** The English side of Multi30k (Elliott et al. 2016, repository multi30k/dataset): 29 000 captions to train on,
1 014 to choose the epoch, test_2016_flickr (1 000) only for the score. The tokenizer, a byte-level BPE of 4 000 pieces,
was trained on the same 29 000 captions. One caption in ten begins in lower case while training, as people type.

**Training.** `python -m zoo.train_captions --data DATA/multi30k --out FOLDER --seed 0`: dropout 0.15, AdamW, batches of
about 1 600 tokens, 10 epochs; about a quarter of an hour on one CPU core.

**Score.** Perplexity per token (the end of the caption counted): {val:.2f} on val, {test:.2f} on test_2016_flickr.

**Samples** (the prompt in bold; top-p 0.9, temperature 0.7, seed 0).

{samples}

**Format.** Weights are stored in float16; `config.json` asks for float32 to compute in. A text begins with `<s>`, which
the tokenizer adds, and the model ends it with `</s>`; at most 128 tokens.

**Limits.** It knows short descriptions of photographs and nothing else, and has no facts: what it adds is plausible for
a caption, not true. Captions carry the prejudices of those who wrote them, about gender, age and origin, and so do its
continuations.
"""


def lowered(line: str) -> str:
    """The caption as someone types it who begins in lower case."""
    return line[:1].lower() + line[1:]


def train_tokenizer(lines: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE that loses nothing; also shown lines in lower case, so that ``two`` may begin a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(lines + [lowered(line) for line in lines], trainer)
    template = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=LONGEST, clean_up_tokenization_spaces=False, **names
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """2.7 million parameters: RMSNorm, rotary positions, six query over two key heads, SwiGLU, tied embeddings."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation="eager")  # fastest for short rows


def add_dropout(model: LlamaForCausalLM) -> None:
    """Llama has no dropout on its residual branches; hooks add it, only while training, and leave no trace."""

    def hook(module: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        return dropout(output, DROPOUT, module.training)

    model.model.embed_tokens.register_forward_hook(hook)
    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(hook)
        layer.mlp.down_proj.register_forward_hook(hook)


def encode(tokenizer: PreTrainedTokenizerFast, lines: list[str]) -> list[list[int]]:
    """Token numbers of each caption, the end appended."""
    rows = tokenizer(lines, truncation=True, max_length=LONGEST - 1)["input_ids"]
    return [[*row, tokenizer.eos_token_id] for row in rows]


def batches_of(rows: list[list[int]], chance: random.Random | None) -> list[Batch]:
    """Padded batches: each token's label is the next one."""
    made = []
    for chosen in token_batches([len(row) for row in rows], TOKENS_PER_BATCH, chance):
        numbers = pad([rows[row][:-1] for row in chosen], 2)
        labels = pad([rows[row][1:] for row in chosen], IGNORED)
        made.append({"input_ids": numbers, "attention_mask": (labels != IGNORED).long(), "labels": labels})
    return made


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Cross entropy per token; the vocabulary is only computed where there is a label."""
    hidden = model.model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).last_hidden_state
    kept = batch["labels"] != IGNORED
    return cross_entropy(model.lm_head(hidden[kept]), batch["labels"][kept])


def loss_per_token(model: LlamaForCausalLM, batches: list[Batch]) -> float:
    """The mean loss over all tokens of all batches."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in batches:
            tokens = int((batch["labels"] != IGNORED).sum())
            total, count = total + loss_of(model, batch).item() * tokens, count + tokens
    return total / count


def continued(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    """What the model adds to a prompt, drawn from its likelier tokens with a fixed seed."""
    seed_all(0)
    batch = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    tokens = model.generate(**batch, do_sample=True, top_p=0.9, temperature=0.7, max_new_tokens=40)
    return tokenizer.decode(tokens[0], skip_special_tokens=True).removeprefix(prompt)


def evaluate(folder: Path, data: Path) -> dict[str, Any]:
    """Print and return a trained folder's perplexities (``val``, ``test``) and continuations of a few prompts."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    samples = "\n".join(f"* **{prompt}**{continued(model, tokenizer, prompt)}" for prompt in PROMPTS)
    scores: dict[str, Any] = {"samples": samples, "parameters": model.num_parameters()}
    for name, part in (("val", "val"), ("test", "test_2016_flickr")):
        rows = encode(tokenizer, read_lines(data / f"{part}.en.gz"))
        scores[name] = math.exp(loss_per_token(model, batches_of(rows, None)))
        say(f"{part}: perplexity {scores[name]:.2f} per token over {sum(len(row) - 1 for row in rows):,} tokens")
    say(f"{samples}\n{size_in_mb(folder):.2f} MB")
    return scores


def train(data: Path, out: Path, seed: int, epochs: int) -> None:
    """Train from nothing and write the folder."""
    lines = read_lines(data / "train.en.gz")
    tokenizer = train_tokenizer(lines)
    model = new_model(tokenizer)
    add_dropout(model)
    plain, low = encode(tokenizer, lines), encode(tokenizer, [lowered(line) for line in lines])
    held_out = batches_of(encode(tokenizer, read_lines(data / "val.en.gz")), None)
    say(f"{sum(p.numel() for p in model.parameters()):,} parameters, {sum(map(len, plain)):,} tokens")

    def batches(epoch: int) -> list[Batch]:
        chance = random.Random(1000 * seed + epoch)  # noqa: S311
        rows = [low[row] if chance.random() < 0.1 else plain[row] for row in range(len(plain))]
        return batches_of(rows, chance)

    def validate() -> float:
        return loss_per_token(model, held_out)

    checkpoints = out.with_name(out.name + ".checkpoints")
    plan = Plan(epochs=epochs, rate=3e-3, decay=0.1, betas=(0.9, 0.95), bfloat16=True)
    fit(
        model,
        batches=batches,
        loss=lambda batch: loss_of(model, batch),
        validate=validate,
        plan=plan,
        folder=checkpoints,
        seed=seed,
    )
    best_weights(model, checkpoints, validate)
    save_half(model, out, tokenizer)


if __name__ == "__main__":
    run(__doc__, epochs=EPOCHS, card=CARD, train=train, evaluate=evaluate)
