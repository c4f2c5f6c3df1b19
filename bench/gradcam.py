"""How far GradCAM of hidden states agrees with integrated gradients, by the layer and by how channels are weighed.

    python -m bench.gradcam                                # the 200 sentences of tests/data
    python -m bench.gradcam --sst2 ../shared/data/sst2     # the first 200 of the whole dev set

For each sentence the rank correlation (Spearman) of the scores of its tokens, special ones left out, with 20 steps of
integrated gradients on the word vectors from two baselines; the mean over sentences and its 95 % bootstrap interval.
The output of the last block is what `layer=-1` would be if it were not refused: only the first token has a gradient.
With `--reports FOLDER` the maps of 20 translations and of held-out digits are written there as pages to look at.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from bench.tasks import captions, held_out, sentences
from clearhead import AttentionVisualizer, Settings, render
from clearhead.attention.gradcam import asked, chosen, weighed
from clearhead.attention.stacks import gradients, stacked
from clearhead.question import Question
from clearhead.subjects import Wanted

STEPS, MOST, ROUNDS, TRANSLATED, DIGITS = 20, 200, 10_000, 20, 8
CAMS = ("mean-gradient", "elementwise")


def integrated(question: Question, baseline: Tensor) -> NDArray[np.float64]:
    r"""$(x - b) \cdot E_k[\partial f / \partial x (b + \frac{k - 1/2}{20} (x - b))]$, summed over the word vector."""
    (item,), (part,) = question.items, question.passes
    tensors = dict(part.tensors)
    words = question.model.get_input_embeddings()(tensors.pop("input_ids")).detach()
    with torch.no_grad():
        label = int(question.model(**part.tensors).logits[0].argmax())
    shares = (torch.arange(STEPS) + 0.5).reshape(-1, 1, 1) / STEPS
    points = (baseline + shares * (words - baseline)).requires_grad_()
    others = {name: tensor.expand(STEPS, -1) for name, tensor in tensors.items()}
    logits = question.model(inputs_embeds=points, **others).logits
    (gradient,) = torch.autograd.grad((logits[:, label] - logits[:, 1 - label]).sum(), points)
    return ((words - baseline)[0] * gradient.mean(0)).sum(-1).double().numpy()[: len(item.units)]


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The correlation of ranks; equal values share the mean of their ranks. 0 where one is constant."""
    ranks = [_ranks(each) for each in (one, other)]
    if any(np.ptp(each) == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    upto = np.cumsum(counts)
    return ((upto - counts + 1 + upto) / 2)[place]


def interval(values: list[float]) -> tuple[float, float]:
    """The 95 % interval of the mean, by the bootstrap."""
    draw = np.random.default_rng(0)
    means = np.asarray(values)[draw.integers(0, len(values), (ROUNDS, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def layers(question: Question) -> dict[tuple[str, str], NDArray[np.float64]]:
    """The scores at the layer that is chosen, at the output of each block and before them, for each cam."""
    sight, stacks = stacked(question)
    (stack,), (aim,) = stacks, question.items[0].aims
    (default,) = chosen(sight, stacks, None)
    looked_at = [("chosen by itself", default.layer), ("output of the last block", stack.layers[-1])]
    looked_at += [(f"output of block {layer.number}", layer) for layer in stack.layers[:-1]]
    if stack.first is not None:
        looked_at.append(("input of block 0", stack.first))
    _, value = asked(sight, stacks, aim)
    found = {}
    for (name, layer), gradient in zip(looked_at, gradients(value, [e for _, e in looked_at]), strict=True):
        states = layer.placed.laid(layer.state.value)
        for cam in CAMS:
            if gradient is not None:
                found[name, cam] = weighed(states, gradient, torch.arange(len(states)), cam).numpy()
    return found


def table(texts: list[str]) -> None:
    """Print the mean rank correlation for each layer, cam and baseline as a Markdown table."""
    av = AttentionVisualizer.from_pretrained("clearhead/sentiment")
    embed: Any = av.model.get_input_embeddings()
    padding = embed.weight[av._subject._loaded.processor.pad_token_id].detach()
    baselines = {"zero": torch.zeros_like(padding), "[PAD]": padding}
    found: dict[tuple[str, str, str], list[float]] = {}
    av.model.requires_grad_(False)
    for text in tqdm(texts, desc="sentences"):
        question = av._subject.question(text, Wanted(), Settings())
        own = [i for i, unit in enumerate(question.items[0].units) if not unit.special]
        truth = {name: integrated(question, baseline)[own] for name, baseline in baselines.items()}
        for (layer, cam), scores in layers(question).items():
            for name, other in truth.items():
                found.setdefault((layer, cam, name), []).append(spearman(scores[own], other))
    print(f"{len(texts)} sentences, Spearman with integrated gradients ({STEPS} steps), mean and 95 % interval\n")
    print("| layer | cam | from zero vectors | from [PAD] |\n|---|---|---|---|")
    for layer, cam in dict.fromkeys((layer, cam) for layer, cam, _ in found):
        cells = []
        for name in baselines:
            values = found[layer, cam, name]
            low, high = interval(values)
            cells.append(f"{np.mean(values):.3f} ({low:.3f} to {high:.3f})")
        print(f"| {layer} | {cam} | {' | '.join(cells)} |", flush=True)


def pages(folder: Path, texts: list[str]) -> None:
    """GradCAM of translations, encoder and decoder apart, and of digits as heat maps on the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    translator = AttentionVisualizer.from_pretrained("clearhead/translate", method="gradcam")
    print(render.save([translator.explain(text) for text in tqdm(texts)], folder / "translations.html"))
    digits = AttentionVisualizer.from_pretrained("clearhead/digits", method="gradcam")
    print(render.save([digits.explain(image) for image in held_out()[0][:DIGITS]], folder / "digits.html"))


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sst2", type=Path, help="the folder with dev.tsv")
    parser.add_argument("--sentences", type=int, default=MOST)
    parser.add_argument("--multi30k", type=Path, help="the folder with test_2016_flickr.en.gz")
    parser.add_argument("--reports", type=Path, metavar="FOLDER", help="write pages of translations and digits instead")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.reports:
        pages(given.reports, captions(given.multi30k)[:TRANSLATED])
    else:
        table(sentences(given.sst2)[: given.sentences])


if __name__ == "__main__":
    main()
