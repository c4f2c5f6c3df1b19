"""What a model of unknown kind may be given, by the names of its arguments: guesses, the likeliest first."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.coverage.sizes import VOCABULARY, found

LENGTH, ANSWER, SIDE = 12, 7, 64  # tokens read, tokens written, pixels

Guess = Callable[[Any], Iterator[Tensor]]


def guesses(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Mappings of tensors to try, one after the other; masks of ones go with ids if the model takes them."""
    config, names = model.config, inspect.signature(model.forward).parameters
    main = getattr(model, "main_input_name", "input_ids")
    required = [name for name, each in names.items() if each.default is inspect.Parameter.empty and name in GUESSES]
    answers = ["decoder_input_ids"] if "decoder_input_ids" in names and main != "decoder_input_ids" else []
    first = [name for name in (main, "input_ids") if (name in GUESSES and name in names) or name == main]
    plans = [
        [main, *answers, *required],
        [main, *required],
        [*first, *answers, *required],
        ["input_ids", "pixel_values", *required],
        ["input_ids", *required],
    ]
    for plan in unique(tuple(dict.fromkeys(plan)) for plan in plans):
        if all(name in GUESSES for name in plan):
            yield from _filled(plan, names, config)


def _filled(plan: tuple[str, ...], names: Mapping[str, Any], config: Any) -> Iterator[dict[str, Any]]:
    for tensors in product(*(list(GUESSES[name](config)) for name in plan)):
        given: dict[str, Any] = dict(zip(plan, tensors, strict=True))
        if "attention_mask" in names and "input_ids" in given:
            given["attention_mask"] = torch.ones_like(given["input_ids"])
        yield given
        if "attention_mask" in given:
            yield {name: value for name, value in given.items() if name != "attention_mask"}


def unique(plans: Iterator[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Each once, in order."""
    return list(dict.fromkeys(plans))


# ---- by name -------------------------------------------------------------------------------------------------------


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def ids(length: int) -> Guess:
    """Ids in the lower half of the vocabulary, where no special id was put, and the same with an end."""

    def guess(config: Any) -> Iterator[Tensor]:
        drawn = torch.randint(5, VOCABULARY // 2, (1, length), generator=torch.Generator().manual_seed(length))
        yield drawn
        end = found(config, "eos_token_id")
        if isinstance(end, int):
            yield torch.cat([drawn[:, :-1], torch.tensor([[end]])], 1)

    return guess


def images(config: Any) -> Iterator[Tensor]:
    """One image, or a clip of a few."""
    channels, side = (
        found(config, "num_channels in_channels in_chans channels", 3),
        found(config, "image_size img_size", SIDE),
    )
    channels = channels if isinstance(channels, int) else 3
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    for extra in ((), (found(config, "num_frames", 2),)):
        yield _random(1, *extra, channels, height, width)
    if height != SIDE:
        yield _random(1, channels, SIDE, SIDE)


def sounds(config: Any) -> Iterator[Tensor]:
    """A waveform, or its spectrum."""
    bins = found(config, "num_mel_bins feature_size input_feat_per_channel input_dim input_size", 80)
    longest = found(config, "max_source_positions max_length context_length", 64)
    yield _random(1, 4000)
    yield _random(1, 2 * longest, bins)
    yield _random(1, bins, 2 * longest)
    yield _random(1, longest, bins)
    yield _random(1, 1, 4000)


def series(config: Any) -> Iterator[Tensor]:
    """Numbers over time."""
    length, width = found(config, "context_length seq_length", 32), found(config, "num_input_channels input_size", 1)
    yield _random(1, length, width)
    yield _random(1, length)


def boxes(_: Any) -> Iterator[Tensor]:
    """Where each token stands on a page."""
    yield torch.randint(0, 20, (1, LENGTH, 4), generator=torch.Generator().manual_seed(2)).sort(-1).values


def ones(_: Any) -> Iterator[Tensor]:
    """A mask that shows everything."""
    yield torch.ones(1, LENGTH, dtype=torch.long)


GUESSES: dict[str, Guess] = {
    "input_ids": ids(LENGTH),
    "decoder_input_ids": ids(ANSWER),
    "pixel_values": images,
    "pixel_values_videos": images,
    "input_values": sounds,
    "input_features": sounds,
    "past_values": series,
    "inputs": series,
    "bbox": boxes,
    "attention_mask": ones,
}
