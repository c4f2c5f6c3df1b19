"""Rules beside epsilon and 0 against every contribution by itself: linear, convolutions, what reads the input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import layer_oracles
from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.relevance import audit, propagate
from clearhead.relevance.rules.layers import SHARES
from clearhead.rulebook import INPUT_RULES, RULEBOOK
from relevance.strategies import checked, examples, values
from relevance.test_convolution import CASES
from relevance.twins import agree, array, booked, inputs, lively, named, residual

NUMBERS = {
    "gamma": [{"gamma": 0.25}, {"gamma": 3.0}, {"gamma": 0.0}],
    "alpha-beta": [{"alpha": 2.0}, {"alpha": 1.5}],
    "z+": [{}],
}
LEAKS = ("return", "record")
EACH = [(rule, numbers) for rule, several in NUMBERS.items() for numbers in several]
OPTIONS = {  # of the cases that convolutions are tested on
    "1d strided": {"stride": 2, "padding": 1},
    "2d patches": {"stride": 2},
    "2d padded, dilated": {"padding": 2, "dilation": 2},
    "2d grouped": {"groups": 2},
    "1d transposed": {"stride": 2, "transposed": True},
    "2d transposed, grouped": {"groups": 2, "transposed": True},
}


def rounding(x: torch.Tensor) -> float:
    return layer_oracles.ROUNDING[str(x.dtype).removeprefix("torch.")]


@st.composite
def linear(draw):
    """An input with zeros and tiny values among its entries, weights of both signs with zeros, a bias or none."""
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    B, T, d, out = (draw(st.integers(1, n)) for n in (2, 2, 5, 4))
    W = inputs(out, d, dtype=dtype, seed=draw(st.integers(0, 10**6)))
    if draw(st.booleans()):
        W.view(-1)[draw(st.integers(0, W.numel() - 1))] = 0.0
    b = inputs(out, dtype=dtype, seed=draw(st.integers(0, 10**6))) if draw(st.booleans()) else None
    return draw(values(B, T, d, dtype=dtype)), W, b


def test_every_rule_of_the_book_has_a_function_and_an_oracle():
    assert set(SHARES) == set(layer_oracles.RULES) == set(RULEBOOK) - {"epsilon", "0"}
    assert set(NUMBERS) | set(INPUT_RULES) == set(SHARES)


# ---- linear layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", NUMBERS)
@given(problem=linear(), numbers=st.data(), leak=st.sampled_from(LEAKS), seed=st.integers(0, 10**6))
@examples
def test_linear(rule, problem, numbers, leak, seed):
    x, W, b = problem
    chosen = numbers.draw(st.sampled_from(NUMBERS[rule]))
    weights = inputs(*x.shape[:-1], len(W), seed=seed).to(x.dtype)
    layer = layer_oracles.Ruled(array(W), array(b), rule, rounding=rounding(x), **chosen)
    settings = Settings(rule=rule, leak=leak, **chosen)
    checked(lambda t: (F.linear(t, W, b) * weights).sum(), x, layer, array(weights), settings)


SPELLINGS = {
    "addmm": lambda x, W, b: torch.addmm(b, x, W.T),
    "matmul": lambda x, W, b: x @ W.T + b * 0,
    "in place": lambda x, W, b: F.linear(x, W, b).mul_(1.0),
}


@pytest.mark.parametrize(("rule", "numbers"), EACH[::2])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling, rule, numbers):
    x, W, b, c = inputs(3, 5), inputs(4, 5, seed=2), inputs(4, seed=3), inputs(3, 4, seed=4)
    own = None if spelling == "matmul" else array(b)
    layer = layer_oracles.Ruled(array(W), own, rule, **numbers)
    settings = Settings(rule=rule, **numbers)
    p, _ = agree(lambda t: (SPELLINGS[spelling](t, W, b) * c).sum(), x, layer, array(c), settings)
    assert residual(p) <= 1e-12


def test_gamma_of_zero_is_the_rule_0():
    x, W, b, c = inputs(3, 5), inputs(4, 5, seed=2), inputs(4, seed=3), inputs(3, 4, seed=4)
    x[0] = 0
    one, two = (
        propagate(lambda t: (F.linear(t, W, b) * c).sum(), [x], Settings(leak="record", **s)).sources[0].gradient
        for s in ({"rule": "gamma", "gamma": 0.0}, {"rule": "0"})
    )
    np.testing.assert_allclose(one, two, rtol=1e-12)


def test_gamma_of_infinity_keeps_only_what_agrees():
    x, W = torch.tensor([[2.0, 1.0, -1.0]]).double(), torch.tensor([[1.0, -1.0, -3.0]]).double()
    p = propagate(lambda t: F.linear(t, W).sum(), [x], Settings(rule="gamma", gamma=1e12))
    np.testing.assert_allclose(p.sources[0].relevance, [[4 * 2 / 5, 0.0, 4 * 3 / 5]], atol=1e-9)


def test_gamma_by_hand_at_a_negative_output():
    """z = 2 - 1 - 5 = -4: the negative parts weigh 1.5, so the whole is 2 - 1.5 - 7.5 = -7."""
    x, W = torch.tensor([[2.0, 1.0, 5.0]]).double(), torch.tensor([[1.0, -1.0, -1.0]]).double()
    p = propagate(lambda t: F.linear(t, W).sum(), [x], Settings(rule="gamma", gamma=0.5))
    np.testing.assert_allclose(p.sources[0].relevance, -4 * np.array([[2.0, -1.5, -7.5]]) / -7, rtol=1e-12)


def test_alpha_beta_by_hand():
    x, W = torch.tensor([[2.0, 1.0, 1.0]]).double(), torch.tensor([[3.0, -1.0, -3.0]]).double()
    p = propagate(lambda t: F.linear(t, W).sum(), [x], Settings(rule="alpha-beta", alpha=3.0))
    np.testing.assert_allclose(p.sources[0].relevance, [[3 * 2, -2 * 2 / 4, -2 * 2 * 3 / 4]], rtol=1e-12)


@pytest.mark.parametrize(("rule", "numbers"), EACH)
def test_the_gradient_is_finite_and_bounded_where_inputs_are_zero(rule, numbers):
    """R / a would be 0 / 0; what computes a may need G all the same, as the sum of a number and its negative does."""
    W, V = inputs(4, 5, seed=2), inputs(5, 3, seed=5)
    x = inputs(2, 3)

    def f(t):
        a = F.linear(t, V)
        a = torch.cat((a[:, :2] - a[:, :2].detach(), a[:, 2:]), 1)  # zeros with a past
        return F.linear(a, W).sum()

    p = propagate(f, [x], Settings(rule=rule, leak="record", **numbers))
    assert torch.isfinite(p.sources[0].gradient).all()
    zero = propagate(lambda t: F.linear(t, W).sum(), [torch.zeros(2, 5).double()], Settings(rule=rule, **numbers))
    assert torch.isfinite(zero.sources[0].gradient).all()
    assert residual(p) <= 1e-12


def test_the_gradient_of_gamma_changes_steadily_through_zero():
    """G is a mean of its sides at a = 0: nothing jumps by more than the rule itself says."""
    W = torch.tensor([[1.0, 2.0]]).double()

    def G(first):
        x = torch.tensor([[first, 1.0]]).double()
        return float(propagate(lambda t: F.linear(t, W).sum(), [x], Settings(rule="gamma")).sources[0].gradient[0, 0])

    left, middle, right = G(-1e-9), G(0.0), G(1e-9)
    assert middle == pytest.approx((left + right) / 2, rel=1e-6)
    assert (left, right) == (pytest.approx(1 / 1.25), pytest.approx(1.0))


def test_gamma_passes_the_gradient_on_where_nothing_contributes():
    W = inputs(4, 5, seed=2)
    p = propagate(lambda t: F.linear(t, W).sum(), [torch.zeros(1, 5).double()], Settings(rule="gamma"))
    np.testing.assert_allclose(p.sources[0].gradient[0], W.sum(0), rtol=1e-12)


def test_what_has_no_taker_is_booked_as_untaken():
    """All contributions are negative: alpha's part belongs to nobody, beta's goes out."""
    x, W = torch.tensor([[1.0, 3.0]]).double(), torch.tensor([[-1.0, -1.0]]).double()
    p = propagate(lambda t: F.linear(t, W).sum(), [x], Settings(rule="alpha-beta", leak="record"))
    assert booked(p)["untaken", False] == pytest.approx(2 * -4)
    np.testing.assert_allclose(p.sources[0].relevance, [[1.0, 3.0]])
    back = propagate(lambda t: F.linear(t, W).sum(), [x], Settings(rule="alpha-beta"))
    np.testing.assert_allclose(back.sources[0].relevance, [[1.0 - 2.0, 3.0 - 6.0]])


@pytest.mark.parametrize(("rule", "numbers"), EACH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite(rule, numbers, dtype):
    x, W, b = inputs(3, 8).to(dtype), inputs(4, 8, seed=2).to(dtype), inputs(4, seed=3).to(dtype)
    x[0, :4] = 0
    p = propagate(lambda t: F.linear(t, W, b).sum(), [x], Settings(rule=rule, **numbers))
    wide = propagate(lambda t: F.linear(t, W.double(), b.double()).sum(), [x.double()], Settings(rule=rule, **numbers))
    assert p.sources[0].gradient.dtype == dtype
    np.testing.assert_allclose(p.sources[0].relevance, wide.sources[0].relevance, atol=0.1, rtol=0.05)


# ---- convolutions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize(("rule", "numbers"), [*EACH, *((rule, {}) for rule in INPUT_RULES)])
@pytest.mark.parametrize("case", OPTIONS)
def test_convolution(case, rule, numbers, leak):
    convolve, shape, kernel = CASES[case]
    x, weight = inputs(*shape), inputs(*kernel, seed=3)
    x.view(-1)[:3] = 0
    weight.view(-1)[1] = 0
    W, wired = layer_oracles.convolution(array(weight), shape[1:], **OPTIONS[case])
    out = convolve(x, weight, None)
    np.testing.assert_allclose(W @ array(x).ravel(), array(out).ravel(), atol=1e-12)
    bias, G = inputs(out.shape[1], seed=4), inputs(*out.shape, seed=5)
    full = bias.reshape(1, -1, *[1] * (out.dim() - 2)).expand_as(out)
    chosen = {"low": -5.0, "high": 5.0} if rule == "zB" else {}
    more = {"rules": {"input": rule}, **chosen} if rule in INPUT_RULES else {"rule": rule, **numbers}
    p = propagate(lambda t: (convolve(t, weight, bias) * G).sum(), [x], Settings(leak=leak, **more))
    R = array((out + full) * G).ravel()
    found = layer_oracles.RULES[rule](W, wired, array(x).ravel(), array(full).ravel(), R, **numbers, **chosen)
    expected, lost = layer_oracles.returned(found, wired, array(x).ravel()) if leak == "return" else (found.R, None)
    np.testing.assert_allclose(p.sources[0].relevance.flatten(), expected, rtol=1e-9, atol=1e-10)
    leaked = sum(float(each.sum()) for each in found.leaks.values())
    total = sum(entry.relevance for entry in p.ledger)
    assert total == pytest.approx(leaked, rel=1e-9, abs=1e-10)
    assert sum(e.relevance for e in p.ledger if not e.returned) == pytest.approx(
        leaked if lost is None else lost, abs=1e-10
    )
    assert residual(p) <= 1e-12


@pytest.mark.parametrize(("rule", "numbers"), EACH)
def test_a_batch_of_convolutions_and_one_without_batch(rule, numbers):
    x, weight, settings = inputs(3, 2, 4, 4), inputs(3, 2, 2, 2, seed=2), Settings(rule=rule, **numbers)
    together = propagate(lambda t: F.conv2d(t, weight).sum(), [x], settings).sources[0].relevance
    for n in range(3):
        one = propagate(lambda t: F.conv2d(t, weight).sum(), [x[n]], settings).sources[0].relevance
        np.testing.assert_allclose(together[n], one, rtol=1e-12)


def test_a_pointwise_convolution_is_the_linear_layer():
    x, W, b = inputs(1, 3, 4, 4), inputs(5, 3, seed=2), inputs(5, seed=3)
    for rule, numbers in EACH:
        settings = Settings(rule=rule, leak="record", **numbers)
        one = propagate(lambda t: F.conv2d(t, W[..., None, None], b).sum(), [x], settings)
        two = propagate(lambda t: F.linear(t.movedim(1, -1), W, b).sum(), [x], settings)
        np.testing.assert_allclose(one.sources[0].relevance, two.sources[0].relevance, rtol=1e-12)


# ---- the layer that reads the input --------------------------------------------------------------------------------


def patches(x):
    """An image [1, c, h, w] as flat patches of 2 x 2."""
    return x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(1, -1, x.shape[1] * 4)


READERS = {
    "convolution": lambda x, W, b: F.conv2d(x, W.reshape(len(W), 3, 2, 2), b, stride=2).flatten(2).transpose(1, 2),
    "linear on patches": lambda x, W, b: F.linear(patches(x), W, b),
    "matmul on patches": lambda x, W, b: patches(x).contiguous() @ W.T + b,
    "unfolded": lambda x, W, b: F.linear(F.unfold(x, 2, stride=2).transpose(1, 2), W, b),
}


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("rule", INPUT_RULES)
@pytest.mark.parametrize("reader", READERS)
def test_relevance_ends_at_the_input_however_it_is_cut(reader, rule, leak):
    x, W, b, V = inputs(1, 3, 4, 4), inputs(5, 12, seed=2), inputs(5, seed=3), inputs(2, 5, seed=4)
    b = b * 0 if reader == "matmul on patches" else b  # a sum of its own there
    x[0, :, :1, :2] = 0  # black: what is no multiple of the input is seen here
    settings = Settings(rule="0", leak=leak, rules={"input": rule}, low=-4.0, high=4.0)
    p = propagate(lambda t: F.linear(F.relu(READERS[reader](t, W, b)), V).sum(), [x], settings)
    W_, wired = layer_oracles.convolution(array(W).reshape(5, 3, 2, 2), (3, 4, 4), stride=2)
    z = (W_ @ array(x).ravel()).reshape(5, 4).T + array(b)
    R = (z * (z > 0) * (V.sum(0).numpy())).T.ravel()
    full = np.repeat(array(b), 4)
    found = layer_oracles.RULES[rule](W_, wired, array(x).ravel(), full, R, low=-4.0, high=4.0)
    np.testing.assert_allclose(p.sources[0].relevance.flatten(), found.R, rtol=1e-9, atol=1e-11)
    assert p.sources[0].relevance[0, :, :1, :2].abs().sum() > 0
    assert residual(p) <= 1e-12
    assert not booked(p)


@given(problem=linear(), rule=st.sampled_from(INPUT_RULES), leak=st.sampled_from(LEAKS), seed=st.integers(0, 10**6))
@examples
def test_the_input_layer_is_the_oracle(problem, rule, leak, seed):
    x, W, b = problem
    x, weights = x.clamp(-9, 9), inputs(*x.shape[:-1], len(W), seed=seed).to(x.dtype)
    layer = layer_oracles.Ruled(array(W), array(b), rule, low=-10.0, high=10.0)
    settings = Settings(rules={"input": rule}, leak=leak, low=-10.0, high=10.0)
    checked(lambda t: (F.linear(t, W, b) * weights).sum(), x, layer, array(weights), settings)


def test_the_range_of_each_channel_follows_the_pixels_into_patches():
    from clearhead.relevance.engine import Recording
    from clearhead.relevance.run import Run
    from clearhead.relevance.table import ROWS

    x, W = inputs(1, 3, 4, 4).clamp(-1.4, 1.4), inputs(5, 12, seed=2)
    low, high = (torch.tensor(ends).double().reshape(1, 3, 1, 1) for ends in ([-2.0, -1.5, -3.0], [2.0, 2.5, 1.5]))
    run = Run(Settings(rules={"input": "zB"}), None, ROWS)
    recording = Recording(run)
    t = recording.source(x)
    run.lookups[-1].range = low, high
    p = recording.explain(recording.watched(lambda t: F.linear(patches(t), W).sum(), t))
    W_, wired = layer_oracles.convolution(array(W).reshape(5, 3, 2, 2), (3, 4, 4), stride=2)
    a, ends = array(x).ravel(), [array(each.expand_as(x)).ravel() for each in (low, high)]
    found = layer_oracles.z_box(W_, wired, a, np.zeros(20), W_ @ a, low=ends[0], high=ends[1])
    np.testing.assert_allclose(p.sources[0].relevance.flatten(), found.R, rtol=1e-9)


@pytest.mark.parametrize("rule", INPUT_RULES)
def test_a_border_round_the_input_gets_nothing(rule):
    """The same as the padding of the convolution itself."""
    x, weight, G = inputs(1, 2, 4, 4), inputs(3, 2, 3, 3, seed=2), inputs(1, 3, 4, 4, seed=3)
    settings = Settings(rules={"input": rule}, leak="record", low=-9.0, high=9.0)
    border, own = (
        propagate(lambda t, f=f: (f(t) * G).sum(), [x], settings)
        for f in (lambda t: F.conv2d(F.pad(t, (1, 1, 1, 1)), weight), lambda t: F.conv2d(t, weight, padding=1))
    )
    np.testing.assert_allclose(border.sources[0].relevance, own.sources[0].relevance, rtol=1e-9, atol=1e-12)
    assert residual(border) <= 1e-12


def test_what_else_reads_the_input_gets_its_gradient_beside():
    x, W = inputs(2, 3), inputs(4, 3, seed=2)
    settings = Settings(rule="0", leak="record", rules={"input": "flat"})
    p = propagate(lambda t: F.linear(t, W).sum() + (t * t).sum(), [x], settings)
    z = x @ W.T
    np.testing.assert_allclose(p.sources[0].relevance, z.sum(1, keepdim=True) / 3 + x * x, rtol=1e-12)


def test_two_readers_of_one_input_both_send():
    x, W, V = inputs(2, 3), inputs(4, 3, seed=2), inputs(4, 3, seed=5)
    settings = Settings(rules={"input": "flat"})
    p = propagate(lambda t: F.linear(t, W).sum() + F.linear(t.clone(), V).sum(), [x], settings)
    np.testing.assert_allclose(
        p.sources[0].relevance, (x @ (W + V).T).sum(1, keepdim=True).expand(2, 3) / 3, rtol=1e-12
    )


@pytest.mark.parametrize("rule", INPUT_RULES)
def test_several_values_of_one_recording_are_explained_apart(rule):
    from clearhead.relevance.engine import Recording
    from clearhead.relevance.run import Run
    from clearhead.relevance.table import ROWS

    x, W = inputs(2, 3), inputs(4, 3, seed=2)
    settings = Settings(rules={"input": rule}, low=-9.0, high=9.0)
    recording = Recording(Run(settings, None, ROWS))
    t = recording.source(x)
    y = recording.watched(lambda t: F.linear(t, W), t)
    found = [recording.explain(recording.watched(lambda y, n=n: y[0, n], y), keep=True) for n in range(2)]
    for n, p in enumerate(found):
        alone = propagate(lambda t, n=n: F.linear(t, W)[0, n], [x], settings)
        np.testing.assert_allclose(p.sources[0].relevance, alone.sources[0].relevance, rtol=1e-12)


def test_embeddings_are_an_input_too():
    table, conv = nn.Embedding(7, 3).double(), nn.Conv1d(3, 2, 2).double()
    ids = torch.tensor([[1, 2, 2, 5]])
    settings = Settings(rules={"input": "w2"})
    p = propagate(lambda: conv(table(ids).transpose(1, 2)).sum(), [], settings)
    assert residual(p) <= 1e-12
    assert float(p.sources[0].relevance.sum()) == pytest.approx(p.value, rel=1e-12)


def test_a_rule_of_the_input_elsewhere_is_refused_with_the_module():
    net = lively(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    with pytest.raises(UsageError, match=r"w2 belongs to the layer that reads the input; module '2' reads"):
        propagate(lambda t: net(t).sum(), [inputs(2, 3)], Settings(rules={"2": "w2"}), model=net)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({}, "Give `low` and `high`"), ({"low": -0.1, "high": 0.1}, "found -1.* to 1.* outside of -0.1 to 0.1")],
)
def test_the_box_rule_says_what_it_misses(settings, said):
    x = torch.tensor([[-1.0, 1.0]]).double()
    with pytest.raises(UsageError, match=said):
        propagate(lambda t: F.linear(t, x).sum(), [x], Settings(rules={"input": "zB"}, **settings))


def test_a_layer_of_zeros_gives_to_nobody():
    x, W, b = inputs(2, 3), torch.zeros(2, 3).double(), torch.ones(2).double()
    for rule in ("w2", "zB"):
        p = propagate(
            lambda t: F.linear(t, W, b).sum(), [x], Settings(rules={"input": rule}, leak="record", low=-9.0, high=9.0)
        )
        assert booked(p) == {("untaken", False): 4.0}


# ---- networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize(("rule", "numbers"), EACH)
def test_a_net_of_layers(rule, numbers, leak):
    import oracles

    net = lively(nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)))
    first, second, third = (
        layer_oracles.Ruled(array(net[n].weight), array(net[n].bias), rule, **numbers) for n in (0, 2, 4)
    )
    slow = oracles.Sequence(first, oracles.Pointwise("gelu"), second, oracles.Pointwise("relu"), third)
    c = np.array([[1.0, -2.0]] * 3)
    p, _ = agree(
        lambda t: (net(t) * torch.from_numpy(c)).sum(),
        inputs(3, 4),
        slow,
        c,
        Settings(rule=rule, leak=leak, **numbers),
        net,
    )
    assert residual(p) <= 1e-12


@pytest.mark.parametrize(
    "settings",
    [
        Settings(rule=rule, attention=attention, leak=leak)
        for rule, attention, leak in itertools.product(NUMBERS, ("cp", "attnlrp"), LEAKS)
    ],
    ids=named,
)
def test_an_audit_finds_nothing_to_say(settings):
    from relevance.twins import encoder

    net = encoder()
    found = audit(lambda t: net(t)[0, 0], [inputs(4, 6)], settings, model=net)
    assert [each for each in found if abs(each.relevance) > 1e-9] == []


@pytest.mark.parametrize("rule", INPUT_RULES)
def test_an_audit_counts_what_went_straight_to_the_input(rule):
    net = lively(nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2)))
    settings = Settings(rules={"input": rule}, low=-9.0, high=9.0)
    found = audit(lambda t: net(patches(t))[0, 0, 0], [inputs(1, 3, 4, 4)], settings, model=net)
    assert [each for each in found if abs(each.relevance) > 1e-9] == []
