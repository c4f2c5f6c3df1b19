"""Attention: softmax as a constant (`cp`) or by its own gradient (`attnlrp`), fused and hand-written alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Quarters:
    r"""$y = \mathrm{softmax}(qk^T)\,v$ on any kernel: v gets 1/2, q and k (and a dependent bias) 1/4 each.

    These are shares of torch's own gradients. What none of them takes, $\sum y G_y - \sum x G_x$, is softmax's.
    Achtibat et al. 2024, "AttnLRP", section 3.3.
    """

    tensors: tuple[Tensor | None, ...]
    account: Account

    def passed(self, y: Tensor, gradient: Tensor, own: Iterator[Tensor]) -> list[Tensor | None]:
        """What each tensor gets of its `own` gradient, which is scaled in place, and the books."""
        query, key, value, mask = map(dependent, self.tensors)
        half = 0.5 if value and (query or key or mask) else 1.0
        score = half / 2 if query and key else half
        self.account.book("softmax", row_dot(y, gradient))
        passed: list[Tensor | None] = []
        for x, share in zip(self.tensors, (score, score, half, half), strict=True):
            if x is None or not dependent(x):
                passed.append(None)
                continue
            found = next(own)
            passed.append(found if share == 1 else found.mul_(share))
            self.account.book("softmax", row_dot(x, found).neg_())
        return passed


class Attention(Function):
    """Attention whose kernel has no single way back: a graph of its own is kept behind it."""

    @staticmethod
    def forward(ctx: Any, rule: Quarters, compute: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
        """Torch's own result."""
        ctx.rule = rule
        with torch.enable_grad():
            ctx.leaves = [x.detach().requires_grad_() if x is not None and dependent(x) else x for x in tensors]
            ctx.result = compute(*ctx.leaves)
        return ctx.result.detach()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The way back through that graph."""
        moving = [x for x in ctx.leaves if dependent(x)]
        own = torch.autograd.grad(ctx.result, moving, gradient, retain_graph=True)
        return None, None, *ctx.rule.passed(ctx.result.detach(), gradient, iter(own))


def _through_all(run: Run, call: Call) -> Tensor:
    """`attnlrp` without materialised weights."""
    tensors = tuple(call.get(position, name) for position, name in enumerate(_TENSORS))
    options = {name: option for name, option in call.kwargs.items() if name not in _TENSORS}
    rule = Quarters(tensors, run.account(call))

    def compute(*entered: Tensor | None) -> Tensor:
        return call.function(*entered, *call.args[4:], **options)  # type: ignore[no-any-return]

    result, moving = compute(*tensors), [x.grad_fn for x in tensors if x is not None and dependent(x)]
    node: Any = result.grad_fn
    if [before for before, _ in node.next_functions if before is not None] != moving:
        return Attention.apply(rule, compute, *tensors)  # type: ignore[no-any-return]
    waiting = [(rule, result.detach())]

    def shared(own: tuple[Tensor | None, ...], gradients: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        rule, y = waiting.pop() if run.keeper.last else waiting[0]
        passed = iter([x for x in rule.passed(y, gradients[0], (x for x in own if x is not None)) if x is not None])
        return tuple(x if x is None else next(passed) for x in own)

    node.register_hook(shared)
    return result


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
