"""Every spelling is the same operation: functions, methods, operators, reflected and in-place forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.tape import operation

SPELLINGS = {
    "add": [torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__],
    "sub": [torch.sub, torch.subtract, Tensor.sub, Tensor.sub_, Tensor.subtract, Tensor.__sub__, Tensor.__isub__],
    "mul": [
        torch.mul,
        torch.multiply,
        Tensor.mul,
        Tensor.mul_,
        Tensor.multiply,
        Tensor.__mul__,
        Tensor.__rmul__,
        Tensor.__imul__,
    ],
    "div": [
        torch.div,
        torch.divide,
        torch.true_divide,
        Tensor.div,
        Tensor.div_,
        Tensor.true_divide,
        Tensor.__truediv__,
        Tensor.__itruediv__,
        Tensor.__idiv__,
    ],
    "matmul": [torch.matmul, Tensor.matmul, Tensor.__matmul__],
    "bmm": [torch.bmm, Tensor.bmm],
    "addmm": [torch.addmm, Tensor.addmm, Tensor.addmm_],
    "linear": [F.linear, torch._C._nn.linear],
    "gelu": [F.gelu, torch._C._nn.gelu],
    "silu": [F.silu],
    "relu": [F.relu, torch.relu, Tensor.relu, Tensor.relu_, torch.relu_, F.relu_],
    "tanh": [torch.tanh, Tensor.tanh, Tensor.tanh_, torch.tanh_],
    "erf": [torch.erf, Tensor.erf, torch.special.erf],
    "sigmoid": [torch.sigmoid, Tensor.sigmoid, Tensor.sigmoid_, torch.special.expit],
    "exp": [torch.exp, Tensor.exp, Tensor.exp_],
    "pow": [torch.pow, Tensor.pow, Tensor.pow_, Tensor.__pow__],
    "sqrt": [torch.sqrt, Tensor.sqrt, Tensor.sqrt_],
    "rsqrt": [torch.rsqrt, Tensor.rsqrt, Tensor.rsqrt_],
    "softmax": [F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax],
    "layer_norm": [F.layer_norm, torch.layer_norm],
    "rms_norm": [F.rms_norm, torch.rms_norm],
    "embedding": [F.embedding, torch.embedding],
    "dropout": [F.dropout, torch.dropout],
    "scaled_dot_product_attention": [F.scaled_dot_product_attention],
    "cat": [torch.cat, torch.concat, torch.concatenate],
    "getitem": [Tensor.__getitem__],
    "setitem": [Tensor.__setitem__],
    "masked_fill": [torch.masked_fill, Tensor.masked_fill, Tensor.masked_fill_],
    "neg": [torch.neg, Tensor.neg, Tensor.__neg__, torch.negative],
    "abs": [torch.abs, Tensor.abs, Tensor.abs_, torch.absolute],
    "clamp": [torch.clamp, Tensor.clamp, Tensor.clamp_, torch.clip],
}


@pytest.mark.parametrize(
    ("function", "name"),
    [pytest.param(f, name, id=f"{name}-{n}") for name, each in SPELLINGS.items() for n, f in enumerate(each)],
)
def test_every_spelling_is_the_same_operation(function, name):
    assert operation(function) == name
    assert operation(function) == name  # also when it was asked before


def test_different_operations_have_different_names():
    assert len({operation(each[0]) for each in SPELLINGS.values()}) == len(SPELLINGS)


def test_every_function_that_torch_lets_us_see_has_a_name():
    """Whatever a model calls, the tape can say what it was."""
    seen = [f for group in torch.overrides.get_overridable_functions().values() for f in group]
    assert len(seen) > 1000
    names = [operation(f) for f in seen]
    assert all(isinstance(name, str) and name for name in names)
