"""Recurrent layers: the loop gives what torch's own kernel gives, and relevance goes through the signal alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clearhead.config import Settings
from clearhead.errors import UnruledOperationError
from clearhead.relevance import propagate
from clearhead.relevance.secant import difference
from relevance.secant.books import close
from relevance.twins import EXTREMES, RECORD, booked, inputs, lively, named, residual

LAYERS = {
    "lstm": lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True),
    "lstm, projected": lambda: nn.LSTM(4, 3, proj_size=2, batch_first=True),
    "lstm without bias": lambda: nn.LSTM(4, 3, bias=False),
    "gru": lambda: nn.GRU(4, 3, num_layers=2, batch_first=True),
    "gru without bias": lambda: nn.GRU(4, 3, bias=False, bidirectional=True),
    "tanh": lambda: nn.RNN(4, 3),
    "relu": lambda: nn.RNN(4, 3, nonlinearity="relu", bidirectional=True),
}
CELLS = {
    "lstm_cell": lambda: nn.LSTMCell(4, 3),
    "gru_cell": lambda: nn.GRUCell(4, 3, bias=False),
    "tanh_cell": lambda: nn.RNNCell(4, 3),
    "relu_cell": lambda: nn.RNNCell(4, 3, nonlinearity="relu"),
}
SECANT = Settings(method="secant")


def layer(name: str) -> nn.Module:
    torch.manual_seed(0)
    return lively(LAYERS[name]().double()).requires_grad_(False).eval()


def read(net: nn.Module):
    """Something that depends on all that is put out, and on the last states."""

    def f(x):
        y, state = net(x)
        every = [y, *(state if isinstance(state, tuple) else (state,))]
        return sum((each * inputs(*each.shape, seed=7)).sum() for each in every)

    return f


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("name", LAYERS)
def test_the_books_close_and_the_value_is_torchs_own(name, settings):
    net, x = layer(name), inputs(3, 2, 4)
    p = propagate(read(net), [x], settings, model=net)
    assert p.value == pytest.approx(float(read(net)(x)), rel=1e-12)
    assert residual(p) < 1e-12
    assert all(cause != "unruled" for cause, _ in booked(p))


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_a_layer_of_one_step(name):
    """The same weights in a layer, for a sequence of one: the same relevance."""
    torch.manual_seed(0)
    one = lively(CELLS[name]().double()).requires_grad_(False)
    kind = {"lstm_cell": nn.LSTM, "gru_cell": nn.GRU}.get(name, nn.RNN)
    more = {"nonlinearity": "relu"} if name == "relu_cell" else {}
    whole = kind(4, 3, bias=one.bias, **more).double().requires_grad_(False)
    whole.load_state_dict({f"{key}_l0": value for key, value in one.state_dict().items()})
    weights, x = inputs(2, 3, seed=5), inputs(2, 4)

    def single(t):
        found = one(t)
        return ((found[0] if isinstance(found, tuple) else found) * weights).sum()

    found = propagate(single, [x], Settings(), model=one)
    layered = propagate(lambda t: (whole(t[None])[0][0] * weights).sum(), [x], Settings(), model=whole)
    close(found.sources[0].relevance, layered.sources[0].relevance)
    assert difference(single, [x], [inputs(2, 4, seed=9)], SECANT, model=one).ledger == ()


@pytest.mark.parametrize("name", LAYERS)
def test_the_difference_between_two_sequences_is_shared_out(name):
    net, (x, b) = layer(name), (inputs(3, 2, 4), inputs(3, 2, 4, seed=9))
    p = difference(read(net), [x], [b], SECANT, model=net)
    assert p.ledger == ()
    assert p.value - p.base == pytest.approx(float(p.sources[0].relevance.sum()), rel=1e-10)
    assert p.base == pytest.approx(float(read(net)(b)), rel=1e-10)


def frozen(pre: torch.Tensor) -> torch.Tensor:
    """tanh as the line from the origin through its value: the identity rule, as a plain gradient sees it."""
    return pre * (pre.tanh() / pre).detach()


def signal_of_lstm(net: nn.LSTM, x: torch.Tensor) -> torch.Tensor:
    """The state after all steps, with gates held: what carries relevance, by hand."""
    w, u, b, c = net.weight_ih_l0, net.weight_hh_l0, net.bias_ih_l0, net.bias_hh_l0
    h = cell = torch.zeros(x.shape[1], 3, dtype=x.dtype)
    for t in range(len(x)):
        i, f, g, o = (x[t] @ w.T + b + h @ u.T + c).chunk(4, -1)
        cell = f.sigmoid().detach() * cell + i.sigmoid().detach() * frozen(g)
        h = o.sigmoid().detach() * frozen(cell)
    return h


def test_lrp_takes_all_through_the_signal():
    """Gates as constants, gradient times input of what is left: Arras et al. 2017, by hand."""
    torch.manual_seed(0)
    net, weights = lively(nn.LSTM(4, 3).double()).requires_grad_(False), inputs(2, 3, seed=4)
    x = inputs(5, 2, 4).requires_grad_()
    (gradient,) = torch.autograd.grad((signal_of_lstm(net, x) * weights).sum(), x)
    p = propagate(lambda t: (net(t)[1][0][0] * weights).sum(), [x.detach()], RECORD, model=net)
    close(p.sources[0].relevance, (x * gradient).detach(), 1e-10)


def test_packed_sequences_are_metered():
    """Their steps have different batches; what the gradient does not carry is named."""
    net, x = layer("lstm without bias"), inputs(3, 2, 4)

    def f(t):
        packed = nn.utils.rnn.pack_padded_sequence(t, torch.tensor([3, 2]))
        return nn.utils.rnn.pad_packed_sequence(net(packed)[0])[0].sum()

    p = propagate(f, [x], RECORD, model=net)
    assert p.value == pytest.approx(float(f(x)), rel=1e-12)
    assert residual(p) < 1e-12
    assert ("unruled", False) in booked(p)
    d = difference(f, [x], [b := inputs(3, 2, 4, seed=9)], SECANT, model=net)
    lost = sum(entry.relevance for entry in d.ledger)
    assert {entry.cause for entry in d.ledger} == {"unruled"}
    assert d.base == pytest.approx(float(f(b)), rel=1e-10)
    assert float(d.sources[0].relevance.sum()) + lost == pytest.approx(d.value - d.base, rel=1e-10)
    with pytest.raises(UnruledOperationError, match=r"`_pack_padded_sequence`"):
        propagate(f, [x], Settings(strict=True), model=net)
