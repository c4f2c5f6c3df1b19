"""Models that cannot be explained are refused with the reason; compiled ones are explained as they were written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer
from clearhead.errors import ModelError, UsageError
from clearhead.subjects.accepting import accepted

X = {"input": torch.linspace(-1, 1, 8).reshape(1, 8)}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)).eval()


class Returns(nn.Module):
    """Whatever it is told to, with a layer that gives it weights."""

    def __init__(self, make) -> None:
        super().__init__()
        self.inner, self.make = nn.Linear(8, 3), make

    def forward(self, input):
        return self.make(self, input)


class Bare(nn.Module):
    def forward(self, input):
        return input * 2


def explained(model, **asked):
    return AttentionVisualizer(model).explain(X, **{"target": 0, **asked})


REFUSED = {
    "a function": (lambda: lambda x: x, UsageError, r"torch.nn.Module; found function"),
    "no weights": (Bare, ModelError, r"Bare has none. If it wraps a model, keep that as an attribute"),
    "on the meta device": (lambda: net().to("meta"), ModelError, r"meta device have a shape but no values"),
    "a constant": (lambda: Returns(lambda self, x: self.inner.bias[None] * 1), ModelError, r"depend on the input"),
    "a text": (lambda: Returns(lambda self, x: "yes"), ModelError, r"needs a model with logits; this one returns str"),
    "nothing": (lambda: Returns(lambda self, x: None), ModelError, r"this one returns NoneType"),
    "without gradients": (lambda: Returns(torch.no_grad()(lambda self, x: self.inner(x))), ModelError, r"no_grad"),
    "whole numbers": (lambda: Returns(lambda self, x: self.inner(x).argmax(-1, keepdim=True)), ModelError, r"integer"),
}


@pytest.mark.parametrize("method", ["lrp", "secant", "integrated-gradients"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_explained_is_refused(name, method):
    make, kind, said = REFUSED[name]
    if name in ("a constant", "without gradients", "whole numbers") and method == "integrated-gradients":
        pytest.skip("it has a message of its own")
    with pytest.raises(kind, match=said):
        explained(make().eval() if isinstance(make(), nn.Module) else make(), method=method)


def test_layers_that_compute_with_integers_are_refused():
    """By the place where their class lives, which is the name that the message gives."""
    layer = type("Linear", (nn.Linear,), {"__module__": "torch.ao.nn.quantized.dynamic.modules.linear"})(8, 3)
    with pytest.raises(ModelError, match=r"'0' is a torch.ao.nn.quantized.dynamic.modules.linear.Linear"):
        accepted(nn.Sequential(layer))


def test_weights_may_lie_beside_the_parameters():
    """A tensor that a module keeps as an attribute, as some wrappers do."""
    bare = Bare()
    bare.weight = torch.ones(3)
    assert accepted(bare)[0] is bare


class Compiled(nn.Module):
    """What the compiler of torch makes of a module: it keeps it under this name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model

    def forward(self, input):
        raise AssertionError("the compiled code is not asked")


@pytest.mark.parametrize("method", ["lrp", "secant"])
def test_a_compiled_model_is_explained_as_it_was_written(method):
    found, expected = explained(Compiled(net()), method=method), explained(net(), method=method)
    assert np.array_equal(found.relevance, expected.relevance)
    assert sum("is compiled" in note for note in found.warnings) == 1
    assert not any("compiled" in note for note in expected.warnings)


def test_parts_that_torch_compiled_run_as_they_were_written(monkeypatch):
    """`torch.compile` itself, on one layer: nothing is compiled, as its backend would tell."""
    compilers = pytest.importorskip("torch._dynamo")
    asked: list[str] = []

    def backend(graph, inputs):
        asked.append("compiled")
        return graph.forward

    model = net()
    expected = explained(model, method="lrp")
    model[0] = torch.compile(model[0], backend=backend)
    found = explained(model, method="lrp")
    assert not asked
    assert np.allclose(found.relevance, expected.relevance)
    assert any("is compiled" in note for note in found.warnings)
    model(X["input"])
    assert asked  # outside of an explanation it is compiled as before
    compilers.reset()
