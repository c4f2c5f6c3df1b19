"""Small torch networks, the oracle of each built from its weights, and the comparison of the two."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import oracles
from clearhead.config import Settings
from clearhead.relevance import propagate

SETTINGS = [
    Settings(rule=rule, epsilon=epsilon, attention=attention, leak=leak)
    for rule, epsilon in (("epsilon", 0.01), ("epsilon", 0.5), ("epsilon", 0.0), ("0", 0.01))
    for attention in ("cp", "attnlrp")
    for leak in ("return", "record")
]
KINDS = [s for s in SETTINGS if s.epsilon == 0.01]  # the same without the variation of epsilon
EXTREMES = [Settings(), Settings(rule="0", attention="attnlrp", leak="record")]  # where more would show no more
RECORD = Settings(rule="0", leak="record")  # the plain rules, where closed forms are short
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def named(s: Settings) -> str:
    return f"{s.rule}-{s.epsilon}-{s.attention}-{s.leak}"


def rules(s: Settings) -> oracles.Rules:
    return oracles.Rules(rule=s.rule, epsilon=s.epsilon, attention=s.attention, leak=s.leak)


@contextmanager
def seeded(seed: int):
    """Draws inside the block depend on `seed` only, and leave the global generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def array(x: torch.Tensor | None) -> np.ndarray | None:
    return None if x is None else x.detach().double().numpy()


# ---- networks ------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Self-attention by the fused kernel, in two spellings, or written out."""

    def __init__(self, d: int, heads: int = 1, kv_heads: int | None = None, flavour: str = "sdpa", bias: bool = True):
        super().__init__()
        self.heads, self.kv_heads, self.flavour = heads, kv_heads or heads, flavour
        kv = d // heads * self.kv_heads
        self.q, self.o = nn.Linear(d, d, bias=bias), nn.Linear(d, d, bias=bias)
        self.k, self.v = nn.Linear(d, kv, bias=bias), nn.Linear(d, kv, bias=bias)
        self.mask: torch.Tensor | None = None
        self.added: torch.Tensor | None = None
        self.turn: torch.Tensor | None = None

    def forward(self, x):
        q, k, v = (self._heads(f(x)) for f in (self.q, self.k, self.v))
        if self.turn is not None:
            cos, sin = (part.to(x.dtype) for part in (self.turn.cos(), self.turn.sin()))
            q, k = (t * cos + half_turned(t) * sin for t in (q, k))
        o = self._eager(q, k, v) if self.flavour == "eager" else self._fused(q, k, v)
        return self.o(o.transpose(-3, -2).flatten(-2))

    def _heads(self, x):
        return x.unflatten(-1, (-1, self.q.out_features // self.heads)).transpose(-3, -2)

    def _fused(self, q, k, v):
        mask = self.mask
        if self.flavour == "float mask" and mask is not None:
            mask = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -torch.inf)
        if self.added is not None:
            mask = self.added.to(q.dtype) if mask is None else torch.where(mask, self.added.to(q.dtype), -torch.inf)
        if self.flavour == "causal":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv_heads != self.heads)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=self.kv_heads != self.heads)

    def _eager(self, q, k, v):
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=-3) for t in (k, v))
        s = torch.matmul(q, k.transpose(-2, -1)) * q.shape[-1] ** -0.5
        if self.added is not None:
            s = s + self.added.to(s.dtype)
        if self.mask is not None:
            s = s.masked_fill(~self.mask, -torch.inf)
        return torch.matmul(F.softmax(s, dim=-1), v)


def half_turned(t: torch.Tensor) -> torch.Tensor:
    first, second = t.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class Gated(nn.Module):
    def __init__(self, d: int, hidden: int):
        super().__init__()
        self.gate, self.up = nn.Linear(d, hidden, bias=False), nn.Linear(d, hidden, bias=False)
        self.down = nn.Linear(hidden, d, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, d: int, attention: Attention, mlp: nn.Module, norm: Callable[..., nn.Module], *, pre: bool):
        super().__init__()
        self.attention, self.mlp, self.pre = attention, mlp, pre
        self.first, self.second = norm(d), norm(d)

    def forward(self, x):
        if self.pre:
            x = x + self.attention(self.first(x))
            return x + self.mlp(self.second(x))
        x = self.first(x + self.attention(x))
        return self.second(x + self.mlp(x))


def mlp(d: int, hidden: int, out: int | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, hidden), nn.GELU(), nn.Linear(hidden, out or d))


def lively(net: nn.Module, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    """Weights of a size that makes every leak visible; also those that torch starts at 0 and 1. No gradients."""
    with seeded(seed), torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape) * 0.6 + (0.2 if p.dim() == 1 else 0.0))
    return net.to(dtype).eval().requires_grad_(False)


