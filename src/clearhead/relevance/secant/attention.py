r"""Softmax by logarithmic means, and attention in blocks of queries, so that no table of weights is ever kept.

With $L = \ln\sum_k e^{s_k}$, $p = e^{s - L}$ and the logarithmic mean $M(a, a') = (a - a')/(\ln a - \ln a')$:
$\lambda_j = M(p_j, p_j^b)$, $w_k = M(e^{s_k}, e^{s_k^b})/M(e^{L}, e^{L^b})$ and
$m_s = \lambda m - w \sum_j \lambda_j m_j$.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from clearhead.relevance.run import Row
from clearhead.relevance.secant.carrying import carried, held
from clearhead.relevance.secant.meter import unruled
from clearhead.relevance.secant.numerics import log_mean, middle, wide
from clearhead.relevance.secant.pairs import Pair, Pairs
from clearhead.tape import dependent

ENTRIES = 2**20  # weights in a block of queries


def means(s: Tensor, s_b: Tensor, dim: int = -1) -> tuple[Tensor, Tensor, Tensor]:
    r"""$\bar p$, $\lambda$ and w of scores: in differences to the largest of each row, which rounding leaves alone."""
    (top, below, p, total), (top_b, below_b, p_b, total_b) = (_shares(each, dim) for each in (s, s_b))
    apart, inside, shift = below.sub_(below_b), total - total_b, top - top_b
    lam = log_mean(p, p_b, apart - inside)
    whole = shift + inside  # of the logarithms of both sums
    low, low_b = whole.clamp_max(0).exp_(), (-whole).clamp_max_(0).exp_()
    w = log_mean(p * low, p_b * low_b, apart.add_(shift)).div_(log_mean(low, low_b, whole))
    return p.add_(p_b).mul_(0.5), lam, w


def _shares(s: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The largest of a row, all less that, their softmax, the log of their sum; 0 where nothing can be seen."""
    top = s.amax(dim, keepdim=True)
    top.masked_fill_(top == -torch.inf, 0)
    below = s - top
    p = below.exp()
    total = p.sum(dim, keepdim=True)
    total.masked_fill_(total == 0, 1)
    return top, below, p.div_(total), total.log_()


# ---- softmax -------------------------------------------------------------------------------------------------------


def _scores(run: Pairs, call: Pair) -> tuple[Tensor, Tensor, int] | None:
    """The scores of both in their own float type, and the axis from the front; None if they are constant."""
    s = call.get(0, "input")
    if not dependent(s) or run.other(s) is None:
        return None
    dtype = call.kwargs.get("dtype")
    s = s if dtype is None else run.tape.under(Tensor.to, s, dtype)
    other = run.other(s)
    dim = call.get(1, "dim", -1)
    dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    return (s, other, dim % s.dim()) if other is not None and isinstance(dim, int) else None


def softmax(run: Pairs, call: Pair) -> Any:
    r"""`softmax(s, dim)`: $m_s = \lambda m - w \sum_j \lambda_j m_j$."""
    found = _scores(run, call)
    if found is None:
        return unruled(run, call)
    s, other, dim = found

    def back(m: Tensor, lam: Tensor, w: Tensor) -> tuple[Tensor]:
        inner = lam * m
        return (torch.addcmul(inner, w, inner.sum(dim, keepdim=True), value=-1),)

    p, (_, lam, w) = held(call).native(), means(wide(s.detach()), wide(other), dim)
    return run.pair(carried(p, (s,), back, lam.to(p.dtype), w.to(p.dtype)), call.other())


def log_softmax(run: Pairs, call: Pair) -> Any:
    r"""`log_softmax(s, dim)`: $m_s = m - w \sum_j m_j$; `logsumexp(s, dim)`: $m_s = w\,m$."""
    found = _scores(run, call)
    if found is None:
        return unruled(run, call)
    s, other, dim = found

    def back(m: Tensor, w: Tensor) -> tuple[Tensor]:
        if call.operation.name == "logsumexp":
            return (m.reshape(*w.shape[:dim], 1, *w.shape[dim + 1 :]) * w,)
        return (torch.addcmul(m, w, m.sum(dim, keepdim=True), value=-1),)

    y, (_, _, w) = held(call).native(), means(wide(s.detach()), wide(other), dim)
    return run.pair(carried(y, (s,), back, w.to(y.dtype)), call.other())


# ---- attention -----------------------------------------------------------------------------------------------------


