"""The table of secants is whole: it has what lrp has, and each of its rows is computed by some test."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from clearhead.relevance import table as lrp
from clearhead.relevance.rules.norms import FACTORIES
from clearhead.relevance.run import OTHER
from clearhead.relevance.secant.table import ROWS
from clearhead.tape import Tape
from relevance import test_recurrent
from relevance.secant import (
    test_linear,
    test_norms,
    test_overwriting,
    test_pointwise,
    test_products,
    test_selection,
    test_softmax,
    test_unruled,
)
from relevance.twins import inputs


def computed() -> set[str]:
    """The operations that the functions of the other tests are made of."""
    seen: set[str] = set()

    def interpret(operation, function, args, kwargs):
        seen.add(operation.name)
        if operation.name not in ROWS and operation.composite is not None:
            return tape.under(operation.composite, *args, **kwargs)
        return function(*args, **kwargs)

    tape = Tape(interpret)
    for function, given in functions():
        with tape:
            function(*[t.clone().requires_grad_() * 1 if t.is_floating_point() else t for t in given])
    return seen


def functions() -> list[tuple[Callable, list[torch.Tensor]]]:
    x, y = inputs(2, 3, 4), inputs(3, 4)
    found = [(f, [x]) for f in test_linear.MAPS.values()]
    found += [(case.torch, [y.abs() + 0.1]) for case in test_pointwise.CASES.values()]
    found += [(f, [inputs(*u), inputs(*v)]) for f, u, v in test_products.PRODUCTS.values()]
    found += [(f, [test_selection.alike(name)[0]]) for name, f in test_selection.BOTH.items()]
    found += [(f, [y, y * 2]) for f, _ in test_selection.ELEMENTWISE.values()]
    found += [(lambda s, f=f: f(s, -1), [y]) for f, _ in test_softmax.FUNCTIONS.values()]
    found += [(f, [inputs(2, 3, test_norms.D)]) for f, _, _ in test_norms.NORMS.values()]
    found += [(f, [inputs(2, 3, test_norms.D)]) for f, _ in test_norms.OTHERS.values()]
    found += [(f, [y]) for f in (*test_unruled.CURVED.values(), *test_pointwise.STEPS_AND_SAWS.values())]
    found += [(f, [y]) for f, _ in test_overwriting.PAIRS.values()]
    found += [(lambda t: F.group_norm(t, 2), [inputs(2, 4)]), (F.instance_norm, [inputs(2, 3, 4)])]
    found += [(test_recurrent.layer(name), [x]) for name in test_recurrent.LAYERS]
    found += [(make(), [inputs(2, 4, dtype=torch.float32)]) for make in test_recurrent.CELLS.values()]
    found += [(F.embedding, [torch.tensor([0, 2]), y])]
    found += [(lambda t: torch._safe_softmax(t, -1), [y])]
    return [*found, (F.scaled_dot_product_attention, [x, x, x])]


# What only makes new tensors of a shape is the same for both inputs: strangers' models have them.
FACTORY = set(FACTORIES.split())

# Rows that other tests compute, or that only say the same thing in another spelling.
SPELLINGS = set(
    "swapaxes H mH conj real resolve_conj resolve_neg positive alias squeeze_copy float half bfloat16 cuda tolist "
    "item equal allclose is_nonzero isnan isinf isfinite msort feature_dropout view_as_complex view_as_real "
    "_softmax _grouped_mm grouped_mm numpy unique "
    "unique_consecutive flex_attention".split()
)


def test_every_row_is_computed_by_a_test():
    assert set(ROWS) - computed() - SPELLINGS - FACTORY - {OTHER} == set()


def test_what_lrp_knows_secants_know():
    assert set(lrp.ROWS) - set(ROWS) == set()
