"""One attention, whatever computes it: written out, by either kernel of torch, or by the one that takes functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

from clearhead import AttentionVisualizer

ASKED = {"lrp": {"method": "lrp"}, "attnlrp": {"preset": "attnlrp"}, "secant": {"method": "secant"}}
X = {"input_ids": torch.arange(5, 21)[None]}


def model(attention: str) -> torch.nn.Module:
    """Grouped queries, and in every second layer a window of four positions."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=99,
        sliding_window=4,
        use_sliding_window=True,
        max_window_layers=1,
        initializer_range=0.3,
    )
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@pytest.fixture(scope="module")
def written_out():
    net = model("eager")
    return {name: AttentionVisualizer(net).explain(X, **asked) for name, asked in ASKED.items()}


def agree(found, expected):
    size = np.abs(expected.relevance).max()
    np.testing.assert_allclose(found.relevance, expected.relevance, atol=1e-5 * size, rtol=0)
    assert found.value == pytest.approx(expected.value, rel=1e-5)
    assert found.residual < 1e-5
    assert not [entry for entry in found.ledger if entry.cause == "unruled"]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("kernel", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], ids=lambda kernel: kernel.name)
def test_the_kernels_of_torch(kernel, asked, written_out):
    with sdpa_kernel([kernel, SDPBackend.MATH]):  # flash takes no mask of a window
        agree(AttentionVisualizer(model("sdpa")).explain(X, **ASKED[asked]), written_out[asked])


@pytest.mark.filterwarnings("ignore")  # torch says that it runs uncompiled, which is what is wanted
@pytest.mark.parametrize("asked", ASKED)
def test_attention_by_functions(asked, written_out):
    """On the CPU torch has no way back through it; under the tape none is needed."""
    from torch.nn.attention import flex_attention

    before = flex_attention._validate_device
    agree(AttentionVisualizer(model("flex_attention")).explain(X, **ASKED[asked]), written_out[asked])
    assert flex_attention._validate_device is before
