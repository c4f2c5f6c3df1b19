"""Tiny random models of many families, from one input to another: the difference is shared out to the last digit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clearhead.relevance.secant import difference
from relevance.secant.books import SECANT, causes, difference_of, fingerprint
from relevance.twins import inputs
from sight.families import BUCKETED, IMAGES, PAIRED, TEXTS, ids
from tasks.gallery import SIDE, gallery, made

EXACT = 1e-9  # of all that moved, in double precision
CHOOSING = {"Mixtral", "Qwen2Moe"}  # they send tokens to experts
UNSEEN = {"Bloom"}  # a function of its own, with its own way back
NAMES = (
    "Bert DistilBert Roberta Albert Electra MPNet Deberta DebertaV2 XLNet ModernBert GPT2 GPTNeo GPTNeoX Bloom OPT "
    "Llama Mistral Qwen3 Gemma2 Phi3 Mixtral Qwen2Moe"
).split()
PICTURES = "ViT Beit Dinov2 Swin Segformer".split()


@dataclass(frozen=True, eq=False)
class Case:
    """A model, the scalar that is asked of it, and both inputs."""

    model: nn.Module
    function: Callable[..., Tensor]
    inputs: list[Tensor]
    baselines: list[Tensor]


def scalar(y: Tensor) -> Tensor:
    """Something that depends on every position, and on the last one most."""
    weights = inputs(*y.shape, dtype=y.dtype, seed=6)
    return (y[:, -1] * weights[:, -1]).sum() + 0.1 * (y * weights).sum()


def vectors(model: nn.Module, seed: int) -> Tensor:
    """The embeddings of a text of random tokens."""
    with torch.no_grad():
        return model.get_input_embeddings()(ids(9, seed)["input_ids"]).clone()


def text(name: str) -> Case:
    model = made(name, "Model", **TEXTS[name], **({"experts_implementation": "eager"} if name in CHOOSING else {}))
    model = model.double()
    x, b = vectors(model, 0), vectors(model, 1)
    return Case(model, lambda e: scalar(model(inputs_embeds=e).last_hidden_state), [x], [b])


def two_sequences(name: str, config: dict[str, Any]) -> Case:
    model = made(name, "Model", vocab_size=99, **config).double()
    xs, bs = ([vectors(model, seed + n)[:, : 9 - 2 * n] for n in (0, 1)] for seed in (0, 2))

    def f(encoder, decoder):
        return scalar(model(inputs_embeds=encoder, decoder_inputs_embeds=decoder).last_hidden_state)

    return Case(model, f, xs, bs)


def image(name: str) -> Case:
    model = made(name, "ForImageClassification", num_labels=3, **IMAGES[name]).double()
    x, b = inputs(1, 3, SIDE, SIDE), inputs(1, 3, SIDE, SIDE, seed=2) * 0.3
    return Case(
        model, lambda pixels: (model(pixel_values=pixels).logits[0] * torch.tensor([1.5, -1.0, 0.5])).sum(), [x], [b]
    )


def image_and_text(name: str) -> Case:
    entry = gallery(f"image-text-similarity/{name}")
    model = copy.deepcopy(entry.model).double()
    words = entry.tokenizer("a photo of a red square", return_tensors="pt")
    x, b = inputs(1, 3, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE, dtype=torch.float64)
    return Case(model, lambda pixels: model(**words, pixel_values=pixels).logits_per_image.sum(), [x], [b])


CASES: dict[str, Callable[[], Case]] = {
    **{name: (lambda name=name: text(name)) for name in NAMES},
    "T5": lambda: two_sequences("T5", BUCKETED),
    "Bart": lambda: two_sequences("Bart", PAIRED),
    **{name: (lambda name=name: image(name)) for name in PICTURES},
    "CLIP": lambda: image_and_text("clip"),
    "Siglip": lambda: image_and_text("siglip"),
}


@cache
def case(name: str) -> Case:
    return CASES[name]()


@pytest.fixture
def in_double(monkeypatch):
    """Models that ask for single precision in their norms and rotations get double, or that is all there would be."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("name", CASES)
def test_the_difference_is_shared_out_to_the_last_digit(name):
    """Value and base are the model's own, the books close, nothing is lost, and the model is left as it was."""
    it = case(name)
    before = fingerprint(it.model)
    leaks = name in CHOOSING | UNSEEN
    p = difference_of(it.function, it.inputs, it.baselines, model=it.model, rounding=EXACT, leaks=leaks)
    assert causes(p) <= ({"selection"} if name in CHOOSING else {"unruled", "detached"})
    assert fingerprint(it.model) == before
    assert abs(p.value - p.base) > 1e-3
    for source in p.sources[: len(it.inputs)]:
        assert bool(source.relevance.any())


@pytest.mark.parametrize("name", ["Bert", "GPT2", "Llama", "T5", "Swin"])
def test_in_single_precision_it_is_as_exact_as_is_promised_of_a_map(name):
    """A ten-thousandth of the value, or a millionth of what moved."""
    it = CASES[name]()
    it.model.float()
    p = difference(it.function, *([t.float() for t in each] for each in (it.inputs, it.baselines)), SECANT)
    given = sum(float(source.relevance.sum()) for source in p.sources)
    everything = sum(float(source.relevance.abs().sum()) for source in p.sources)
    assert abs(p.base + given - p.value) <= max(1e-4 * abs(p.value), 1e-6 * everything)
    assert p.ledger == ()
