"""Half precision ranks units as double precision does, is finite, and says what its rounding may come to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bench.tasks import held_out, sentences
from clearhead import AttentionVisualizer

ASKED = {"lrp": {"method": "lrp"}, "attnlrp": {"preset": "attnlrp"}, "secant": {"method": "secant"}}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
INPUTS = {"sentiment": lambda: sentences(None)[:4], "digits": lambda: held_out()[0][:4]}


def maps(name: str, dtype: torch.dtype, asked: str):
    av = AttentionVisualizer.from_pretrained(f"clearhead/{name}", dtype=dtype)
    return [av.explain(each, **ASKED[asked]) for each in INPUTS[name]()]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", INPUTS)
def test_ranks_agree_with_double_precision(name, asked):
    exact = maps(name, torch.float64, asked)
    for dtype in DTYPES:
        found = maps(name, dtype, asked)
        assert all(np.isfinite(each.relevance).all() for each in found)
        ranks = [spearmanr(a.relevance, b.relevance).statistic for a, b in zip(exact, found, strict=True)]
        assert np.mean(ranks) >= 0.99, (dtype, ranks)
        for each in found:
            moved = float(np.abs(each.relevance).sum()) + abs(each.value)
            assert each.residual * abs(each.value) <= 8 * torch.finfo(dtype).eps * moved
            assert each.rounding_floor > 0
            assert each.recipe.dtype == str(dtype).removeprefix("torch.")
