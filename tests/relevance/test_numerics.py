"""Sums, shares and the memory that they are computed in."""

from __future__ import annotations

import threading

import pytest
import torch

from clearhead.relevance.numerics import LITTLE, chord, fair_shares, give_back, room, rooms, row_dot, stabilised

INFINITY = float("inf")


def tensors(*shape: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for _ in range(3)]


def test_a_room_is_the_same_memory_again_and_again_in_its_block_and_thread_only():
    a, b = tensors(LITTLE, 3)[0], tensors(LITTLE)[0]
    one, another = room(a), room(a)
    assert one.data_ptr() != another.data_ptr()
    with rooms():
        first = room(a)
        assert first.shape == a.shape
        assert room(b).data_ptr() == first.data_ptr()
        assert room(a.float()).dtype == torch.float32
        with rooms():
            assert room(a).data_ptr() != first.data_ptr()
        assert room(a).data_ptr() == first.data_ptr()
        elsewhere: list[int] = []
        other = threading.Thread(target=lambda: elsewhere.append(room(a).data_ptr()))
        other.start()
        other.join()
        assert elsewhere != [first.data_ptr()]


@pytest.mark.parametrize("shared", [False, True])
def test_no_result_lies_in_a_room(shared):
    """Each function gives the same numbers with memory that is used again, and what it gave stays what it was."""
    x, y, G = tensors(5, LITTLE)
    calls = [
        lambda: (row_dot(x, G),),
        lambda: stabilised(G, y, 0.1),
        lambda: (chord(x, y, x[0] - 1, y[0] + 1),),
        lambda: give_back(x, y[:, :1], G.clone())[:1],
        lambda: (row_dot(x[0, 0], G[0, 0]),),
    ]
    expected = [[t.clone() for t in call()] for call in calls]
    if shared:
        with rooms():
            found = [call() for call in calls]
            room(x).fill_(torch.nan)
    else:
        found = [call() for call in calls]
    for mine, theirs in zip(found, expected, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a.equal(b)


def test_a_masked_score_without_gradient_counts_nothing():
    x, _, G = tensors(2, 3)
    x[0, 1], G[0, 1] = -INFINITY, 0
    expected = torch.stack([x[0, 0] * G[0, 0] + x[0, 2] * G[0, 2], (x[1] * G[1]).sum()])
    torch.testing.assert_close(row_dot(x, G).squeeze(-1), expected)


def test_sums_of_half_precision_are_wide():
    x, _, G = tensors(2, 64, dtype=torch.bfloat16)
    found = row_dot(x, G)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (x.double() * G.double()).sum(-1, keepdim=True).float())


def test_one_wide_factor_makes_a_sum_wide():
    x, _, G = tensors(2, 64)
    for value, gradient in ((x.float(), G.bfloat16()), (x.bfloat16(), G.float())):
        found = row_dot(value, gradient)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, (value.double() * gradient.double()).sum(-1, keepdim=True).float())


@pytest.mark.parametrize("bad", [0.0, 1e-320, INFINITY, torch.nan])
def test_shares_that_cannot_be_written_down_are_not_taken(bad):
    leak, size = torch.ones(3, 1).double(), torch.tensor([[2.0], [4.0], [8.0]]).double()
    share, taken = fair_shares(leak, size)
    assert taken is None
    assert share.flatten().tolist() == [0.5, 0.25, 0.125]
    size[1] = bad
    share, taken = fair_shares(leak, size)
    assert taken is not None
    assert taken.flatten().tolist() == [True, False, True]
    assert share.flatten().tolist() == [0.5, 0, 0.125]


def test_a_share_must_fit_into_the_type_of_the_gradient():
    leak = torch.tensor([[1e6], [1.0]])
    share, taken = fair_shares(leak, torch.ones(2, 1), torch.float16)
    assert taken is not None
    assert taken.flatten().tolist() == [False, True]
    assert share.dtype == torch.float16
    assert share.flatten().tolist() == [0, 1]
