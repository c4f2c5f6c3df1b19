"""Where relevance ends, and what only selects or moves values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clearhead.relevance.meter import metered, metered_rows
from clearhead.relevance.rules.rounded import whole
from clearhead.relevance.run import AS_IS, Call, Row, Run
from clearhead.tape import dependent


def embedding(run: Run, call: Call) -> Tensor:
    """A lookup is a source: word, position and type vectors of a unit all end here."""
    value: Tensor = call.native()
    if dependent(call.get(1, "weight")) or not value.is_floating_point():
        return value
    return run.source(value, call.get(0, "input"))


def cast(run: Run, call: Call) -> Any:
    """As another type or elsewhere: as is."""
    return whole(run.tape, call, call.native())


def dropout(_: Run, call: Call) -> Tensor:
    """The identity: explanations are made in evaluation mode."""
    return call.get(0, "input")  # type: ignore[no-any-return]


def selection(run: Run, call: Call) -> Any:
    """Chosen values pass; a constant that is chosen instead is a leak."""
    return metered(run, call, "constant") if _constants(call) else call.native()


def extreme(run: Run, call: Call) -> Any:
    """`max` and `min`: those of one tensor pass; of two it is a selection."""
    first, second = call.get(0, "input"), call.get(1, "other")
    if not isinstance(second, Tensor):
        return call.native()
    x, *others = call.dependents()
    whole = not others and x.shape == torch.broadcast_shapes(first.shape, second.shape)
    return metered_rows(run, call, "constant") if whole else selection(run, call)


def sampled(_: Run, call: Call) -> Any:
    """`F.grid_sample(x, grid)`: where it is read is a constant, what is read passes."""
    x, grid, *rest = call.args
    return Call(call.operation, call.function, (x, grid.detach(), *rest), call.kwargs).native()


def writing(run: Run, call: Call) -> Any:
    """`x[i] = v`, `copy_`, `index_add_`, ...: what is kept and what is written pass; constants among them leak."""
    if not _constants(call):
        return call.native()
    if not call.operation.in_place:
        return metered(run, call, "constant")
    written, *rest = call.args

    def beside(x: Tensor, *values: Any, **kwargs: Any) -> Tensor:
        fresh = x.clone()
        call.function(fresh, *values, **kwargs)
        return fresh

    held = Call(call.operation, beside, (written.clone(), *rest), call.kwargs)
    written.copy_(metered(run, held, "constant"))
    return None if call.operation.name == "setitem" else written


def joining(run: Run, call: Call) -> Any:
    """`cat`, `stack`: constant parts are leaks."""
    parts = list(call.get(0, "tensors", ()))
    if call.operation.name == "cat":
        parts = _learned_parts(run, parts, call.get(1, "dim", 0))
        call = Call(
            call.operation,
            call.function,
            (parts, *call.args[1:]),
            {k: v for k, v in call.kwargs.items() if k != "tensors"},
        )
    if any(not dependent(part) and part.is_floating_point() and part.numel() for part in parts):
        return metered(run, call, "constant")
    return call.native()


def _learned_parts(run: Run, parts: list[Tensor], axis: int) -> list[Tensor]:
    """Learned vectors that are put before or behind a sequence (CLS, registers) are sources, with their place in it."""
    if not all(part.dim() == 3 for part in parts) or axis % 3 != 1:
        return parts
    length, first, joined = sum(part.shape[1] for part in parts), 0, []
    for part in parts:
        own = not dependent(part) and part.is_floating_point() and run.learned(part) is not None
        joined.append(run.source(part, None, first, length) if own else part)
        first += part.shape[1]
    return joined


def _constants(call: Call) -> bool:
    """Is there a constant among the values, other than the number 0? An index or an axis may count as one: no harm."""
    values = call.args[:1] + call.args[2:] if call.operation.name == "setitem" else call.args
    return any(_counts(value) for value in (*values, *call.kwargs.values()))


def _counts(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() and not value.requires_grad and value.numel() > 0
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value != 0


def cosine_similarity(run: Run, call: Call) -> Any:
    """Two unit vectors and their product, each under its own rule."""
    return run.tape.under(_cosine, *call.args, **call.kwargs)


def _cosine(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    lengths = [torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_min(eps) for x in (x1, x2)]
    products: Tensor = x1 / lengths[0] * (x2 / lengths[1])
    return products.sum(dim)


_HOMOGENEOUS = (
    "reshape view view_as reshape_as flatten unflatten squeeze unsqueeze transpose t permute movedim contiguous clone "
    "expand expand_as broadcast_to repeat repeat_interleave tile getitem select narrow split split_with_sizes chunk "
    "tensor_split unbind index_select gather take take_along_dim masked_select roll flip rot90 tril triu diag diagonal "
    "mean sum nansum cumsum float double half bfloat16 cpu cuda unfold fold "
    "amax amin topk sort median msort adaptive_max_pool1d max_pool1d max_pool2d max_pool3d avg_pool1d "
    "avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d interpolate pixel_shuffle positive real atleast_1d "
    "atleast_2d atleast_3d swapaxes T mT H mH ravel as_strided conj resolve_conj resolve_neg meshgrid "
    "diag_embed trace alias squeeze_copy view_as_real view_as_complex complex imag"
).split()
FOURIER = [f"fft_{name}{axes}" for name in "fft ifft rfft irfft".split() for axes in ("", "2", "n")]
FOURIER += "fft_hfft fft_ihfft fft_fftshift fft_ifftshift".split()
_READINGS = "eq ne lt le gt ge isnan isinf isfinite item tolist bool int is_nonzero allclose equal".split()
# Dropout in all its spellings; `native_dropout` gives a mask too and is left to the meter.
_DROPOUTS = "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout".split()

ROWS = {
    "embedding": Row(embedding, "a source", always=True),
    **dict.fromkeys((*_HOMOGENEOUS, *FOURIER, *_READINGS), AS_IS),
    **dict.fromkeys(("to", "type_as"), Row(cast, "as is")),
    **dict.fromkeys(("max", "min"), Row(extreme, "the chosen passes; a constant that is chosen leaks", ("constant",))),
    "grid_sampler": Row(sampled, "x as is, the grid a constant"),
    **dict.fromkeys(_DROPOUTS, Row(dropout, "the identity")),
    **dict.fromkeys(
        "where maximum minimum fmax fmin pad constant_pad_nd".split(),
        Row(selection, "chosen values pass; chosen constants leak", ("constant",)),
    ),
    **dict.fromkeys(
        "cat stack hstack vstack dstack column_stack block_diag".split(),
        Row(joining, "each part its own; constant parts leak", ("constant",)),
    ),
    **dict.fromkeys(
        "setitem copy fill masked_fill index_put index_add index_copy index_fill scatter scatter_add scatter_reduce "
        "masked_scatter put slice_scatter select_scatter".split(),
        Row(writing, "what is kept and what is written pass; constants leak", ("constant",), writes=True),
    ),
    "cosine_similarity": Row(cosine_similarity, "two norms and a product"),
}