def inputs(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> torch.Tensor:
    with seeded(seed):
        return torch.randn(shape, dtype=torch.float64).to(dtype)


def encoder(flavour: str = "sdpa") -> nn.Module:
    """A layer, a norm and two classes, frozen."""
    block = Block(6, Attention(6, 2, flavour=flavour), mlp(6, 5), nn.LayerNorm, pre=False)
    return lively(nn.Sequential(block, nn.LayerNorm(6), nn.Linear(6, 2)))


# ---- their oracles -------------------------------------------------------------------------------------------------


def oracle_of(net: nn.Module) -> oracles.Layer:
    """The explicit counterpart of a network, from its weights."""
    return ORACLES[type(net)](net)


def _attention(net: Attention) -> oracles.Attention:
    turn = None
    if net.turn is not None:
        half = net.turn.shape[-1] // 2
        cos, sin = (torch.diag_embed(part[..., :half]) for part in (net.turn.cos(), net.turn.sin()))
        turn = array(torch.cat((torch.cat((cos, -sin), -1), torch.cat((sin, cos), -1)), -2))
    return oracles.Attention(
        *(oracle_of(part) for part in (net.q, net.k, net.v, net.o)),
        heads=net.heads,
        kv_heads=net.kv_heads,
        allowed=None if net.mask is None else net.mask.numpy(),
        bias=array(net.added),
        turn=turn,
    )


def _block(net: Block) -> oracles.Sequence:
    attention, body, first, second = (oracle_of(part) for part in (net.attention, net.mlp, net.first, net.second))
    if net.pre:
        inner = oracles.Sequence(first, attention), oracles.Sequence(second, body)
        return oracles.Sequence(*(oracles.Residual(each) for each in inner))
    return oracles.Sequence(oracles.Residual(attention), first, oracles.Residual(body), second)


ORACLES: dict[type, Callable[..., oracles.Layer]] = {
    nn.Sequential: lambda net: oracles.Sequence(*(oracle_of(part) for part in net)),
    nn.Linear: lambda net: oracles.Linear(array(net.weight), array(net.bias)),
    nn.GELU: lambda net: oracles.Pointwise("gelu" if net.approximate == "none" else "gelu_tanh"),
    nn.ReLU: lambda _: oracles.Pointwise("relu"),
    nn.SiLU: lambda _: oracles.Pointwise("silu"),
    nn.LayerNorm: lambda net: oracles.Norm(array(net.weight), array(net.bias), eps=net.eps, centred=True),
    nn.RMSNorm: lambda net: oracles.Norm(
        array(net.weight), eps=net.eps or torch.finfo(net.weight.dtype).eps, centred=False
    ),
    Gated: lambda net: oracles.Sequence(
        oracles.Gated(oracles.Sequence(oracle_of(net.gate), oracles.Pointwise("silu")), oracle_of(net.up)),
        oracle_of(net.down),
    ),
    Attention: _attention,
    Block: _block,
}


# ---- the comparison ------------------------------------------------------------------------------------------------


def booked(p) -> dict[tuple[str, bool], float]:
    """The engine's ledger by (cause, returned)."""
    sums: dict[tuple[str, bool], float] = defaultdict(float)
    for entry in p.ledger:
        sums[entry.cause, entry.returned] += entry.relevance
    return sums


def residual(p) -> float:
    """What the books do not explain, relative to all relevance that was moved."""
    sources = sum(float(s.relevance.sum()) for s in p.sources)
    sinks = sum(entry.relevance for entry in p.ledger if not entry.returned)
    moved = sum(float(s.relevance.abs().sum()) for s in p.sources) + sum(abs(e.relevance) for e in p.ledger)
    return abs(p.value - sources - sinks) / max(moved, abs(p.value), 1e-300)


def close(found, expected, tolerance: float, scale: float) -> bool:
    return np.allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance * scale)


def agree(function, x: torch.Tensor, oracle, c: np.ndarray, settings: Settings, model: nn.Module | None = None):
    """Engine and oracle agree on value, relevance and books for every sequence of a batch x [..., T, d].

    `c` [..., T, d'] are the weights of the explained sum; the function must already use them.
    """
    p = propagate(function, [x], settings, model=model)
    rows = array(x).reshape(-1, *x.shape[-2:])
    weights = c.reshape(len(rows), *c.shape[-2:])
    answers = [oracles.explain(oracle, row, at, rules(settings)) for row, at in zip(rows, weights, strict=True)]
    expected = np.stack([a.relevance for a in answers])
    books: dict[tuple[str, bool], float] = defaultdict(float)
    for a in answers:
        for key, amount in a.books.entries.items():
            books[key] += amount
    scale = max(np.abs(expected).sum(), sum(abs(v) for v in books.values()), abs(p.value), 1e-290)
    tolerance = TOLERANCE[x.dtype]
    found = p.sources[0].relevance
    assert found.dtype == torch.float64
    assert found.shape == x.shape
    assert close(p.value, sum(a.value for a in answers), tolerance, scale)
    assert close(found.reshape(expected.shape), expected, tolerance, scale)
    seen = booked(p)
    assert {key for key, v in seen.items() if abs(v) > tolerance * scale} <= set(books), (dict(seen), dict(books))
    for key, amount in books.items():
        assert close(seen[key], amount, tolerance, scale), (key, seen[key], amount)
    assert residual(p) <= (1e-12 if x.dtype == torch.float64 else 1e-5)
    return p, answers
