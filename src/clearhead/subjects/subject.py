"""A model with its processor: turns what a user passes into a question."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.maps import Recipe
from clearhead.question import Ask, Pass, Question
from clearhead.subjects import inputs, targets
from clearhead.subjects.loading import Loaded
from clearhead.subjects.targets import Wanted


class Subject:
    """What is explained: poses a `Question` for each input."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.model = loaded.model
        self._fingerprint: tuple[tuple[int, ...], str] | None = None

    @property
    def task(self) -> str:
        """The task texts are explained for."""
        return self._loaded.task

    @property
    def labels(self) -> dict[int, str]:
        """The names of the classes, by index; empty if the model names none."""
        known = getattr(getattr(self.model, "config", None), "id2label", None) or {}
        return {int(index): str(label) for index, label in known.items()}

    def question(self, given: Any, *, target: Wanted, contrast: str | int | None, settings: Settings) -> Question:
        """The question that one input poses: a text, a pair of texts, or a mapping of tensors. Raises UsageError."""
        if isinstance(given, Mapping):
            tensors = inputs.tensor_pass(given, self._device())
            return self._question((tensors,), self._scores(target, contrast), settings, task="tensors")
        if self._loaded.processor is None:
            raise UsageError(
                f"Without a processor the input must be a mapping of tensors; found {type(given).__name__}. Pass "
                "AttentionVisualizer(model, tokenizer)."
            )
        texts = _texts(given)
        if self.task == "sentence-similarity":
            return self._similarity(texts, target, contrast, settings)
        part, notes = self._encode(texts, settings)
        return self._question((part,), self._scores(target, contrast), settings, texts, notes)

    def _similarity(
        self, texts: dict[str, str], target: Wanted, contrast: str | int | None, settings: Settings
    ) -> Question:
        if len(texts) != 2:
            raise UsageError("Sentence similarity needs two texts; found one. Pass (text, other), or --text-pair.")
        if target is not None or contrast is not None:
            raise UsageError("Sentence similarity has one target, the cosine; leave out `target` and `contrast`.")
        parts: list[Pass] = []
        notes: list[str] = []
        for stream, text in texts.items():
            part, more = self._encode({stream: text}, settings, first=sum(len(p.units) for p in parts))
            parts, notes = [*parts, part], [*notes, *more]
        ask = targets.similarity(targets.pooling(self._loaded.pooling))
        return self._question(tuple(parts), ask, settings, texts, notes)

    def _encode(self, texts: dict[str, str], settings: Settings, first: int = 0) -> tuple[Pass, list[str]]:
        processor = self._loaded.processor
        limit = inputs.longest(processor, getattr(self.model, "config", None))
        device = self._device()
        return inputs.text_pass(processor, texts, limit=limit, truncate=settings.truncate, device=device, first=first)

    def _scores(self, target: Wanted, contrast: str | int | None) -> Ask:
        if target is not None and callable(target):
            if contrast is not None:
                raise UsageError("A target function says all there is to say; `contrast` must be left out.")
            return targets.by_callable(target)
        return targets.classes(target, contrast, self.labels)

    def _question(
        self,
        passes: tuple[Pass, ...],
        ask: Ask,
        settings: Settings,
        texts: Mapping[str, str] | None = None,
        notes: list[str] | None = None,
        task: str | None = None,
    ) -> Question:
        return Question(
            model=self.model,
            name=self._loaded.name,
            task=task or self.task,
            passes=passes,
            ask=ask,
            texts=dict(texts or {}),
            warnings=(*self._loaded.warnings, *(notes or ())),
            recipe=Recipe(
                settings=settings.as_dict(),
                dtype=self._dtype(),
                versions=_versions(),
                model_fingerprint=self.fingerprint(),
            ),
        )

    def _device(self) -> torch.device:
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def _dtype(self) -> str:
        kinds = (p.dtype for p in self.model.parameters() if p.is_floating_point())
        return str(next(kinds, torch.float32)).removeprefix("torch.")

    def fingerprint(self) -> str:
        """A short hash of the model's class, and of shapes, types and a sample of the values of its weights."""
        state = [(name, p.detach()) for name, p in self.model.named_parameters()]
        key = tuple(number for _, p in state for number in (p.data_ptr(), p._version))
        if self._fingerprint is None or self._fingerprint[0] != key:
            self._fingerprint = (key, _hash(self.model, state))
        return self._fingerprint[1]


def _texts(given: Any) -> dict[str, str]:
    if isinstance(given, str):
        return {"input": given}
    if isinstance(given, tuple) and len(given) == 2:
        return {"text": given[0], "text_pair": given[1]}
    raise UsageError(
        f"An input must be a text, a pair (text, text) or a mapping of tensors; found {type(given).__name__}."
    )


def _hash(model: nn.Module, state: list[tuple[str, torch.Tensor]]) -> str:
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, p in state:
        digest.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
        if p.numel() and p.device.type != "meta":
            sample = p.reshape(-1)[:: max(1, p.numel() // 16)]
            digest.update(sample.double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("clearhead", "torch", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
