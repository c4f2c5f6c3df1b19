"""Which modules were called and which are blocks, on models whose structure is known by hand."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from clearhead.sight.modules import blocks, first_tensor, sequence, watched
from tasks.gallery import gallery
from tasks.plainly import encoded

X = torch.arange(6.0).reshape(1, 3, 2)


class Part(nn.Module):
    """Something that turns each vector into another."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 2)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return x + scale * self.map(x)


class Other(Part):
    """Another kind of the same."""


class Chain(nn.Module):
    """A list whose members follow each other."""

    def __init__(self, *members: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        for each in self.members:
            x = each(x)
        return x


class Heads(nn.Module):
    """A block with a list whose members all get the same."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([Part(), Part()])

    def forward(self, x: Tensor) -> Tensor:
        return sum(head(x) for head in self.heads)


def paths(net: nn.Module, x: Tensor = X) -> list[str]:
    with watched(net, lambda _, tensor: tensor) as calls:
        net(x)
    return [call.path for call in blocks(calls.ended)]


def hooks(net: nn.Module) -> list[object]:
    own = [(path, vars(each)) for path, each in net.named_modules()]
    return [(path, key) for path, held in own for key, value in held.items() if "hook" in key and value]


# ---- calls ----------------------------------------------------------------------------------------------------------


def test_calls_are_told_with_what_went_in_and_came_out():
    net = Chain(Part(), Part())
    with watched(net, lambda _, tensor: tensor, arguments=True) as calls:
        y = net(X)
    assert [call.path for call in calls.ended] == ["members.0.map", "members.0", "members.1.map", "members.1", ""]
    inner, first, _, second, whole = calls.ended
    assert inner.within is first
    assert first.within is whole
    assert list(inner.around) == [first, whole]
    assert first.given is X
    assert second.given is first.output
    assert whole.output is y
    assert [call.member for call in calls.ended] == [False, True, False, True, False]
    assert first.args == (X,)
    assert not calls.open


def test_hooks_are_gone_afterwards_also_after_an_exception():
    net, seen = Chain(Part(), nn.Linear(3, 3)), []

    def called() -> None:
        with watched(net, lambda *_: None):
            seen.extend(hooks(net))
            net(X)

    with pytest.raises(RuntimeError):
        called()
    assert seen
    assert not hooks(net)


def test_a_call_that_fails_inside_of_another_is_forgotten():
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bad, self.good = nn.Linear(3, 3), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.bad(x)
            except RuntimeError:
                return self.good(x)

    net = Tries()
    with watched(net, lambda _, tensor: tensor) as calls:
        net(X)
    assert [call.path for call in calls.ended] == ["good", ""]


def test_other_threads_are_not_watched():
    net = Part()
    with watched(net, lambda _, tensor: tensor) as calls:
        thread = threading.Thread(target=net, args=(X,))
        thread.start()
        thread.join()
    assert not calls.ended


def test_a_keyword_is_an_argument_too():
    net = Part()
    with watched(net, lambda _, tensor: tensor, arguments=True) as calls:
        net(x=X, scale=2.0)
    assert calls.ended[-1].given is X
    assert calls.ended[-1].kwargs == {"x": X, "scale": 2.0}


def test_the_first_tensor_of_floats():
    assert first_tensor((None, torch.tensor([1]), [{"a": X}])) is X
    assert first_tensor((None, 3, "text")) is None


def test_a_sequence_has_one_axis_of_length_one_in_front():
    assert sequence(X).shape == (3, 2)
    assert torch.equal(sequence(X.transpose(0, 1)), X[0])
    assert sequence(X[0]) is None
    assert sequence(torch.zeros(2, 3, 4)) is None


# ---- blocks ---------------------------------------------------------------------------------------------------------


def test_members_of_a_list_are_blocks():
    assert paths(Chain(Part(), Part(), Other())) == ["members.0", "members.1", "members.2"]


def test_modules_without_parts_are_none():
    assert paths(nn.Sequential(nn.Linear(2, 2), Part(), nn.ReLU(), Part())) == ["1", "3"]
    assert paths(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == []


def test_a_list_of_sublayers_is_part_of_a_block():
    assert paths(Chain(Chain(Part(), Other()), Chain(Part(), Other()))) == ["members.0", "members.1"]


def test_stages_are_lists_of_blocks():
    net = Chain(Chain(Part(), Part()), Chain(Part(), Part()))
    assert paths(net) == [f"members.{i}.members.{j}" for i in range(2) for j in range(2)]


def test_members_that_all_get_the_same_are_no_chain():
    assert paths(Chain(Heads(), Heads())) == ["members.0", "members.1"]


def test_a_module_that_is_called_again_is_a_block_each_time():
    part = Part()
    assert paths(Chain(part, part, part)) == ["members.0"] * 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text-classification/bert", ["bert.encoder.layer.0", "bert.encoder.layer.1"]),
        ("encoder-decoder/t5", [f"{side}.block.{n}" for side in ("encoder", "decoder") for n in range(2)]),
    ],
)
def test_blocks_of_known_models(name, expected):
    one = gallery(name)
    read = encoded(one, one.inputs[0])
    if one.task == "encoder-decoder":
        read = {**read, "decoder_input_ids": read["input_ids"][:, :3]}
    with torch.no_grad(), watched(one.model, lambda _, tensor: tensor) as calls:
        one.model(**read)
    assert [call.path for call in blocks(calls.ended)] == expected


def test_blocks_within_stages_of_a_known_model():
    one = gallery("image-classification/swin")
    with torch.no_grad(), watched(one.model, lambda _, tensor: tensor) as calls:
        one.model(**one.processor(one.inputs[0], return_tensors="pt"))
    assert [call.path for call in blocks(calls.ended)] == [
        f"swin.encoder.layers.{i}.blocks.{j}" for i in range(2) for j in range(2)
    ]
