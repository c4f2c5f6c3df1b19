"""Where a difference begins, what only moves values, and what chooses among them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding as lookup

from clearhead.lookups import blank
from clearhead.relevance.rules.norms import CONSTANT, FACTORIES
from clearhead.relevance.rules.sources import FOURIER
from clearhead.relevance.run import Row
from clearhead.relevance.secant.carrying import carried, fitted, held
from clearhead.relevance.secant.linear import NATIVE, native
from clearhead.relevance.secant.meter import unruled
from clearhead.relevance.secant.numerics import bent
from clearhead.relevance.secant.pairs import Pair, Pairs
from clearhead.tape import dependent

# ---- sources -------------------------------------------------------------------------------------------------------


def embedding(run: Pairs, call: Pair) -> Tensor:
    """A lookup is a source where the ids of both differ."""
    (ids, other_ids), (weight, _) = call.both(0, "input"), call.both(1, "weight")
    if dependent(weight):
        return unruled(run, call)  # type: ignore[no-any-return]
    if ids is other_ids:
        return call.native()  # type: ignore[no-any-return]
    return run.source(looked_up(ids, weight, run.vector), looked_up(other_ids, weight, run.vector), ids)


def looked_up(ids: Tensor, weight: Tensor, vector: str) -> Tensor:
    """The vectors of ids, some of which may be no token's."""
    return blank(lookup(ids.clamp_min(0), weight), ids, weight, vector)


def dropout(_: Pairs, call: Pair) -> Tensor:
    """The identity: explanations are made in evaluation mode."""
    return call.get(0, "input")  # type: ignore[no-any-return]


