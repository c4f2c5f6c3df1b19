"""The explained scalar as plain functions of vectors and of kept units, made without clearhead."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
import torch

from tasks.gallery import Entry, gallery
from tasks.plainly import encoded

BERT = "text-classification/bert"


@dataclass(frozen=True)
class Plain:
    """A classifier of texts and one text: its ids, vectors, units that are no special tokens, and the answer."""

    entry: Entry
    read: dict[str, torch.Tensor]
    own: list[int]
    best: int

    @property
    def weight(self) -> torch.Tensor:
        return self.entry.model.get_input_embeddings().weight.detach()

    @property
    def vectors(self) -> torch.Tensor:
        return self.weight[self.read["input_ids"]]

    def baseline(self, token: int | None = None) -> torch.Tensor:
        """The vectors with another token, or zeros, in the place of every one that is not special."""
        found = self.vectors.clone()
        found[0, self.own] = 0 if token is None else self.weight[token]
        return found

    def of_vectors(self, vectors: torch.Tensor) -> torch.Tensor:
        others = {k: v.expand(len(vectors), -1) for k, v in self.read.items() if k != "input_ids"}
        return self.difference(self.entry.model(inputs_embeds=vectors, **others).logits)

    def of_kept(self, keep: torch.Tensor) -> torch.Tensor:
        """With 1 for a token that stays, 0 for one that becomes the mask [n, own]."""
        ids = self.read["input_ids"].repeat(len(keep), 1)
        for row, kept in zip(ids, torch.as_tensor(keep), strict=True):
            for place, stays in zip(self.own, kept, strict=True):
                if not stays:
                    row[place] = self.entry.tokenizer.mask_token_id
        others = {k: v.expand(len(ids), -1) for k, v in self.read.items() if k != "input_ids"}
        with torch.no_grad():
            return self.difference(self.entry.model(input_ids=ids, **others).logits)

    def difference(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, self.best] - logits[:, 1 - self.best]


def plain(text: str, name: str = BERT) -> Plain:
    one = gallery(name)
    read = dict(encoded(one, text))
    special = one.tokenizer(text, return_special_tokens_mask=True).special_tokens_mask
    with torch.no_grad():
        best = int(one.model(**read).logits[0].argmax())
    return Plain(one, read, [n for n, is_special in enumerate(special) if not is_special], best)


def shapley(value: Callable[[Any], float], count: int) -> np.ndarray:
    r"""From the definition: $\sum_{S \not\ni i} \frac{|S|! (n - |S| - 1)!}{n!} (v(S \cup i) - v(S))$."""
    won = {s: value(s) for size in range(count + 1) for s in itertools.combinations(range(count), size)}
    found = np.zeros(count)
    for i in range(count):
        for s in won:
            if i not in s:
                share = factorial(len(s)) * factorial(count - len(s) - 1) / factorial(count)
                found[i] += share * (won[tuple(sorted((*s, i)))] - won[s])
    return found


def by_orders(value: Callable[[Any], float], orders: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """What each unit adds when its turn comes, averaged over orders."""
    found = np.zeros(count)
    for order in orders:
        for n, i in enumerate(order):
            found[i] += value(tuple(sorted(order[: n + 1]))) - value(tuple(sorted(order[:n])))
    return found / len(orders)


def valued(of_kept: Callable[[torch.Tensor], torch.Tensor], count: int) -> Callable[[Any], float]:
    """A game of sets from one of rows of 0 and 1, each asked once."""
    rows = torch.tensor([[n >> i & 1 for i in range(count)] for n in range(2**count)])
    won = torch.cat([of_kept(some) for some in rows.split(64)]).double().tolist()
    return lambda members: won[sum(1 << i for i in members)]
