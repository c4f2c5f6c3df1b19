"""Attention, fused and written out, with every kind of mask, in one block and in several."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearhead.relevance.secant import attention as engine
from clearhead.relevance.secant import difference
from relevance.secant import slow
from relevance.secant.books import SECANT, close, difference_of, gap, pair, seeded_net, weighted
from relevance.twins import array, inputs

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}
N, H, T, S, D = 2, 4, 5, 6, 3  # items, heads, queries, keys, width


def written_out(q, k, v, attn_mask=None, is_causal=False, scale=None, enable_gqa=False):
    """Attention as a textbook has it."""
    if enable_gqa:
        groups = q.shape[-3] // k.shape[-3]
        k, v = (t.repeat_interleave(groups, -3) for t in (k, v))
    s = torch.matmul(q, k.transpose(-2, -1)) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(), -math.inf)
    if attn_mask is not None:
        s = s.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else s + attn_mask
    return torch.matmul(torch.softmax(s, -1), v)


def allowed(*shape: int, seed: int = 3) -> torch.Tensor:
    """A mask in which every row sees something."""
    found = inputs(*shape, seed=seed) > 0
    found[..., 0] = True
    return found


def forms(dtype: torch.dtype) -> dict[str, dict]:
    """Everything that torch allows beside queries, keys and values."""
    added = inputs(N, H, T, S, dtype=dtype, seed=4) * 3
    return {
        "plain": {},
        "causal": {"is_causal": True},
        "scale": {"scale": 0.7},
        "bool": {"attn_mask": allowed(T, S)},
        "bool by item": {"attn_mask": allowed(N, 1, T, S)},
        "bool by head": {"attn_mask": allowed(1, H, T, S)},
        "padding": {"attn_mask": allowed(N, 1, 1, S)},
        "padding, expanded": {"attn_mask": allowed(N, 1, 1, S).expand(N, H, T, S)},
        "float": {"attn_mask": added},
        "float by key": {"attn_mask": added[:1, :1, :1]},
        "float of two axes": {"attn_mask": added[0, 0]},
        "lowest": {"attn_mask": torch.zeros(T, S, dtype=dtype).masked_fill(~allowed(T, S), torch.finfo(dtype).min)},
        "infinite": {"attn_mask": added.masked_fill(~allowed(N, H, T, S), -math.inf), "scale": 1.0},
        "groups": {"enable_gqa": True},
        "groups, causal": {"enable_gqa": True, "is_causal": True},
        "groups, masked": {"enable_gqa": True, "attn_mask": allowed(N, H, T, S), "scale": 0.3},
    }


def qkv(form: str, dtype: torch.dtype, seed: int = 1) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    heads = 2 if form.startswith("groups") else H
    shapes = ((N, H, T, D), (N, heads, S, D), (N, heads, S, D + 1))
    each = [pair(*shape, dtype=dtype, seed=seed + n) for n, shape in enumerate(shapes)]
    return [x for x, _ in each], [b for _, b in each]


@pytest.fixture(params=[None, 1, 2 * N * H * S], ids=["one block", "single rows", "blocks of two"])
def blocks(request, monkeypatch):
    """The number of weights in a block of queries: all, or so few that the queries fall into several."""
    if request.param is not None:
        monkeypatch.setattr(engine, "ENTRIES", request.param)


@pytest.mark.usefixtures("blocks")
@DTYPES
@pytest.mark.parametrize("form", forms(torch.float64))
def test_fused_attention_is_attention_written_out(form, dtype):
    options = forms(dtype)[form]
    xs, bs = qkv(form, dtype)
    fused = difference_of(weighted(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options)), xs, bs)
    by_hand = difference_of(weighted(lambda q, k, v: written_out(q, k, v, **options)), xs, bs)
    scale = max(float(source.gradient.abs().max()) for source in by_hand.sources)
    for one, two in zip(fused.sources, by_hand.sources, strict=True):
        close(one.gradient, two.gradient, ROUNDING[dtype], scale)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("form", ["plain", "causal", "bool", "float", "infinite"])
def test_fused_attention_is_the_slow_one(form):
    """Head by head, from the rules in 40 digits."""
    options = forms(torch.float64)[form]
    xs, bs = qkv(form, torch.float64)
    p = difference_of(weighted(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options)), xs, bs)
    mask = options.get("attn_mask", torch.ones(T, S, dtype=torch.bool))
    if options.get("is_causal"):
        mask = mask.tril()
    added = torch.zeros(T, S).double().masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else mask
    added, weights = array(added.expand(N, H, T, S)), array(inputs(N, H, T, D + 1, seed=77))
    for at in np.ndindex(N, H):
        leaves = [slow.leaf(array(x[at]), array(b[at])) for x, b in zip(xs, bs, strict=True)]
        o = slow.attention(*leaves, scale=options.get("scale"), mask=added[at])
        for source, m in zip(p.sources, slow.multipliers(o, weights[at], *leaves), strict=True):
            close(source.gradient[at], m, 1e-11)


@pytest.mark.usefixtures("blocks")
@DTYPES
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_rows_that_see_nothing_are_exactly_nothing(kind, dtype):
    mask = allowed(N, 1, T, S)
    mask[0, :, 2] = mask[1, :, 4] = False
    given = mask if kind == "bool" else torch.zeros(N, 1, T, S, dtype=dtype).masked_fill(~mask, -math.inf)
    xs, bs = qkv("plain", dtype)
    p = difference_of(weighted(lambda *t: F.scaled_dot_product_attention(*t, attn_mask=given)), xs, bs)
    assert not p.sources[0].relevance[0, :, 2].any()
    assert not p.sources[0].relevance[1, :, 4].any()
    assert bool(p.sources[0].relevance[0, :, 0].any())


@pytest.mark.usefixtures("blocks")
@DTYPES
@pytest.mark.parametrize("lowest", [-math.inf, "min", -1e9, False])
def test_keys_that_nobody_sees_get_exactly_nothing(lowest, dtype):
    real = torch.tensor([1, 1, 0, 1, 0, 0], dtype=torch.bool)
    if lowest is False:
        mask = real.expand(T, S)
    else:
        low = torch.finfo(dtype).min if lowest == "min" else lowest
        mask = torch.zeros(T, S, dtype=dtype).masked_fill(~real, low)
    xs, bs = qkv("plain", dtype)
    xs[1][..., 2, :], bs[1][..., 4, :] = 30.0, -30.0
    p = difference_of(weighted(lambda *t: F.scaled_dot_product_attention(*t, attn_mask=mask)), xs, bs)
    for source in p.sources[1:]:
        assert not source.relevance[..., ~real, :].any()
        assert bool(source.relevance[..., real, :].any())


@pytest.mark.usefixtures("blocks")
@DTYPES
def test_scores_of_any_size(dtype):
    """From one end to the other, 1e4 and back: the weights jump from one key to another."""
    xs, bs = qkv("plain", dtype)
    xs[0], bs[0] = xs[0] * 300, bs[0] * 300
    xs[1], bs[1] = xs[1] * 10, bs[1] * 10
    f = weighted(F.scaled_dot_product_attention)
    difference_of(f, xs, bs, rounding=1e-10 if dtype == torch.float64 else 3e-3)


@pytest.mark.parametrize("shape", [(T, D), (H, T, D), (N, 2, H, T, D)], ids=str)
def test_any_number_of_axes_in_front(shape):
    xs, bs = zip(*(pair(*shape, seed=s) for s in range(3)), strict=True)
    fused, by_hand = (difference_of(weighted(f), xs, bs) for f in (F.scaled_dot_product_attention, written_out))
    for one, two in zip(fused.sources, by_hand.sources, strict=True):
        close(one.relevance, two.relevance)


@pytest.mark.parametrize("moving", ["q", "k", "v", "qk", "qv", "kv"])
def test_where_only_some_depend_on_the_input(moving):
    """The others are the same in both runs: constants, with both their values alike."""
    xs, bs = qkv("plain", torch.float64)
    at = ["qkv".index(letter) for letter in moving]

    def f(*given):
        full = list(xs)
        for n, t in zip(at, given, strict=True):
            full[n] = t
        return F.scaled_dot_product_attention(*full)

    p = difference_of(weighted(f), [xs[n] for n in at], [bs[n] for n in at])
    both = [bs[n] if n in at else xs[n] for n in range(3)]
    q = difference_of(weighted(written_out), xs, both)
    for source, n in zip(p.sources, at, strict=True):
        close(source.gradient, q.sources[n].gradient)


def test_one_tensor_in_all_three_places():
    x, b = pair(N, H, T, D)
    one, two = (
        difference_of(weighted(lambda t, f=f: f(t, t, t)), [x], [b])
        for f in (F.scaled_dot_product_attention, written_out)
    )
    close(one.sources[0].gradient, two.sources[0].gradient)


def test_a_bias_of_the_scores_that_depends_on_the_input():
    xs, bs = qkv("plain", torch.float64)
    for shape in ((N, H, T, S), (1, H, T, S), (T, S)):
        bias, other = pair(*shape, seed=8)
        f = lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m)  # noqa: E731
        one, two = (difference_of(weighted(g), [*xs, bias], [*bs, other]) for g in (f, written_out))
        for first, second in zip(one.sources, two.sources, strict=True):
            close(first.relevance, second.relevance, scale=float(second.relevance.abs().max()))


def test_what_is_overwritten_afterwards_is_kept_as_it_was():
    """Of both runs: scores are made again on the way back."""
    xs, bs = qkv("plain", torch.float64)

    def f(*given):
        copies = [t * 1.0 for t in given]
        o = F.scaled_dot_product_attention(*copies)
        for t in copies:
            t.mul_(0.0).add_(1.0)
        return o * sum(t.sum() for t in copies)

    size = sum(t.numel() for t in xs)
    one, two = (difference_of(weighted(g), xs, bs) for g in (f, lambda *t: written_out(*t) * size))
    for first, second in zip(one.sources, two.sources, strict=True):
        close(first.gradient, second.gradient)


def test_dropout_is_left_out():
    xs, bs = qkv("plain", torch.float64)
    p = difference(weighted(lambda *t: F.scaled_dot_product_attention(*t, dropout_p=0.5)), xs, bs, SECANT)
    q = difference_of(weighted(F.scaled_dot_product_attention), xs, bs)
    assert gap(p) <= 1e-12
    for one, two in zip(p.sources, q.sources, strict=True):
        close(one.relevance, two.relevance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype):
    xs, bs = qkv("causal", dtype)
    p = difference_of(weighted(lambda *t: F.scaled_dot_product_attention(*t, is_causal=True)), xs, bs)
    wide = [[t.double() for t in each] for each in (xs, bs)]
    weights = inputs(N, H, T, D + 1, dtype=dtype, seed=77).double()
    q = difference_of(lambda *t: (written_out(*t, is_causal=True) * weights).sum(), *wide)
    for one, two in zip(p.sources, q.sources, strict=True):
        close(one.gradient, two.gradient, 16 * torch.finfo(dtype).eps)


class SelfAttention(nn.Module):
    """Torch's own module, with its layout; `written` computes the same from its weights."""

    def __init__(self, *, batch_first: bool, bias: bool = True) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=batch_first, bias=bias)
        self.batch_first = batch_first

    def forward(self, x, **options):
        return self.inner(x, x, x, **options)[0]

    def written(self, x):
        x = x if self.batch_first else x.transpose(0, 1)
        q, k, v = F.linear(x, self.inner.in_proj_weight, self.inner.in_proj_bias).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (q, k, v))
        y = self.inner.out_proj(written_out(q, k, v).transpose(1, 2).flatten(2))
        return y if self.batch_first else y.transpose(0, 1)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_torchs_own_module_in_both_layouts(batch_first, need_weights):
    net = seeded_net(lambda: SelfAttention(batch_first=batch_first))
    x, b = pair(T, 3, 8)
    p = difference_of(weighted(lambda t: net(t, need_weights=need_weights)), [x], [b], model=net)
    q = difference_of(weighted(net.written), [x], [b])
    close(p.sources[0].relevance, q.sources[0].relevance, 1e-11)


def test_torchs_own_module_with_masks_and_another_sequence():
    net = seeded_net(lambda: nn.MultiheadAttention(8, 2, batch_first=True))
    (x, b), (y, c) = pair(2, T, 8), pair(2, S, 8, seed=4)
    hidden = ~allowed(2, S)

    def f(s, t):
        return net(
            s, t, t, key_padding_mask=hidden, attn_mask=~allowed(T, S, seed=5) & hidden.all(), need_weights=False
        )[0]

    p = difference_of(weighted(f), [x, y], [b, c], model=net)
    assert not p.sources[1].relevance[hidden].any()
    assert bool(p.sources[1].relevance[~hidden].all())
