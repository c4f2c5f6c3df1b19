"""What is kept is as it was, whoever overwrites it; what can be made again is made once, and forgotten in time."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from clearhead.tape import Keeper


def made(keeper: Keeper, x: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Twice x, which can be made again, and how often it was."""
    calls: list[int] = []

    def double(value: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return value * 2

    result = x * 2
    keeper.make(result, double, keeper.keep(x))
    return result, calls


def test_a_value_is_as_it_was_when_it_was_kept():
    keeper, x = Keeper(), torch.ones(3)
    kept = keeper.keep(x)
    assert kept.value.data_ptr() == x.data_ptr()
    keeper.spare(x)
    x.zero_()
    assert kept.value.tolist() == [1, 1, 1]


def test_what_can_be_made_again_is_not_kept_and_is_made_once_for_all_readers():
    keeper = Keeper()
    result, calls = made(keeper, torch.arange(6.0))
    first, second = keeper.keep(result), keeper.keep(result.view(2, 3))
    expected, there = result.clone(), weakref.ref(result)
    del result
    gc.collect()
    assert there() is None, "nobody needs to keep it"
    assert first.value.equal(expected)
    assert second.value.equal(expected.view(2, 3))
    assert len(calls) == 1
    assert first.value.equal(expected), "another way back makes it anew"
    assert len(calls) == 2


def test_it_is_made_of_what_was_there_before_the_model_overwrote_it():
    keeper, x = Keeper(), torch.ones(3)
    result, _ = made(keeper, x)
    kept = keeper.keep(result)
    keeper.spare(x)
    x.zero_()
    assert kept.value.tolist() == [2, 2, 2]


def test_a_result_that_was_overwritten_is_kept_as_it_is_now():
    keeper = Keeper()
    result, calls = made(keeper, torch.ones(3))
    result.add_(5)
    assert keeper.keep(result).value.tolist() == [7, 7, 7]
    assert not calls


def test_a_part_of_a_result_is_kept_as_a_part():
    keeper = Keeper()
    result, _ = made(keeper, torch.arange(6.0).view(2, 3))
    assert keeper.keep(result[1]).value.tolist() == [6, 8, 10]
    assert keeper.keep(result.T).value.tolist() == result.T.tolist()


def test_on_the_last_way_back_a_value_is_forgotten_once_it_is_taken():
    keeper = Keeper()
    kept = keeper.keep(torch.ones(3))
    assert kept.take().tolist() == [1, 1, 1]
    keeper.last = True
    there = weakref.ref(kept.take())
    gc.collect()
    assert there() is None
    with pytest.raises(RuntimeError, match="read again"):
        kept.take()
