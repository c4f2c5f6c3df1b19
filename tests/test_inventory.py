"""The flat walk sees what torch's own generators see, and tells when something has changed."""

from __future__ import annotations

import torch
from torch import nn

from clearhead import inventory


class Odd(nn.Module):
    """One module in two places, one weight in two, an empty place, a buffer, and a parameter that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.again = self.first
        self.nothing = None
        self.register_module("empty", None)
        self.register_parameter("none", None)
        self.head = nn.Linear(3, 3)
        self.head.weight = self.first[0].weight


def test_modules_parameters_and_buffers_are_those_of_torch():
    model = Odd()
    assert list(inventory.modules(model)) == list(model.named_modules())
    assert list(inventory.parameters(model).items()) == list(model.named_parameters())
    both = {id(x) for x in (*model.parameters(), *model.buffers())}
    assert {id(x) for x in inventory.tensors(model).values()} == both


def test_a_change_is_seen():
    model = Odd()
    before, values = inventory.versions(inventory.tensors(model)), inventory.firsts(inventory.tensors(model))
    assert (inventory.versions(inventory.tensors(model)), inventory.firsts(inventory.tensors(model))) == (
        before,
        values,
    )
    model.head.bias.data.add_(1)  # past autograd: only the values tell
    assert inventory.versions(inventory.tensors(model)) == before
    assert inventory.firsts(inventory.tensors(model)) != values
    with torch.no_grad():
        model.head.bias.add_(1)
    assert inventory.versions(inventory.tensors(model)) != before
    model = Odd()
    before = inventory.versions(inventory.tensors(model))
    model.head.bias = nn.Parameter(model.head.bias.detach().clone())
    assert inventory.versions(inventory.tensors(model)) != before


def test_weights_without_values_have_no_first_entry():
    assert inventory.firsts(inventory.tensors(nn.Linear(2, 2, device="meta"))) == ()
    assert len(inventory.firsts(inventory.tensors(nn.Linear(2, 2).bfloat16()))) == 2
