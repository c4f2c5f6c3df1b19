"""Recurrent layers as the loops they are: each step's gates, products and sums meet their own rules.

Under lrp gates are constants, so that all relevance goes through the signal: Arras et al. 2017, "Explaining Recurrent
Neural Network Predictions in Sentiment Analysis", section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.relevance.run import Call, Row, Run

State = tuple[Tensor, ...]  # hidden, and for lstm the cell too [B, width]
Step = Callable[[Tensor, State, Sequence[Tensor]], State]


def lstm_step(x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
    r"""$c' = \sigma(f)\,c + \sigma(i)\tanh(g)$, $h' = \sigma(o)\tanh(c')$, projected if there is a matrix for it."""
    h, c = state
    halves, projection = _halves(weights, 2), weights[-1] if len(weights) % 2 else None
    i, f, g, o = (F.linear(x, *halves[0]) + F.linear(h, *halves[1])).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if projection is None else F.linear(h, projection)), c


def gru_step(x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
    r"""$n = \tanh(W x + \sigma(r)\,U h)$, $h' = (1 - \sigma(z))\,n + \sigma(z)\,h$."""
    (h,), halves = state, _halves(weights, 2)
    r, z, n = F.linear(x, *halves[0]).chunk(3, -1)
    r_h, z_h, n_h = F.linear(h, *halves[1]).chunk(3, -1)
    z = (z + z_h).sigmoid()
    n = (n + (r + r_h).sigmoid() * n_h).tanh()
    return (n - z * n + z * h,)


def plain_step(function: Callable[[Tensor], Tensor]) -> Step:
    """The step of a plain recurrent layer."""

    def step(x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
        halves = _halves(weights, 2)
        return (function(F.linear(x, *halves[0]) + F.linear(state[0], *halves[1])),)

    return step


def _halves(weights: Sequence[Tensor], count: int) -> list[Sequence[Tensor]]:
    """The matrix and bias for what is read, and those for the state."""
    return [weights[n : 2 * count : count] if len(weights) >= 2 * count else weights[n : n + 1] for n in range(count)]


def layers(
    step: Step,
    input: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """All steps of all layers, in both directions where asked: what was put out, and the last states."""
    x = input.transpose(0, 1) if batch_first else input
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    last: list[State] = []
    for layer in range(num_layers):
        put_out = []
        for direction in range(directions):
            n = layer * directions + direction
            state, weights = tuple(h[n] for h in hx), params[n * each : (n + 1) * each]
            times = range(x.shape[0]) if direction == 0 else reversed(range(x.shape[0]))
            found: dict[int, Tensor] = {}
            for t in times:
                state = step(x[t], state, weights)
                found[t] = state[0]
            put_out.append(torch.stack([found[t] for t in range(x.shape[0])]))
            last.append(state)
        x = put_out[0] if directions == 1 else torch.cat(put_out, -1)
    ends = [torch.stack(parts) for parts in zip(*last, strict=True)]
    return (x.transpose(0, 1) if batch_first else x), *ends


def recurrent(step: Step) -> Callable[[Run, Call], Any]:
    """The row of a recurrent layer; packed sequences, whose second argument is a tensor, are metered."""

    def apply(run: Run, call: Call) -> Any:
        if isinstance(call.args[1], Tensor) and call.args[1].dim() == 1:
            return run.apply(None, call)
        given, hx, *rest = call.args
        states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        return run.tape.under(lambda: layers(step, given, states, *rest))

    return apply


def cell(step: Step) -> Callable[[Run, Call], Any]:
    """The row of a single step: `(input, hx, w_ih, w_hh, b_ih, b_hh)`."""

    def once(x: Tensor, hx: Any, *weights: Tensor | None) -> Any:
        held = [weight for weight in weights if weight is not None]
        found = step(x, (hx,) if isinstance(hx, Tensor) else tuple(hx), held)
        return found if len(found) > 1 else found[0]

    def apply(run: Run, call: Call) -> Any:
        return run.tape.under(once, *call.args, **call.kwargs)

    return apply


_LOOP = "a loop over its steps; gates are constants under lrp"
ROWS = {
    "lstm": Row(recurrent(lstm_step), _LOOP),
    "gru": Row(recurrent(gru_step), _LOOP),
    "lstm_cell": Row(cell(lstm_step), _LOOP),
    "gru_cell": Row(cell(gru_step), _LOOP),
    "rnn_tanh_cell": Row(cell(plain_step(torch.tanh)), _LOOP),
    "rnn_relu_cell": Row(cell(plain_step(torch.relu)), _LOOP),
    "rnn_tanh": Row(recurrent(plain_step(torch.tanh)), _LOOP),
    "rnn_relu": Row(recurrent(plain_step(torch.relu)), _LOOP),
}
