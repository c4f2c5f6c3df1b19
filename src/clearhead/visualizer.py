"""The door: one verb per question, no logic of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, overload

from torch import nn

from clearhead.checks import judged
from clearhead.config import Settings
from clearhead.maps import RelevanceMap
from clearhead.question import Question
from clearhead.relevance.lrp import lrp
from clearhead.subjects import Loaded, Subject, Wanted, check_pooling, check_task, load, task_of

Input = str | tuple[str, str] | Mapping[str, Any]
METHODS: dict[str, Callable[[Question, Settings], RelevanceMap]] = {"lrp": lrp}


class AttentionVisualizer:
    """Explains the predictions of one model.

    `AttentionVisualizer(model, processor)` takes a loaded model as it is: on any attention kernel, without a reload,
    and leaves nothing on it. Without a processor, inputs are mappings of tensors.

    >>> import torch
    >>> from clearhead import AttentionVisualizer
    >>> av = AttentionVisualizer(torch.nn.Linear(3, 2))
    >>> r = av.explain({"input": torch.tensor([[1.0, 2.0, 3.0]])}, target=0)
    >>> r.conservation_error < 1e-4
    True
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any = None,
        *,
        task: str | None = None,
        pooling: str | None = None,
        name: str | None = None,
        config: str | Path | None = None,
        **settings: Any,
    ) -> None:
        """Raises UsageError for an unknown task, pooling or setting, ModelError for a head that is not known."""
        path = str(getattr(getattr(model, "config", None), "_name_or_path", ""))
        loaded = Loaded(
            model=model,
            processor=processor,
            name=name or path or type(model).__name__,
            task=check_task(task) or (task_of(model) if processor is not None else "tensors"),
            pooling=check_pooling(pooling) or "mean",
        )
        self._open(loaded, config, settings)

    def _open(self, loaded: Loaded, config: str | Path | None, settings: dict[str, Any]) -> None:
        self._subject = Subject(loaded)
        self._config, self._given = config, settings
        self.settings, _ = Settings.resolve(file=config, **settings)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        task: str | None = None,
        pooling: str | None = None,
        trust_remote_code: bool = False,
        dtype: Any = None,
        config: str | Path | None = None,
        **settings: Any,
    ) -> AttentionVisualizer:
        """Load a model and its tokenizer from a folder or a hub id; safetensors only.

        Raises ModelError if that fails, UsageError for an unknown task, pooling or setting.
        """
        Settings.resolve(file=config, **settings)
        self = cls.__new__(cls)
        loaded = load(path, task=task, pooling=pooling, trust_remote_code=trust_remote_code, dtype=dtype)
        self._open(loaded, config, settings)
        return self

    @property
    def model(self) -> nn.Module:
        """The model, as it was given."""
        return self._subject.model

    @property
    def labels(self) -> dict[int, str]:
        """The names of the model's classes, by index."""
        return self._subject.labels

    @overload
    def explain(
        self, inputs: Input, *, target: Wanted = ..., contrast: str | int | None = ..., **settings: Any
    ) -> RelevanceMap: ...

    @overload
    def explain(
        self, inputs: list[Input], *, target: Wanted = ..., contrast: str | int | None = ..., **settings: Any
    ) -> list[RelevanceMap]: ...

    def explain(
        self, inputs: Any, *, target: Wanted = None, contrast: str | int | None = None, **settings: Any
    ) -> RelevanceMap | list[RelevanceMap]:
        """How much each unit of the input contributed to one prediction.

        `inputs`: a text, a pair of texts, a mapping of tensors, or a list of these (which gives a list). `target`: a
        label, an index or a function from the model's output to a scalar tensor; by default the predicted class, for
        two classes its difference to the other. Any field of `Settings` may be given. Raises UsageError, ModelError,
        NonFiniteError or UnruledOperationError, each naming the next step.
        """
        chosen = self._settings(settings)
        if isinstance(inputs, list):
            return [self._explained(one, target, contrast, chosen) for one in inputs]
        return self._explained(inputs, target, contrast, chosen)

    def _settings(self, given: dict[str, Any]) -> Settings:
        """Settings of this call; a preset named here beats single settings named when the model was opened."""
        if not given:
            return self.settings
        file = given.pop("config", self._config)
        earlier = {} if "preset" in given else self._given
        return Settings.resolve(file=file, **{**earlier, **given})[0]

    def _explained(self, one: Any, target: Wanted, contrast: str | int | None, settings: Settings) -> RelevanceMap:
        question = self._subject.question(one, target=target, contrast=contrast, settings=settings)
        return judged(METHODS[settings.method](question, settings), settings.threshold)
