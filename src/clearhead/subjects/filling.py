"""What stands in for a side of an input: a token, no token, a mean, a blur, another text, image or tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from clearhead.errors import UsageError, choice, suggest
from clearhead.question import NOTHING
from clearhead.subjects.images import shortened
from clearhead.subjects.setting import Setting
from clearhead.subjects.sides import Kind, Side

Vector = Literal["zero", "mean"]
WORDS: dict[Kind, tuple[str, ...]] = {
    "ids": ("mask", "pad", "zero", "mean"),
    "image": ("zero", "mean", "blur"),
    "vectors": ("zero", "mean"),
}
ALL = tuple(dict.fromkeys(word for each in WORDS.values() for word in each))
BLURRED = 0.1  # standard deviation of the blur, as a share of the shorter side
SHOWN = 60  # characters of a text in a label


@dataclass(frozen=True, kw_only=True, eq=False)
class Filled:
    """A tensor that stands in for that of a side, what it is in words, and the vector of ids that are no token's."""

    value: Tensor
    label: str
    vector: Vector | None = None


def words(setting: Setting, side: Side) -> tuple[str, ...]:
    """The words that mean something to a side."""
    known = WORDS[side.kind]
    return known if setting.tokenizer is not None else tuple(word for word in known if word != "mask")


def by_word(setting: Setting, side: Side, word: str) -> Filled:
    """What a word stands for. Raises UsageError for a token that the tokenizer does not have."""
    if side.kind == "ids":
        return _no_token(side, word) if word in ("zero", "mean") else _one_token(setting, side, word)
    return _in_picture(setting, side, word) if side.kind == "image" else _in_vectors(side, word)


def by_default(setting: Setting, side: Side) -> Filled:
    """The mask token where there is one, or else the mean; zeros where units are single numbers."""
    if side.kind == "ids" and setting.tokenizer is not None:
        if getattr(setting.tokenizer, "mask_token_id", None) is not None:
            return by_word(setting, side, "mask")
        found = by_word(setting, side, "mean")
        return replace(found, label=f"{found.label} (the tokenizer has no mask token)")
    return by_word(setting, side, "zero" if side.kind == "vectors" and side.value.dim() < 3 else "mean")


# ---- ids -----------------------------------------------------------------------------------------------------------


def _no_token(side: Side, word: str) -> Filled:
    vector: Vector = "mean" if word == "mean" else "zero"
    said = {"zero": "the zero vector", "mean": "the mean embedding"}[vector]
    return Filled(value=torch.full_like(side.value, NOTHING), label=f"{said} for every token", vector=vector)


def _one_token(setting: Setting, side: Side, word: str) -> Filled:
    """The mask or padding in every place."""
    if setting.tokenizer is None:
        inner = getattr(setting.config, "text_config", None) or setting.config
        number = getattr(inner, "pad_token_id", None)
        label = f"every id that of the padding, {number}"
    else:
        number = getattr(setting.tokenizer, f"{word}_token_id", None)
        label = f"every token {getattr(setting.tokenizer, f'{word}_token', None)}"
    if number is None:
        others = ", ".join(each for each in words(setting, side) if each != word and _has(setting, each))
        whose = "model's config names" if setting.tokenizer is None else "tokenizer has"
        token = "padding token" if word == "pad" else "mask token"
        raise UsageError(
            f"The baseline {word!r} needs a {token}, and the {whose} none. Choose one of {others}, or give a text or "
            "tensor of the same length."
        )
    return Filled(value=torch.full_like(side.value, int(number)), label=label)


def _has(setting: Setting, word: str) -> bool:
    return word in ("zero", "mean") or getattr(setting.tokenizer, f"{word}_token_id", None) is not None


def by_text(setting: Setting, side: Side, text: str) -> Filled:
    """Another text in the same places. Raises UsageError for one of another length."""
    (places,) = side.places or ((),)
    try:
        read = replace(setting, truncate=False).text({"baseline": text})
    except UsageError as error:
        raise UsageError(f"The baseline cannot be read: {error}") from error
    numbers = read.part.tensors["input_ids"][0]
    chosen = numbers[[i for i, unit in enumerate(read.units) if not unit.special]]
    known = words(setting, side)
    if len(chosen) != len(places):
        if _meant_a_word(text, known):
            raise choice("baseline", text, known)
        raise UsageError(
            f"A baseline has as many tokens as the input, {len(places)} without special ones; {cut(text)!r} has "
            f"{len(chosen)}. av.compare(input, other) aligns texts of any length; or choose one of {', '.join(known)}."
        )
    value = side.value.clone()
    value[0, list(places)] = chosen.to(value)
    return Filled(value=value, label=f"the text {cut(text)!r}")


def _meant_a_word(text: str, known: tuple[str, ...]) -> bool:
    """Is this a word of another kind of side, or mistyped?"""
    anywhere = {word for some in WORDS.values() for word in some}
    return text.isalpha() and (text in anywhere or bool(suggest(text, known)))


