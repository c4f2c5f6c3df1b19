"""The model is left as it was found, in every case, and nobody else notices that it is being explained."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack

from clearhead.config import Settings
from clearhead.errors import UnruledOperationError
from clearhead.relevance import audit, propagate
from relevance.twins import KINDS, Attention, Block, inputs, lively, mlp, named, residual


class Classifier(nn.Module):
    """Words and places, one encoder layer of each kind, dropout, a tied last layer, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(9, 6), nn.Embedding(5, 6)
        self.block = Block(6, Attention(6, 2), mlp(6, 5), nn.LayerNorm, pre=False)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("scale", torch.tensor(1.5))

    def forward(self, ids):
        x = self.words(ids) + self.places(torch.arange(ids.shape[-1]))
        x = self.drop(self.block(x)) * self.scale
        x = torch.relu_(x - 0.1)
        return x @ self.words.weight.T


IDS = torch.tensor([[1, 2, 3, 3], [4, 0, 8, 2]])


def classifier(dtype: torch.dtype = torch.float64) -> Classifier:
    net = Classifier()
    return lively(net, dtype)


def fingerprint(net: nn.Module) -> list[object]:
    """All that a caller could find changed."""
    found: list[object] = [
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        len(_get_current_function_mode_stack()),
    ]
    found += [torch.is_inference_mode_enabled(), torch.get_default_dtype(), torch.get_num_threads()]
    for name, each in net.named_modules():
        hooks = [key for key, value in vars(each).items() if "hook" in key and value]
        found.append((name, id(type(each).forward), each.training, hooks, sorted(vars(each)), "forward" in vars(each)))
    for name, tensor in itertools.chain(net.named_parameters(), net.named_buffers()):
        found.append((name, id(tensor), tensor._version, tensor.requires_grad, tensor.is_leaf, tensor.data_ptr()))
        found.append((tensor.grad is None, tensor._backward_hooks, tensor.detach().flatten().tolist()))
    return found


def explained(net: nn.Module, settings: Settings):
    return propagate(lambda: net(IDS)[0, -1, 3] - net(IDS)[1].sum(), [], settings, model=net)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_the_model_is_left_as_found(settings, frozen):
    net = classifier().requires_grad_(not frozen)
    before = fingerprint(net)
    p = explained(net, settings)
    assert residual(p) <= 1e-12
    assert fingerprint(net) == before


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_parameters_that_could_learn_are_constants_all_the_same(settings):
    net = classifier()
    one = explained(net, settings)
    two = explained(net.requires_grad_(), settings)
    assert len(one.sources) == len(two.sources) == 8 // 2
    for a, b in zip(one.sources, two.sources, strict=True):
        assert torch.equal(a.relevance, b.relevance)
    assert [vars_of(e) for e in one.ledger] == [vars_of(e) for e in two.ledger]


def vars_of(entry) -> tuple[object, ...]:
    return entry.cause, entry.module, entry.operation, entry.relevance, entry.returned


def test_gradients_that_were_there_stay():
    net = classifier().requires_grad_()
    net(IDS).sum().backward()
    grads = [p.grad.clone() for p in net.parameters()]
    before = fingerprint(net)
    explained(net, Settings())
    assert fingerprint(net) == before
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), grads, strict=True))


class Planned(Exception):
    pass


@pytest.mark.parametrize("where", ["before", "between", "after"])
def test_the_model_is_left_as_found_after_an_exception(where):
    net = classifier().requires_grad_()
    before = fingerprint(net)

    def f(x):
        if where == "before":
            raise Planned
        y = net.words(IDS) + x
        if where == "between":
            raise Planned
        y = net.block(y).sum()
        assert y.requires_grad
        raise Planned

    x = inputs(6)
    with pytest.raises(Planned):
        propagate(f, [x], Settings(), model=net)
    assert fingerprint(net) == before
    assert (x.grad, x.requires_grad, x._version) == (None, False, 0)


def test_the_model_is_left_as_found_after_an_exception_inside_a_module():
    class Breaking(nn.Module):
        def forward(self, x):
            raise Planned

    net = lively(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.GELU(), Breaking())))
    before = fingerprint(net)
    with pytest.raises(Planned):
        propagate(lambda t: net(t).sum(), [inputs(3, 4)], Settings(), model=net)
    assert fingerprint(net) == before


def test_the_model_is_left_as_found_after_a_refusal():
    net = nn.Sequential(nn.Linear(4, 4), nn.Softplus(), nn.Linear(4, 2)).double()
    net[1].forward = lambda x: torch.cumprod(x, -1)
    before = fingerprint(net)
    with pytest.raises(UnruledOperationError):
        propagate(lambda t: net(t).sum(), [inputs(3, 4)], Settings(strict=True), model=net)
    assert fingerprint(net) == before


def test_a_value_that_is_no_scalar_is_refused_and_leaves_nothing():
    net = classifier()
    before = fingerprint(net)
    with pytest.raises(Exception, match=r"(?i)scalar|one number|single"):
        propagate(lambda: net(IDS), [], Settings(), model=net)
    assert fingerprint(net) == before


def test_inputs_are_never_modified():
    x = inputs(3, 4)
    copy = x.clone()

    def f(t):
        t = t * 1.0
        t.add_(3).mul_(2)
        return t.sum()

    p = propagate(f, [x], Settings())
    assert torch.equal(x, copy)
    assert (x.grad, x.requires_grad, x._version) == (None, False, 0)
    assert torch.equal(p.sources[0].value, copy)


