"""Rules of linear layers and convolutions beside epsilon and 0, one function each: what each input gets.

A rule sees a `Layer`, which multiplies with any weights in place of its own, whatever its spelling. Relevance travels
as $G = R / a$; the rules below give G without dividing by a, or, in the layer that reads the input, R itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from clearhead.errors import UsageError
from clearhead.relevance.ledger import Account
from clearhead.relevance.meter import owned
from clearhead.relevance.run import Call, Run, Straight
from clearhead.rulebook import INPUT, INPUT_RULES, Choice

Range = tuple[Tensor, Tensor]


class Layer(Protocol):
    """z = w a + b, for a linear layer or a convolution; `bias` is as z can add it."""

    @property
    def weight(self) -> Tensor:
        """Its weights w."""

    @property
    def bias(self) -> Tensor | None:
        """Its bias b, if there is one."""

    def seen(self, a: Tensor, weight: Tensor) -> Tensor:
        """What the outputs see of `a` through weights: the product, without bias."""

    def sent(self, s: Tensor, weight: Tensor) -> Tensor:
        """What outputs `s` send to the inputs through weights: the transposed product."""

    def settle(self, account: Account, a: Tensor, passed: Tensor, leaks: Mapping[str, Tensor]) -> Tensor:
        """Book what each output leaked, and hand it back to the inputs that it sees."""


@dataclass(frozen=True, slots=True)
class Way:
    """One layer on the way back: its input a, output z and the gradient G that arrived, in one type of numbers.

    Without a bias, `bias` is a 0. Of a layer that reads the input, `reach` is 1 where a holds the input's entries and
    0 in a border put round it; `range` is between what they lie, where the rule asks for it.
    """

    layer: Layer
    a: Tensor
    z: Tensor
    gradient: Tensor
    weight: Tensor
    bias: Tensor
    choice: Choice
    reach: Tensor | None = None
    range: Range | None = None

    @classmethod
    def back(cls, layer: Layer, a: Tensor, z: Tensor, gradient: Tensor, choice: Choice, more: _More) -> Way:
        """The way back through a layer; half precision is computed in float32."""
        wide = torch.promote_types(gradient.dtype, torch.float32)
        bias = torch.zeros((), dtype=wide, device=z.device) if layer.bias is None else layer.bias.to(wide)
        a, z, gradient, weight = (x.to(wide) for x in (a, z, gradient, layer.weight))
        return cls(layer, a, z, gradient, weight, bias, choice, more.reach, more.range)

    @property
    def relevance(self) -> Tensor:
        """R of the outputs."""
        return self.z * self.gradient

    @property
    def up(self) -> Tensor:
        """The positive weights."""
        return self.weight.clamp(min=0)

    @property
    def down(self) -> Tensor:
        """The negative weights."""
        return self.weight.clamp(max=0)


@dataclass(frozen=True, slots=True)
class Given:
    """What the inputs get, as G or as `straight` R, and what each output gives to none of them, by cause."""

    passed: Tensor | None = None
    straight: Tensor | None = None
    leaks: dict[str, Tensor] = field(default_factory=dict)


# ---- rules of any layer --------------------------------------------------------------------------------------------


def gamma(way: Way) -> Given:
    r"""$R_i = \sum_j f(a_i w_{ij}) R_j / \sum_k f(a_k w_{kj})$, $f(p) = (1 + \gamma)\,p$ where p has the sign of $z_j$.

    With $T_j = \sum_k |a_k w_{kj}| + |b_j|$ and $g = \gamma/2$ the divisor is $z_j$ times
    $(1 + g) + g\,T_j/|z_j|$, hence $h_j = G_j\,|z_j| / ((1 + g)|z_j| + g\,T_j)$ never exceeds $G_j$, and
    $G_i = (1 + g) \sum_j w_{ij} h_j + g\,\mathrm{sign}(a_i) \sum_j |w_{ij}|\,\mathrm{sign}(z_j)\,h_j$; an output
    that nothing contributes to passes its gradient on. Montavon et al. 2019, "Layer-Wise Relevance Propagation: An
    Overview", table 1; for outputs of both signs Andeol et al. 2023, "Learning Domain Invariant Representations by
    Joint Wasserstein Distance Minimization".
    """
    layer, bias, size, half = way.layer, way.bias, way.weight.abs(), way.choice.gamma / 2
    total = layer.seen(way.a.abs(), size) + bias.abs()
    strong = way.z.abs() * (1 + half)
    kept = (way.z.abs() / strong.add_(total, alpha=half)).nan_to_num_(nan=1 / (1 + half)) * way.gradient
    side = torch.where(way.z < 0, -kept, kept)
    passed = layer.sent(kept, way.weight) * (1 + half)
    passed.addcmul_(way.a.sign(), layer.sent(side, size), value=half)
    leaks = {} if layer.bias is None else {"bias": kept * bias * (1 + half) + side * bias.abs() * half}
    return Given(passed, leaks=leaks)


def alpha_beta(way: Way) -> Given:
    r"""$R_i = \sum_j (\alpha\,p^+_{ij}/\sum_k p^+_{kj} - \beta\,p^-_{ij}/\sum_k p^-_{kj})\,R_j$, $p = a w$.

    With $q^\pm_j$ the relevance of each part by its sum, $G_i = \sum_j w^+_{ij} q^+_j + w^-_{ij} q^-_j$ where
    $a_i \geq 0$, and with $w^+$ and $w^-$ changed about where $a_i < 0$. A part that is no larger than rounding has
    nobody to go to: it leaks, as `untaken`. Bach et al. 2015, "On Pixel-Wise Explanations", equation 60.
    """
    layer, bias = way.layer, way.bias
    above, below = way.a.clamp(min=0), way.a.clamp(max=0)
    plus = layer.seen(above, way.up) + layer.seen(below, way.down) + bias.clamp(min=0)
    if way.choice.alpha == 1:  # the other part has no share, and only its size is asked for
        minus = (way.z - plus).clamp(max=0)
    else:
        minus = layer.seen(above, way.down) + layer.seen(below, way.up) + bias.clamp(max=0)
    parts = plus, minus
    least = (parts[0] - parts[1]) * torch.finfo(way.z.dtype).eps
    by, untaken = [], torch.zeros_like(way.z)
    for part, share in zip(parts, (way.choice.alpha, 1 - way.choice.alpha), strict=True):
        whole, none = way.relevance * share, part.abs() <= least
        untaken += whole.masked_fill(~none, 0)
        by.append((whole / part).masked_fill(none, 0))
    passed = torch.where(way.a < 0, _mixed(way, by[0], by[1], -1), _mixed(way, by[0], by[1], 1))
    leaks = {"untaken": untaken}
    if layer.bias is not None:
        leaks["bias"] = by[0] * bias.clamp(min=0) + by[1] * bias.clamp(max=0)
    return Given(passed, leaks=leaks)


def _mixed(way: Way, plus: Tensor, minus: Tensor, sign: int) -> Tensor:
    """What inputs of a sign get; nothing is multiplied for parts that have no share."""
    first, second = (way.up, way.down) if sign > 0 else (way.down, way.up)
    passed = way.layer.sent(plus, first)
    return passed if way.choice.alpha == 1 else passed + way.layer.sent(minus, second)


# ---- rules of the layer that reads the input -----------------------------------------------------------------------


def w2(way: Way) -> Given:
    r"""$R_i = \sum_j w_{ij}^2 R_j / \sum_k w_{kj}^2$. Montavon et al. 2017, "Explaining Nonlinear Classification
    Decisions with Deep Taylor Decomposition", section 4.
    """
    return _weighed(way, [(_reach(way), way.weight.square())])


def flat(way: Way) -> Given:
    r"""$R_i = \sum_j R_j / n_j$ over the $n_j$ inputs that output j sees. Lapuschkin et al. 2019, "Unmasking Clever
    Hans Predictors and Assessing What Machines Really Learn".
    """
    return _weighed(way, [(_reach(way), torch.ones_like(way.weight))])


def z_box(way: Way) -> Given:
    r"""$R_i = \sum_j s_{ij} R_j / \sum_k s_{kj}$, $s_{ij} = (a_i - l_i) w^+_{ij} + (a_i - h_i) w^-_{ij}$, for inputs
    between l and h. Montavon et al. 2017, "Deep Taylor Decomposition", section 4.
    """
    if way.range is None:
        raise RuntimeError("The range of the input is known before the rule is used.")
    low, high = way.range
    return _weighed(way, [((way.a - low).clamp(min=0), way.up), ((way.a - high).clamp(max=0), way.down)])


def _reach(way: Way) -> Tensor:
    if way.reach is None:
        raise RuntimeError("What the layer holds of the input is known before the rule is used.")
    return way.reach.to(way.a.dtype)


def _weighed(way: Way, shares: list[tuple[Tensor, Tensor]]) -> Given:
    """R in shares of input times weight, none of which is negative; an output without any leaks what it has."""
    whole = sum((way.layer.seen(x, w) for x, w in shares), torch.zeros_like(way.z))
    none = whole <= 0
    by = (way.relevance / whole).masked_fill(none, 0)
    straight = sum((x * way.layer.sent(by, w) for x, w in shares), torch.zeros_like(way.a))
    return Given(straight=straight, leaks={"untaken": way.relevance.masked_fill(~none, 0)})


SHARES: dict[str, Callable[[Way], Given]] = {
    "gamma": gamma, "alpha-beta": alpha_beta, "z+": alpha_beta, "w2": w2, "flat": flat, "zB": z_box,
}  # fmt: skip


# ---- the call ------------------------------------------------------------------------------------------------------


class Ruled(Function):
    """A layer under one of the rules of `SHARES`."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, own: Tensor | None, call: Call, layer: Layer, choice: Choice, more: _More
    ) -> Tensor:
        """Torch's own result, bit for bit; `own` is where the source takes what it gets straight."""
        z = owned(call.native())
        ctx.a, ctx.z = more.account.keeper.keep(a), more.account.keeper.keep(z)
        ctx.layer, ctx.choice, ctx.more = layer, choice, more
        return z

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The rule, the books, and what is handed back."""
        more: _More = ctx.more
        way = Way.back(ctx.layer, ctx.a.value, ctx.z.value, gradient, ctx.choice, more)
        given = SHARES[ctx.choice.rule](way)
        passed = torch.zeros_like(way.a) if given.passed is None else given.passed
        passed = ctx.layer.settle(more.account, way.a, passed, given.leaks).to(ctx.a.value.dtype)
        straight = more.straight.put(given.straight) if more.straight and given.straight is not None else None
        return passed, straight, None, None, None, None


@dataclass(frozen=True, slots=True)
class _More:
    """Where leaks are written down, and of the layer that reads the input, where it sends R and between what it is."""

    account: Account
    straight: Straight | None = None
    reach: Tensor | None = None
    range: Range | None = None


def propagate(run: Run, call: Call, a: Tensor, layer: Layer, choice: Choice) -> Tensor:
    """A layer under a rule of its own. Raises UsageError for a rule that does not fit the layer."""
    account, held = run.account(call), call.changed(Tensor.detach)
    if choice.rule not in INPUT_RULES:
        if choice.rule == "z+":
            choice = Choice(rule="z+", alpha=1.0)
        return Ruled.apply(a, None, held, layer, choice, _More(account))  # type: ignore[no-any-return]
    straight = run.straight(a)
    if straight is None:
        raise UsageError(
            f"The rule {choice.rule} belongs to the layer that reads the input; module {account.place.module!r} reads "
            f"what was computed before. Name it {INPUT!r} in `rules`, or give this module another rule."
        )
    reach = straight.along(torch.ones((), dtype=a.dtype, device=a.device))
    more = _More(account, straight, reach, _range(straight, a, choice) if choice.rule == "zB" else None)
    return Ruled.apply(a, straight.own, held, layer, choice, more)  # type: ignore[no-any-return]


def _range(straight: Straight, a: Tensor, choice: Choice) -> Range:
    """Between what the inputs of a layer lie. Raises UsageError where that is not known, or not so."""
    if choice.low is not None and choice.high is not None:
        ends = (torch.full((), end, dtype=a.dtype, device=a.device) for end in (choice.low, choice.high))
        low, high = (straight.along(end) for end in ends)
    elif straight.range is not None:
        low, high = (straight.along(end.to(a.device)) for end in straight.range)
    else:
        raise UsageError(
            "The rule zB needs to know between what the input lies, which is known of images only. Give `low` and "
            "`high`, or choose w2 or flat."
        )
    held, room = a.detach(), 1e-3 * (high - low)
    if bool((held < low - room).any() | (held > high + room).any()):
        raise UsageError(
            f"The rule zB needs inputs between `low` and `high`; found {float(held.min()):.4g} to "
            f"{float(held.max()):.4g} outside of {float(low.min()):.4g} to {float(high.max()):.4g}. Widen the range."
        )
    return low, high
