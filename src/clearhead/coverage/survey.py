"""One model type: built, run by itself, explained in several ways, and the books of each way read."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clearhead import AttentionVisualizer
from clearhead.coverage.building import NotBuiltError, built, plainly, said, tensors
from clearhead.maps import RelevanceMap

ASKED: dict[str, dict[str, Any]] = {
    "lrp": {"method": "lrp"},
    "attnlrp": {"method": "lrp", "preset": "attnlrp"},
    "secant": {"method": "secant"},
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(kw_only=True)
class Books:
    """What one way of explaining one model gave; `error` says why it gave nothing."""

    error: str = ""
    value: float | None = None
    conservation_error: float | None = None
    residual: float | None = None
    unruled: dict[str, float] = field(default_factory=dict)
    causes: dict[str, float] = field(default_factory=dict)
    difference: float | None = None
    seconds: float | None = None


@dataclass(kw_only=True)
class Record:
    """What came of one model type; `reason` says why there are no books."""

    kind: str
    model_type: str
    reason: str = ""
    way: str = ""
    inputs: list[str] = field(default_factory=list)
    weights: int = 0
    narrow: list[str] = field(default_factory=list)
    books: dict[str, dict[str, Books]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, without what is empty, and figures to three digits, which is more than any of them says."""
        found: dict[str, Any] = _short(asdict(self))
        return {**found, "books": found.get("books", {})}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The record that `as_dict` wrote down."""
        books = {dtype: {name: Books(**each) for name, each in found.items()} for dtype, found in data["books"].items()}
        return cls(**{**data, "books": books})


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items() if each not in ("", {}, [], None)}
    if isinstance(value, list):
        return [_short(each) for each in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def measured(kind: str, model_type: str) -> dict[str, Any]:
    """The record of one type, as plain data, without what libraries print on the way."""
    import transformers

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    return surveyed(kind, model_type).as_dict()


def surveyed(kind: str, model_type: str) -> Record:
    """All that is measured of a model type; what it raises is its reason."""
    record = Record(kind=kind, model_type=model_type)
    try:
        found = built(kind, model_type)
    except NotBuiltError as error:
        record.reason = str(error)
        return record
    record.way, record.inputs = found.way, list(found.inputs)
    record.weights = sum(p.numel() for p in found.model.parameters())
    record.books["float32"] = _explained(found.model, found.inputs)
    with in_double():
        model, given = found.model.double(), {name: _wide(value) for name, value in found.inputs.items()}
        try:
            record.narrow = narrowed(model, given)
        except Exception as error:  # not every model knows float64
            record.narrow = [said("run in float64", error)]
        else:
            record.books["float64"] = _explained(model, given)
    return record


def _wide(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _explained(model: nn.Module, given: Mapping[str, Any]) -> dict[str, Books]:
    return {name: _books(model, given, settings) for name, settings in ASKED.items()}


def _books(model: nn.Module, given: Mapping[str, Any], settings: Mapping[str, Any]) -> Books:
    """The books of one way, and how far the model's answer under the tape is from its own."""
    answers: list[Tensor] = []
    own: list[Tensor] = []

    def target(output: Any) -> Tensor:
        answers[:] = [each.detach() for each in tensors(output)]
        return scalar(output, own)

    start = time.perf_counter()
    try:
        own[:] = tensors(plainly(model, given))
        found: RelevanceMap = AttentionVisualizer(model).explain(dict(given), target=target, **settings)
    except Exception as error:  # whatever stands in the way is what the table is for
        return Books(error=said("explained", error))
    seconds = time.perf_counter() - start
    pairs = [(a, b.detach()) for a, b in zip(own, answers, strict=True)] if len(own) == len(answers) else []
    books = Books(
        value=found.value,
        conservation_error=found.conservation_error,
        residual=found.residual,
        difference=max((float((a - b).abs().max() / a.abs().max().clamp_min(1e-9)) for a, b in pairs), default=None),
        seconds=seconds,
    )
    for entry in found.ledger:
        if entry.cause == "unruled":
            books.unruled[entry.operation] = books.unruled.get(entry.operation, 0.0) + entry.relevance
        elif not entry.returned:
            books.causes[entry.cause] = books.causes.get(entry.cause, 0.0) + entry.relevance
    return books


def scalar(output: Any, own: Sequence[Tensor]) -> Tensor:
    """What is explained: the largest score of the last position by size, or how far the numbers go in their direction.

    That direction is the one of the model's `own` answer by itself, so that the value is its length, never near 0.
    """
    every = list(tensors(output))
    n = next((n for n, each in enumerate(every) if each.numel() > 1), 0)
    y = every[n]
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor) and logits.dim() in (2, 3):
        scores = logits[0] if logits.dim() == 2 else logits[0, -1]
        return scores[int(scores.detach().abs().argmax())]
    if not y.dim():
        return y
    weights = own[n][0].to(y) / own[n][0].to(y).norm()
    length: Tensor = (y[0] * weights).sum()
    return length


# ---- double precision ----------------------------------------------------------------------------------------------


@contextmanager
def in_double() -> Iterator[None]:
    """Models that ask for single precision in their norms and rotations get double, or that is all there would be."""
    kept: list[tuple[Any, str, Any]] = [
        (torch, "float32", torch.float32),
        (torch, "float", torch.float),
        (Tensor, "float", Tensor.float),
    ]
    double: Callable[..., Tensor] = Tensor.double
    try:
        for (where, name, _), new in zip(kept, (torch.float64, torch.float64, double), strict=True):
            setattr(where, name, new)
        yield
    finally:
        for where, name, old in kept:
            setattr(where, name, old)


SINGLE = torch.float32  # itself, whatever stands in its place


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations that give single precision."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.noted: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation itself."""
        result = func(*args, **(kwargs or {}))
        made = any(isinstance(x, Tensor) and x.is_floating_point() for x in tree_leaves((args, kwargs)))
        if made and any(isinstance(x, Tensor) and x.dtype == SINGLE and x.dim() for x in tree_leaves(result)):
            self.noted[func.overloadpacket.__name__] = None
        return result


def narrowed(model: nn.Module, given: Mapping[str, Any]) -> list[str]:
    """The operations of a model in double precision that still compute in single."""
    with Watch() as watch:
        plainly(model, given)
    return list(watch.noted)
