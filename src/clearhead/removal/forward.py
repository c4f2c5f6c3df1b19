"""One call of the model about many variants of one input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import ClearheadError
from clearhead.lookups import Blanks
from clearhead.question import Question, batched, failed, uncached


def called(question: Question, tensors: Mapping[str, Any], blanks: Blanks) -> Any:
    """What the model makes of the tensors of one pass, lookups as `blanks` has them. Raises ModelError if it fails."""
    try:
        return blanks.tape.under(question.model, **uncached(question.model, tensors))
    except (ClearheadError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise failed(question.model, tensors, error) from error


def repeated(tensors: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The tensors of a batch of one as those of a batch of many, each row the same; copies, free to be overwritten."""
    return {
        name: value.detach().repeat(count, *[1] * (value.dim() - 1)) if batched(value, 1) else value
        for name, value in tensors.items()
    }


def size(output: Any) -> int:
    """The bytes of all tensors in an output."""
    if isinstance(output, Tensor):
        return output.numel() * output.element_size()
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (list, tuple)) else ()
    return sum(size(part) for part in parts)
