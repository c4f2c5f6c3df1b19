"""The door: one verb per question, no logic of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

from torch import nn

from clearhead import comparing, explaining, methods, validating
from clearhead.attention.looking import look
from clearhead.attentions import AttentionMaps
from clearhead.checks import Choices
from clearhead.choosing import AUTO, SECONDS, Choosing
from clearhead.comparisons import Comparison
from clearhead.config import Settings
from clearhead.explaining import Asking, Units
from clearhead.generations import GenerationMap
from clearhead.headreports import HeadReport, Pruning
from clearhead.heads.report import Heads, Removed
from clearhead.maps import RelevanceMap
from clearhead.subjects import (
    TENSORS,
    Loaded,
    Score,
    Subject,
    Wanted,
    accepted,
    check_kinds,
    check_pooling,
    check_task,
    load,
    one_each,
    single,
    task_of,
)
from clearhead.validating import TESTED, Judging, Methods
from clearhead.validations import Evaluation, Validation

Input = Any  # a text, an image or its path, a pair of these, or a mapping of tensors
Found = RelevanceMap | GenerationMap


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
        """Raises UsageError for an unknown task, pooling or setting, ModelError for what cannot be explained."""
        model, notes = accepted(model)
        path = str(getattr(getattr(model, "config", None), "_name_or_path", ""))
        loaded = Loaded(
            model=model,
            processor=processor,
            name=name or path or type(model).__name__,
            task=check_task(task) or (task_of(model) if processor is not None else TENSORS),
            pooling=check_pooling(pooling) or "mean",
            warnings=notes,
        )
        self._open(loaded, config, settings)

    def _open(self, loaded: Loaded, config: str | Path | None, settings: dict[str, Any]) -> None:
        self._subject = Subject(loaded)
        self._heads = Heads(self._subject)
        self._choosing = Choosing(self._subject)
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
        device_map: Any = None,
        config: str | Path | None = None,
        **settings: Any,
    ) -> AttentionVisualizer:
        """Load a model and its processor from a folder or a hub id; safetensors only.

        `device_map` says where it goes, as transformers and accelerate understand it: `"auto"`, a device, or a mapping
        from module paths to devices and `"disk"`. Raises ModelError if that fails, UsageError for an unknown task,
        pooling or setting.
        """
        Settings.resolve(file=config, **settings)
        self = cls.__new__(cls)
        asked = {"dtype": dtype, "device_map": device_map}
        loaded = load(path, task=task, pooling=pooling, trust_remote_code=trust_remote_code, **asked)
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

    @property
    def task(self) -> str:
        """What the model does, unless tensors are given."""
        return self._subject.task

    @overload
    def explain(self, inputs: list[Input], **wanted: Any) -> list[Found]: ...

    @overload
    def explain(self, inputs: str | Path | Mapping[str, Any], **wanted: Any) -> Any: ...

    @overload
    def explain(self, inputs: Input, **wanted: Any) -> Any: ...

    def explain(
        self,
        inputs: Any,
        *,
        target: Score | list[Score] = None,
        contrast: str | int | None = None,
        position: int | str | None = None,
        units: Units | None = None,
        generate: int | None = None,
        continuation: str | None = None,
        first_piece: bool = False,
        baseline: Any = None,
        **settings: Any,
    ) -> Any:
        """How much each unit of the input contributed to one prediction, or to each token the model produced.

        `inputs`: what the model reads: a text, an image (a path, a Pillow image, an array of bytes), a pair of them,
        a mapping of tensors, or a list of one of these, which is explained together and gives a list.
        `target`: a label, a token, an index, or a function from the model's output to a scalar tensor; by default
        what the model predicts, for two classes its difference to the other. A list has one for each input.
        `contrast`: explain the target against this class or token, or against the mean of all `"others"`.
        `position`: the token that is classified or guessed, or the produced token, by its text or index.
        `units`: `"token"`, `"word"`, `"sentence"`, `"patch"`, `"pixel"`, or spans of characters.
        `generate`, `continuation`: let a language model write so many tokens, or give what it is to have written:
        each token is explained, which gives a `GenerationMap`; with `target="sequence"` their summed log-probability.
        `first_piece`: of a target or contrast that is several tokens, take the first.
        `baseline`: for methods that compare, what with: `"mask"`, `"pad"`, `"zero"`, `"mean"`, for images `"blur"`; a
        text of as many tokens, an image, tensors; a pair of these for a pair, whose members may be words; or a list
        for several. A string that is none of these words is a text. By default the mask token, or the mean where there
        is none. Special tokens stay, and what the model produced stays where a text is given.

        Any field of `Settings` may be given, among them `method`: `secant` unless told otherwise; `lrp`, also where one
        of its settings is given (`preset`, `rule`, `rules`, `attention`, `leak`, ...: `clearhead rules`); `auto`, what
        `choose` found best for this model; `attention`, `rollout`, `flow`, `gradient-attention`, `value-zeroing` or
        `gradcam`, whose maps are compared with lrp; or one of `FeatureAttributor`. Raises UsageError, ModelError,
        NonFiniteError or UnruledOperationError.
        """
        asked = Wanted(
            contrast=contrast,
            position=position,
            generate=generate,
            continuation=continuation,
            first_piece=first_piece,
            baseline=baseline,
        )
        if not isinstance(inputs, list):
            asking = self._asking([inputs], replace(asked, target=single(target)), settings, units)
            return explaining.one(self._subject, inputs, asking)
        check_kinds(inputs)
        targets = one_each(target, len(inputs))
        return explaining.several(self._subject, inputs, targets, self._asking(inputs, asked, settings, units))

    def stream(self, inputs: Input, *, units: Units | None = None, **asked: Any) -> Iterator[RelevanceMap]:
        """The rows of a generation as they come: the map of each produced token as soon as it is known.

        Takes what `explain` takes, for one input.
        """
        names = ("target", "contrast", "position", "generate", "continuation", "first_piece", "baseline")
        wanted = Wanted(**{name: asked.pop(name) for name in names if name in asked})
        yield from explaining.rows(self._subject, inputs, self._asking([inputs], wanted, asked, units))

    def compare(
        self, a: Input, b: Input, *, target: Score = None, by_position: bool = False, **asked: Any
    ) -> Comparison:
        """What changed between two inputs: `f(a) - f(b)`, exactly, shared over the units in which they differ.

        Takes `target`, `contrast`, `position` (an index counts in a), `continuation`, `first_piece` and settings as
        `explain` does; by default the target of the two that has the larger value. Texts are aligned on their tokens;
        `by_position` pairs them by place. Raises UsageError, ModelError or NonFiniteError.
        """
        wanted, settings = comparing.parted(asked)
        chosen, scalar = self._settings(settings), Wanted(target=target, **wanted)
        return comparing.compare(self._subject, a, b, scalar, chosen, by_position=by_position)

    def validate(
        self,
        inputs: Input,
        methods: Methods | None = None,
        *,
        removals: Sequence[str] | None = None,
        against: str | None = None,
        choices: Choices | None = None,
        thresholds: Mapping[str, float] | None = None,
        sanity: bool = True,
        **asked: Any,
    ) -> Validation:
        """How far to trust the explanations of one prediction: a verdict on each method, with its evidence.

        `methods`: names, also `"lrp:attnlrp"` for a preset, or a mapping from names of your own to settings; by
        default lrp, secant, integrated-gradients, gradient-attention and rollout. `removals`: how units are removed,
        at least one of `"mask"`, `"pad"`, `"zero"`, `"mean"`, `"blur"`, `"attention-mask"`, `"delete"`; by default as
        the baseline has it, and a second way. `against`: the method that agreement is quoted with. `choices`: how
        faithfulness is measured. `thresholds`: where verdicts turn, by name; others are those of the settings file.
        `sanity`: also test whether each method depends on the weights, the target and the input, and stays the same
        next to it, which takes 20 explanations more of each.
        `asked` holds what else `explain` takes, for one prediction: of a text that the model writes its summed
        log-probability, unless `position` says which token. Raises what `explain` raises.
        """
        how = {"removals": removals, "against": against, "choices": choices, "thresholds": thresholds, "sanity": sanity}
        return validating.validate(self._subject, inputs, *self._judging(methods, {**how, **asked}, 1))

    def choose(self, data: Any, *, seconds: float = SECONDS, **asked: Any) -> Evaluation:
        """Find the method that explains this model most faithfully for its price; `method="auto"` then takes it.

        The candidates explain inputs of `data` (as `evaluate` takes it) for about so many `seconds`, and units are
        removed in two ways. Chosen is the cheapest of those as good as the best; from 20 inputs on that is kept in the
        user's cache, by the model's fingerprint. A list of as many is measured by `method="auto"` itself. `asked` holds
        the target, contrast, baseline and settings, as `explain` takes them. Raises what `explain` raises.
        """
        wanted, given = validating.parted(asked)
        return self._choosing.choose(data, wanted, lambda own: self._settings({**given, **own}), seconds=seconds)

    def evaluate(
        self, data: Any, methods: Methods | None = None, *, limit: int | None = None, **asked: Any
    ) -> Evaluation:
        """How far to trust methods on a data set: means with intervals, paired tests, verdicts, what was skipped.

        `data`: inputs in a list, a generator or a column, a file with one in each line, or a folder of images.
        `limit`: only the first so many. `sanity`: how many of them methods are tested on, by default 5. Takes what
        `validate` takes. Raises what `explain` raises.
        """
        return validating.evaluate(self._subject, data, *self._judging(methods, asked, TESTED), limit=limit)

    @overload
    def attention(self, inputs: list[Input], **wanted: Any) -> list[AttentionMaps]: ...

    @overload
    def attention(self, inputs: Input, **wanted: Any) -> AttentionMaps: ...

    def attention(
        self,
        inputs: Any,
        *,
        target: Score = None,
        generate: int | None = None,
        continuation: str | None = None,
        **settings: Any,
    ) -> Any:
        """What every layer and head looked at while the model read one input: `av.attention(x)["encoder"].layer(3)`.

        `inputs`, `generate` and `continuation` are those of `explain`; a list gives a list. Of a text that the model
        wrote, `maps.step(t)` is what it looked at while it wrote token t. Weights are rebuilt from what was seen of
        the forward pass, layer by layer when asked for; nothing is reloaded. `target` is only needed with tensors of a
        model without logits. Raises UsageError, or ModelError where no attention is found.
        """
        chosen = self._by("attention", settings)
        wanted = Wanted(target=target, generate=generate, continuation=continuation)
        if isinstance(inputs, list):
            check_kinds(inputs)
            return [look(self._subject.question(each, wanted, chosen)) for each in inputs]
        return look(self._subject.question(inputs, wanted, chosen))

    def heads(
        self,
        data: Any,
        labels: Sequence[Any] | None = None,
        *,
        of: Literal["target", "loss"] = "target",
        absolute: Literal["example", "token"] = "example",
        normalise: bool = False,
        clusters: int | None = None,
        resume: str | Path | None = None,
        **settings: Any,
    ) -> HeadReport:
        """How much every head matters over a data set: its gate's gradient, its weights times theirs, its relevance.

        `data`: inputs in a list, a generator or a column; a file with one in each line, a text or the path of an image
        (`.tsv`: with its label behind a tab); or a folder of images. `of`: what the gates are differentiated of, the
        target that `explain` would explain or the `loss`, which needs `labels` unless the model continues texts.
        `absolute`: of each `example`, as Michel et al. 2019 write, or of each `token`, as their code does.
        `normalise`: divide by the L2 norm of each layer. `clusters`: how many groups of heads that look alike, by
        default as the silhouette has it. `resume`: a folder that keeps what is known of each document, for a run that
        is interrupted: the same call goes on there. Raises UsageError, ModelError, OutputError.
        """
        return self._heads.report(
            data,
            labels,
            self._by("lrp", settings),
            of=of,
            absolute=absolute,
            normalise=normalise,
            clusters=clusters,
            resume=resume,
        )

    def without(self, heads: Any) -> AbstractContextManager[Removed]:
        """`with av.without(["encoder 3.5"]): ...`: what the heads give out is multiplied by 0, in this thread.

        Holds for `av.model(...)` and for every verb within the block, and leaves no trace. `heads`: `Head` objects,
        texts, or tuples (stream, layer, number), where there is one stream without it. Raises UsageError for others.
        """
        return self._heads.without(heads, self._by("lrp", {}))

    def pruned(self, heads: Any, *, example: Input = None) -> nn.Module:
        """A copy of the model without the heads, whose weights are 0: as by the gates, to be saved as any other.

        Raises UsageError for heads that there are not, ModelError where no linear layer reads them.
        """
        return self._heads.pruned(heads, self._by("lrp", {}), example)

    def pruning_curve(
        self, data: Any, labels: Sequence[Any] | None = None, *, batch_size: int | None = None, **options: Any
    ) -> Pruning:
        """A metric as ever more heads go, by importance, the other way round, and in random orders.

        `data`, `labels`, `of`, `absolute` and `resume` are those of `heads`, where finished points are kept; layers are
        compared by their L2 norm unless `normalise=False`. The metric is accuracy where classes have labels. `steps`:
        how many; `orders`: random ones, at least ten, drawn with `seed`; `iterative`: importance again after each step.
        Raises UsageError, ModelError, OutputError.
        """
        chosen = self._by("lrp", {} if batch_size is None else {"batch_size": batch_size})
        return self._heads.curve(data, labels, chosen, **options)

    def _settings(self, given: dict[str, Any]) -> Settings:
        """Settings of this call; a preset named here beats single settings named when the model was opened."""
        if not given:
            return self.settings
        file = given.pop("config", self._config)
        earlier = {} if "preset" in given else self._given
        return Settings.resolve(file=file, **{**earlier, **given})[0]

    def _by(self, method: str, given: dict[str, Any]) -> Settings:
        """Settings of a verb that has a method of its own, whatever others are explained by."""
        return self._settings({**given, "method": method})

    def _asking(self, inputs: list[Any], wanted: Wanted, given: dict[str, Any], units: Units | None) -> Asking:
        """What is asked of these inputs, by the method that is chosen for them where the settings leave that open."""
        settings, note = self._settings(dict(given)), ""
        if settings.method == AUTO:
            settings, note = self._choosing.settled(inputs, wanted, lambda own: self._settings({**given, **own}))
        methods.check(settings, wanted)
        return Asking(wanted=wanted, settings=settings, units=units, note=note)

    def _judging(self, methods: Methods | None, asked: dict[str, Any], tests: int) -> tuple[Wanted, Judging]:
        """What is explained, and how methods are judged."""
        file = asked.get("config", self._config)
        return validating.judging(methods, asked, self._settings, file=file, tests=tests)
