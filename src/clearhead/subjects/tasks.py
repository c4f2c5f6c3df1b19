"""What models do: one row per task, found by the name of the model's class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from clearhead.errors import ModelError, choice

Reads = Literal["text", "image", "both"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task: the class that loads its models, how their classes are called, and what they read.

    `endings` are ends of class names, `listed` the list in transformers that names classes which have none.
    """

    name: str
    auto: str
    endings: tuple[str, ...] = ()
    listed: str = ""
    reads: Reads = "text"
    also: tuple[str, ...] = ()


SIMILARITY, TENSORS = "sentence-similarity", "tensors"
TASKS = (
    Task(
        name="text-classification",
        auto="AutoModelForSequenceClassification",
        endings=("ForSequenceClassification",),
        listed="MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
        also=("sentiment-analysis",),
    ),
    Task(
        name="token-classification",
        auto="AutoModelForTokenClassification",
        endings=("ForTokenClassification",),
        listed="MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
        also=("ner",),
    ),
    Task(
        name="question-answering",
        auto="AutoModelForQuestionAnswering",
        endings=("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
    ),
    Task(name="masked-lm", auto="AutoModelForMaskedLM", endings=("ForMaskedLM",), also=("fill-mask",)),
    Task(
        name="encoder-decoder",
        auto="AutoModelForSeq2SeqLM",
        listed="MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
        also=("translation", "summarization", "text2text-generation"),
    ),
    Task(
        name="causal-lm",
        auto="AutoModelForCausalLM",
        endings=("ForCausalLM", "LMHeadModel"),
        listed="MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
        also=("text-generation",),
    ),
    Task(
        name="image-classification",
        auto="AutoModelForImageClassification",
        endings=("ForImageClassification",),
        listed="MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        reads="image",
    ),
    Task(
        name="image-text-similarity",
        auto="AutoModelForZeroShotImageClassification",
        listed="MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        reads="both",
        also=("zero-shot-image-classification",),
    ),
    Task(name=SIMILARITY, auto="AutoModel", also=("feature-extraction",)),
)
NAMES = tuple(task.name for task in TASKS)


def check_task(name: str | None) -> str | None:
    """The name of the task, if there is one of that name, or one that is also called so. Raises UsageError."""
    if name is None or name in NAMES:
        return name
    found = next((task.name for task in TASKS if name in task.also), None)
    if found is None:
        raise choice("task", name, NAMES)
    return found


def task(name: str) -> Task:
    """The row of a task."""
    return next(each for each in TASKS if each.name == name)


def reads_images(name: str) -> bool:
    """Is an input to models of this task an image?"""
    return any(each.name == name and each.reads == "image" for each in TASKS)


def task_of(model: nn.Module) -> str:
    """The task that the names of a model's classes tell. Raises ModelError if it has a head that is not known."""
    return named_by(each.__name__ for each in type(model).__mro__)


def named_by(classes: Iterable[str]) -> str:
    """The task that class names tell, the most special first; without a head, similarity. Raises ModelError."""
    known = [name for name in classes if name not in {"Module", "object", "PreTrainedModel"}]
    for name in known:
        found = next((each.name for each in TASKS if _tells(each, name)), None)
        if found is not None:
            return found
    heads = [name for name in known if "For" in name or "LMHead" in name]
    if heads and not heads[0].startswith("PreTrained"):
        raise ModelError(
            f"Inputs can be explained for {', '.join(NAMES)}; {heads[0]} does something else. Choose with task=..., or "
            "pass tensors and a target function."
        )
    return SIMILARITY


def _tells(each: Task, name: str) -> bool:
    if name.endswith(each.endings):
        return True
    if not each.listed:
        return False
    from transformers.models.auto import modeling_auto

    listed = getattr(modeling_auto, each.listed, {}).values()
    return any(name == entry or (isinstance(entry, tuple) and name in entry) for entry in listed)
