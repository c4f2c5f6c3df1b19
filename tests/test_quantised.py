"""Quantised weights are explained as the plain weights they stand for; what has no gradient is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from clearhead import AttentionVisualizer
from clearhead.errors import ModelError
from tasks.gallery import gallery

ENTRY, TEXT = "text-classification/bert", "a good film , not a bad one ."
ASKED = {
    "lrp": {"method": "lrp"},
    "attnlrp": {"preset": "attnlrp"},
    "gamma": {"preset": "gamma"},
    "secant": {"method": "secant"},
    "integrated-gradients": {"method": "integrated-gradients", "steps": 4},
    "attention": {"method": "attention"},
    "gradcam": {"method": "gradcam"},
}
RULED = ("lrp", "attnlrp", "gamma", "secant")


def quantised(weight: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Whole numbers from -most to most, and a scale for each row."""
    scale = weight.abs().amax(1, keepdim=True) / most
    return (weight / scale).round().to(torch.int8), scale


class Bytes(nn.Module):
    """A linear layer that keeps bytes, and multiplies with what they stand for."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        numbers, scale = quantised(layer.weight.detach(), 127)
        self.register_buffer("numbers", numbers)
        self.register_buffer("scale", scale)
        self.bias = layer.bias

    def plain(self) -> Tensor:
        return self.numbers.to(self.scale.dtype) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.plain(), self.bias)


def unpacked(packed: Tensor, scale: Tensor) -> Tensor:
    return (torch.stack([packed & 15, packed >> 4], -1).flatten(1).to(scale.dtype) - 8) * scale


class Product(torch.autograd.Function):
    """Two numbers in a byte; unpacked on the way there and on the way back."""

    @staticmethod
    def forward(ctx, x, packed, scale, bias):
        ctx.kept = packed, scale
        return functional.linear(x, unpacked(packed, scale), bias)

    @staticmethod
    def backward(ctx, gradient):
        return gradient @ unpacked(*ctx.kept), None, None, None


class Nibbles(nn.Module):
    """A linear layer of four bits a weight."""

    product = Product

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        numbers, scale = quantised(layer.weight.detach(), 7)
        raised = (numbers + 8).to(torch.uint8)
        self.packed = nn.Parameter(raised[:, ::2] | raised[:, 1::2] << 4, requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = layer.bias

    def plain(self) -> Tensor:
        return unpacked(self.packed, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.product.apply(x, self.packed, self.scale, self.bias)


class KernelProduct(Product):
    """The same by a kernel that torch cannot differentiate: numpy."""

    @staticmethod
    def forward(ctx, x, packed, scale, bias):
        ctx.kept = packed, scale
        made = x.detach().numpy() @ unpacked(packed, scale).numpy().T + bias.detach().numpy()
        return torch.from_numpy(made)


class Kernel(Nibbles):
    product = KernelProduct


class RoundingProduct(Product):
    """A product of whole numbers: what is read is rounded too, and the way back is that of the plain product."""

    @staticmethod
    def forward(ctx, x, packed, scale, bias):
        ctx.kept = packed, scale
        size = x.abs().amax(-1, keepdim=True) / 2**14
        return functional.linear((x / size).round().to(torch.int16).to(x.dtype) * size, unpacked(packed, scale), bias)


class Rounding(Nibbles):
    product = RoundingProduct


class Held(Tensor):
    """A subclass of tensors that holds a matrix as whole numbers and scales, as quantising libraries make them."""

    @staticmethod
    def __new__(cls, numbers: Tensor, scale: Tensor):
        return Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=scale.dtype)

    def __init__(self, numbers: Tensor, scale: Tensor) -> None:
        self.numbers, self.scale = numbers, scale

    def __tensor_flatten__(self):
        return ["numbers", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, inner, about, size, stride):
        return cls(**inner)

    def dequantize(self) -> Tensor:
        return self.numbers.to(self.scale.dtype) * self.scale

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is functional.linear:
            x, weight, *rest = args
            return functional.linear(x, weight.dequantize(), *rest, **(kwargs or {}))
        return super().__torch_function__(function, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(args[0].numbers, args[0].scale)
        raise NotImplementedError(f"{function} of packed numbers")


def subclassed(layer: nn.Linear) -> nn.Linear:
    numbers, scale = quantised(layer.weight.detach(), 127)
    found = copy.deepcopy(layer)
    found.weight = nn.Parameter(Held(numbers, scale), requires_grad=False)
    return found


def replaced(model: nn.Module, make) -> nn.Module:
    """A copy with other layers in the place of all linear ones."""
    found = copy.deepcopy(model)
    for path, layer in list(found.named_modules()):
        if isinstance(layer, nn.Linear):
            owner, _, name = path.rpartition(".")
            setattr(found.get_submodule(owner), name, make(layer))
    return found.eval()


def plainly(make):
    """Plain layers with the weights that quantised ones stand for."""

    def layer(own: nn.Linear) -> nn.Linear:
        made = make(own)
        weight = made.plain() if hasattr(made, "plain") else made.weight.dequantize()
        own.weight = nn.Parameter(weight.detach().clone())
        return own

    return layer


def explained(model: nn.Module, asked: str):
    one = gallery(ENTRY)
    return AttentionVisualizer(model, one.processor, task=one.task).explain(TEXT, **ASKED[asked])


def books(found) -> dict[tuple[str, str], float]:
    return {(each.cause, each.module): each.relevance for each in found.ledger}


MADE = {"bytes": Bytes, "nibbles": Nibbles, "kernel": Kernel, "subclass": subclassed}


WAYS = [(name, asked) for name in MADE for asked in (RULED if name in ("bytes", "nibbles") else ASKED)]


@pytest.mark.parametrize(("name", "asked"), WAYS)
def test_quantised_weights_are_explained_as_what_they_stand_for(name, asked):
    model = copy.deepcopy(gallery(ENTRY).model).double()
    found = explained(replaced(model, MADE[name]), asked)
    expected = explained(replaced(model, plainly(MADE[name])), asked)
    assert found.value == pytest.approx(expected.value, rel=1e-9)
    assert np.abs(found.relevance - expected.relevance).max() <= 1e-6 * np.abs(expected.relevance).max()
    if asked in RULED:
        assert found.residual < 1e-9
    if asked in RULED[:3]:
        mine, theirs = books(found), books(expected)
        assert {key for key, amount in theirs.items() if abs(amount) > 1e-9} <= mine.keys()
        assert all(amount == pytest.approx(theirs.get(key, 0.0), abs=1e-7) for key, amount in mine.items())


@pytest.mark.parametrize("asked", RULED)
def test_a_product_that_rounds_what_it_reads_is_explained_by_its_own_way_back(asked):
    """Near the plain one, with closed books; taken apart it would seem to depend on nothing but its scale."""
    model = copy.deepcopy(gallery(ENTRY).model).double()
    found = explained(replaced(model, Rounding), asked)
    expected = explained(replaced(model, plainly(Rounding)), asked)
    assert np.abs(found.relevance - expected.relevance).max() <= 1e-2 * np.abs(expected.relevance).max()
    assert found.residual < (1e-2 if asked in ("gamma", "secant") else 1e-9)


def test_strict_takes_packed_weights():
    model = replaced(copy.deepcopy(gallery(ENTRY).model).double(), Kernel)
    one = gallery(ENTRY)
    found = AttentionVisualizer(model, one.processor, task=one.task).explain(TEXT, strict=True)
    assert found.conservation_error < 1e-9


def test_the_fingerprint_tells_packed_weights_apart():
    one, other = gallery(ENTRY).model, copy.deepcopy(gallery(ENTRY).model)
    with torch.no_grad():
        other.classifier.weight.neg_()
    prints = [
        explained(replaced(model, subclassed), "attention").recipe.model_fingerprint for model in (one, one, other)
    ]
    assert prints[0] == prints[1] != prints[2]


class Whole(Bytes):
    """Activations of bytes, multiplied as whole numbers: there is no way back."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            size = x.abs().amax(-1, keepdim=True) / 127
            numbers = (x / size).round().to(torch.int8).int() @ self.numbers.T.int()
            return numbers * size * self.scale.T + self.bias


class HeldWhole(Held):
    """Packed numbers whose product rounds what it reads."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch.no_grad():
            return super().__torch_function__(function, types, args, kwargs)


def rounding(layer: nn.Linear) -> nn.Linear:
    found = subclassed(layer)
    found.weight = nn.Parameter(HeldWhole(found.weight.numbers, found.weight.scale), requires_grad=False)
    return found


@pytest.mark.parametrize("asked", ["lrp", "secant", "attention", "gradcam"])
@pytest.mark.parametrize("make", [Whole, rounding])
def test_without_a_gradient_the_reason_is_told(make, asked):
    model = replaced(gallery(ENTRY).model, make)
    with pytest.raises(ModelError, match=r"[Gg]radient|depend"):
        explained(model, asked)
