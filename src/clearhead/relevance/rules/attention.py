"""Attention: softmax as a constant (`cp`) or by its own gradient (`attnlrp`), fused and hand-written alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from clearhead.relevance.ledger import Account
from clearhead.relevance.meter import metered_rows
from clearhead.relevance.numerics import row_dot
from clearhead.relevance.rules.norms import constant
from clearhead.relevance.run import Call, Row, Run
from clearhead.tape import dependent

_TENSORS = ("query", "key", "value", "attn_mask")


def softmax(run: Run, call: Call) -> Any:
    """`softmax(s)`: a constant under `cp`; under `attnlrp` torch's gradient, and what it absorbs is the leak."""
    if run.settings.attention == "cp":
        return constant(run, call)
    return metered_rows(run, call, "softmax")


def log_softmax(run: Run, call: Call) -> Any:
    """`log_softmax(s)`: what the normaliser takes is the leak."""
    return metered_rows(run, call, "softmax")


def attention(run: Run, call: Call) -> Any:
    """`F.scaled_dot_product_attention(q, k, v, ...)`, on whatever kernel torch chooses."""
    call = _undropped(call)
    if run.settings.attention == "cp":
        return _through_values(call)
    if run.returns:
        return run.tape.under(explicit, *call.args, **call.kwargs)
    return _through_all(run, call)


def _undropped(call: Call) -> Call:
    """The same call without dropout: explanations are made in evaluation mode."""
    if not call.get(4, "dropout_p", 0.0):
        return call
    args = (*call.args[:4], 0.0, *call.args[5:]) if len(call.args) > 4 else call.args
    kwargs = {name: value for name, value in call.kwargs.items() if name != "dropout_p"}
    return Call(call.operation, call.function, args, kwargs)


def _through_values(call: Call) -> Any:
    """`cp`: queries and keys are constants."""
    query, key, *rest = call.args if len(call.args) > 1 else (call.kwargs["query"], call.kwargs["key"])
    kwargs = {name: value for name, value in call.kwargs.items() if name not in ("query", "key")}
    if len(rest) > 1 and dependent(rest[1]):
        rest[1] = rest[1].detach()
    if dependent(kwargs.get("attn_mask")):
        kwargs["attn_mask"] = kwargs["attn_mask"].detach()
    return call.function(query.detach(), key.detach(), *rest, **kwargs)


class Attention(Function):
    r"""$y = \mathrm{softmax}(qk^T)\,v$ on any kernel: v gets 1/2, q and k (and a dependent bias) 1/4 each.

    These are shares of torch's own gradients. What none of them takes, $\sum y G_y - \sum x G_x$, is softmax's.
    Achtibat et al. 2024, "AttnLRP", section 3.3.
    """

    @staticmethod
    def forward(ctx: Any, account: Account, compute: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
        """Torch's own result, with a graph of its own behind it."""
        query, key, value, mask = (dependent(x) for x in tensors)
        both, score = value and (query or key or mask), 0.5 if query and key else 1.0
        half = 0.5 if both else 1.0
        ctx.account, ctx.shares = account, (score * half, score * half, half, half)
        with torch.enable_grad():
            ctx.leaves = [x.detach().requires_grad_() if x is not None and dependent(x) else x for x in tensors]
            ctx.result = compute(*ctx.leaves)
        return ctx.result.detach()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The shares, and the books."""
        account, leaves = ctx.account, ctx.leaves
        account.book("softmax", row_dot(ctx.result.detach(), gradient))
        moving = [n for n, x in enumerate(leaves) if dependent(x)]
        own = torch.autograd.grad(ctx.result, [leaves[n] for n in moving], gradient, retain_graph=True)
        passed: list[Tensor | None] = [None] * len(leaves)
        for n, found in zip(moving, own, strict=True):
            passed[n] = found if ctx.shares[n] == 1 else found * ctx.shares[n]
            account.book("softmax", row_dot(leaves[n].detach(), passed[n]).neg_())
        return None, None, *passed


def _through_all(run: Run, call: Call) -> Tensor:
    """`attnlrp` without materialised weights."""
    tensors = [call.get(position, name) for position, name in enumerate(_TENSORS)]
    options = {name: option for name, option in call.kwargs.items() if name not in _TENSORS}

    def compute(*entered: Tensor | None) -> Tensor:
        return call.function(*entered, *call.args[4:], **options)  # type: ignore[no-any-return]

    return Attention.apply(run.account(call), compute, *tensors)  # type: ignore[no-any-return]


def explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention written out, so that each of its parts meets its own rule; `dropout_p` is ignored on purpose."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = query @ key.transpose(-2, -1) * (scale if scale is not None else 1 / math.sqrt(query.shape[-1]))
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -math.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch._safe_softmax(scores, -1) @ value  # a row that may see nothing is 0, as in the fused kernels


ROWS = {
    "softmax": Row(softmax, "cp: a constant; attnlrp: its gradient", ("softmax",)),
    "_safe_softmax": Row(softmax, "cp: a constant; attnlrp: its gradient", ("softmax",)),
    "_softmax": Row(softmax, "cp: a constant; attnlrp: its gradient", ("softmax",)),
    "log_softmax": Row(log_softmax, "its gradient", ("softmax",)),
    "scaled_dot_product_attention": Row(attention, "cp: all to V; attnlrp: V 1/2, Q and K 1/4 each", ("softmax",)),
}
