"""The methods: one row each, with the settings it takes and what its numbers are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from clearhead.attention.flow import flow
from clearhead.attention.gradcam import gradcam
from clearhead.attention.gradients import gradient_attention
from clearhead.attention.plain import attention
from clearhead.attention.rollout import rollout
from clearhead.attention.zeroing import value_zeroing
from clearhead.attentions import WHAT_IT_IS
from clearhead.attribution import (
    deeplift,
    gradient_shap,
    input_x_gradient,
    integrated_gradients,
    kernel_shap,
    lime,
    occlusion,
    partition_shap,
    saliency,
    shapley_sampling,
)
from clearhead.batches import Method
from clearhead.checks import agreement
from clearhead.config import Settings
from clearhead.errors import ClearheadError, UsageError
from clearhead.maps import RelevanceMap
from clearhead.question import Question
from clearhead.relevance.lrp import lrp
from clearhead.relevance.secant import secant
from clearhead.subjects import COMPARING, OPERATORS, REMOVING, Wanted

ACTIVATIONS = (
    "GradCAM says where a layer's activations and their gradients point the same way; it looks at one layer, and its "
    "numbers add up to nothing."
)
OPTIONS = (  # not of every method
    "layer", "heads", "fusion", "residual", "discard", "drop_sink", "cam", "force", "steps", "halvings", "samples",
    "seed",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method, which of the `OPTIONS` it takes, whether it depends on the target, and what its numbers are not.

    A method with a `caution` is compared with lrp unless told otherwise. `tolerance` is the conservation error up to
    which it needs no warning: what numerical integration and draws leave over stands in the ledger.
    """

    function: Method
    takes: tuple[str, ...] = ()
    ignores_target: bool = False
    caution: str = ""
    tolerance: float = 0.0


METHODS: dict[str, Row] = {
    "lrp": Row(function=lrp),
    "secant": Row(function=secant, takes=("halvings",)),
    "attention": Row(
        function=attention, takes=("layer", "heads", "fusion", "discard"), ignores_target=True, caution=WHAT_IT_IS
    ),
    "rollout": Row(
        function=rollout,
        takes=("heads", "fusion", "residual", "discard", "drop_sink"),
        ignores_target=True,
        caution=WHAT_IT_IS,
    ),
    "flow": Row(
        function=flow,
        takes=("heads", "fusion", "residual", "discard", "force"),
        ignores_target=True,
        caution=WHAT_IT_IS,
    ),
    "gradient-attention": Row(function=gradient_attention, takes=("heads",), caution=WHAT_IT_IS),
    "value-zeroing": Row(function=value_zeroing, takes=("layer", "force"), ignores_target=True, caution=WHAT_IT_IS),
    "gradcam": Row(function=gradcam, takes=("layer", "cam"), caution=ACTIVATIONS),
    "integrated-gradients": Row(function=integrated_gradients, takes=("steps",), tolerance=0.02),
    "gradient-shap": Row(function=gradient_shap, takes=("samples", "seed"), tolerance=0.02),
    "input-x-gradient": Row(function=input_x_gradient),
    "saliency": Row(function=saliency),
    "deeplift": Row(function=deeplift, tolerance=0.02),
    "kernel-shap": Row(function=kernel_shap, takes=("samples", "seed")),
    "shapley-sampling": Row(function=shapley_sampling, takes=("samples", "seed")),
    "lime": Row(function=lime, takes=("samples", "seed")),
    "occlusion": Row(function=occlusion),
    "partition-shap": Row(function=partition_shap, takes=("samples", "seed")),
}


def method(settings: Settings) -> Method:
    """What answers a question as the settings say. Raises UsageError for an option that the method does not take."""
    row = _row(settings)
    for each in fields(Settings):
        if each.name in OPTIONS and each.name not in row.takes and getattr(settings, each.name) != each.default:
            with_it = ", ".join(name for name, other in METHODS.items() if each.name in other.takes)
            raise UsageError(
                f"The method {settings.method} does not take `{each.name}`; {with_it} do. Leave it out, or choose one "
                "of these."
            )
    return _crossed(row) if row.caution and settings.cross_check else row.function


def check(settings: Settings, wanted: Wanted) -> None:
    """Raise UsageError for a target or a baseline that means nothing to the method."""
    if wanted.baseline is not None and settings.method not in COMPARING:
        raise UsageError(
            f"The method {settings.method} compares with nothing, and `baseline` was given. Leave it out, or choose "
            f"{' or '.join(f'method={name!r}' for name in COMPARING)} (--method)."
        )
    words = wanted.baseline if isinstance(wanted.baseline, list) else [wanted.baseline]
    operator = next((each for each in words if isinstance(each, str) and each in OPERATORS), None)
    if operator is not None and settings.method not in REMOVING:
        raise UsageError(
            f"The method {settings.method} goes from a baseline to the input, and {operator!r} puts nothing in the "
            f"place of a token. Choose another baseline, or one of the methods {', '.join(REMOVING)}."
        )
    if METHODS[settings.method].ignores_target and wanted.contrast is not None:
        able = ", ".join(name for name, row in METHODS.items() if not row.ignores_target)
        raise UsageError(
            f"The method {settings.method} does not depend on the target, so it cannot explain one answer against "
            f"another; `contrast` was given. Leave it out, or choose one of {able}."
        )


def threshold(settings: Settings) -> float:
    """The conservation error up to which a map of the method needs no warning."""
    return max(settings.threshold, METHODS[settings.method].tolerance)


def _row(settings: Settings) -> Row:
    """The row of the method; raises UsageError for `auto`, which is chosen for `explain` only."""
    if settings.method not in METHODS:
        raise UsageError(
            f"`method` must be one of {', '.join(METHODS)} here; found {settings.method!r}, which explain() takes."
        )
    return METHODS[settings.method]


def _crossed(row: Row) -> Method:
    """The method, each of whose maps is compared with that of lrp for the same target."""

    def run(question: Question, settings: Settings) -> Iterator[tuple[int, RelevanceMap]]:
        others = _Others(question, settings)
        for i, found in row.function(question, settings):
            yield i, _compared(found, others.next(i), row.caution)

    return run


class _Others:
    """The maps of lrp, by item, in the order of its targets; what went wrong with them instead."""

    def __init__(self, question: Question, settings: Settings) -> None:
        self._maps = lrp(question, replace(settings, method="lrp", strict=False))
        self._waiting: dict[int, list[RelevanceMap]] = defaultdict(list)
        self._wrong: str | None = None

    def next(self, item: int) -> RelevanceMap | str:
        """The next map of an item, or why there is none."""
        while not self._waiting[item] and self._wrong is None:
            try:
                i, found = next(self._maps)
            except (ClearheadError, StopIteration) as error:
                self._wrong = str(error) or "it gave no map"
            else:
                self._waiting[i].append(found)
        return self._waiting[item].pop(0) if self._waiting[item] else str(self._wrong)


def _compared(found: RelevanceMap, other: RelevanceMap | str, caution: str) -> RelevanceMap:
    if isinstance(other, str):
        note = f"This could not be compared with lrp: {other}"
        return replace(found, warnings=(*found.warnings, note))
    return replace(found, cross_check=agreement(found, other, caution))
