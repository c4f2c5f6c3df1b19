"""The models that costs are measured on, and the plain gradient they are compared with: torch and transformers only.

Whatever measures another library runs in that library's environment, so nothing here may import clearhead.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SHAPES = ("BERT", "GPT-2", "Llama")
STACKS = ("MLP", "CNN")
TOY = "toy"


def build(shape: str, positions: int = 0, layers: int = 12) -> nn.Module:
    """A random 768-wide model that reads so many positions; the explained scalar is an entry of its output.

    `toy` has 2 layers and is 32 wide; the stacks are made of torch's own modules, for tools that know only these.
    """
    torch.manual_seed(0)
    if shape in STACKS:
        return stack(shape).eval().requires_grad_(False)
    import transformers

    transformers.logging.set_verbosity_error()
    if shape in ("BERT", TOY):
        small = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = transformers.BertConfig(
            num_labels=2,
            max_position_embeddings=max(512, positions),
            **({**small, "intermediate_size": 64} if shape == TOY else {}),
        )
        model = transformers.BertForSequenceClassification(config)
    elif shape == "GPT-2":
        config = transformers.GPT2Config(
            vocab_size=5000, bos_token_id=0, eos_token_id=0, n_positions=max(1024, positions)
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=layers,
            num_attention_heads=12,
            vocab_size=5000,
            max_position_embeddings=max(2048, positions),
        )
        model = transformers.LlamaForCausalLM(config)
    return model.eval().requires_grad_(False)


def stack(shape: str) -> nn.Module:
    """Twelve blocks of 768 -> 3072 -> 768 with ReLU, or a convolutional network of eight layers."""
    if shape == "MLP":
        blocks = [m for _ in range(12) for m in (nn.Linear(768, 3072), nn.ReLU(), nn.Linear(3072, 768), nn.ReLU())]
        return nn.Sequential(*blocks, nn.Linear(768, 2))
    layers: list[nn.Module] = []
    for inner, outer in ((3, 64), (64, 128), (128, 256), (256, 512)):
        layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(outer, outer, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 4 * 4, 2))


def fill(model: nn.Module) -> nn.Module:
    """Weights that depend on their names alone: every release of transformers draws its own in an order of its own.

    Biases are drawn too, and norms scale by about one, so that nothing that a rule does is hidden by a zero.
    """
    with torch.no_grad():
        for name, x in model.named_parameters():
            draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            wide = (2 / x[0].numel()) ** 0.5 if isinstance(model, nn.Sequential) and x.dim() > 1 else 0.02
            x.normal_(1.0 if x.dim() == 1 and name.endswith("weight") else 0.0, wide, generator=draw)
    return model


def ids(length: int, known: int = 4000) -> Tensor:
    """So many tokens."""
    return torch.arange(length).unsqueeze(0) % known + 5


def tokens(model: nn.Module, length: int) -> Tensor:
    """So many tokens that the model knows."""
    return ids(length, min(4000, model.get_input_embeddings().weight.shape[0] - 5))


def uncached(model: nn.Module) -> dict[str, Any]:
    """What a causal model is told so that it keeps no cache."""
    return {} if hasattr(model, "classifier") else {"use_cache": False}


def scalar(output: Any) -> Tensor:
    """What is explained: the second class, or the second token at the last position; of a stack all rows' second."""
    if isinstance(output, Tensor):
        return output[:, 1].sum()
    scores: Tensor = output.logits
    return scores.flatten(0, -2)[-1, 1]


def question(model: nn.Module, length: int) -> tuple[Callable[[Tensor], Any], Callable[[], Tensor]]:
    """What the model makes of vectors, and a function that gives the vectors of a text so long."""
    if isinstance(model, nn.Sequential):
        size = (length, 768) if isinstance(model[0], nn.Linear) else (4, 3, 64, 64)
        x = torch.randn(size, generator=torch.Generator().manual_seed(1))
        return model, x.clone
    read, embed, more = tokens(model, length), model.get_input_embeddings(), uncached(model)
    return lambda vectors: model(inputs_embeds=vectors, **more), lambda: embed(read)


def gradient(model: nn.Module, length: int) -> Callable[..., Tensor]:
    """One forward pass and one gradient with respect to the vectors, scaled if wanted."""
    answer, vectors = question(model, length)

    def run(scale: float = 1.0) -> Tensor:
        x = (vectors() * scale).requires_grad_()
        (found,) = torch.autograd.grad(scalar(answer(x)), x)
        return (x * found).detach().flatten(x.dim() - 1 if x.dim() < 4 else 1).sum(-1)

    return run


def high_water() -> int:
    """The largest resident size since the last reset, in kB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def reset_high_water() -> None:
    """Begin anew with what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
