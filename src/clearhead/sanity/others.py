"""Another input in the place of one: as many units of other content; what is explained stays the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import UsageError
from clearhead.question import Grid, Item, Pass, Question
from clearhead.sanity.settling import looked_up, settled, single
from clearhead.subjects.sides import Side, sides
from clearhead.subjects.tokens import namer
from clearhead.units import Unit

MARKED = re.compile(r"[\[<].*[\]>]")  # how a vocabulary spells what is no text
TRIES = 1000  # ids drawn for one place until one is ordinary
Keep = Callable[[int], bool]


def other(question: Question, seed: int = 0, *, tokenizer: Any = None) -> Question:
    """The question about another input with as many units, its target that of this one.

    Tokens are drawn at random from the ordinary ones of the vocabulary; special tokens, what the model produced and
    every position stay. Parts of an image, or vectors, are given to other places at random, and what they are compared
    with goes with them; baselines of texts stay, since they are the same for all tokens. Without a `tokenizer` ids are
    drawn that the model's config does not call special. Raises UsageError for several inputs, or where nothing can
    change.

    >>> from clearhead import Settings
    >>> from clearhead.subjects import Loaded, Subject, Wanted
    >>> model = torch.nn.Linear(3, 2)
    >>> subject = Subject(Loaded(model=model, processor=None, name="toy", task="tensors", pooling="mean"))
    >>> question = subject.question({"input": torch.tensor([[1.0, 2.0, 3.0]])}, Wanted(), Settings())
    >>> other(question, seed=1).passes[0].tensors["input"].tolist()
    [[2.0, 3.0, 1.0]]
    """
    draw, item = torch.Generator().manual_seed(seed), single(question)
    found = settled(question)
    tensors = [dict(part.tensors) for part in question.passes]
    bases = [[dict(each) for each in baseline.tensors] for baseline in question.baselines]
    for side in sides(question.passes, question.items):
        if side.produced:
            continue
        own = tensors[side.number]
        if side.kind == "ids":
            own[side.name] = _drawn(own[side.name], side, _ordinary(question, tokenizer), draw)
        else:
            move = _moving(side, item.layouts[side.number].grid, draw)
            for each in (own, *(base[side.number] for base in bases)):
                each[side.name] = move(each[side.name])
    _check(question.passes, tensors)
    return replace(
        found,
        passes=tuple(replace(part, tensors=new) for part, new in zip(question.passes, tensors, strict=True)),
        baselines=tuple(replace(each, tensors=tuple(new)) for each, new in zip(question.baselines, bases, strict=True)),
        items=(_named(found.items[0], question.passes, tensors, tokenizer),),
    )


def _check(passes: Iterable[Pass], tensors: Iterable[Mapping[str, Any]]) -> None:
    """Raise UsageError if nothing has changed."""
    pairs = zip(passes, tensors, strict=True)
    if not any(
        new[name] is not part.tensors[name] and not torch.equal(new[name], part.tensors[name])
        for part, new in pairs
        for name in new
        if isinstance(new[name], Tensor)
    ):
        raise UsageError("Another input has other units; here none can change. Give an input with units that differ.")


# ---- tokens --------------------------------------------------------------------------------------------------------


def _ordinary(question: Question, tokenizer: Any) -> tuple[int, Keep]:
    """How many ids there are to draw from, and which of them are tokens like any other."""
    rows = [len(weight) for tables in looked_up(question) for weight, _ in tables]
    if tokenizer is not None:
        special = set(tokenizer.all_special_ids)

        def keep(number: int) -> bool:
            spelled = str(tokenizer.convert_ids_to_tokens(number))
            return number not in special and not MARKED.fullmatch(spelled)

        return min([*rows, len(tokenizer)]), keep
    config = getattr(question.model, "config", None)
    config = getattr(config, "text_config", None) or config
    named = {getattr(config, f"{each}_token_id", None) for each in ("pad", "bos", "eos", "mask", "sep", "cls")}
    return min(rows, default=0), lambda number: number not in named


def _drawn(ids: Tensor, side: Side, ordinary: tuple[int, Keep], draw: torch.Generator) -> Tensor:
    """Ids of ordinary tokens in the places of a side, each another one than before; what is special stays."""
    count, keep = ordinary
    new = ids.clone()
    for place in side.places[0] if side.places and count else ():
        before = ids[0, place]
        if before.dim() or not keep(int(before)):
            continue
        drawn = torch.randint(0, count, (TRIES,), generator=draw).tolist()
        chosen = next((each for each in drawn if each != int(before) and keep(each)), None)
        if chosen is not None:
            new[0, place] = chosen
    return new


def _named(item: Item, passes: Iterable[Pass], tensors: Iterable[Mapping[str, Any]], tokenizer: Any) -> Item:
    """The item with the texts of its new tokens, and without those it had."""
    layouts, changed = [], set[str]()
    for layout, part, new in zip(item.layouts, passes, tensors, strict=True):
        units = list(layout.units)
        for span in layout.spans:
            old, now = part.tensors[span.ids][0], new[span.ids][0]
            for n in range(span.first, span.last):
                place = span.offset + n - span.first
                if not torch.equal(old[place], now[place]):
                    units[n] = _unit(units[n], now[place], tokenizer)
                    changed.add(units[n].stream)
        layouts.append(replace(layout, units=tuple(units)))
    texts = {stream: text for stream, text in item.texts.items() if stream not in changed}
    return replace(item, layouts=tuple(layouts), texts=texts, pictures={})


def _unit(unit: Unit, entry: Tensor, tokenizer: Any) -> Unit:
    if entry.is_floating_point():
        return unit
    text = f"token {int(entry)}" if tokenizer is None else namer(tokenizer)(int(entry))
    return replace(unit, text=text, start=None, end=None)


# ---- images and vectors --------------------------------------------------------------------------------------------


def _moving(side: Side, grid: Grid | None, draw: torch.Generator) -> Callable[[Tensor], Tensor]:
    """What gives the parts of an image, or the vectors of a side, to other places."""
    if side.kind == "image" and grid is not None:
        order = torch.randperm(grid.rows * grid.columns, generator=draw)
        return lambda image: _rearranged(image, grid, order.to(image.device))
    places = torch.tensor(side.places[0] if side.places else (), dtype=torch.long)
    sources = places[torch.randperm(len(places), generator=draw)]

    def move(value: Tensor) -> Tensor:
        new = value.clone()
        new[:, places.to(value.device)] = value[:, sources.to(value.device)]
        return new

    return move


def _rearranged(image: Tensor, grid: Grid, order: Tensor) -> Tensor:
    """An image [1, channels, height, width] with its parts in another order; what is over at the edges stays."""
    tall, wide = image.shape[2] // grid.rows, image.shape[3] // grid.columns
    new = image.clone()
    inner = image[:, :, : grid.rows * tall, : grid.columns * wide]
    parts = inner.reshape(*image.shape[:2], grid.rows, tall, grid.columns, wide).transpose(3, 4).flatten(2, 3)
    turned = parts[:, :, order].reshape(*image.shape[:2], grid.rows, grid.columns, tall, wide).transpose(3, 4)
    new[:, :, : grid.rows * tall, : grid.columns * wide] = turned.reshape(inner.shape)
    return new
