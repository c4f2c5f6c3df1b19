"""Models that write in place, through views and into buffers: both runs must see what was written."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearhead.relevance.secant import difference
from relevance.secant.books import SECANT, close, difference_of, gap, pair, seeded_net, weighted
from relevance.twins import inputs

C, W, ROWS = inputs(3, 4, seed=3), inputs(4, 4, seed=4), torch.tensor([2, 0, 2])


def set_column(x):
    y = x * 2
    y[:, 1] = x[:, 0] * x[:, 2]
    return y


def set_column_beside(x):
    y = x * 2
    return torch.cat([y[:, :1], (x[:, 0] * x[:, 2])[:, None], y[:, 2:]], 1)


def into_zeros(x):
    y = torch.zeros(6, 4, dtype=x.dtype)
    y[1:4] = torch.tanh(x)
    y[4] = x[0] * x[1]
    return y * y


def into_zeros_beside(x):
    zero = torch.zeros(1, 4, dtype=x.dtype)
    y = torch.cat([zero, torch.tanh(x), (x[0] * x[1])[None], zero])
    return y * y


def through_a_view(x):
    y = x.exp()
    view = y[:, 1:3]
    view.mul_(x[:, 2:])
    y.T.add_(C.T)
    return y * x


def through_a_view_beside(x):
    y = x.exp()
    y = torch.cat([y[:, :1], y[:, 1:3] * x[:, 2:], y[:, 3:]], 1) + C
    return y * x


def a_view_that_was_taken_before(x):
    y = x * 1.0
    first = y[0]
    y.mul_(x.sigmoid())
    return first * y


def a_view_that_was_taken_before_beside(x):
    y = x * x.sigmoid()
    return y[0] * y


def a_buffer_overwritten_twice(x):
    store = torch.zeros(3, 4, dtype=x.dtype)
    store.copy_(x)
    first = store * x
    store.copy_(x.tanh())
    return first + store


def a_buffer_overwritten_by_a_constant(x):
    store = x.tanh()
    first = store * x
    store[1] = 5.0
    store[:, 0].zero_()
    return first * store


def a_buffer_overwritten_by_a_constant_beside(x):
    y = x.tanh()
    keep = torch.ones_like(y)
    keep[1] = keep[:, 0] = 0
    fill = torch.zeros_like(y)
    fill[1, 1:] = 5.0
    return y * x * (y * keep + fill)


def written_after_use(x):
    """What a product kept must not change with what it was made of."""
    y = x.tanh()
    z = y * x
    y.mul_(0.0).add_(3.0)
    return z * y


def indexed(x):
    return torch.zeros(3, 4, dtype=x.dtype).index_add_(0, ROWS, x.tanh()) * x


PAIRS = {
    "add_": (lambda x: x.tanh().add_(x), lambda x: x.tanh() + x),
    "+=": (lambda x: (y := x.tanh()).__iadd__(C * x) * y, lambda x: (x.tanh() + C * x) ** 2),
    "mul_": (lambda x: x.exp().mul_(x), lambda x: x.exp() * x),
    "div_": (lambda x: x.exp().div_(1 + x * x), lambda x: x.exp() / (1 + x * x)),
    "mul_ by a constant": (lambda x: x.tanh().mul_(C) * x, lambda x: x.tanh() * C * x),
    "relu, in place": (lambda x: F.relu(x @ W, inplace=True), lambda x: F.relu(x @ W)),
    "relu_": (lambda x: (x @ W).relu_() * x, lambda x: (x @ W).relu() * x),
    "silu, in place": (lambda x: F.silu(x @ W, True) * x, lambda x: F.silu(x @ W) * x),
    "clamp_": (lambda x: (x * 2).clamp_(-1, 1), lambda x: (x * 2).clamp(-1, 1)),
    "masked_fill_": (lambda x: x.exp().masked_fill_(C > 0, 2.0) * x, lambda x: x.exp().masked_fill(C > 0, 2.0) * x),
    "copy_": (lambda x: torch.empty_like(x).copy_(x.exp()) * x, lambda x: x.exp() * x),
    "a column": (set_column, set_column_beside),
    "into zeros": (into_zeros, into_zeros_beside),
    "through a view": (through_a_view, through_a_view_beside),
    "a view from before": (a_view_that_was_taken_before, a_view_that_was_taken_before_beside),
    "a buffer, twice": (a_buffer_overwritten_twice, lambda x: x * x + x.tanh()),
    "a buffer, by a constant": (a_buffer_overwritten_by_a_constant, a_buffer_overwritten_by_a_constant_beside),
    "written after use": (written_after_use, lambda x: x.tanh() * x * 3.0),
    "index_add_": (indexed, lambda x: torch.stack([x[1], x[1] * 0, x[0] + x[2]]).tanh() * 0 + beside_indexed(x)),
    "index_put_": (
        lambda x: x.exp().index_put_((torch.tensor([0]),), x[1] * x[2]) * x,
        lambda x: torch.cat([(x[1] * x[2])[None], x[1:].exp()]) * x,
    ),
    "scatter_": (
        lambda x: x.exp().scatter_(1, ROWS[:, None], x[:, :1].tanh()) * x,
        lambda x: torch.where(F.one_hot(ROWS, 4).bool(), x[:, :1].tanh(), x.exp()) * x,
    ),
    "baddbmm_": (
        lambda x: x.exp()[None].baddbmm_(x[None], W[None]) * x,
        lambda x: (x.exp() + x @ W) * x,
    ),
    "transposed": (lambda x: x.T.exp().mul_(x.T).T * x, lambda x: x.exp() * x * x),
    "a view in another shape": (lambda x: (x * 1).view(2, 6).mul_(2).view(3, 4) * x, lambda x: 2 * x * x),
}


def beside_indexed(x):
    y = x.tanh()
    return torch.stack([y[1], torch.zeros_like(y[0]), y[0] + y[2]]) * x


@pytest.mark.parametrize("name", PAIRS)
def test_in_place_and_beside_are_the_same(name):
    x, b = pair(3, 4)
    in_place, beside = PAIRS[name]
    assert torch.allclose(in_place(x.clone()), beside(x), rtol=1e-13, atol=1e-13)
    one, two = (difference_of(weighted(f), [x], [b]) for f in (in_place, beside))
    close(one.sources[0].gradient, two.sources[0].gradient)
    assert one.value == float(weighted(in_place)(x.clone()))


def test_an_input_that_is_overwritten_by_the_model():
    x, b = pair(3, 4)
    p = difference_of(lambda t: t.add_(1).mul_(t.tanh()).sum(), [x], [b])
    close(p.sources[0].relevance, (x + 1) * (x + 1).tanh() - (b + 1) * (b + 1).tanh())


class Remembers(nn.Module):
    """Writes what it saw into a buffer of its own, and reads it back."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(5, 4, dtype=torch.float64))

    def forward(self, x):
        self.memory[1:4] = x.tanh()
        self.memory[0] += x[1] * x[2]
        return self.memory * 2


