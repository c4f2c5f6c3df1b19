"""Attention methods a second time, slowly and from their formulas, on stored weights; nothing of clearhead."""

from __future__ import annotations

import itertools
from typing import Any

import networkx
import numpy as np
import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A layer in which nothing is hidden: weights are kept, one sequence without a batch axis is (1, T, d)."""

    def __init__(self, width: int, heads: int, *, causal: bool = False, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.heads, self.causal = heads, causal
        self.maps = nn.ParameterDict(
            {n: nn.Parameter(torch.randn(width, width, generator=draw) / width**0.5) for n in ("q", "k", "v", "o", "m")}
        )
        self.weights: Tensor | None = None

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        seen = x if other is None else other
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # noqa: E731
        q, k, v = split(x @ self.maps["q"]), split(seen @ self.maps["k"]), split(seen @ self.maps["v"])
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if self.causal:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), float("-inf"))
        self.weights = scores.softmax(-1)
        if self.weights.requires_grad:
            self.weights.retain_grad()
        mixed = (self.weights @ v).transpose(1, 2).flatten(2) @ self.maps["o"]
        x = x + mixed
        return x + torch.tanh(x @ self.maps["m"])


class Model(nn.Module):
    """Embeddings, blocks, and logits read at one position, or at all of them."""

    def __init__(self, *, layers: int = 2, width: int = 8, heads: int = 2, causal: bool = False, read: Any = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(99)
        self.words = nn.Embedding(20, width)
        self.blocks = nn.ModuleList(Block(width, heads, causal=causal, seed=n) for n in range(layers))
        self.head = nn.Parameter(torch.randn(width, 3, generator=draw))
        self.read = read
        with torch.no_grad():
            self.words.weight.copy_(torch.randn(20, width, generator=draw))

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.words(input_ids)
        for block in self.blocks:
            x = block(x)
        x = x.mean(1) if self.read == "mean" else x[:, self.read]
        return x @ self.head


class Translator(nn.Module):
    """Two blocks of an encoder; a decoder that looks back, then at the encoder, twice."""

    def __init__(self, *, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.words, self.others = nn.Embedding(20, width), nn.Embedding(20, width)
        self.encoder = nn.ModuleList(Block(width, heads, seed=n) for n in range(2))
        self.looks_back = nn.ModuleList(Block(width, heads, causal=True, seed=10 + n) for n in range(2))
        self.looks_across = nn.ModuleList(Block(width, heads, seed=20 + n) for n in range(2))
        self.head = nn.Parameter(torch.randn(width, 20, generator=draw))
        with torch.no_grad():
            for each in (self.words, self.others):
                each.weight.copy_(torch.randn(20, width, generator=draw))

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        x = self.words(input_ids)
        for block in self.encoder:
            x = block(x)
        y = self.others(decoder_input_ids)
        for back, across in zip(self.looks_back, self.looks_across, strict=True):
            y = across(back(y), x)
        return y @ self.head


# ---- rollout --------------------------------------------------------------------------------------------------------


def fused(weights: np.ndarray, fusion: str = "mean", discard: float = 0.0) -> np.ndarray:
    """Heads [H, Q, K] as one table, the smallest visible weights of each row left out."""
    table = {"mean": weights.mean(0), "max": weights.max(0), "min": weights.min(0)}[fusion].copy()
    for row in table:
        seen = np.flatnonzero(row)
        for place in sorted(seen, key=lambda k: row[k])[: int(discard * len(seen))]:
            row[place] = 0
    return table


def mixing(table: np.ndarray, residual: float = 0.5) -> np.ndarray:
    """Half identity, half attention, every row made to add up to 1."""
    whole = residual * np.eye(len(table)) + (1 - residual) * table
    return whole / whole.sum(-1, keepdims=True)


def rollout(tables: list[np.ndarray], residual: float = 0.5) -> np.ndarray:
    """The product over layers, the last one in front."""
    found = np.eye(len(tables[0]))
    for table in tables:
        found = mixing(table, residual) @ found
    return found


def by_paths(tables: list[np.ndarray], top: int) -> np.ndarray:
    """The row of a rollout as the sum over every path through the layers of the product of its edges."""
    count = len(tables[0])
    mixed = [mixing(each) for each in reversed(tables)]
    found = np.zeros(count)
    for path in itertools.product(range(count), repeat=len(tables)):
        weight, here = 1.0, top
        for table, there in zip(mixed, path, strict=True):
            weight *= table[here, there]
            here = there
        found[here] += weight
    return found


def translated(
    encoder: list[np.ndarray], back: list[np.ndarray], across: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Decoder positions as mixtures of decoder and encoder units; half of each look across is handed on."""
    source = rollout(encoder)
    own, other = np.eye(len(back[0])), np.zeros((len(back[0]), len(source)))
    for first, second in zip(back, across, strict=True):
        own, other = mixing(first) @ own, mixing(first) @ other
        own, other = 0.5 * own, 0.5 * other + 0.5 * second @ source
    return own, other


# ---- flow -----------------------------------------------------------------------------------------------------------


def flow(tables: list[np.ndarray], top: int | None) -> np.ndarray:
    """Maximum flow from one position above the last layer, or from all, to each below the first, by networkx."""
    graph = networkx.DiGraph()
    for level, table in enumerate(tables):
        for (i, j), capacity in np.ndenumerate(mixing(table)):
            graph.add_edge((level + 1, i), (level, j), capacity=float(capacity))
    for i in range(len(tables[0])):
        graph.add_edge("all", (len(tables), i), capacity=1.0)
    source = "all" if top is None else (len(tables), top)
    return np.array([networkx.maximum_flow_value(graph, source, (0, k)) for k in range(len(tables[0]))])


# ---- gradient-weighted attention ------------------------------------------------------------------------------------


def spoken(block: Block) -> Tensor:
    """The positive part of weights times their stored gradients, the mean over heads."""
    return (block.weights * block.weights.grad).clamp(min=0)[0].mean(0).detach()


def chefer(tables: list[Tensor]) -> Tensor:
    """R + A R through the layers."""
    found = torch.eye(len(tables[0]), dtype=tables[0].dtype)
    for table in tables:
        found = found + table @ found
    return found


def normalised(found: Tensor) -> Tensor:
    """Equations 8 and 9."""
    rest = found - torch.eye(len(found), dtype=found.dtype)
    total = rest.sum(-1, keepdim=True)
    return torch.nan_to_num(rest / total) + torch.eye(len(found), dtype=found.dtype)


def chefer_translator(model: Translator) -> tuple[Tensor, Tensor]:
    """Rules 5, 6, 10 and 11 for a decoder: what its positions got from its own prefix, and from the encoder."""
    source = chefer([spoken(block) for block in model.encoder])
    own, other = None, None
    for back, across in zip(model.looks_back, model.looks_across, strict=True):
        table = spoken(back)
        own = torch.eye(len(table), dtype=table.dtype) if own is None else own
        other = torch.zeros(len(table), len(source), dtype=table.dtype) if other is None else other
        own, other = own + table @ own, other + table @ other
        other = other + normalised(own).T @ spoken(across) @ normalised(source)
    return own, other
