"""What an input is read with, and what every task shares in turning it into a question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from clearhead.errors import UsageError
from clearhead.question import Aim, Item, Pass
from clearhead.subjects import images, texts, tokens
from clearhead.subjects.encoded import Encoded
from clearhead.subjects.wanted import Wanted

Posed = tuple[tuple[Pass, ...], Item]


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """What an input is read with: the model and its processor, and how texts and images are cut."""

    model: nn.Module
    processor: Any
    pooling: str
    labels: Mapping[int, str]
    device: torch.device
    dtype: torch.dtype
    truncate: bool
    pixels: bool

    @property
    def config(self) -> Any:
        """What the model says of itself, if anything."""
        return getattr(self.model, "config", None)

    @property
    def tokenizer(self) -> Any:
        """The part of the processor that reads texts."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def limit(self) -> int | None:
        """How many tokens the model takes."""
        return texts.longest(self.tokenizer, self.config)

    def text(self, streams: Mapping[str, str], first: int = 0) -> Encoded:
        """A text, or two that the tokenizer joins, keyed by stream."""
        return texts.read(
            self.tokenizer, streams, limit=self.limit, truncate=self.truncate, device=self.device, first=first
        )

    def image(self, given: Any) -> Encoded:
        """An image, by the part of the processor that reads images."""
        processor = getattr(self.processor, "image_processor", self.processor)
        return images.read(processor, given, self.config, pixels=self.pixels, device=self.device, dtype=self.dtype)

    def token_id(self, wanted: Wanted, name: str) -> int | None:
        """The id of the target or of another token named in `wanted`."""
        return tokens.token_id(self.tokenizer, getattr(wanted, name), name, first_piece=wanted.first_piece)

    def against(self, wanted: Wanted) -> int | str | None:
        """The id of the token to explain against, or all others."""
        return tokens.contrast_id(self.tokenizer, wanted.contrast, first_piece=wanted.first_piece)


def simple(read: Encoded, *aims: Aim) -> Posed:
    """A question of one pass."""
    return (read.part,), Item(
        layouts=(read.layout,), aims=aims, texts=read.texts, pictures=read.pictures, warnings=read.notes
    )


def pair(given: Any, first: str, second: str, task: str) -> tuple[Any, Any]:
    """The two members of an input. Raises UsageError."""
    if "image" not in (first, second):
        _no_image(given, task, "two texts")
    if isinstance(given, tuple) and len(given) == 2:
        return given[0], given[1]
    found = f"a tuple of {len(given)}" if isinstance(given, tuple) else "one input"
    raise UsageError(f"The task {task} needs two inputs, ({first}, {second}); found {found}. Pass a pair.")


def single(given: Any, task: str) -> str:
    """The one text of an input. Raises UsageError."""
    if isinstance(given, str):
        return given
    _no_image(given, task, "one text")
    raise UsageError(f"The task {task} reads one text; found {called(given)}. Leave out what is no text.")


def picture(given: Any, task: str) -> Any:
    """The one image of an input. Raises UsageError for a pair; what is no image is found when it is opened."""
    if isinstance(given, tuple):
        left_out = " Leave out the text (--text)." if any(isinstance(each, str) for each in given[1:]) else ""
        raise UsageError(f"The task {task} reads one image; found {called(given)}.{left_out or ' Pass one of them.'}")
    return given


def _no_image(given: Any, task: str, reads: str) -> None:
    """Raise UsageError if there is an image among the members of an input."""
    if any(images.is_image(each) for each in (given if isinstance(given, tuple) else (given,))):
        raise UsageError(f"The task {task} reads {reads}; found {called(given)}. Leave out the image (--image).")


def called(given: Any) -> str:
    """What an input is, as a message says it."""
    if isinstance(given, tuple):
        return " and ".join(map(called, given)) if len(given) == 2 else f"a tuple of {len(given)}"
    if isinstance(given, str):
        return "a text"
    return "an image" if images.is_image(given) else type(given).__name__