def cut(text: str) -> str:
    """A text as a label can hold it."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


# ---- images and vectors --------------------------------------------------------------------------------------------


def _in_picture(setting: Setting, side: Side, word: str) -> Filled:
    if word == "zero":
        processor = getattr(setting.processor, "image_processor", setting.processor)
        normalised = getattr(processor, "do_normalize", False)
        label = "the mean colour that the processor normalises by" if normalised else "0 in every pixel"
        return Filled(value=torch.zeros_like(side.value), label=label)
    if word == "mean":
        mean = side.value.float().mean((-2, -1), keepdim=True).to(side.value)
        return Filled(value=mean.expand_as(side.value), label="the mean colour of the image")
    sigma = BLURRED * min(side.value.shape[-2:])
    return Filled(value=blurred(side.value, sigma), label=f"the image, blurred (Gaussian, sigma {sigma:.3g} pixels)")


def blurred(image: Tensor, sigma: float) -> Tensor:
    r"""An image [batch, channels, height, width] after a Gaussian blur, reflected at its edges.

    $w_k \propto \exp(-k^2 / 2\sigma^2)$ down the columns and along the rows, for $|k| \le 3\sigma$.
    """
    found = image.float()
    channels = found.shape[1]
    for axis in (2, 3):
        reach = min(math.ceil(3 * sigma), found.shape[axis] - 1)
        steps = torch.arange(-reach, reach + 1, device=found.device, dtype=found.dtype)
        weights = torch.exp(-0.5 * (steps / sigma) ** 2)
        weights = weights / weights.sum()
        kernel, sides = (weights[:, None], (0, 0, reach, reach)) if axis == 2 else (weights[None], (reach, reach, 0, 0))
        padded = pad(found, sides, mode="reflect")
        found = conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels)
    return found.to(image)


def by_image(setting: Setting, side: Side, given: Any) -> Filled:
    """Another image, of the same size as the model sees it. Raises UsageError."""
    known = words(setting, side)
    if isinstance(given, str) and _meant_a_word(given, known):
        raise choice("baseline", given, known)
    try:
        read = setting.image(given)
    except UsageError as error:
        also = f" A word must be one of {', '.join(known)}." if isinstance(given, str) else ""
        raise UsageError(f"The baseline cannot be read: {error}{also}") from error
    value = read.part.tensors[side.name]
    if value.shape != side.value.shape:
        raise UsageError(
            f"A baseline image has the size of the input as the model sees it, {tuple(side.value.shape)}; found "
            f"{tuple(value.shape)}. Cut or scale it to the size of the input."
        )
    label = f"the image {shortened(Path(given).name)!r}" if isinstance(given, (str, Path)) else "the image given"
    return Filled(value=value.to(side.value), label=label)


def _in_vectors(side: Side, word: str) -> Filled:
    """Zeros, or the mean over the units of each item, padding left out."""
    if word == "zero":
        return Filled(value=torch.zeros_like(side.value), label="0 for every unit")
    counts = side.where.to(side.value)
    mean = (side.value * counts).sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp_min(1)
    return Filled(value=mean.expand_as(side.value), label="the mean of all units for every unit")


def by_tensor(setting: Setting, side: Side, tensor: Any) -> Filled:
    """A tensor that fits in the place of a side's own. Raises UsageError for one of another shape or type."""
    if not isinstance(tensor, Tensor):
        raise UsageError(
            f"In a baseline of tensors `{side.name}` must be a tensor; found {type(tensor).__name__}. Use "
            "torch.as_tensor(...)."
        )
    one = (1, *side.value.shape[1:])
    ids = side.kind == "ids"
    fits = not tensor.is_floating_point() and tensor.dtype != torch.bool if ids else tensor.is_floating_point()
    if tuple(tensor.shape) not in (tuple(side.value.shape), one) or not fits or tensor.is_complex():
        raise UsageError(
            f"A baseline for `{side.name}` has its shape {tuple(side.value.shape)} and its type, "
            f"{'whole numbers' if ids else 'floats'}; found {tuple(tensor.shape)} of {tensor.dtype}. "
            "Reshape or convert it."
        )
    if not ids and not bool(torch.isfinite(tensor).all()):
        raise UsageError(f"A baseline for `{side.name}` holds finite numbers; found NaN or infinity. Replace these.")
    inner = getattr(setting.config, "text_config", None) or setting.config
    count = getattr(inner, "vocab_size", None) if ids else None
    if ids and (int(tensor.min()) < 0 or (isinstance(count, int) and int(tensor.max()) >= count)):
        raise UsageError(
            f"Ids in a baseline are tokens{f', from 0 to {count - 1}' if count else ''}; found "
            f"{int(tensor.min())} to {int(tensor.max())}. For no token at all, choose 'zero' or 'mean'."
        )
    return Filled(value=tensor.detach().to(side.value).expand_as(side.value), label="the tensor given")
