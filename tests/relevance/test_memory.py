"""What an explanation holds at a time, in bytes of tensors, against a forward pass and its gradient."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
import transformers
from torch.profiler import ProfilerActivity, profile

from clearhead import AttentionVisualizer

IDS = torch.arange(96).unsqueeze(0) + 5


def allocated(run: Callable[[], object]) -> int:
    """The most bytes that are allocated at a time while something runs the second time."""
    run()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    now = most = 0
    for event in sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def bert() -> torch.nn.Module:
    torch.manual_seed(0)
    size = {"hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 384}
    config = transformers.BertConfig(vocab_size=200, **size)
    return transformers.BertForSequenceClassification(config).eval().requires_grad_(False)


def llama() -> torch.nn.Module:
    torch.manual_seed(0)
    size = {"hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 256}
    config = transformers.LlamaConfig(vocab_size=200, **size)
    return transformers.LlamaForCausalLM(config).eval().requires_grad_(False)


@pytest.mark.parametrize("build", [bert, llama])
@pytest.mark.parametrize(("preset", "most"), [("attnlrp", 1.0), ("cp-lrp", 1.0), ("default", 1.3)])
def test_an_explanation_holds_little_more_than_a_gradient_does(build, preset, most):
    model = build()
    more = {"use_cache": False} if build is llama else {}

    def scalar(output: object) -> torch.Tensor:
        return output.logits.flatten()[-1]  # type: ignore[attr-defined]

    def gradient() -> None:
        x = model.get_input_embeddings()(IDS).requires_grad_()
        torch.autograd.grad(scalar(model(inputs_embeds=x, **more)), x)

    av = AttentionVisualizer(model, preset=preset)
    assert allocated(lambda: av.explain({"input_ids": IDS}, target=scalar)) <= most * allocated(gradient)
