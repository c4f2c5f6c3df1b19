"""Train ``clearhead/translate``: a small BART-style encoder-decoder, English to German, on Multi30k.

    python -m zoo.train_translate --data DATA/multi30k --out FOLDER --seed 0
    python -m zoo.train_translate --data DATA/multi30k --evaluate FOLDER

The data folder holds ``train``, ``val`` and ``test_2016_flickr``, each as ``.en.gz`` and ``.de.gz``. The tokenizer is a
byte-level BPE of 6000 pieces over both languages, trained here. Both sides end in ``</s>``; the decoder starts with
``<s>``. The score is sacrebleu's BLEU (13a, cased, detokenised) on test_2016_flickr with a beam of four.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import sacrebleu
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from zoo.common import (
    IGNORED,
    Batch,
    Plan,
    best_weights,
    chunks,
    fit,
    pad,
    read_lines,
    run,
    save_half,
    say,
    size_in_mb,
    token_batches,
)

PIECES = 6000
LONGEST = 96  # tokens per side; the longest training pair has fewer
TOKENS_PER_BATCH = 2048
SMOOTHING = 0.1
EPOCHS = 20
Pair = tuple[list[int], list[int]]
CARD = """
---
language: [en, de]
pipeline_tag: translation
---
# clearhead/translate

A small encoder-decoder of the BART architecture (three layers on each side, width 192, six heads, {parameters:,}
parameters) that translates English image captions to German. It is there to be explained, not to replace a translator.

**Data.** Multi30k task 1 (Elliott et al. 2016, repository multi30k/dataset): 29 000 pairs to train on, 1 014 to choose
the epoch, test_2016_flickr (1 000) only for the score. The tokenizer, a byte-level BPE of 6 000 pieces over both
languages, was trained on the same 29 000 pairs.

**Training.** `python -m zoo.train_translate --data DATA/multi30k --out FOLDER --seed 0`: label smoothing 0.1, dropout
0.25, Adam, batches of about 2 000 tokens, 20 epochs; about an hour on one CPU core.

**Score.** {bleu:.1f} BLEU on test_2016_flickr (cased, detokenised, beam of four; `{signature}`).

**Samples** (the first five of the test set).

{samples}

**Format.** Weights are stored in float16; `config.json` asks for float32 to compute in. Both sides end in `</s>`, the
decoder starts with `<s>`; at most 96 tokens a side.

