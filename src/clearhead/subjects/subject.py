"""A model with its processor: turns what a user passes into a question."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from clearhead import inventory
from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.inventory import parts
from clearhead.maps import Recipe
from clearhead.memory import home
from clearhead.question import Aim, Item, Pass, Question
from clearhead.subjects import images, joining, positions, targets
from clearhead.subjects.aligning import check_tensors
from clearhead.subjects.baselines import COMPARING, baselines
from clearhead.subjects.comparing import Compared, compared
from clearhead.subjects.loading import Loaded
from clearhead.subjects.posing import POSES, masked
from clearhead.subjects.setting import Setting
from clearhead.subjects.tasks import TENSORS
from clearhead.subjects.wanted import Wanted
from clearhead.subjects.weights import valued


class Subject:
    """What is explained: poses a `Question` for each input, and joins those that can be explained together."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.model = loaded.model
        self._fingerprint: tuple[tuple[int, ...], str] | None = None

    @property
    def task(self) -> str:
        """The task inputs are explained for, if they are no tensors."""
        return self._loaded.task

    @property
    def pooling(self) -> str:
        """How tokens become one vector, for models of sentences."""
        return self._loaded.pooling

    @property
    def labels(self) -> dict[int, str]:
        """The names of the classes, by index; empty if the model names none."""
        known = getattr(getattr(self.model, "config", None), "id2label", None) or {}
        return {int(index): str(label) for index, label in known.items()}

    @property
    def tokenizer(self) -> Any:
        """What reads texts, by itself or as a part of the processor; None if nothing does."""
        found = getattr(self._loaded.processor, "tokenizer", self._loaded.processor)
        return found if hasattr(found, "all_special_ids") else None

    def question(self, given: Any, wanted: Wanted, settings: Settings, *, pixels: bool = False) -> Question:
        """The question that one input poses: a text, an image, a pair, or a mapping of tensors. Raises UsageError."""
        if isinstance(given, Mapping):
            return self._tensors(given, wanted, settings)
        if self._loaded.processor is None:
            raise UsageError(
                f"Without a processor the input must be a mapping of tensors; found {type(given).__name__}. Pass "
                "AttentionVisualizer(model, processor)."
            )
        if kind(given) is None:
            raise UsageError(
                f"An input must be a text, an image, a pair or a mapping of tensors; found {type(given).__name__}."
            )
        pose = POSES[self.task]
        wanted.check(self.task, pose.takes)
        scalar = wanted.target if callable(wanted.target) else None
        setting = self._setting(self._loaded.processor, settings, pixels=pixels)
        passes, item = pose.function(setting, given, replace(wanted, target=None) if scalar else wanted)
        if scalar is not None:
            item = replace(item, aims=(_only(scalar, wanted),))
        posed = self._question(passes, (item,), settings, self.task)
        kept = masked(setting, passes[0], item.units, wanted) if self.task == "masked-lm" else frozenset()
        return _compared(posed, setting, settings, wanted, kept)

    def _tensors(self, given: Mapping[str, Any], wanted: Wanted, settings: Settings) -> Question:
        """A question about tensors, with an item for each row of their batch."""
        wanted.check("of explaining tensors", ("target", "contrast"))
        part, layouts = positions.read(given, home(self.model))
        if callable(wanted.target) and len(layouts) > 1:
            raise UsageError(
                f"A target function takes the output for one item; the tensors hold {len(layouts)}. Pass them one by "
                "one."
            )
        items = []
        for layout in layouts:
            target = wanted.target
            aim = (
                _only(target, wanted)
                if callable(target)
                else Aim(ask=targets.classes(target, wanted.contrast, self.labels, positions.last(layout)))
            )
            items.append(Item(layouts=(layout,), aims=(aim,)))
        posed = self._question((part,), tuple(items), settings, TENSORS)
        return _compared(posed, self._setting(None, settings), settings, wanted)

    def compared(self, a: Any, b: Any, wanted: Wanted, settings: Settings, *, by_position: bool = False) -> Compared:
        """The question of what changed between two inputs of one kind. Raises UsageError."""
        tensors = isinstance(a, Mapping)
        recipe = settings.as_dict()

        def pose(one: Any, asked: Wanted) -> Question:
            posed = self.question(one, asked, replace(settings, method="lrp"))
            if len(posed.items) > 1:
                raise UsageError(f"One input is compared with one other; these tensors hold {len(posed.items)}.")
            return replace(posed, recipe=replace(posed.recipe, settings=recipe))

        if tensors:
            (layout,) = pose(a, wanted).items[0].layouts
            check_tensors(a, b, layout.spans[0].ids)
        setting = self._setting(None if tensors else self._loaded.processor, settings)
        task = TENSORS if tensors else self.task
        return compared(pose, setting, (a, b), wanted, task=task, by_position=by_position)

    def joined(self, questions: Sequence[Question]) -> Question:
        """One question about the items of all of them."""
        tokenizer = getattr(self._loaded.processor, "tokenizer", self._loaded.processor)
        padding = getattr(tokenizer, "pad_token_id", None)
        return joining.joined(questions, 0 if padding is None else int(padding))

    def _setting(self, processor: Any, settings: Settings, *, pixels: bool = False) -> Setting:
        """What an input is read with; without a processor, tensors."""
        return Setting(
            model=self.model,
            processor=processor,
            pooling=self._loaded.pooling,
            labels=self.labels,
            device=home(self.model),
            dtype=self._dtype(),
            truncate=settings.truncate,
            pixels=pixels,
        )

    def _question(self, passes: tuple[Pass, ...], items: tuple[Item, ...], settings: Settings, task: str) -> Question:
        return Question(
            model=self.model,
            name=self._loaded.name,
            task=task,
            passes=passes,
            items=tuple(replace(item, warnings=(*self._loaded.warnings, *item.warnings)) for item in items),
            recipe=Recipe(
                settings=settings.as_dict(),
                dtype=str(self._dtype()).removeprefix("torch."),
                versions=_versions(),
                model_fingerprint=self.fingerprint(),
            ),
        )

    def _dtype(self) -> torch.dtype:
        kinds = (p.dtype for p in self.model.parameters() if p.is_floating_point())
        return next(kinds, torch.float32)

    def fingerprint(self) -> str:
        """A short hash of the model's class, and of shapes, types and a sample of the values of its weights."""
        key = inventory.versions(inventory.parameters(self.model))
        if self._fingerprint is None or self._fingerprint[0] != key:
            self._fingerprint = (key, _hash(self.model))
        return self._fingerprint[1]


