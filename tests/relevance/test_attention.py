"""Attention, fused and written out, with every kind of mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import oracles
from clearhead.relevance import propagate
from relevance.strategies import choices, examples, values
from relevance.twins import KINDS, SETTINGS, array, booked, inputs, named, residual, rules


@st.composite
def masks(draw, T: int) -> torch.Tensor | None:
    """Everything, the past, or the tokens before some padding, allowed."""
    kind = draw(st.sampled_from(["none", "all", "causal", "padding", "both", "any"]))
    if kind == "none":
        return None
    allowed = torch.ones(T, T, dtype=torch.bool)
    if kind in {"causal", "both"}:
        allowed = allowed.tril()
    if kind in {"padding", "both"}:
        allowed = allowed & (torch.arange(T) < draw(st.integers(1, T)))
    if kind == "any":
        allowed = (inputs(T, T, seed=draw(st.integers(0, 99))) > 0) | torch.eye(T, dtype=torch.bool)
    return allowed


def fused(q, k, v, *, mask, scale, added):
    if mask is not None and added is not None:
        mask, added = torch.where(mask, added, -torch.inf), None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=added if mask is None else mask, scale=scale)


def written_out(q, k, v, *, mask, scale, added):
    s = (q @ k.transpose(-2, -1)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    s = s if added is None else s + added
    s = s if mask is None else s.masked_fill(~mask, -torch.inf)
    return torch.softmax(s, dim=-1) @ v


def explained_head(f, qkv, weights, settings, **options):
    return propagate(lambda q, k, v: (f(q, k, v, **options) * weights).sum(), qkv, settings)


def judged(p, head: oracles.Head, weights, settings, tolerance: float) -> None:
    books = oracles.Books(rules(settings))
    expected = head.backward(head.o * array(weights), books)
    scale = max(abs(R).sum() for R in expected) + 1e-290
    for source, R in zip(p.sources, expected, strict=True):
        np.testing.assert_allclose(source.relevance.reshape(R.shape), R, rtol=0, atol=tolerance * scale)
    for key, amount in books.entries.items():
        assert booked(p)[key] == pytest.approx(amount, abs=tolerance * scale), key
    assert residual(p) <= (1e-12 if tolerance < 1e-6 else 1e-5)


@pytest.mark.parametrize("f", [fused, written_out])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@given(data=st.data(), settings=choices, scale=st.sampled_from([None, 0.3, 1.0]))
@examples
def test_attention(f, dtype, data, settings, scale):
    T, d = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    mask = data.draw(masks(T))
    qkv = [data.draw(values(1, 1, T, d, dtype=dtype, awkward=False)) for _ in range(3)]
    weights = inputs(T, d, dtype=dtype, seed=9)
    head = oracles.Head(*(array(t)[0, 0] for t in qkv), allowed=None if mask is None else mask.numpy(), scale=scale)
    p = explained_head(f, qkv, weights, settings, mask=mask, scale=scale, added=None)
    judged(p, head, weights, settings, 1e-9 if dtype == torch.float64 else 1e-4)
    if mask is not None:
        unseen = ~mask.any(0)
        assert not any(s.relevance[..., unseen, :].any() for s in p.sources[1:])


@pytest.mark.parametrize("settings", SETTINGS, ids=named)
def test_scores_with_a_constant_bias_written_out(settings):
    """As in models with relative positions: the bias of the scores leaks where it is added."""
    qkv, weights, added = [inputs(4, 2, seed=s) for s in range(3)], inputs(4, 2, seed=9), inputs(4, 4, seed=5)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    p = explained_head(written_out, qkv, weights, settings, mask=mask, scale=None, added=added)
    head = oracles.Head(*(array(t) for t in qkv), allowed=mask.numpy(), bias=array(added))
    judged(p, head, weights, settings, 1e-9)


@pytest.mark.parametrize("settings", [s for s in SETTINGS if s.leak == "record"], ids=named)
@pytest.mark.parametrize("biased", [False, True])
def test_fused_and_written_out_are_identical(settings, biased):
    qkv, weights = [inputs(2, 3, 4, 2, seed=s) for s in range(3)], inputs(4, 2, seed=9)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    options = {"mask": mask, "scale": None, "added": inputs(3, 4, 4, seed=5) if biased else None}
    one, two = (explained_head(f, qkv, weights, settings, **options) for f in (fused, written_out))
    for a, b in zip(one.sources, two.sources, strict=True):
        np.testing.assert_allclose(a.relevance, b.relevance, rtol=1e-9, atol=1e-12)
    sums = [sum(entry.relevance for entry in p.ledger) for p in (one, two)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-9, abs=1e-12)
    assert residual(one) <= 1e-12


@pytest.mark.parametrize("settings", KINDS, ids=named)
@pytest.mark.parametrize("spelling", ["causal", "bool", "float"])
def test_spellings_of_a_causal_mask(spelling, settings):
    qkv, weights = [inputs(1, 1, 4, 2, seed=s) for s in range(3)], inputs(4, 2, seed=9)
    allowed = torch.ones(4, 4, dtype=torch.bool).tril()
    added = torch.zeros(4, 4, dtype=torch.float64).masked_fill(~allowed, -torch.inf)
    options = {"causal": {"is_causal": True}, "bool": {"attn_mask": allowed}, "float": {"attn_mask": added}}[spelling]
    p = explained_head(F.scaled_dot_product_attention, qkv, weights, settings, **options)
    judged(p, oracles.Head(*(array(t)[0, 0] for t in qkv), allowed=allowed.numpy()), weights, settings, 1e-9)


@pytest.mark.parametrize("settings", KINDS, ids=named)
@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("lowest", [-torch.inf, torch.finfo(torch.float32).min, -1e9])
def test_padding_gets_exactly_nothing(lowest, written, settings):
    """However low the mask is: infinite, the lowest number, or just low."""
    for dtype in (torch.float32, torch.float64):
        x, W = inputs(2, 4, 3, dtype=dtype), inputs(3, 3, seed=2, dtype=dtype)
        real = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
        added = torch.zeros(2, 1, 4, dtype=dtype).masked_fill(~real[:, None], lowest)
        if not written:
            added = added.expand(2, 4, 4)

        def f(t, W=W, added=added):
            q, k, v = F.linear(t, W), F.linear(t, W.T), F.linear(t, W @ W)
            if written:
                o = torch.softmax(q @ k.transpose(1, 2) + added, -1) @ v
            else:
                o = F.scaled_dot_product_attention(q, k, v, attn_mask=added)
            return o[:, 0].sum()

        p = propagate(f, [x], settings)
        R = p.sources[0].relevance
        assert not R[~real].any()
        assert R[:, 0].any()
        assert torch.isfinite(R).all()
        assert residual(p) <= (1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("settings", [s for s in KINDS if s.attention == "attnlrp"], ids=named)
def test_a_softmax_leak_is_not_returned_to_scores_it_never_saw(settings):
    """The lowest number as a mask is finite; the shares of the unmasked scores must not depend on it."""
    qkv, weights = [inputs(4, 2, seed=s) for s in range(3)], inputs(4, 2, seed=9)
    allowed = torch.ones(4, 4, dtype=torch.bool).tril()
    added = torch.zeros(4, 4, dtype=torch.float64).masked_fill(~allowed, torch.finfo(torch.float32).min)
    p = explained_head(written_out, qkv, weights, settings, mask=None, scale=None, added=added)
    head = oracles.Head(*(array(t) for t in qkv), allowed=allowed.numpy())
    expected = head.backward(head.o * array(weights), oracles.Books(rules(settings)))
    for source, R in zip(p.sources, expected, strict=True):
        np.testing.assert_allclose(source.relevance, R, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_a_row_that_may_see_nothing_is_finite(settings):
    """A bool mask without a single allowed key: the kernel gives zeros, the relevance is zero."""
    qkv = [inputs(1, 1, 3, 2, seed=s) for s in range(3)]
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    p = explained_head(F.scaled_dot_product_attention, qkv, torch.ones(2).double(), settings, attn_mask=mask)
    assert all(torch.isfinite(source.relevance).all() for source in p.sources)
    assert residual(p) <= 1e-12
    assert not p.sources[0].relevance[0, 0, 1].any()


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_dropped_weights_are_not_dropped(settings):
    """Dropout is the identity inside the fused kernel too, or an explanation would be another one at every call."""
    qkv, weights = [inputs(1, 1, 4, 2, seed=s) for s in range(3)], inputs(4, 2, seed=9)
    before = torch.get_rng_state()
    one, two = (explained_head(F.scaled_dot_product_attention, qkv, weights, settings, dropout_p=p) for p in (0.0, 0.5))
    assert torch.equal(torch.get_rng_state(), before)
    assert two.value == pytest.approx(one.value, rel=1e-12)
    for a, b in zip(one.sources, two.sources, strict=True):
        np.testing.assert_allclose(b.relevance, a.relevance, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_one_tensor_as_queries_keys_and_values(settings):
    """Shares go by place, not by tensor: fused and written out agree when a model passes the same tensor thrice."""
    x, weights = inputs(1, 1, 4, 2), inputs(4, 2, seed=9)
    fused_one = propagate(lambda t: (F.scaled_dot_product_attention(t, t, t) * weights).sum(), [x], settings)

    def written(t):
        return (torch.softmax(t @ t.transpose(-2, -1) / 2**0.5, -1) @ t * weights).sum()

    np.testing.assert_allclose(
        fused_one.sources[0].relevance, propagate(written, [x], settings).sources[0].relevance, rtol=1e-9, atol=1e-12
    )
    assert residual(fused_one) <= 1e-12
