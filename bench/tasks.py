"""What is claimed of the models in the box, measured: removal of words, sums of streams, wrongly read digits.

python -m bench.tasks --sst2 ../shared/data/sst2 --multi30k ../shared/data/multi30k --reports .
"""

from __future__ import annotations

import argparse
import gzip
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clearhead import AttentionVisualizer, RelevanceMap

SAMPLES = Path(__file__).parents[1] / "tests" / "data"
REMOVED = 5  # words
ROUNDS = 5  # of random words
TRANSLATED = 50  # sentences


def sentences(folder: Path | None) -> list[str]:
    """The sentences of the SST-2 dev set, or the 200 in tests/data."""
    file = folder / "dev.tsv" if folder else SAMPLES / "sst2_dev_200.tsv"
    rows = [row.split("\t") for row in file.read_text(encoding="utf-8").splitlines()]
    return [max(row, key=len) for row in rows if {"0", "1"} & set(row)]


def captions(folder: Path | None) -> list[str]:
    """The first English sentences of the Multi30k test set, or those in tests/data."""
    if folder is None:
        rows = (SAMPLES / "multi30k_test_40.tsv").read_text(encoding="utf-8").splitlines()
        return [row.split("\t")[0] for row in rows]
    with gzip.open(folder / "test_2016_flickr.en.gz", "rt", encoding="utf-8") as file:
        return [line.strip() for line in file][:TRANSLATED]


# ---- sentiment -------------------------------------------------------------------------------------------------------


def flips(texts: Sequence[str]) -> dict[str, float]:
    """How many predictions change when five words are masked: the most relevant, random ones, the least relevant."""
    av = AttentionVisualizer.from_pretrained("clearhead/sentiment", method="lrp")
    tokenizer = av._subject._loaded.processor
    generator = random.Random(0)
    kept, errors, flipped = 0, [], dict.fromkeys(("most relevant", "random", "least relevant"), 0.0)
    for found in av.explain(list(texts)):
        errors.append(found.conservation_error)
        order = ranked(found)
        if len(order) < 2 * REMOVED:
            continue
        kept += 1
        removed = {
            "most relevant": [order[:REMOVED]],
            "random": [generator.sample(order, REMOVED) for _ in range(ROUNDS)],
            "least relevant": [order[-REMOVED:]],
        }
        for name, choices in removed.items():
            changed = [predicted(av, masked(tokenizer, found, words)) != found.target.index for words in choices]
            flipped[name] += sum(changed) / len(changed)
    shares = {name: count / kept for name, count in flipped.items()}
    print(f"sentiment: {len(texts)} sentences, median conservation error {np.median(errors):.1e}")
    print(f"  of {kept} with at least {2 * REMOVED} words, predictions that flip when {REMOVED} words are masked:")
    for name, share in shares.items():
        print(f"  {name:>15}: {100 * share:5.1f} %")
    return shares


def ranked(found: RelevanceMap) -> list[int]:
    """The words of a text, the one that speaks most for the prediction first."""
    words = found.words()
    own = [i for i, unit in enumerate(words.units) if not unit.special]
    return [words.units[i].word for i in sorted(own, key=lambda i: -words.relevance[i])]


def masked(tokenizer: Any, found: RelevanceMap, words: Sequence[int]) -> torch.Tensor:
    """The ids of the text with the tokens of some words masked."""
    ids = tokenizer(found.texts["input"], return_tensors="pt").input_ids
    for i, unit in enumerate(found.units):
        if unit.word in words:
            ids[0, i] = tokenizer.mask_token_id
    return ids


def predicted(av: AttentionVisualizer, ids: torch.Tensor) -> int:
    """The class of some ids."""
    with torch.no_grad():
        return int(av.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.argmax())


# ---- translation -----------------------------------------------------------------------------------------------------


def streams(texts: Sequence[str]) -> float:
    """How far encoder and decoder are from each token's logit, which a plain forward pass gives; the worst token."""
    av = AttentionVisualizer.from_pretrained("clearhead/translate", method="lrp")
    worst, residual, rows, share = 0.0, 0.0, 0, []
    for text in texts:
        found = av.explain(text)
        encoder, total = found.stream("encoder"), found.stream("encoder") + found.stream("decoder")
        logits = plain(av, text, [row.target.index for row in found])
        worst = max(worst, float((np.abs(total - logits) / np.abs(logits)).max()))
        residual, rows = max(residual, found.residual), rows + len(found)
        share.append(encoder.sum() / total.sum())
    print(
        f"translate: {len(texts)} sentences, {rows} tokens; |encoder + decoder - logit| / |logit| at most {worst:.1e}"
    )
    print(f"  residual at most {residual:.1e}; {100 * np.mean(share):.0f} % of the logits comes from the encoder")
    return worst


def plain(av: AttentionVisualizer, text: str, ids: Sequence[int]) -> np.ndarray:
    """The logits of the tokens of a translation, from a forward pass that nobody watches."""
    encoded = av._subject._loaded.processor(text, return_tensors="pt")
    before = torch.tensor([[av.model.config.decoder_start_token_id, *ids[:-1]]])
    with torch.no_grad():
        scores = av.model(
            input_ids=encoded.input_ids, attention_mask=encoded.attention_mask, decoder_input_ids=before
        ).logits[0]
    return scores[torch.arange(len(ids)), torch.tensor(ids)].double().numpy()


# ---- digits ----------------------------------------------------------------------------------------------------------


def held_out() -> tuple[list[Any], Any]:
    """The pictures and labels of the fifth of scikit-learn's digits that was never trained on."""
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    _, images, _, labels = train_test_split(
        data.images, data.target, test_size=0.2, stratify=data.target, random_state=0
    )
    return [Image.fromarray((image * 255 / 16).round().astype("uint8")).convert("RGB") for image in images], labels


def digits(reports: Path | None) -> None:
    """The digits that are read wrongly, each against what it is; their reports, if a folder is given."""
    pictures, labels = held_out()
    av = AttentionVisualizer.from_pretrained("clearhead/digits", method="lrp")
    found = av.explain(pictures)
    worst = max(each.conservation_error for each in found)
    wrong = [n for n, each in enumerate(found) if each.target.index != labels[n]]
    print(f"digits: {len(found)} held-out images, conservation error at most {worst:.1e}; {len(wrong)} read wrongly:")
    for n in wrong:
        against = av.explain(pictures[n], target=found[n].target.index, contrast=int(labels[n]))
        top = ", ".join(f"{unit.text} {value:+.2f}" for unit, value in against.top(3))
        print(f"  image {n}: {against.target}, by {against.value:.2f}: {top}")
        if reports is not None:
            against.save(reports / f"digit-{n}.html")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sst2", type=Path, help="the folder of the data set; a sample without it")
    parser.add_argument("--multi30k", type=Path, help="the folder of the data set; a sample without it")
    parser.add_argument("--reports", type=Path, help="a folder for the reports of digits that are read wrongly")
    given = parser.parse_args()
    flips(sentences(given.sst2))
    streams(captions(given.multi30k))
    digits(given.reports)


if __name__ == "__main__":
    main()