def test_a_buffer_of_the_model_that_is_written_to():
    """The value and the base are those of a model that starts anew; what it keeps afterwards is what x wrote."""
    x, b = pair(3, 4)

    def f(t):
        net.memory = torch.zeros(5, 4, dtype=torch.float64)
        return (net(t) ** 2).sum()

    net = Remembers()
    value, base = float(f(x)), float(f(b))
    p = difference(f, [x], [b], SECANT, model=net)
    assert (p.value, p.base) == pytest.approx((value, base), rel=1e-14)
    assert gap(p) <= 1e-12
    assert p.ledger == ()


def test_detached_values_are_counted_all_the_same():
    """`detach` changes no value; whatever it keeps from the input is either shared out or named."""
    x, b = pair(3, 4)
    p = difference_of(weighted(lambda t: t * t.sigmoid().detach()), [x], [b], leaks=True)
    assert {e.cause for e in p.ledger} <= {"detached"}
    assert p.value == float(weighted(lambda t: t * t.sigmoid())(x))


def test_values_without_gradients_inside_the_model():
    x, b = pair(3, 4)

    def f(t):
        with torch.no_grad():
            scale = t.abs().mean(-1, keepdim=True)
        return t / scale

    p = difference_of(weighted(f), [x], [b], leaks=True)
    assert {e.cause for e in p.ledger} <= {"detached"}


def test_dropout_is_silent():
    x, b = pair(3, 4)
    net = seeded_net(
        lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.GELU(), nn.Dropout(0.1), nn.Linear(6, 2))
    )
    p = difference_of(weighted(net), [x], [b], model=net)
    q = difference(weighted(net.train()), [x], [b], SECANT, model=net)
    assert net.training
    assert p.value == q.value
    close(q.sources[0].relevance, p.sources[0].relevance)


NETS = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 4), nn.SiLU(inplace=True)),
    "norms": lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.GELU(), nn.RMSNorm(4)),
    "encoder": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NETS)
def test_the_value_is_the_models_own_bit_for_bit(name, dtype):
    net = seeded_net(NETS[name], dtype)
    x, b = pair(2, 3, 4, dtype=dtype)
    f = weighted(net)
    p = difference_of(f, [x], [b], model=net)
    assert p.value == float(f(x))
    assert p.base == pytest.approx(float(f(b)), rel=4 * torch.finfo(dtype).eps)
