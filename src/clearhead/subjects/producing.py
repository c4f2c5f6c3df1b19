"""What a model produces, or is given to have produced: ids, and the text that each of them adds."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from clearhead.errors import ModelError, UsageError
from clearhead.subjects.texts import numbered
from clearhead.units import Unit

LONGEST = 64  # tokens of a translation, where nothing else is said


@dataclass(frozen=True, kw_only=True)
class Produced:
    """Tokens with the text they make; `pieces` are their own texts, `spans` where they lie in the whole."""

    ids: tuple[int, ...]
    text: str
    pieces: tuple[str, ...]
    spans: tuple[tuple[int, int] | None, ...]
    special: tuple[bool, ...]

    def units(self, stream: str, first: int, count: int) -> tuple[Unit, ...]:
        """The first `count` tokens as units, numbered from `first` on; the space before a word is left out."""
        made = []
        for i, span in enumerate(self.spans[:count]):
            start, end = span or (None, None)
            if start is not None and self.text[start:end].strip():
                start += len(self.text[start:end]) - len(self.text[start:end].lstrip())
            reads = (self.text[start:end] if start is not None else "") or self.pieces[i]
            made.append(
                Unit(
                    index=first + i,
                    text=reads,
                    stream=stream,
                    special=self.special[i],
                    start=start,
                    end=end,
                    word=None if self.special[i] else int(reads[0].isalnum()),  # punctuation is no part of a word
                )
            )
        return numbered(made, {stream: self.text})


def spelled(tokenizer: Any, ids: Sequence[int]) -> Produced:
    """The text of some tokens and the part that each adds to it; a character of several tokens belongs to all."""
    special = tuple(i in tokenizer.all_special_ids for i in ids)
    names = tokenizer.convert_ids_to_tokens(list(ids))
    plain: list[int] = []
    waiting: list[int] = []
    spans: list[tuple[int, int] | None] = [None] * len(ids)
    text = ""
    for place, number in enumerate(ids):
        if special[place]:
            spans[place] = (len(text), len(text))
            continue
        plain.append(number)
        waiting.append(place)
        longer = tokenizer.decode(plain, clean_up_tokenization_spaces=False)
        whole = longer.rstrip("\ufffd")  # the beginning of a character whose end is to come
        if not whole.startswith(text) or (whole == text and longer != text):
            continue
        spans = [(len(text), len(whole)) if i in waiting else span for i, span in enumerate(spans)]
        text, waiting = whole, []
    parts = [text[span[0] : span[1]] if span else "" for span in spans]
    pieces = tuple(
        part if part and "\ufffd" not in part else str(name) for part, name in zip(parts, names, strict=True)
    )
    return Produced(ids=tuple(ids), text=text, pieces=pieces, spans=tuple(spans), special=special)


def generated(model: nn.Module, tensors: Mapping[str, Tensor], count: int, tokenizer: Any) -> list[int]:
    """The ids the model gives when it continues `tensors` greedily, its prompt included. Raises ModelError."""
    generate = getattr(model, "generate", None)
    if generate is None:
        raise ModelError(
            f"{type(model).__name__} cannot generate by itself. Give its text with continuation=... to explain that."
        )
    known = {name: tensor for name, tensor in tensors.items() if name in ("input_ids", "attention_mask")}
    decodes = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    before = 1 if decodes else int(known["input_ids"].shape[1])
    config = _greedy(getattr(model, "generation_config", None), before + count, tokenizer)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            found = generate(**known, generation_config=config)
    except Exception as error:
        raise ModelError(f"The model failed to generate: {type(error).__name__}: {error}") from error
    finally:
        for module in training:
            module.training = True
    return [int(i) for i in found[0].tolist()]


def _greedy(own: Any, longest: int, tokenizer: Any) -> Any:
    """How a model generates, but greedily and so many tokens at most, its prompt included."""
    from transformers import GenerationConfig

    config = copy.deepcopy(own) if own is not None else cast(Any, GenerationConfig)()
    config.max_length, config.max_new_tokens, config.min_length, config.min_new_tokens = longest, None, None, None
    config.do_sample, config.num_beams, config.num_return_sequences = False, 1, 1
    config.temperature = config.top_p = config.top_k = config.typical_p = None
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return config


def usual_length(model: nn.Module, limit: int | None) -> int:
    """How many tokens a model produces at most, where nobody says."""
    config = getattr(model, "generation_config", None)
    own = getattr(config, "max_new_tokens", None) or getattr(config, "max_length", None)
    return min(each for each in (own, limit, LONGEST) if each)


def check_room(limit: int | None, prompt: int, new: int) -> None:
    """Raise UsageError if prompt and continuation are longer than the model's context."""
    if limit is not None and prompt + new > limit:
        room = f"At most {limit - prompt} fit." if limit > prompt else "Shorten the prompt."
        raise UsageError(
            f"The model takes at most {limit} tokens; the prompt has {prompt} and the continuation {new}. {room}"
        )