def _only(scalar: Callable[[Any], Tensor], wanted: Wanted) -> Aim:
    """A target function stands alone."""
    if wanted != Wanted(target=scalar):
        raise UsageError("A target function says all there is to say; leave out everything beside `target`.")
    return Aim(ask=targets.by_callable(scalar), alone=True)


def _compared(
    posed: Question, setting: Setting, settings: Settings, wanted: Wanted, kept: frozenset[int] = frozenset()
) -> Question:
    """The question with what it is compared with, if the method compares; the positions `kept` stay."""
    if settings.method not in COMPARING:
        return posed
    return replace(posed, baselines=baselines(setting, wanted.baseline, posed.passes, posed.items, kept))


def kind(given: Any) -> str | None:
    """What an input is, in a word; None if it is nothing that can be explained."""
    if isinstance(given, str):
        return "text"
    if isinstance(given, Mapping):
        return "tensors"
    if isinstance(given, tuple):
        return "pair"
    return "image" if images.is_image(given) else None


def check_kinds(inputs: Sequence[Any]) -> None:
    """Raise UsageError for a list whose members are not of one kind."""
    kinds = [kind(each) or type(each).__name__ for each in inputs]
    other = next((n for n, each in enumerate(kinds) if each != kinds[0]), None)
    if other is not None:
        raise UsageError(
            f"A list holds inputs of one kind; found {kinds[0]} first and {kinds[other]} in place {other + 1}. "
            "Explain them in two calls."
        )


def _hash(model: nn.Module) -> str:
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, p in valued(model):
        digest.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
        for part in parts(p):
            if part.numel() and not part.is_meta:
                sample = part.reshape(-1)[:: max(1, part.numel() // 16)]
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
