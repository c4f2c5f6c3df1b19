"""Linear operations: the multiplier is the matrix, whatever both values are, and a bias cancels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearhead.relevance.rules.sources import FOURIER
from relevance.secant.books import close, difference_of, pair, seeded_net, shares, weighted
from relevance.twins import inputs

W, C = inputs(5, 4, seed=3), inputs(2, 3, 4, seed=4)
KEEP = inputs(2, 3, 4, seed=5) > 0
TRIANGLE = inputs(2, 3, 3, seed=10).tril() + 2 * torch.eye(3, dtype=torch.float64)
INDEX = torch.tensor([2, 0, 0])
K1, K2 = inputs(4, 3, 2, seed=6), inputs(4, 2, 2, 2, seed=7)
K3 = inputs(2, 1, 2, 2, 2, seed=8)
PLACES = torch.tensor([[[0, 2, 1, 1]], [[1, 1, 0, 2]]])

# Functions of x [2, 3, 4].


def as_real(y: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(y.resolve_conj()) if y.is_complex() else y


MAPS = {
    "linear": lambda x: F.linear(x, W, inputs(5, seed=9)),
    "matmul": lambda x: x @ W.T,
    "matmul from the left": lambda x: inputs(5, 3, seed=9) @ x,
    "mv": lambda x: torch.mv(x[0], W[0]),
    "dot": lambda x: torch.dot(x[0, 0], W[0]).reshape(1),
    "bmm": lambda x: torch.bmm(x, inputs(2, 4, 3, seed=9)),
    "baddbmm": lambda x: torch.baddbmm(C[..., :1], x, inputs(2, 4, 3, seed=9), beta=0.5, alpha=2),
    "addmm": lambda x: torch.addmm(inputs(5, seed=9), x[0], W.T),
    "inner": lambda x: torch.inner(x, W),
    "outer": lambda x: torch.outer(x[0, 0], W[0]),
    "einsum": lambda x: torch.einsum("btd,ed->bet", x, W),
    "einsum of three": lambda x: torch.einsum("btd,ed,e->bt", x, W, inputs(5, seed=9)),
    "tensordot": lambda x: torch.tensordot(x, W, dims=([2], [1])),
    "conv1d": lambda x: F.conv1d(x, K1, inputs(4, seed=9), padding=1),
    "conv1d, strided": lambda x: F.conv1d(x, K1, stride=2),
    "conv1d, groups": lambda x: F.conv1d(x, inputs(3, 1, 2, seed=9), groups=3),
    "conv2d": lambda x: F.conv2d(x.unsqueeze(0), K2, inputs(4, seed=9)),
    "conv3d": lambda x: F.conv3d(x[None, None], K3, dilation=1),
    "conv_transpose1d": lambda x: F.conv_transpose1d(x, inputs(3, 2, 2, seed=9)),
    "plus": lambda x: x + C,
    "minus": lambda x: 3 - x - C,
    "rsub": lambda x: torch.rsub(x, 2.0, alpha=0.5),
    "times": lambda x: x * C * 2,
    "divided": lambda x: x / C / 2,
    "negative": torch.neg,
    "sum": lambda x: x.sum((0, 2)),
    "mean": lambda x: x.mean(1, keepdim=True),
    "mean of all": lambda x: x.mean().reshape(1),
    "cumsum": lambda x: torch.cumsum(x, 1),
    "reshape": lambda x: x.reshape(4, 6).view(3, 8),
    "flatten": lambda x: x.flatten(1).unflatten(1, (4, 3)),
    "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: x.transpose(0, 2).contiguous(),
    "T": lambda x: x[0].T @ W.T[:3],
    "mT": lambda x: x.mT @ W.T[:3],
    "movedim": lambda x: torch.movedim(x, 0, -1),
    "squeeze": lambda x: x.unsqueeze(0).squeeze(0),
    "expand": lambda x: x.unsqueeze(1).expand(2, 2, 3, 4),
    "repeat": lambda x: x.repeat(1, 2, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=1),
    "tile": lambda x: torch.tile(x, (2,)),
    "cat": lambda x: torch.cat([x, 2 * x, C], dim=1),
    "stack": lambda x: torch.stack([x[0], C[0], x[1]]),
    "hstack": lambda x: torch.hstack([x[0], x[1]]),
    "split": lambda x: x.split([1, 2], dim=1)[1],
    "chunk": lambda x: x.chunk(2, dim=-1)[0] - x.chunk(2, dim=-1)[1],
    "unbind": lambda x: x.unbind(1)[1],
    "slice": lambda x: x[:, ::2, 1:],
    "index": lambda x: x[:, INDEX],
    "ellipsis": lambda x: x[..., None, 0],
    "boolean index": lambda x: x[KEEP],
    "index_select": lambda x: torch.index_select(x, 1, INDEX),
    "gather": lambda x: torch.gather(x, 1, PLACES),
    "take_along_dim": lambda x: torch.take_along_dim(x, PLACES, dim=1),
    "masked_select": lambda x: torch.masked_select(x, KEEP),
    "masked_fill": lambda x: x.masked_fill(KEEP, -3.0),
    "where": lambda x: torch.where(KEEP, x, C),
    "where of itself": lambda x: torch.where(KEEP, x, 2 * x),
    "tril": torch.tril,
    "pad": lambda x: F.pad(x, (1, 2), value=0.5),
    "pad, reflected": lambda x: F.pad(x, (1, 1), mode="reflect"),
    "roll": lambda x: torch.roll(x, 1, 2),
    "flip": lambda x: x.flip(1),
    "diagonal": lambda x: torch.diagonal(x, dim1=1, dim2=2),
    "unfold": lambda x: x.unfold(2, 2, 1),
    "F.unfold": lambda x: F.unfold(x.unsqueeze(0), 2),
    "as_strided": lambda x: torch.as_strided(x, (3, 2), (2, 1)),
    "index_add": lambda x: torch.index_add(C, 1, INDEX, x),
    "scatter_add": lambda x: torch.scatter_add(C, 1, PLACES.expand(2, 3, 4).contiguous(), x),
    "scatter": lambda x: torch.scatter(C, 1, PLACES, x[:, :1]),
    "avg_pool": lambda x: F.avg_pool1d(x, 2),
    "adaptive_avg_pool": lambda x: F.adaptive_avg_pool1d(x, 3),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2, mode="linear"),
    "interpolate 2d": lambda x: F.interpolate(x.unsqueeze(0), size=(5, 5), mode="bicubic"),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.reshape(1, 4, 2, 3), 2),
    "batch_norm": lambda x: F.batch_norm(x, C[0, :, 0], C[0, :, 1].abs(), C[0, :, 2], C[0, :, 3]),
    "batch_norm, torch's own": lambda x: torch.batch_norm(
        x, C[0, :, 2], C[0, :, 3], C[0, :, 0], C[0, :, 1].abs(), False, 0.1, 1e-5, False
    ),
    "instance_norm, kept statistics": lambda x: F.instance_norm(
        x, C[0, :, 0], C[0, :, 1].abs(), C[0, :, 2], C[0, :, 3], use_input_stats=False
    ),
    **{name: (lambda x, name=name: as_real(getattr(torch.fft, name[4:])(x))) for name in FOURIER},
    "complex of two": lambda x: torch.complex(x, 2 * x).imag,
    "imag": lambda x: torch.view_as_complex(x.reshape(2, 3, 2, 2)).imag,
    "grid_sample": lambda x: F.grid_sample(x[None], C.reshape(1, 3, 4, 2), align_corners=False),
    "solve_triangular": lambda x: torch.linalg.solve_triangular(TRIANGLE, x, upper=False),
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "clone": lambda x: x.clone().contiguous(),
    "to": lambda x: x.to(torch.float64).double().type_as(C),
    "narrow": lambda x: x.narrow(2, 1, 2),
    "select": lambda x: x.select(1, 2),
    "split_with_sizes": lambda x: x.split_with_sizes([1, 2], 1)[1],
    "tensor_split": lambda x: torch.tensor_split(x, 3, dim=2)[0],
    "broadcast_to": lambda x: torch.broadcast_to(x.unsqueeze(0), (2, 2, 3, 4)),
    "reshape_as": lambda x: x.reshape_as(C.reshape(6, 4)).view_as(C.reshape(4, 6)),
    "ravel": torch.ravel,
    "swapaxes": lambda x: torch.swapaxes(x, 0, 1),
    "t": lambda x: x[0].t() @ W.T[:3],
    "take": lambda x: torch.take(x, torch.tensor([0, 5, 5, 23])),
    "triu": torch.triu,
    "diag": lambda x: torch.diag(x[0, 0]) + torch.diag_embed(x[0, 1]),
    "vstack": lambda x: torch.cat([torch.vstack([x[0], x[1]]), torch.dstack([x[0], x[1]]).flatten(1)[:, :4]]),
    "column_stack": lambda x: torch.column_stack([x[0], x[1]]),
    "atleast": lambda x: torch.atleast_1d(x) + torch.atleast_2d(x) + torch.atleast_3d(x),
    "constant_pad_nd": lambda x: torch.constant_pad_nd(x, (1, 0, 0, 2), 3.0),
    "nansum": lambda x: torch.nansum(x, 1),
    "fold": lambda x: F.fold(x.reshape(1, 4, 6), (3, 4), 2),
    "index_copy": lambda x: torch.index_copy(C, 1, torch.tensor([2, 0]), x[:, :2]),
    "index_fill": lambda x: torch.index_fill(x, 1, torch.tensor([1]), 4.0),
    "fill": lambda x: torch.fill(x, 2.0) * x,
    "put": lambda x: torch.put(C, torch.tensor([1, 7]), x[0, 0, :2]),
    "masked_scatter": lambda x: torch.masked_scatter(C, KEEP, x),
    "select_scatter": lambda x: torch.select_scatter(C, x[:, 0], 1, 2) + torch.slice_scatter(C, x[:, :2], 1, 1, 3),
    "avg_pool2d": lambda x: F.avg_pool2d(x[None], 2) + F.adaptive_avg_pool2d(x[None], (1, 2)),
    "avg_pool3d": lambda x: F.avg_pool3d(x[None, None], 2),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x[None], inputs(2, 3, 2, 2, seed=9)),
    "conv_transpose3d": lambda x: F.conv_transpose3d(x[None, None], inputs(1, 2, 2, 2, 2, seed=9)),
    "vdot": lambda x: torch.vdot(x[0, 0], W[0]).reshape(1),
    "dropout1d": lambda x: F.dropout1d(x, training=False) + F.dropout2d(x[None], training=False)[0],
    "dropout3d": lambda x: F.dropout3d(x[None, None], training=False),
    "alpha_dropout": lambda x: F.feature_alpha_dropout(F.alpha_dropout(x, training=False), training=False),
    "complex": lambda x: torch.view_as_real(torch.view_as_complex(x.reshape(2, 3, 2, 2)) * torch.polar(C, C)[..., :2]),
    "cpu": lambda x: x.cpu().detach() + x,
    "trace": lambda x: torch.trace(x[0]).reshape(1),
    "block_diag": lambda x: torch.block_diag(x[0], C[0]),
    "meshgrid": lambda x: torch.meshgrid(x[0, 0], x[0, 1], indexing="ij")[0],
    "rot90": lambda x: torch.rot90(x, 1, (1, 2)),
}


def explicit(function, *shape: int) -> torch.Tensor:
    """The gradient of a scalar function that is linear but for a constant, entry by entry."""
    zero = torch.zeros(shape, dtype=torch.float64)
    each = torch.eye(zero.numel(), dtype=torch.float64).reshape(-1, *shape)
    return torch.stack([function(e) - function(zero) for e in each]).reshape(shape)


@pytest.mark.parametrize("name", MAPS)
def test_linear_operations_are_their_matrix(name):
    x, b = pair(2, 3, 4)
    f = weighted(MAPS[name])
    G = explicit(f, 2, 3, 4)
    p = difference_of(f, [x], [b])
    close(p.sources[0].gradient, G)
    close(p.sources[0].relevance, (x - b) * G)


NARROW = {
    "linear": lambda x: F.linear(x, W.to(x.dtype), inputs(5, seed=9).to(x.dtype)),
    "conv1d": lambda x: F.conv1d(x, K1.to(x.dtype), padding=1),
    "bmm": lambda x: x @ C.mT.to(x.dtype),
    "mean": lambda x: x.mean(1),
    "cat": lambda x: torch.cat([x, 2 * x], dim=1),
    "index": lambda x: x[:, INDEX],
}


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_linear_operations_in_every_type(name, dtype):
    x, b = pair(2, 3, 4, dtype=dtype)
    weights = inputs(*NARROW[name](x).shape, dtype=dtype, seed=77)
    p = difference_of(weighted(NARROW[name]), [x], [b])
    assert p.sources[0].gradient.dtype == dtype

    G = explicit(lambda t: (NARROW[name](t) * weights.double()).sum(), 2, 3, 4)
    close(p.sources[0].gradient, G, 16 * torch.finfo(dtype).eps)


def test_two_inputs_share_what_is_made_of_both():
    x, b = pair(2, 3, 4)
    y, c = pair(2, 3, 4, seed=9)

    def f(s, t):
        h = torch.cat([s, t @ W.T[:, :4]], dim=1) + torch.where(KEEP, s, t).repeat(1, 2, 1)
        return (h * inputs(2, 6, 4, seed=10)).sum()

    p = difference_of(f, [x, y], [b, c])
    zero = torch.zeros_like(x)
    close(p.sources[0].gradient, explicit(lambda s: f(s, zero), 2, 3, 4))
    close(p.sources[1].gradient, explicit(lambda t: f(zero, t), 2, 3, 4))


def test_a_deep_linear_net_is_the_product_of_its_matrices():
    net = seeded_net(lambda: nn.Sequential(nn.Linear(4, 7), nn.Linear(7, 6), nn.Linear(6, 3)))
    x, b = pair(5, 4)
    R = shares(weighted(net), x, b, model=net)
    weights = inputs(5, 3, seed=77)
    close(R, (x - b) * (weights @ net[2].weight @ net[1].weight @ net[0].weight))


def test_an_input_that_is_not_used_gets_nothing():
    x, b = pair(3, 4)
    y, c = pair(2, 2, seed=4)
    p = difference_of(lambda s, t: s.sum(), [x, y], [b, c])
    assert not p.sources[1].relevance.any()
    close(p.sources[0].relevance, x - b)


def test_a_scalar_input():
    x, b = torch.tensor(2.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    assert float(shares(lambda t: t * 3 + 1, x, b)) == pytest.approx(9.0, rel=1e-14)