**Limits.** It knows the vocabulary and the style of short descriptions of photographs, and little else: questions,
speech, names and numbers come out wrong, often fluently. Rare words are replaced by frequent ones. Captions carry the
prejudices of those who wrote them, about gender, age and origin, and so do the translations.
"""


def read_pairs(data: Path, part: str) -> tuple[list[str], list[str]]:
    """The English and the German side of one part of Multi30k."""
    return read_lines(data / f"{part}.en.gz"), read_lines(data / f"{part}.de.gz")


def train_tokenizer(lines: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose first word is cut as any other, and which loses nothing: any text has pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    template = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=LONGEST, clean_up_tokenization_spaces=False, **names
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> BartForConditionalGeneration:
    """About four million parameters; one matrix embeds both languages and predicts."""
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=192,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=768,
        decoder_ffn_dim=768,
        max_position_embeddings=LONGEST,
        dropout=0.25,
        attention_dropout=0.0,
        activation_dropout=0.0,
        scale_embedding=True,
        init_std=0.05,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
    )
    model = BartForConditionalGeneration._from_config(config, attn_implementation="eager")  # fastest for short rows
    model.generation_config.max_length = LONGEST
    return model


def encode(tokenizer: PreTrainedTokenizerFast, pairs: tuple[list[str], list[str]]) -> list[Pair]:
    """Token numbers of both sides of every pair."""
    english, german = (tokenizer(side, truncation=True, max_length=LONGEST)["input_ids"] for side in pairs)
    return list(zip(english, german, strict=True))


def batches_of(pairs: list[Pair], budget: int, chance: random.Random | None) -> list[Batch]:
    """Padded batches of about `budget` tokens on the longer side."""
    lengths = [max(len(source), len(target)) for source, target in pairs]
    made = []
    for rows in token_batches(lengths, budget, chance):
        source = pad([pairs[row][0] for row in rows], 1)
        labels = pad([pairs[row][1] for row in rows], IGNORED)
        made.append({"input_ids": source, "attention_mask": (source != 1).long(), "labels": labels})
    return made


def loss_of(model: BartForConditionalGeneration, batch: Batch, smoothing: float) -> torch.Tensor:
    """Cross entropy per target token; the vocabulary is only computed where there is one."""
    labels = batch["labels"]
    begin = torch.zeros_like(labels[:, :1])
    shifted = torch.cat([begin, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, 1)], dim=1)
    hidden = model.model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        decoder_input_ids=shifted,
        use_cache=False,
    ).last_hidden_state
    kept = labels != IGNORED
    logits = model.lm_head(hidden[kept]) + model.final_logits_bias
    return cross_entropy(logits, labels[kept], label_smoothing=smoothing)


def translate(model: BartForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, lines: list[str]) -> list[str]:
    """German for each English line, with a beam of four."""
    produced: list[str] = []
    for part in tqdm(list(chunks(lines, 50)), desc="translating", mininterval=5):
        batch = tokenizer(list(part), return_tensors="pt", padding=True, return_token_type_ids=False)
        with torch.inference_mode():
            tokens = model.generate(**batch, num_beams=4, do_sample=False, max_length=LONGEST)
        produced += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return produced


def evaluate(folder: Path, data: Path) -> dict[str, Any]:
    """Print and return ``bleu`` on test_2016_flickr of a trained folder, and five of its translations."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    english, german = read_pairs(data, "test_2016_flickr")
    produced = translate(model, tokenizer, english)
    samples = "\n".join(f"* {english[line]}\n  → {produced[line]}" for line in range(5))
    metric = sacrebleu.BLEU()
    bleu = metric.corpus_score(produced, [german])
    say(f"{samples}\ntest_2016_flickr: {bleu}; {size_in_mb(folder):.2f} MB")
    signature = str(metric.get_signature())
    return {"bleu": bleu.score, "signature": signature, "samples": samples, "parameters": model.num_parameters()}


def train(data: Path, out: Path, seed: int, epochs: int) -> None:
    """Train from nothing and write the folder."""
    pairs = read_pairs(data, "train")
    tokenizer = train_tokenizer(pairs[0] + pairs[1])
    model = new_model(tokenizer)
    training, validation = encode(tokenizer, pairs), encode(tokenizer, read_pairs(data, "val"))
    say(f"{model.num_parameters():,} parameters, {sum(len(target) for _, target in training):,} target tokens")
    held_out = batches_of(validation, 4 * TOKENS_PER_BATCH, None)
    weights = [int((batch["labels"] != IGNORED).sum()) for batch in held_out]

    def validate() -> float:
        losses = [loss_of(model, batch, 0.0).item() for batch in held_out]
        return sum(loss * weight for loss, weight in zip(losses, weights, strict=True)) / sum(weights)

    checkpoints = out.with_name(out.name + ".checkpoints")
    fit(
        model,
        batches=lambda epoch: batches_of(training, TOKENS_PER_BATCH, random.Random(1000 * seed + epoch)),  # noqa: S311
        loss=lambda batch: loss_of(model, batch, SMOOTHING),
        validate=validate,
        plan=Plan(epochs=epochs, rate=2e-3, warmup=0.06, bfloat16=True),
        folder=checkpoints,
        seed=seed,
    )
    best_weights(model, checkpoints, validate)
    save_half(model, out, tokenizer)


if __name__ == "__main__":
    run(__doc__, epochs=EPOCHS, card=CARD, train=train, evaluate=evaluate)