class _Kept:
    """What attention keeps of two inputs for the way back: queries, keys and masks of both, and the mean of values."""

    def __init__(self, run: Pairs, call: Pair) -> None:
        (query, _), (value, other) = call.both(0, "query"), call.both(2, "value")
        pairs = [call.both(n, name) for n, name in ((0, "query"), (1, "key"), (3, "attn_mask"))]
        self._tensors = [tuple(None if x is None else run.keeper.keep(x.detach()) for x in pair) for pair in pairs]
        self._values = middle(value.detach(), other.detach())
        self._masked_by = dependent(call.get(3, "attn_mask"))
        self._causal = bool(call.get(5, "is_causal", False))
        scale = call.kwargs.get("scale")
        self._scale = scale if scale is not None else 1 / math.sqrt(query.shape[-1])

    def back(self, m: Tensor) -> tuple[Tensor | None, ...]:
        """The multipliers of queries, keys, values and, where it depends on the input, the mask."""
        q, q_b, k, k_b, value = map(_flat, (*self._both(0), *self._both(1), self._values))
        shape, groups, half = self._both(0)[0].shape, q.shape[0] // k.shape[0], self._scale / 2
        k, k_b, value = (_repeated(each, groups) for each in (k, k_b, value))
        m, q_sum, k_sum = _flat(m), q + q_b, k + k_b
        for_q, for_k, for_v = (torch.zeros_like(each) for each in (q, k, value))
        for_mask: list[Tensor] = []
        for rows, stop in self._blocks(q.shape[0], q.shape[1], k.shape[1]):
            weights, lam, w = self._weights(q[:, rows], q_b[:, rows], k[:, :stop], k_b[:, :stop], rows)
            own = m[:, rows]
            for_v[:, :stop].baddbmm_(weights.transpose(1, 2), own)
            inner = torch.bmm(own, value[:, :stop].transpose(1, 2)).mul_(lam)
            inner.addcmul_(w, inner.sum(-1, keepdim=True), value=-1)
            for_q[:, rows].baddbmm_(inner, k_sum[:, :stop], alpha=half)
            for_k[:, :stop].baddbmm_(inner.transpose(1, 2), q_sum[:, rows], alpha=half)
            if self._masked_by:
                for_mask.append(inner.reshape(*shape[:-2], *inner.shape[1:]))
        for_k, for_v = (_summed(each, groups) for each in (for_k, for_v))
        back = zip((for_q, for_k, for_v), (self._both(0)[0], self._both(1)[0], self._values), strict=True)
        whole = torch.cat(for_mask, -2).sum_to_size(self._both(2)[0].shape) if self._masked_by else None
        return (*(found.reshape(x.shape).to(x.dtype) for found, x in back), whole)

    def _both(self, n: int) -> tuple[Tensor, Tensor]:
        """What was kept of queries, keys or masks."""
        mine, other = self._tensors[n]
        if mine is None or other is None:
            raise ValueError("There is no mask.")
        return mine.value, other.value

    def _blocks(self, count: int, queries: int, keys: int) -> list[tuple[slice, int]]:
        """Rows of queries, and how many keys they can see."""
        size, found = max(1, ENTRIES // (count * keys)), []
        for start in range(0, queries, size):
            stop = min(start + size, queries)
            found.append((slice(start, stop), min(keys, stop) if self._causal else keys))
        return found

    def _weights(self, q: Tensor, q_b: Tensor, k: Tensor, k_b: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The mean of the weights, and both logarithmic means, of a block."""
        scores = []
        for which, (one, other) in enumerate(((q, k), (q_b, k_b))):
            s = torch.bmm(one, other.transpose(1, 2)).mul_(self._scale)
            scores.append(self._masked(s, rows, which))
        return means(scores[0], scores[1])

    def _masked(self, s: Tensor, rows: slice, which: int) -> Tensor:
        if self._causal:
            places = torch.arange(s.shape[-1], device=s.device)
            s.masked_fill_(places > torch.arange(rows.start, rows.stop, device=s.device)[:, None], -math.inf)
        kept = self._tensors[2][which]
        if kept is None:
            return s
        mask = kept.value[..., rows if kept.value.shape[-2] > 1 else slice(None), : s.shape[-1]]
        shape = self._both(0)[0].shape[:-2]
        seen = s.view(*shape, *s.shape[1:])
        if mask.dtype == torch.bool:
            seen.masked_fill_(~mask, -math.inf)
        else:
            seen.add_(mask)
        return s


def _flat(x: Tensor) -> Tensor:
    """[items and heads, positions, width], in float32 at least."""
    return wide(x).reshape(-1, *x.shape[-2:])


def _summed(x: Tensor, groups: int) -> Tensor:
    return x if groups == 1 else x.reshape(-1, groups, *x.shape[1:]).sum(1)


def _repeated(x: Tensor, groups: int) -> Tensor:
    return x if groups == 1 else x.repeat_interleave(groups, 0)


def attention(run: Pairs, call: Pair) -> Any:
    r"""`F.scaled_dot_product_attention`: $o = Pv$, $P = \mathrm{softmax}(\alpha q k^T + \text{mask})$, part by part.

    The result is torch's own, on whatever kernel it chooses. What is kept for the way back is linear in the length:
    scores are made again there, in blocks of queries.
    """
    call = _undropped(call)
    query, key, value, mask = (call.get(n, name) for n, name in enumerate(("query", "key", "value", "attn_mask")))
    if query.shape[:-3] != key.shape[:-3] or key.shape[:-2] != value.shape[:-2]:
        return unruled(run, call)
    result = carried(held(call).native(), (query, key, value, mask), _Kept(run, call).back)
    return run.pair(result, call.other())


def _undropped(call: Pair) -> Pair:
    """The same call without dropout: explanations are made in evaluation mode."""
    if not call.get(4, "dropout_p", 0.0):
        return call

    def without(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kept = {name: value for name, value in kwargs.items() if name != "dropout_p"}
        return (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args, kept

    mine, others = without(call.args, call.kwargs), without(call.other_args, call.other_kwargs or {})
    return Pair(call.operation, call.function, *mine, *others)


ROWS = {
    **dict.fromkeys("softmax _safe_softmax _softmax".split(), Row(softmax, "m_s = lam m - w sum(lam m)")),
    **dict.fromkeys("log_softmax logsumexp".split(), Row(log_softmax, "m_s = m - w sum(m); of the sum alone, w m")),
    "scaled_dot_product_attention": Row(attention, "matmul, softmax, matmul, in blocks of queries"),
}
