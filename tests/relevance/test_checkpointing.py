"""Blocks that are computed again on the way back: the same explanation, entry by entry, in less memory."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import oracles
from clearhead import AttentionVisualizer
from clearhead.config import Settings
from clearhead.errors import ModelError
from clearhead.relevance import propagate
from clearhead.relevance.audit import Audit
from clearhead.relevance.checkpointing import UNUSED, blocks, notes
from clearhead.relevance.engine import Recording, replay
from clearhead.relevance.run import Run
from clearhead.relevance.secant import difference
from clearhead.relevance.secant.audit import Audit as PairsAudit
from clearhead.relevance.secant.pairs import Pairs
from clearhead.relevance.secant.table import ROWS as SECANTS
from clearhead.relevance.table import ROWS
from relevance.twins import (
    EXTREMES,
    KINDS,
    Attention,
    Block,
    Gated,
    agree,
    array,
    inputs,
    lively,
    mlp,
    named,
    oracle_of,
)

D = 6
FURTHER = [
    Settings(rule="gamma", residual_rule="gamma"),
    Settings(rule="alpha-beta", alpha=2.0),
    Settings(rules={"input": "w2"}),
    Settings(rules={"input": "zB"}, low=-9.0, high=9.0),
]
SECANT = Settings(method="secant")


def again(settings: Settings) -> Settings:
    return Settings(**{**settings.as_dict(), "checkpoint": True})


def block(d: int = D) -> nn.Module:
    return Block(d, Attention(d, 2, 1, "causal"), Gated(d, 5), nn.LayerNorm, pre=True)


class Net(nn.Module):
    """Blocks in a list, whatever they are, and what is around them."""

    def __init__(self, *layers: nn.Module, call=None):
        super().__init__()
        self.first, self.layers, self.last = nn.Linear(D, D), nn.ModuleList(layers), nn.Linear(D, 3)
        self.call = call or (lambda layer, h: layer(h))

    def forward(self, x):
        h = self.first(x)
        for layer in self.layers:
            h = self.call(layer, h)
        return self.last(F.gelu(h))


class Last(nn.Module):
    """A block with one part, and what it does with it."""

    def __init__(self, forward, **parts: nn.Module):
        super().__init__()
        self.part = nn.Linear(D, D)
        for name, part in parts.items():
            setattr(self, name, part)
        self.does = forward

    def forward(self, *args, **kwargs):
        return self.does(self, *args, **kwargs)


def net(does=None, count: int = 3, call=None, **parts) -> Net:
    """Blocks of one kind, lively and in float64."""
    made = [Last(does, **{name: part() for name, part in parts.items()}) if does else block() for _ in range(count)]
    return lively(Net(*made, call=call))


def scalar(y):
    return (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)).sum()


def watched(kind, settings, model, x=None, rows=ROWS, **options):
    """A run of a model on one input, and what it found."""
    run = kind(settings, model, rows, **options)
    recording = Recording(run)
    x = inputs(1, 4, D) if x is None else x
    sources = [recording.source(x)] if isinstance(run, Run) else [recording.source(x, inputs(*x.shape, seed=5))]
    return run, recording.explain(recording.watched(lambda t: scalar(model(t)), *sources))


def same(one, two):
    """Two propagations are the same: value, sources in their order, and every entry of the books in its order."""
    assert one.values == pytest.approx(two.values, rel=1e-12)
    assert [(s.name, s.first, s.length) for s in one.sources] == [(s.name, s.first, s.length) for s in two.sources]
    for a, b in zip(one.sources, two.sources, strict=True):
        np.testing.assert_allclose(a.relevance, b.relevance, rtol=1e-9, atol=1e-12)
        assert (a.indices is None) == (b.indices is None)
        assert a.indices is None or torch.equal(a.indices, b.indices)
    for a, b in zip(one.ledgers, two.ledgers, strict=True):
        assert [(e.cause, e.module, e.operation, e.returned) for e in a] == [
            (e.cause, e.module, e.operation, e.returned) for e in b
        ]
        assert [e.relevance for e in a] == pytest.approx([e.relevance for e in b], rel=1e-9, abs=1e-12)


def both(model, settings, x=None, kind=Run, rows=ROWS, made=None, **options):
    """The same with and without; gives what is counted of the blocks."""
    _, plain = watched(kind, settings, model, x, rows, **options)
    run, found = watched(kind, again(settings), model, x, rows, **options)
    same(found, plain)
    assert any(float(s.relevance.abs().sum()) for s in plain.sources)
    counted = run.tape.around
    assert (counted.again, counted.whole) == (made or (len(blocks(model)), 0))
    return run, found


def paired(model, x=None, made=None):
    """The same of secants."""
    return both(model, SECANT, x, Pairs, SECANTS, made)


# ---- the same ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [*KINDS, *FURTHER], ids=str)
def test_an_explanation_is_the_same(settings):
    both(net(), settings)


def test_a_secant_is_the_same():
    paired(net())


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_it_is_what_the_oracle_says(settings):
    layers = [Block(D, Attention(D, 2), mlp(D, 5), nn.LayerNorm, pre=pre) for pre in (True, False)]
    model = lively(nn.Sequential(*layers, nn.Linear(D, 2)))
    c = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2)
    oracle = oracle_of(model)
    assert isinstance(oracle, oracles.Sequence)
    agree(lambda t: (model(t) * c).sum(), inputs(4, D), oracle, array(c), again(settings), model)


def test_what_is_explained_may_be_what_the_first_block_reads():
    """The rules of the layer that reads the input know it inside of a block, and behind two views."""
    seen = nn.Sequential(*(nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Flatten(1), nn.Linear(D, D)) for _ in range(3)))
    model = lively(seen)
    for rule in ({"rule": "zB"}, "w2", "flat", "gamma"):
        settings = Settings(rules={"input": rule}, low=-9.0, high=9.0)
        both(model, settings, inputs(4, D))
    with pytest.raises(Exception, match="zB needs inputs between"):
        both(model, Settings(rules={"input": "zB"}, low=-0.1, high=0.1), inputs(4, D))


def test_explained_tensors_keep_their_range():
    """A straight way and a gradient to one source, from two blocks that read it."""
    model = lively(nn.Sequential(*(nn.Sequential(nn.Linear(D, D)) for _ in range(2))))

    def function(x):
        return scalar(model[0](x) * 2) + scalar(model[1](x[:, 1:]))

    settings = Settings(rules={"input": "flat"})
    one, two = (propagate(function, [inputs(1, 4, D)], s, model=model) for s in (settings, again(settings)))
    same(two, one)


# ---- what is kept, and what is called ------------------------------------------------------------------------------


def test_nothing_of_a_block_is_kept_and_each_is_called_twice():
    model, calls, held = net(), [], []
    for layer in model.layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
        layer.mlp.gate.register_forward_hook(lambda _, __, y: held.append(weakref.ref(y.grad_fn)))
    run = Run(again(Settings()), model, ROWS)
    recording = Recording(run)
    gc.disable()
    try:
        value = recording.watched(lambda t: scalar(model(t)), recording.source(inputs(1, 4, D)))
        assert len(calls) == 3
        assert [each() for each in held] == [None] * 3
        recording.explain(value)
        assert len(calls) == 6
        assert [each() for each in held] == [None] * 6
    finally:
        gc.enable()


def test_without_it_everything_is_kept():
    """The test above would notice."""
    model, held = net(), []
    for layer in model.layers:
        layer.mlp.gate.register_forward_hook(lambda _, __, y: held.append(weakref.ref(y.grad_fn)))
    recording = Recording(Run(Settings(), model, ROWS))
    value = recording.watched(lambda t: scalar(model(t)), recording.source(inputs(1, 4, D)))
    assert all(each() is not None for each in held)
    recording.explain(value)


def test_several_values_of_one_recording():
    model, found = net(), {}
    for settings in (Settings(), again(Settings())):
        recording = Recording(Run(settings, model, ROWS))
        y = recording.watched(model, recording.source(inputs(1, 4, D)))
        values = [recording.watched(lambda n, y=y: y[0, n, 0] * 2, n) for n in range(3)]
        found[settings.checkpoint] = [recording.explain(v, keep=n < 2) for n, v in enumerate(values)]
    for one, two in zip(found[True], found[False], strict=True):
        same(one, two)
    assert found[True][0].values != found[True][1].values


@pytest.mark.parametrize("kind", [Run, Pairs])
def test_a_batch_is_its_items(kind):
    model, x = net(), inputs(3, 4, D)
    rows, settings = (ROWS, Settings()) if kind is Run else (SECANTS, SECANT)
    _, found = both(model, settings, x, kind, rows, batch=3)
    assert len(found.ledgers) == 3
    assert all(np.isfinite(e.relevance) for ledger in found.ledgers for e in ledger)


def test_what_is_asked_of_one_item_is_booked_to_it():
    """A block that is called while one item is asked about books its leaks there when it is called again."""
    model, found = net(count=2), {}
    for settings in (Settings(), again(Settings())):
        recording = Recording(Run(settings, model, ROWS, batch=2))
        y = recording.watched(model, recording.source(inputs(2, 4, D)))

        def ask(outputs, item):
            return scalar(model.layers[0](F.pad(outputs[0][item : item + 1], (0, 3))))

        values = [recording.asked(ask, [y], item) for item in range(2)]
        found[settings.checkpoint] = recording.explain(*values)
    same(found[True], found[False])
    assert all(len(ledger) for ledger in found[True].ledgers)


# ---- sources and starts inside of blocks ---------------------------------------------------------------------------


def with_positions(self, h):
    where = torch.arange(h.shape[-2])
    return self.part(h + self.places(where)) + h


def with_bias(self, h, bias=None):
    """Relative positions that the first block looks up and the others are given."""
    if bias is None:
        where = torch.arange(h.shape[-2])
        bias = self.near((where[:, None] - where[None]).clamp(-2, 2) + 2).permute(2, 0, 1)
    scores = h @ h.transpose(-2, -1) + bias
    return self.part(torch.softmax(scores, -1) @ h), bias


@pytest.mark.parametrize("settings", [*EXTREMES, Settings(attention="attnlrp")], ids=named)
def test_vectors_looked_up_inside_of_a_block(settings):
    model = net(with_positions, places=lambda: nn.Embedding(9, D))
    _, found = both(model, settings)
    assert [s.name for s in found.sources] == ["", *(f"layers.{n}.places" for n in range(3))]
    both(model, settings, inputs(2, 4, D), batch=2)


@pytest.mark.parametrize("settings", [*EXTREMES, Settings(attention="attnlrp")], ids=named)
def test_a_source_that_a_block_hands_to_the_next(settings):
    def call(layer, h):
        h, model.bias = layer(h, getattr(model, "bias", None))
        return h

    model = net(with_bias, call=call, near=lambda: nn.Embedding(5, 1))
    _, plain = watched(Run, settings, model)
    del model.bias
    run, found = watched(Run, again(settings), model)
    same(found, plain)
    assert (run.tape.around.again, run.tape.around.whole) == (3, 0)
    assert len(found.sources) == 2


def test_learned_vectors_are_added_and_put_before_inside_of_a_block():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.where = nn.Linear(D, D), nn.Parameter(torch.zeros(1, 4, D))
            self.extra = nn.Parameter(torch.zeros(1, 1, D))

        def forward(self, h):
            h = torch.cat([self.extra.expand(len(h), -1, -1), self.part(h + self.where)], 1)
            return h[:, 1:] + h[:, :1]

    model = lively(Net(*(Learned() for _ in range(2))))
    for settings in EXTREMES:
        _, found = both(model, settings)
        assert len(found.sources) == 5


@pytest.mark.parametrize("settings", [Settings(), Settings(leak="record"), Settings(attention="attnlrp")], ids=named)
def test_slopes_start_where_they_did_also_in_a_block_called_twice(settings):
    def does(self, h):
        return self.part(F.gelu(h) + F.gelu(self.part(h)))

    one = Last(does)
    model = lively(Net(one, one, one))
    starts = {("layers.0", "gelu", n): (r := inputs(D, seed=n), F.gelu(r)) for n in range(1, 7)} | {
        ("", "gelu", 1): (r := inputs(D, seed=9), F.gelu(r))
    }
    found = {}
    for chosen in (settings, again(settings)):
        run = Run(chosen, model, ROWS)
        run.begin(starts)
        found[chosen.checkpoint] = replay(run, lambda t: scalar(model(t)), [inputs(1, 4, D)])
    same(found[True], found[False])
    assert run.tape.around.again == 3
    run = Run(again(settings), model, ROWS)
    run.begin({**starts, ("layers.0", "gelu", 4): starts["layers.0", "gelu", 3]})
    other = replay(run, lambda t: scalar(model(t)), [inputs(1, 4, D)])
    assert not np.allclose(other.sources[0].relevance, found[True].sources[0].relevance)


def test_two_passes_with_starts_of_their_own():
    model, found = net(lambda self, h: self.part(F.gelu(h)), count=2), {}
    for settings in (Settings(), again(Settings())):
        run = Run(settings, model, ROWS)
        recording, outputs = Recording(run), []
        for n in range(2):
            run.begin({("layers.1", "gelu", 1): (r := inputs(D, seed=n), F.gelu(r))})
            outputs.append(recording.watched(model, recording.source(inputs(1, 4, D))))
        found[settings.checkpoint] = recording.explain(recording.watched(lambda a, b: scalar(a + b), *outputs))
    same(found[True], found[False])


# ---- what is known of a tensor -------------------------------------------------------------------------------------


class Split(nn.Module):
    """Half a pointwise function on this side of the border of a block, half on the other."""

    def __init__(self, inner, outer):
        super().__init__()
        self.layers, self.last, self.outer = nn.ModuleList(Last(inner) for _ in range(2)), nn.Linear(D, 2), outer

    def forward(self, x):
        for layer in self.layers:
            x = self.outer(layer, x)
        return self.last(x)


SPLIT = {
    "both are given": (lambda self, a, b: self.part(a * b), lambda layer, x: layer(x, torch.sigmoid(x))),
    "images of what is not": (lambda self, a, b: self.part(a * b), lambda layer, x: layer(x * 2, torch.sigmoid(x * 2))),
    "one root elsewhere": (
        lambda self, a, b: self.part(a * b),
        lambda layer, x: layer(*(lambda z: (torch.tanh(z), torch.sigmoid(z)))(x * 2)),
    ),
    "both are given back": (
        lambda self, a: (lambda z: (z, torch.sigmoid(z)))(self.part(a)),
        lambda layer, x: torch.mul(*layer(x)),
    ),
    "two images are given back": (
        lambda self, a: (lambda z: (torch.tanh(z), torch.sigmoid(z)))(self.part(a)),
        lambda layer, x: torch.mul(*layer(x)),
    ),
    "an image of what is given": (
        lambda self, a: (torch.sigmoid(a), self.part(a)),
        lambda layer, x: (lambda s, y: y + s * x)(*layer(x)),
    ),
    "the same twice": (lambda self, a: (lambda y: (y, [y]))(self.part(a)), lambda layer, x: layer(x)[1][0]),
}


@pytest.mark.parametrize("settings", [*EXTREMES, FURTHER[0]], ids=str)
@pytest.mark.parametrize("case", SPLIT)
def test_a_function_that_a_border_cuts_is_one_function(case, settings):
    model = lively(Split(*SPLIT[case]))
    _, plain = watched(Run, settings, model)
    _, found = watched(Run, again(settings), model)
    same(found, plain)
    _, plain = watched(Pairs, SECANT, model, rows=SECANTS)
    _, found = watched(Pairs, again(SECANT), model, rows=SECANTS)
    same(found, plain)


def test_what_a_model_detached_is_called_so_in_a_block():
    def call(layer, h):
        return layer(h, (h * 2).detach())

    model = net(lambda self, h, held: self.part(h + held), call=call)
    _, found = both(model, Settings())
    assert {e.cause for e in found.ledger} >= {"detached"}


# ---- arguments and results -----------------------------------------------------------------------------------------


@dataclass
class Loose:
    """No container that torch knows."""

    state: torch.Tensor


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
def test_one_tensor_in_several_places_stays_one(settings):
    """Attention of torch computes another way where its arguments are one tensor."""
    model = net(lambda self, q, k, v: self.all(q, k, v)[0], 2, lambda layer, h: layer(h, h, h), all=_attention)
    _, found = both(model, settings)
    assert sum(e.operation == "linear" and e.module == "layers.0.all" for e in found.ledger) <= 4
    paired(model)


def _attention():
    return nn.MultiheadAttention(D, 2, batch_first=True)


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
def test_what_a_block_is_given_and_does_not_read_gets_nothing(settings):
    """The block before gets no gradient at all, and is not called again."""
    calls = []

    def does(self, h, z):
        calls.append(1)
        return self.part(h + z.detach())

    model = net(does, 2, lambda layer, h: layer(h, layer(h, h)))
    both(model, settings, made=(4, 0))
    assert len(calls) == 4 + 4 + 2
    paired(model, made=(4, 0))


def test_arguments_and_results_of_all_kinds():
    from transformers.modeling_outputs import BaseModelOutput

    def does(self, states, *, more, scale, name=None):
        h, (mask, _) = states["h"], more
        return BaseModelOutput(last_hidden_state=self.part(h * mask) * scale), {"name": name, "mask": mask, "n": 3}

    def call(layer, h):
        mask = torch.tensor([1.0, 2, 0, 1], dtype=h.dtype)[:, None]
        out, rest = layer({"h": h}, more=[mask, None], scale=2.0, name="x")
        assert isinstance(out, BaseModelOutput)
        assert (rest["name"], rest["n"]) == ("x", 3)
        assert rest["mask"] is mask
        return out.last_hidden_state

    model = net(does, call=call)
    both(model, Settings())
    paired(model)


CASES = {
    # what the block does, how it is called, how many calls are made again and how many are not
    "a loose result": (lambda self, h: Loose(self.part(h)), lambda layer, h: layer(h).state, (0, 3)),
    "a loose argument": (lambda self, h, x: self.part(h + x.state), lambda layer, h: layer(h, Loose(h * 3)), (0, 3)),
    "a closure": (lambda self, h: self.part(h) * self.held(), None, (0, 3)),
    "kept beside": (lambda self, h: self.keep.append(F.relu(self.part(h))) or self.part(h), None, (3, 0)),
    "its argument": (lambda self, h: (h, self.part(h)), lambda layer, h: sum(layer(h)), (3, 0)),
    "a view of its argument": (lambda self, h: (h[:, :2], self.part(h)), lambda layer, h: layer(h)[1] + 1, (0, 3)),
    "views of one result": (lambda self, h: self.part(h).chunk(2, -1), lambda layer, h: torch.cat(layer(h), 2), (3, 0)),
    "nothing that depends": (lambda self, h: self.part(h.detach()), lambda layer, h: h + layer(h), (0, 3)),
    "nothing at all": (lambda self, h: None, lambda layer, h: [h, layer(h)][0], (0, 3)),
    "a constant beside": (lambda self, h: (self.part(h), torch.ones(D)), lambda layer, h: torch.mul(*layer(h)), (3, 0)),
    "under no_grad": (lambda self, h: self.part(h), lambda layer, h: h + _bare(layer, h), (0, 0)),
    "a leaf of its own": (lambda self, h: checkpoint(self.part, h, use_reentrant=True), None, (3, 0)),
    "a part called alone": (lambda self, h: h, lambda layer, h: layer.part(h), (0, 0)),
}  # fmt: skip


def _bare(layer, h):
    with torch.no_grad():
        return layer(h)


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("case", CASES)
def test_what_goes_past_arguments_and_results(case, settings):
    does, call, made = CASES[case]
    model = net(does, call=call)

    def forward(t):
        for layer in model.layers:
            layer.held, layer.keep = lambda: t[..., :1] + 2, []
        y = model(t)
        beside = [h for layer in model.layers for h in layer.keep]
        return scalar(sum(beside, y[..., :1]) * 2 if beside else y)

    found = {}
    for chosen in (settings, again(settings)):
        run = Run(chosen, model, ROWS)
        found[chosen.checkpoint] = replay(run, forward, [inputs(1, 4, D)])
    same(found[True], found[False])
    assert (run.tape.around.again, run.tape.around.whole) == made
    assert len(notes(run)) == (made[0] == 0 or made[1] > 0)
    x, b = inputs(1, 4, D), inputs(1, 4, D, seed=5)
    one, two = (difference(forward, [x], [b], s, model=model) for s in (SECANT, again(SECANT)))
    same(two, one)
    assert one.bases == pytest.approx(two.bases, rel=1e-12)


# ---- models that overwrite -----------------------------------------------------------------------------------------

WRITING = {
    "its input, and gives it back": (lambda self, h: h.add_(self.part(h)), None, (0, 3)),
    "its input beside": (lambda self, h: self.part(h.mul_(2)), lambda layer, h: layer(h) + h, (0, 3)),
    "its input by a view": (lambda self, h: self.part(h[:, 1:].relu_())[:, :1], lambda layer, h: layer(h) + h, (0, 3)),
    "a mask it is given": (lambda self, h, m: self.part(h * m.add_(1)), lambda layer, h: layer(h, layer.mask), (0, 3)),
    "a buffer": (lambda self, h: self.part(h * self.times.add_(1)), None, (0, 3)),
    "itself": (lambda self, h: F.relu(self.part(h).mul_(2), inplace=True), None, (3, 0)),
    "a tensor of its own": (lambda self, h: _filled(self.part(h)), None, (3, 0)),
}  # fmt: skip
AFTER = {
    "what went in": lambda layer, h: [layer(h), h.mul_(3)][0],
    "what went in, and read": lambda layer, h: layer(h) + h.relu_(),
    "a view of what went in": lambda layer, h: [layer(h), h[:, 1:].fill_(2.0)][0],
    "what came out": lambda layer, h: layer(h).add_(h),
    "part of what came out": lambda layer, h: _filled(layer(h)),
    "a mask that went in": lambda layer, h: (lambda m: [layer(h, m), m.fill_(5.0)][0])(torch.full((D,), 2.0).double()),
}


def _filled(h):
    found = torch.zeros_like(h)
    found[:, 1:] = h[:, 1:]
    return found * 2


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("case", WRITING)
def test_a_block_that_overwrites(case, settings):
    does, call, made = WRITING[case]

    def fresh():
        model = net(does, call=call)
        for layer in model.layers:
            layer.register_buffer("times", torch.ones(D).double())
            layer.mask = torch.ones(D).double()
        return model

    one, two = (watched(Run, chosen, fresh()) for chosen in (settings, again(settings)))
    same(two[1], one[1])
    assert (two[0].tape.around.again, two[0].tape.around.whole) == made
    one, two = (watched(Pairs, chosen, fresh(), rows=SECANTS) for chosen in (SECANT, again(SECANT)))
    same(two[1], one[1])


@pytest.mark.parametrize("settings", EXTREMES, ids=named)
@pytest.mark.parametrize("case", AFTER)
def test_a_model_that_overwrites_after_a_block(case, settings):
    model = net(lambda self, h, m=0.0: F.gelu(self.part(h + m)), call=AFTER[case])
    both(model, settings)
    paired(model)


def test_a_block_that_computes_something_else_the_second_time_is_refused():
    def does(self, h):
        self.calls = getattr(self, "calls", 0) + 1
        return self.part(h) * self.calls

    with pytest.raises(ModelError, match=r"module 'layers.2' gave something else.*Leave `checkpoint` out"):
        watched(Run, again(Settings()), net(does))


@pytest.mark.parametrize("instead", [[3], [torch.ones(1)], []], ids=str)
def test_so_is_one_that_gives_fewer_tensors_the_second_time(instead):
    def does(self, h):
        self.calls = getattr(self, "calls", 0) + 1
        return [self.part(h), *([self.part(h)] if self.calls == 1 else instead)]

    with pytest.raises(ModelError, match="gave something else"):
        watched(Run, again(Settings()), net(does, call=lambda layer, h: sum(layer(h))))


# ---- surroundings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Run, Pairs])
def test_random_numbers_of_a_block_are_drawn_again_and_no_others_are(kind):
    model = net(lambda self, h: self.part(h * torch.rand(D).double()))
    rows, settings = (ROWS, Settings()) if kind is Run else (SECANTS, SECANT)
    drawn, found = [], []
    for chosen in (settings, again(settings)):
        torch.manual_seed(3)
        found.append(watched(kind, chosen, model, rows=rows)[1])
        drawn.append(torch.rand(2))
    same(found[1], found[0])
    assert torch.equal(*drawn)


def test_autocast_is_as_it_was():
    model = net().float()
    x = inputs(1, 4, D).float()
    found = []
    for settings in (Settings(), again(Settings())):
        recording = Recording(Run(settings, model, ROWS))

        def cast(t):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return scalar(model(t).float())

        found.append(recording.explain(recording.watched(cast, recording.source(x))))
    one, two = (p.sources[0].relevance for p in found)
    np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-9)
    assert not np.allclose(one, watched(Run, Settings(), model, x)[1].sources[0].relevance, rtol=1e-6)


def test_torch_is_as_it_was_and_other_threads_never_notice():
    own, model, seen = nn.Module.__call__, net(), []
    plain = model(inputs(1, 4, D))

    def elsewhere():
        seen.append((torch.equal(model(inputs(1, 4, D)), plain), nn.Module.__call__ is own))

    def forward(t):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return scalar(model(t))

    run = Run(again(Settings()), model, ROWS)
    replay(run, forward, [inputs(1, 4, D)])
    assert seen == [(True, False)]
    assert run.tape.around.again == 3
    assert nn.Module.__call__ is own
    with pytest.raises(ZeroDivisionError):
        replay(run, lambda t: scalar(model(t)) / (1 // 0), [inputs(1, 4, D)])
    assert nn.Module.__call__ is own


# ---- the second look -----------------------------------------------------------------------------------------------


def test_an_audit_of_blocks_is_the_same_and_finds_what_is_planted():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 1.001

    rows = {**ROWS, "relu": type(ROWS["relu"])(lambda run, call: Wrong.apply(call.native()), "wrong by a thousandth")}
    model = net(lambda self, h: F.relu(self.part(h)))
    for table in (ROWS, rows):
        audits = [watched(Audit, chosen, model, rows=table)[0] for chosen in (Settings(), again(Settings()))]
        one, two = ([(i.operation, i.module) for i in a.imbalances() if abs(i.relevance) > 1e-9] for a in audits)
        assert sorted(one) == sorted(two) == ([("relu", f"layers.{n}") for n in range(3)] if table is rows else [])
        sizes = [sum(abs(i.relevance) for i in a.imbalances()) for a in audits]
        assert sizes[0] == pytest.approx(sizes[1], rel=1e-9, abs=1e-12)
    audits = [watched(PairsAudit, chosen, model, rows=SECANTS)[0] for chosen in (SECANT, again(SECANT))]
    assert audits[1].tape.around.again == 3
    assert audits[0].measured.entries() == audits[1].measured.entries()


# ---- which blocks --------------------------------------------------------------------------------------------------


def test_blocks_are_what_a_list_repeats():
    assert blocks(net()) != []
    assert blocks(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == []  # nothing to save
    twice = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert blocks(nn.ModuleList([twice, twice])) == [twice]
    assert blocks(nn.Sequential(twice, nn.Flatten(), nn.Linear(2, 2))) == []
    inner = nn.ModuleList([nn.ModuleList([block(), block()]), nn.ModuleList([block()])])
    assert blocks(nn.Sequential(inner)) == list(inner)  # the outermost
    alone = nn.ModuleList([block()])
    assert blocks(nn.Sequential(alone)) == list(alone)
    assert blocks(nn.ModuleDict({"a": alone, "b": block()})) == list(alone)
    assert blocks(nn.Linear(2, 2)) == []


def test_a_model_without_blocks_is_explained_as_ever_and_says_so():
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))
    x = {"input": torch.randn(1, 8)}
    for method in ("lrp", "secant"):
        plain, found = (
            AttentionVisualizer(model, method=method, checkpoint=each).explain(x, target=0) for each in (False, True)
        )
        np.testing.assert_array_equal(plain.relevance, found.relevance)
        assert found.notes == (*plain.notes, UNUSED)
        assert found.recipe.settings["checkpoint"] is True
    assert AttentionVisualizer(model, checkpoint=True).settings.method == "secant"


def test_several_baselines_keep_their_words():
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))
    found = AttentionVisualizer(model, checkpoint=True).explain(
        {"input": torch.randn(1, 8)}, target=0, baseline=["zero", torch.ones(1, 8)]
    )
    assert found.notes[0].startswith("The mean of 2 comparisons")
    assert UNUSED not in found.notes[0]
    assert found.notes[1:] == (UNUSED,)


# ---- models --------------------------------------------------------------------------------------------------------


def _albert():
    from transformers import AlbertConfig, AlbertForSequenceClassification

    sizes = {"vocab_size": 50, "embedding_size": 8, "hidden_size": 16, "intermediate_size": 32, "num_labels": 3}
    return AlbertForSequenceClassification(AlbertConfig(num_hidden_layers=3, num_attention_heads=2, **sizes))


def _t5():
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=16, d_kv=8, num_layers=2, num_heads=2, d_ff=32, decoder_start_token_id=0)
    )


def _llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3}
    return LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=2, **sizes))


MODELS = {"shared weights": _albert, "relative positions, two stacks": _t5, "grouped keys": _llama}


@pytest.mark.parametrize(
    "more", [{"method": "lrp"}, {"preset": "attnlrp"}, {"attention": "attnlrp"}, {"method": "secant"}], ids=str
)
@pytest.mark.parametrize("name", MODELS)
def test_models(name, more):
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    texts = [{"input_ids": torch.arange(n).unsqueeze(0) * 7 % 45 + 3} for n in (9, 6)]
    for each in texts:
        each["attention_mask"] = torch.ones_like(each["input_ids"])
        if name.startswith("relative"):
            each["decoder_input_ids"] = each["input_ids"][:, :4]
    av = AttentionVisualizer(model, **more)
    plain, found = (av.explain(texts, target=1, checkpoint=each) for each in (False, True))
    for a, b in zip(plain, found, strict=True):
        np.testing.assert_allclose(a.relevance, b.relevance, rtol=1e-9, atol=1e-12)
        assert a.conservation_error == pytest.approx(b.conservation_error, abs=1e-9)
        assert [e.module for e in a.ledger] == [e.module for e in b.ledger]
        assert [e.relevance for e in a.ledger] == pytest.approx([e.relevance for e in b.ledger], rel=1e-9, abs=1e-12)
        assert a.notes == b.notes


def test_a_continuation_is_explained_token_by_token():
    av = AttentionVisualizer.from_pretrained("clearhead/captions", dtype="float64", method="lrp")
    plain, found = (av.explain("A man in a", generate=3, checkpoint=each, batch_size=2) for each in (False, True))
    for a, b in zip(plain, found, strict=True):
        np.testing.assert_allclose(a.relevance, b.relevance, rtol=1e-9, atol=1e-12)
        assert a.notes == b.notes


def test_explaining_leaves_no_cycle_behind():
    av = AttentionVisualizer(net().float(), checkpoint=True, method="lrp")
    x = {"x": torch.randn(1, 4, D)}
    av.explain(x, target=scalar)
    gc.collect()
    gc.disable()
    try:
        before = sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())
        for _ in range(20):
            av.explain(x, target=scalar)
        after = sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())
    finally:
        gc.enable()
    assert after - before < 20
