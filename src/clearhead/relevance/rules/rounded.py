"""What is rounded to whole numbers: weights that a subclass of tensors holds, and activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clearhead.errors import ModelError
from clearhead.relevance.run import Call, Run
from clearhead.tape import OpaqueError, Tape, apart, is_tensor, picked

NARROW = (torch.int8, torch.uint8, torch.int16)  # places and numbers of classes are wider


class RoundedError(OpaqueError, ModelError):
    """No gradient passes: inside a custom function its own backward stands in, elsewhere nothing does."""


def whole(tape: Tape, call: Call, result: Any) -> Any:
    """The result; raises RoundedError where a custom function being taken apart makes narrow whole numbers of x."""
    if apart() and any(each.dtype in NARROW for each in picked((result,), is_tensor)):
        raise rounded(tape, call)
    return result


def rounded(tape: Tape, call: Call) -> RoundedError:
    """Why a call is refused."""
    return RoundedError(
        f"No gradient passes through products of integers; `{call.operation.name}` in module {tape.module()!r} makes "
        "one. Explain the model before it was quantised, or one whose weights are quantised but not its activations."
    )


def dense(run: Run, call: Call, a: Tensor, weight: Tensor) -> Tensor:
    """The weight of a layer that reads `a` as a plain tensor, also where a subclass holds packed numbers.

    Raises ModelError where the layer has no way back: such a one rounds activations too.
    """
    if getattr(type(weight), "dequantize", Tensor.dequantize) is Tensor.dequantize:
        return weight
    row = a.detach().reshape(-1, a.shape[-1])[:1].requires_grad_()
    if not call.changed(lambda _: row).native().requires_grad:
        raise rounded(run.tape, call)
    return weight.dequantize().detach()
