"""Train ``clearhead/digits``: a small vision transformer on scikit-learn's handwritten digits.

    python -m zoo.train_digits --out FOLDER --seed 0
    python -m zoo.train_digits --evaluate FOLDER

The 1797 images of 8x8 grey values are enlarged to 32x32 and cut into 8x8 patches of 4x4 pixels: one patch is one pixel
of the original. A fifth is held out (stratified, ``random_state=0``) and only ever used for the score; a tenth of the
rest chooses the epoch. Training images are shifted, turned and scaled a little, and made noisy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import affine_grid, cross_entropy, grid_sample
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from zoo.common import Plan, best_weights, chunks, fit, run, save_half, say, size_in_mb

SIDE = 32
PATCH = 4
EPOCHS = 60
BATCH = 64
CARD = """
---
pipeline_tag: image-classification
---
# clearhead/digits

A small vision transformer (ViT: CLS token, learned positions, four layers, width 96, four heads, {parameters:,}
parameters) that reads single handwritten digits. It is there to be explained, not to read mail.

**Data.** scikit-learn's `load_digits` (1 797 grey images of 8x8, from the UCI set "Optical Recognition of Handwritten
Digits"), enlarged to 32x32, so that each 4x4 patch is one pixel of the original. A fifth is held out:
`train_test_split(..., test_size=0.2, stratify=labels, random_state=0)`. A tenth of the rest chooses the epoch.

**Training.** `python -m zoo.train_digits --out FOLDER --seed 0`: small shifts, turns, changes of size and noise;
60 epochs; about six minutes on one CPU core.

**Score.** {accuracy:.2%} on the held-out fifth (360 images). Its mistakes, by number in that fifth: {mistakes}.

**Format.** Weights are stored in float16; `config.json` asks for float32 to compute in. The image processor needs
Pillow, not torchvision; it makes any image an RGB image of 32x32.

**Limits.** It expects one white digit on black that fills the image, as in the data; black on white, several digits or
no digit at all get an answer as well, with confidence. The digits come from 13 people, whose writing is on both sides
of the split, so other hands will be read less well.
"""


def pictures(values: np.ndarray) -> list[Image.Image]:
    """The 8x8 grey values (0 to 16) as pictures of that size."""
    return [Image.fromarray(np.round(one * (255 / 16)).astype(np.uint8)) for one in values]


def split() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Images and labels: four fifths to train on, a held-out fifth to test on."""
    images, labels = load_digits(return_X_y=True)
    kept, held, kept_labels, held_labels = train_test_split(
        images.reshape(-1, 8, 8), labels, test_size=0.2, stratify=labels, random_state=0
    )
    return (kept, kept_labels), (held, held_labels)


def new_processor() -> ViTImageProcessorPil:
    """Enlarge to 32x32, three channels, values from -1 to 1; needs Pillow, not torchvision."""
    return ViTImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        resample=Image.Resampling.BILINEAR,
        do_convert_rgb=True,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def new_model() -> ViTForImageClassification:
    """Four layers of width 96, a CLS token, learned positions: 0.46 million parameters."""
    names = {number: str(number) for number in range(10)}
    config = ViTConfig(
        image_size=SIDE,
        patch_size=PATCH,
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        hidden_dropout_prob=0.1,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    return ViTForImageClassification(config)


def disturb(pixels: torch.Tensor) -> torch.Tensor:
    """Shift by up to an eighth, turn by up to 12 degrees, scale by up to a tenth, add noise."""
    count = len(pixels)
    angle, grow = (torch.rand(2, count) - 0.5) * torch.tensor([[0.42], [0.2]])
    shift = (torch.rand(count, 2, 1) - 0.5) * 0.5
    turn = torch.stack([torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)], 1).view(count, 2, 2)
    grid = affine_grid(torch.cat([turn * (1 + grow).view(-1, 1, 1), shift], 2), list(pixels.shape), align_corners=False)
    moved = grid_sample(pixels + 1, grid, align_corners=False) - 1  # the border is black, -1
    return moved + 0.1 * torch.randn(count, 1, SIDE, SIDE)


def predict(model: ViTForImageClassification, pixels: torch.Tensor) -> torch.Tensor:
    """Logits for many images, some at a time."""
    with torch.inference_mode():
        return torch.cat([model(pixel_values=part).logits for part in chunks(pixels, 128)])


def evaluate(folder: Path, _: object = None) -> dict[str, Any]:
    """Print and return the ``accuracy`` of a trained folder on the held-out fifth, and name its mistakes."""
    model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    _, (held, labels) = split()
    found = predict(model, processor(pictures(held), return_tensors="pt")["pixel_values"]).argmax(-1).numpy()
    wrong = np.flatnonzero(found != labels)
    mistakes = ", ".join(f"{number} ({labels[number]} taken for {found[number]})" for number in wrong)
    say(f"mistakes: {mistakes}")
    accuracy = 1 - len(wrong) / len(labels)
    say(f"held-out fifth: {len(labels) - len(wrong)}/{len(labels)} = {accuracy:.2%}; {size_in_mb(folder):.2f} MB")
    return {"accuracy": accuracy, "mistakes": mistakes, "parameters": model.num_parameters()}


def train(_: object, out: Path, seed: int, epochs: int) -> None:
    """Train from nothing and write the folder."""
    (images, labels), _ = split()
    processor, model = new_processor(), new_model()
    pixels = processor(pictures(images), return_tensors="pt")["pixel_values"]
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen, rest = order[: len(order) // 10], order[len(order) // 10 :]
    targets = torch.from_numpy(labels)
    say(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(rest)} training images")

    def batches(_: int) -> list[Any]:
        shuffled = torch.from_numpy(rest)[torch.randperm(len(rest))]
        return list(chunks(shuffled, BATCH))

    def loss(rows: torch.Tensor) -> torch.Tensor:
        logits = model(pixel_values=disturb(pixels[rows])).logits
        return cross_entropy(logits, targets[rows], label_smoothing=0.05)

    def validate() -> float:
        return float(cross_entropy(predict(model, pixels[chosen]), targets[chosen]))

    checkpoints = out.with_name(out.name + ".checkpoints")
    plan = Plan(epochs=epochs, rate=1.5e-3, warmup=0.1, betas=(0.9, 0.99), decay=0.05)
    fit(model, batches=batches, loss=loss, validate=validate, plan=plan, folder=checkpoints, seed=seed)
    best_weights(model, checkpoints, validate)
    save_half(model, out, processor)


if __name__ == "__main__":
    run(__doc__, epochs=EPOCHS, card=CARD, train=train, evaluate=evaluate, needs_data=False)
