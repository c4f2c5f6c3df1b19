"""Sums are linear; a quotient is a product with a reciprocal."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from clearhead.relevance.run import Row
from clearhead.relevance.secant.carrying import carried, fitted, held
from clearhead.relevance.secant.linear import NATIVE, native
from clearhead.relevance.secant.meter import unruled
from clearhead.relevance.secant.numerics import middle
from clearhead.relevance.secant.pairs import Pair, Pairs
from clearhead.tape import dependent


def div(run: Pairs, call: Pair) -> Any:
    r"""$u / v$ as $u \cdot v^{-1}$: $m_u = m\,\overline{v^{-1}}$, $m_v = -m\,\bar u / (v v_b)$."""
    u, v = call.get(0, "input"), call.get(1, "other")
    if call.kwargs.get("rounding_mode") is not None:
        return unruled(run, call)
    if not dependent(v):
        return native(run, call)
    other = run.other(v)
    ones = v.detach().reciprocal(), (v.detach() if other is None else other).reciprocal()
    mean = run.middle(u) if isinstance(u, Tensor) else u

    def back(m: Tensor, by_u: Tensor, by_v: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return fitted(m * by_u, u), fitted(m * by_v, v)

    result = carried(held(call).native(), (u, v), back, middle(*ones), -ones[0] * mean * ones[1])
    return run.pair(result, call.other())


def detach(run: Pairs, call: Pair) -> Tensor:
    """The model's own `detach`: it changes no value, so it takes nothing from a difference."""
    x: Tensor = call.args[0]
    other = run.other(x)
    return x if other is None else run.pair(x.view_as(x), other)


ROWS = {
    **dict.fromkeys("add sub rsub neg".split(), NATIVE),
    "div": Row(div, "a product with the reciprocal"),
    "detach": Row(detach, "as is"),
}
