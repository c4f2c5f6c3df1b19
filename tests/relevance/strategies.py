"""What hypothesis draws: values with zeros, tiny and large ones among them, shapes, settings."""

from __future__ import annotations

import hypothesis
import torch
from hypothesis import strategies as st

import oracles
from relevance.twins import SETTINGS, agree, inputs

examples = hypothesis.settings(
    max_examples=50,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
)
choices = st.sampled_from(SETTINGS)


@st.composite
def values(draw, *shape: int, dtype: torch.dtype = torch.float64, awkward: bool = True) -> torch.Tensor:
    """Normal values, some of them replaced by zeros, tiny and large ones."""
    x = inputs(*shape, dtype=dtype, seed=draw(st.integers(0, 10**6)))
    special = [0.0, -0.0, 1e-30, -1e-30, 1e-8, 1e4, -1e4] if dtype == torch.float64 else [0.0, 1e-20, -1e-3, 30.0]
    if awkward:
        for _ in range(draw(st.integers(0, 4))):
            at = draw(st.integers(0, x.numel() - 1))
            x.view(-1)[at] = draw(st.sampled_from(special))
    return x


@st.composite
def problems(draw):
    """An input [B, T, d], the width of the output, and settings."""
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    B, T, d, out = (draw(st.integers(1, n)) for n in (2, 3, 5, 5))
    return draw(values(B, T, d, dtype=dtype)), out, draw(choices)


def checked(function, x, oracle, c, settings):
    """`agree`, where the oracle is defined."""
    try:
        return agree(function, x, oracle, c, settings)
    except oracles.Undefined:
        hypothesis.reject()