def cosine_similarity(run: Pairs, call: Pair) -> Any:
    """Two unit vectors and their product, written out."""

    def written_out(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
        lengths = [torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_min(eps) for x in (x1, x2)]
        products: Tensor = x1 / lengths[0] * (x2 / lengths[1])
        return products.sum(dim)

    return run.tape.under(written_out, *call.args, **call.kwargs)


# ---- choices -------------------------------------------------------------------------------------------------------


def chosen(run: Pairs, call: Pair) -> Any:
    """Values with their places, as `topk` gives them: the baseline's values are those in the input's places."""
    result = call.native()
    if isinstance(result, Tensor):
        return _extreme(run, call, result)
    values, places = result
    own = call.other()
    x, other = call.both(0, "input")
    dim = _axis(call)
    if not torch.equal(places, own[1]):
        run.part(call, "selection")
    keeps = values.dim() == x.dim()
    index = places if keeps else places.unsqueeze(dim)
    taken = other.gather(dim, index)
    run.pair(values, taken if keeps else taken.squeeze(dim))
    return result


def sampled(run: Pairs, call: Pair) -> Any:
    """`F.grid_sample(x, grid)`: linear in what is read, if both inputs read it in the same places."""
    return unruled(run, call) if dependent(call.get(1, "grid")) else native(run, call)


def _axis(call: Pair) -> int:
    names = {"topk": 2, "kthvalue": 2}
    dim = call.get(names.get(call.operation.name, 1), "dim", -1)
    return dim if isinstance(dim, int) and not isinstance(dim, bool) else -1


def _extreme(run: Pairs, call: Pair, result: Tensor) -> Any:
    """The largest or smallest of all, or along axes: the mean of those entries of the input that attain it."""
    if isinstance(call.get(1, "other"), Tensor):
        return larger(run, call)
    x, other = call.both(0, "input")
    dim = call.get(1, "dim", None)
    axes = tuple(range(x.dim())) if dim is None or dim == () else ((dim,) if isinstance(dim, int) else tuple(dim))
    whole = result.detach() if result.dim() == x.dim() else _kept(result.detach(), axes, x.dim())
    attained = x.detach() == whole
    shares = attained / attained.sum(axes, keepdim=True)
    own = call.other()
    at_other = (shares * other).sum(axes).reshape(result.shape)
    if not torch.equal(own, at_other):
        run.part(call, "selection")
    return run.pair(result, at_other)


def _kept(y: Tensor, axes: tuple[int, ...], count: int) -> Tensor:
    for axis in sorted(each % count for each in axes):
        y = y.unsqueeze(axis)
    return y


def pooled(run: Pairs, call: Pair) -> Any:
    """The largest in each window: the baseline's values are those in the input's places."""
    name, x = call.operation.name, call.get(0, "input")
    if call.kwargs.get("return_indices") or name.endswith("with_indices"):
        return unruled(run, call)
    function = getattr(torch.nn.functional, f"{name}_with_indices")
    options = {key: value for key, value in call.kwargs.items() if key not in ("input", "return_indices")}
    values, places = function(x, *call.args[1:], **options)
    other = run.other(x)
    if other is None:
        return values
    _, own = function(other, *call.args[1:], **options)
    if not torch.equal(places, own):
        run.part(call, "selection")
    axes = int(name[-2])
    taken = other.flatten(-axes).gather(-1, places.flatten(-axes)).reshape(places.shape)
    return run.pair(values, taken)


def larger(run: Pairs, call: Pair) -> Any:
    r"""$\max(u, v) = \tfrac12(u + v + |u - v|)$: $m_u = m\tfrac{1 + \sigma}2$, $m_v = m\tfrac{1 - \sigma}2$."""
    (u, u_b), (v, v_b) = call.both(0, "input"), call.both(1, "other")
    u_b, v_b = (x.detach() if isinstance(x, Tensor) else x for x in (u_b, v_b))
    apart, apart_b = u.detach() - v.detach(), u_b - v_b
    sigma = bent(torch.abs)(apart, apart_b, apart.abs(), apart_b.abs())
    sign = -1 if call.operation.name in ("minimum", "fmin", "min") else 1

    def back(m: Tensor, share: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return fitted(m * share, u), fitted(m * (1 - share), v)

    return run.pair(carried(held(call).native(), (u, v), back, (1 + sign * sigma) / 2), call.other())


def choice(run: Pairs, call: Pair) -> Any:
    """A comparison, a number, or the place of something: the baseline follows the input."""
    return run.paired(held(call).native(), call.other(), call)


_LINEAR = (
    "reshape view view_as reshape_as flatten unflatten squeeze unsqueeze transpose t permute movedim contiguous clone "
    "expand expand_as broadcast_to repeat repeat_interleave tile getitem select narrow split split_with_sizes chunk "
    "tensor_split unbind index_select gather take take_along_dim masked_select roll flip rot90 tril triu diag diagonal "
    "mean sum nansum cumsum to type_as float double half bfloat16 cpu cuda unfold fold "
    "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d interpolate pixel_shuffle "
    "positive real atleast_1d atleast_2d atleast_3d swapaxes T mT H mH ravel as_strided conj resolve_conj resolve_neg "
    "meshgrid diag_embed trace alias squeeze_copy view_as_real view_as_complex complex imag "
    "where pad constant_pad_nd cat stack hstack vstack dstack column_stack block_diag "
    "setitem copy fill masked_fill index_put index_add index_copy index_fill scatter scatter_add "
    "masked_scatter put slice_scatter select_scatter zero"
).split()
_CHOICES = (
    "eq ne lt le gt ge isnan isinf isfinite argmax argmin argsort nonzero any all count_nonzero bool int long item "
    "tolist is_nonzero allclose equal numpy unique unique_consecutive"
).split()
_DROPOUTS = "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout".split()

ROWS = {
    "embedding": Row(embedding, "a source", always=True),
    **dict.fromkeys((*_LINEAR, *FOURIER), NATIVE),
    **dict.fromkeys(FACTORIES.split(), CONSTANT),
    **dict.fromkeys(_DROPOUTS, Row(dropout, "the identity")),
    **dict.fromkeys(_CHOICES, Row(choice, "a choice: the baseline follows the input", ("selection",))),
    **dict.fromkeys(
        "max min amax amin topk sort median".split(),
        Row(chosen, "chosen values pass; the baseline follows the input's choice", ("selection",)),
    ),
    **dict.fromkeys(
        "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d".split(),
        Row(pooled, "chosen values pass; the baseline follows the input's choice", ("selection",)),
    ),
    **dict.fromkeys("maximum minimum fmax fmin".split(), Row(larger, "m_u = m (1 + s) / 2, s the secant of |u - v|")),
    "grid_sampler": Row(sampled, "linear where the grid is a constant", ("unruled",)),
    "cosine_similarity": Row(cosine_similarity, "two norms and a product"),
    **dict.fromkeys("scatter_reduce msort cdist".split(), Row(unruled, "the gradient", ("unruled",))),
}