def test_an_input_that_the_function_overwrites_keeps_its_value():
    x = inputs(3, 4)
    copy = x.clone()
    p = propagate(lambda t: t.add_(3).mul_(2).sum(), [x], Settings(rule="0", leak="record"))
    assert torch.equal(x, copy)
    assert torch.equal(p.sources[0].value, copy)
    np.testing.assert_allclose(p.sources[0].relevance, 2 * copy, rtol=1e-12)


def test_an_input_that_requires_a_gradient_gets_none():
    x = inputs(3, 4).requires_grad_()
    p = propagate(lambda t: (t * 2).sum(), [x], Settings())
    assert x.grad is None
    assert x.requires_grad
    np.testing.assert_allclose(p.sources[0].relevance, 2 * x.detach(), rtol=1e-12)


def test_dropout_is_silent_also_in_training_mode():
    """Or else the explained value would be another one at every call, and the generator would move."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).double().train()
    before = fingerprint(net)
    p = propagate(lambda t: net(t).sum(), [inputs(3, 4)], Settings(), model=net)
    assert fingerprint(net) == before
    assert p.value == pytest.approx(float(net.eval()(inputs(3, 4)).sum().detach()), rel=1e-12)


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_the_callers_gradient_mode_does_not_matter(context):
    net = classifier()
    expected = explained(net, Settings())
    with context():
        found = explained(net, Settings())
    for a, b in zip(expected.sources, found.sources, strict=True):
        assert torch.equal(a.relevance, b.relevance)


def test_gradients_switched_off_inside_are_no_way_out():
    """What a model computes under no_grad is a constant; the books still close."""
    W = inputs(4, 4, seed=2)

    def f(t):
        with torch.no_grad():
            scale = (t @ W).abs().mean(-1, keepdim=True)
        return (t @ W / scale).sum() + scale.sum()

    p = propagate(f, [inputs(3, 4)], Settings())
    assert p.value == pytest.approx(float(f(inputs(3, 4))), rel=1e-12)
    assert residual(p) <= 1e-12


def test_the_same_explanation_twice():
    net = classifier()
    one, two = (explained(net, Settings(attention="attnlrp")) for _ in range(2))
    assert one.value == two.value
    for a, b in zip(one.sources, two.sources, strict=True):
        assert torch.equal(a.relevance, b.relevance)
        assert torch.equal(a.gradient, b.gradient)


def test_relevance_is_value_times_gradient():
    for source in explained(classifier(), Settings()).sources:
        assert source.relevance.dtype == torch.float64
        assert torch.equal(source.relevance, source.value.double() * source.gradient.double())
        assert not source.relevance.requires_grad
        assert source.indices.shape == source.value.shape[:-1]


def test_the_value_is_the_models_own():
    for dtype in (torch.float64, torch.float32):
        net = classifier(dtype)
        plain = float(net(IDS)[0, -1, 3] - net(IDS)[1].sum())
        for settings in KINDS:
            assert explained(net, settings).value == pytest.approx(plain, rel=1e-12 if dtype == torch.float64 else 1e-5)


def test_another_thread_running_the_same_module_sees_nothing():
    net = classifier(torch.float32).requires_grad_()
    with torch.no_grad():
        expected = net(IDS)
    stop, found, errors = threading.Event(), [], []

    def plainly():
        try:
            while not stop.is_set():
                assert not _get_current_function_mode_stack()
                with torch.no_grad():
                    found.append(torch.equal(net(IDS), expected))
                out = net(IDS)
                found.append(torch.equal(out.detach(), expected) and out.requires_grad)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=plainly)
    thread.start()
    try:
        results = [explained(net, settings) for settings in KINDS * 5]
    finally:
        stop.set()
        thread.join()
    assert errors == []
    assert len(found) > 10
    assert all(found)
    for one, two in itertools.product(results[:1], results[:: len(KINDS)]):
        assert torch.equal(one.sources[0].relevance, two.sources[0].relevance)


def test_two_threads_explain_at_once():
    net = classifier()
    expected = [explained(net, settings) for settings in KINDS]
    found: dict[int, list[object]] = {0: [], 1: []}

    def explain(n):
        found[n] = [explained(net, settings) for settings in KINDS]

    threads = [threading.Thread(target=explain, args=(n,)) for n in found]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for n in found:
        assert len(found[n]) == len(KINDS)
        for a, b in zip(expected, found[n], strict=True):
            assert all(torch.equal(s.relevance, t.relevance) for s, t in zip(a.sources, b.sources, strict=True))


def test_an_audit_leaves_the_model_as_found_too():
    net = classifier().requires_grad_()
    before = fingerprint(net)
    audit(lambda: net(IDS)[0, 0, 0], [], Settings(), model=net)
    assert fingerprint(net) == before


def test_the_fingerprint_would_notice():
    """Each thing that could be left behind, left behind."""
    net = classifier()
    before = fingerprint(net)
    for leave in (
        lambda: setattr(net.block, "training", True),
        lambda: net.block.register_forward_hook(lambda *_: None),
        lambda: setattr(net.words.weight, "grad", torch.zeros(9, 6).double()),
        net.places.weight.requires_grad_,
        lambda: net.scale.mul_(1.0),
        lambda: setattr(net, "seen", 1),
        lambda: torch.rand(1),
    ):
        leave()
        now = fingerprint(net)
        assert now != before
        before = now
