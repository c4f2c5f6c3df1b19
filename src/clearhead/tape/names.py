"""One resolver from the many spellings of an operation to its name: `a+b`, `torch.add(a,b)`, `a.add_(b)` are `add`."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Function = Callable[..., Any]

_SYNONYMS = {
    "truediv": "div", "idiv": "div", "true_divide": "div", "divide": "div", "multiply": "mul", "subtract": "sub",
    "negative": "neg", "absolute": "abs", "concat": "cat", "concatenate": "cat", "swapaxes": "transpose",
    "swapdims": "transpose", "moveaxis": "movedim", "clip": "clamp", "logical_not": "bitwise_not", "mm": "matmul",
    "fix": "trunc", "expit": "sigmoid", "linalg_vector_norm": "norm", "linalg_norm": "norm", "vector_norm": "norm",
    "index": "getitem", "log_sigmoid": "logsigmoid",
}  # fmt: skip
_REFLECTED = {"__radd__": "add", "__rmul__": "mul"}  # the others are Python functions made of plain operations
_NUMBERS = dict.fromkeys(("__float__", "__int__", "__bool__"), "item")  # not the casts of these names
_IN_PLACE_OPERATORS = {"add", "sub", "mul", "div", "idiv", "truediv", "pow", "matmul", "floordiv", "mod", "and", "or"}

# Attributes and questions that give no differentiable tensor, or a plain view of one: the hot path of every model.
_QUESTIONS = frozenset(
    "size dim ndimension stride numel nelement is_floating_point is_complex is_contiguous __len__ __index__ "
    "__repr__ __format__ __hash__ __contains__ __setstate__ __reduce_ex__ __get__ __set__ __delete__ data_ptr "
    "element_size get_device requires_grad_ retain_grad register_hook storage untyped_storage is_same_size type "
    "is_tensor has_names backward result_type can_cast".split()
)

_WRITERS = frozenset({"setitem"})  # these overwrite though their name does not say so
_VIEWS = frozenset({"T", "mT", "H", "mH", "real", "imag"})  # attributes that are operations all the same


@dataclass(frozen=True, slots=True)
class Operation:
    """What a function object means: its name, whether it writes in place, and how it is taken apart or made pure."""

    name: str
    question: bool = False
    in_place: bool = False
    in_place_argument: int | None = None  # position of an `inplace` flag
    out_of_place: Function | None = None  # the spelling that returns a new tensor
    composite: Function | None = None  # the function with its own override check switched off


_KNOWN: dict[Function, Operation] = {}


def resolve(function: Function) -> Operation:
    """The operation behind a function object that the tape was handed; remembered per object."""
    found = _KNOWN.get(function)
    if found is None:
        found = _KNOWN[function] = _describe(function)
    return found


def operation(function: Function) -> str:
    """The name of the operation behind any spelling.

    >>> import torch
    >>> operation(torch.Tensor.__rmul__), operation(torch.Tensor.add_), operation(torch.true_divide)
    ('mul', 'add', 'div')
    """
    return resolve(function).name


def writes_in_place(found: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Does this call overwrite its first argument: by its name, or by an `inplace` flag that is set?"""
    if found.in_place:
        return True
    at = found.in_place_argument
    return at is not None and bool(args[at] if len(args) > at else kwargs.get("inplace", False))


def _describe(function: Function) -> Operation:
    raw = getattr(function, "__name__", type(function).__name__)
    if raw == "__get__":
        owner = getattr(function, "__self__", None)
        name = getattr(owner, "__name__", raw)
        return Operation(name, question=name not in _VIEWS)
    name, in_place = _canonical(raw)
    return Operation(
        name,
        question=raw in _QUESTIONS,
        in_place=in_place or name in _WRITERS,
        in_place_argument=_flag(function),
        out_of_place=_pure(name) if in_place else None,
        composite=_unchecked(function) if isinstance(function, types.FunctionType) else None,
    )


def _canonical(raw: str) -> tuple[str, bool]:
    """`__iadd__` -> (`add`, True), `relu_` -> (`relu`, True), `special_erf` -> (`erf`, False)."""
    if raw in _REFLECTED or raw in _NUMBERS:
        return {**_REFLECTED, **_NUMBERS}[raw], False
    in_place = False
    name = raw
    if raw.startswith("__") and raw.endswith("__"):
        name = raw[2:-2]
        if name.startswith("i") and name[1:] in _IN_PLACE_OPERATORS:
            name, in_place = name[1:], True
    elif raw.endswith("_") and not raw.startswith("_"):
        name, in_place = raw[:-1], True
    name = name.removeprefix("special_")
    return _SYNONYMS.get(name, name), in_place


def _pure(name: str) -> Function | None:
    for owner in (torch, torch.nn.functional, torch.Tensor):
        found = getattr(owner, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    return None


def _flag(function: Function) -> int | None:
    if not isinstance(function, types.FunctionType):
        return None
    try:
        names = list(inspect.signature(function).parameters)
    except ValueError:  # a Python wrapper round a C function without a signature
        return None
    return names.index("inplace") if "inplace" in names else None


def _unchecked(function: types.FunctionType) -> Function:
    """A copy of a Python function whose own `has_torch_function` check says no, so that its *parts* meet the tape.

    Calling the function itself under the tape would hand the same function back for ever: its first line asks
    whether anybody overrides it, and the tape does.
    """
    namespace = dict(function.__globals__)
    for check in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"):
        if check in namespace:
            namespace[check] = _no
    copy = types.FunctionType(
        function.__code__, namespace, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _no(*_: object) -> bool:
    return False
