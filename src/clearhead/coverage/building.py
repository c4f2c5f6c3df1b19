"""A tiny random model of a type, from its configuration alone, and what it can be given."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.coverage.filling import guesses
from clearhead.coverage.sizes import WAYS, shrunk
from clearhead.question import uncached

_PATH = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:)?(?:[/\\][\w.@+-]+)+[/\\](?=[\w.])")  # the folders before a file's name
LARGEST = 150_000_000  # numbers in all weights
KINDS = {
    "sequence-classification": (
        "AutoModelForSequenceClassification",
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    ),
    "causal-lm": ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    "seq2seq-lm": ("AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    "image-classification": ("AutoModelForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"),
    "plain": ("AutoModel", "MODEL_MAPPING_NAMES"),
}


@dataclass(frozen=True, kw_only=True)
class Built:
    """A model that ran, how it was made small, and what it was given."""

    model: nn.Module
    way: str
    inputs: Mapping[str, Any]


class NotBuiltError(Exception):
    """No way led to a model that runs by itself; says what stood in the way of the likeliest."""


def types(kind: str) -> list[str]:
    """The model types of a kind; plain ones only where there is no other kind of the same type."""
    from transformers.models.auto import modeling_auto

    names = {each: set(getattr(modeling_auto, mapping)) for each, (_, mapping) in KINDS.items()}
    others = set().union(*(found for each, found in names.items() if each != "plain"))
    return sorted(names[kind] - others if kind == "plain" else names[kind])


@cache
def hints() -> dict[str, dict[str, Any]]:
    """Fields that a type needs and that its configuration does not tell by name."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    found: dict[str, dict[str, Any]] = tomllib.loads((Path(__file__).parent / "hints.toml").read_text(encoding="utf-8"))
    return found


def built(kind: str, model_type: str) -> Built:
    """The smallest model of a type that runs by itself. Raises NotBuiltError."""
    reasons: list[str] = []
    for way in WAYS:
        try:
            model = _made(kind, model_type, way)
        except Exception as error:  # whatever a configuration or a model raises is why it could not be built
            reasons.append(said("built", error))
            continue
        for given in guesses(model):
            try:
                output, again = plainly(model, given), plainly(model, given)
            except Exception as error:  # the same for running it
                reasons.append(said("run", error))
                continue
            if not all(torch.equal(a, b) for a, b in zip(tensors(output), tensors(again), strict=True)):
                raise NotBuiltError("not run: its answer is drawn at random, and is another one each time")
            return Built(model=model, way=way, inputs=given)
    raise NotBuiltError(reasons[0] if reasons else "not run: none of the inputs it takes is known")


def _made(kind: str, model_type: str, way: str) -> nn.Module:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    maker = CONFIG_MAPPING[model_type]
    hint = hints().get(model_type, {})
    fields = merged(shrunk(maker(**hint.get("whole", {})), WAYS[way]), hint.get("fields", {}))
    config = maker(**merged(hint.get("whole", {}), fields))
    auto = getattr(transformers, KINDS[kind][0])
    with torch.device("meta"):
        size = sum(p.numel() for p in auto.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size:,} weights are more than the {LARGEST:,} that are tried")
    torch.manual_seed(0)
    model: nn.Module = auto.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    stirred(model)
    return model


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings, the second one's values where both have one."""
    found = dict(base)
    for name, value in over.items():
        own = found.get(name)
        found[name] = merged(own, value) if isinstance(own, Mapping) and isinstance(value, Mapping) else value
    return found


def stirred(model: nn.Module) -> None:
    """Give a new model weights that matter: matrices that keep sizes, and biases that are not zero."""
    draw = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if not weight.is_floating_point() or not weight.numel():
            continue
        if weight.dim() < 2:
            weight.data += 0.1 * torch.randn(weight.shape, generator=draw)
        elif float(weight.std()) < 0.1:
            fan = math.prod(weight.shape[1:]) if weight.dim() > 2 else weight.shape[-1]
            weight.data = torch.randn(weight.shape, generator=draw) / math.sqrt(fan)


@torch.no_grad()
def plainly(model: nn.Module, given: Mapping[str, Any]) -> Any:
    """What the model answers by itself. Raises what it raises, and ValueError if there is no finite number in it."""
    output = model(**uncached(model, given))
    numbers = list(tensors(output))
    if not numbers or not all(bool(torch.isfinite(x).all()) for x in numbers[:1]):
        raise ValueError("the answer holds no finite number")
    return output


def tensors(output: Any) -> Iterator[Tensor]:
    """The tensors of real numbers in an answer, in order."""
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.numel():
            yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from tensors(value)


def said(verb: str, error: Exception) -> str:
    """A reason in one line; of a file only the name is told, for a table is read on other machines.

    >>> said("built", OSError("no module in '/home/me/lib/models.py'"))
    "not built: OSError: no module in 'models.py'"
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"not {verb}: {type(error).__name__}: {_PATH.sub('', ' '.join(lines))[:160]}"
