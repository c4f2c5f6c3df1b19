"""Methods that take gradients of what is looked up and of images: saliency, its product with the input, and paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from clearhead.attribution.drawing import error_of_mean, seeded
from clearhead.attribution.found import Found, Ready, answered, averaged
from clearhead.attribution.inputs import Inputs, Scalar
from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.maps import RelevanceMap
from clearhead.memory import fitting, shrinking
from clearhead.question import Baseline, Question

Maps = Iterator[tuple[int, RelevanceMap]]
START, MOST = 20, 1280  # steps of integrated gradients
COMPLETE = 0.01  # of the difference may be missing
ROUNDING = 1e-6  # of all relevance: differences that small are rounding
DRAWN, PARTS = 50, 10  # points of gradient SHAP, and the parts whose spread is the error
ROWS = 16  # points of a path together: beyond, a processor does not get faster


def integrated_gradients(question: Question, settings: Settings) -> Maps:
    r"""$R_i = (x_i - b_i) \int_0^1 \partial_i f(b + \alpha (x - b))\, d\alpha$, by Gauss-Legendre steps.

    The steps are doubled from 20 on until less than 1 % of the difference is left over, or they are `settings.steps`.
    In the unit of the value. Raises what `Inputs` and `Scalar` raise. Sundararajan et al. 2017, "Axiomatic
    Attribution for Deep Networks".
    """

    def begin(question: Question, settings: Settings) -> Ready:
        each = [(baseline.label, Inputs(question, [baseline])) for baseline in given(question)]
        return lambda n: averaged([_integrated(inputs, n, label, settings) for label, inputs in each])

    return answered(question, settings, begin, additive=True)


def _integrated(inputs: Inputs, n: int, label: str, settings: Settings) -> Found:
    from captum.attr import IntegratedGradients

    scalar, x, b = inputs.scalar(n), inputs.values, inputs.base(0)
    value, base = scalar.at(x), scalar.at(b)
    steps, note = settings.steps or START, ""
    while True:

        def make(rows: int, steps: int = steps) -> tuple[Tensor, ...]:
            method = IntegratedGradients(scalar)
            found: tuple[Tensor, ...] = method.attribute(x, baselines=b, n_steps=steps, internal_batch_size=rows)
            return found

        with counted(scalar, "integrating", steps):
            found, note = shrinking(make, together(inputs), count(inputs))
        relevance = inputs.collected(found)
        left = abs(value - base - relevance.sum())
        enough = left <= max(COMPLETE * abs(value - base), ROUNDING * np.abs(relevance).sum())
        if settings.steps or enough or 2 * steps > MOST:
            break
        steps *= 2
    warnings = [note] if note else []
    if not enough:
        warnings.append(
            f"Integrated gradients leave {left:.2g} of a difference of {value - base:.4g} over after {steps} steps. "
            + ("Take more of them, or leave `steps` out." if settings.steps else "method='secant' leaves nothing over.")
        )
    return Found(
        target=scalar.target,
        value=value,
        base=base,
        relevance=relevance,
        compared=(label,),
        said=(f"{steps} steps of a Gauss-Legendre rule.",),
        warnings=tuple(warnings),
    )


def gradient_shap(question: Question, settings: Settings) -> Maps:
    r"""$R_i = E_{b, \alpha}[(x_i - b_i)\, \partial_i f(b + \alpha (x - b))]$, over drawn baselines and points.

    `settings.samples` points (50) on the ways from the baselines, drawn with `settings.seed`; the standard error is
    that of ten independent parts. Lundberg and Lee 2017, "A Unified Approach to Interpreting Model Predictions".
    """

    def begin(question: Question, settings: Settings) -> Ready:
        baselines = given(question)
        inputs = Inputs(question, baselines)
        return lambda n: _drawn(inputs, n, [each.label for each in baselines], settings)

    return answered(question, settings, begin, additive=True)


def _drawn(inputs: Inputs, n: int, labels: Sequence[str], settings: Settings) -> Found:
    import torch
    from captum.attr import GradientShap

    scalar, x = inputs.scalar(n), inputs.values
    several = tuple(torch.cat(source.bases) for source in inputs.sources)
    samples = settings.samples or DRAWN
    sizes = [len(part) for part in np.array_split(np.arange(samples), min(PARTS, samples))]
    parts: list[NDArray[np.float64]] = []
    with seeded(settings.seed), counted(scalar, "drawing", samples):
        for size in sizes:

            def make(rows: int, size: int = size) -> list[Tensor]:
                return _some(GradientShap(scalar), x, several, size, rows)

            found, note = shrinking(make, size, count(inputs))
            parts.append(inputs.collected(found))
    bases = [scalar.at(inputs.base(k)) for k in range(len(labels))]
    return Found(
        target=scalar.target,
        value=scalar.at(x),
        base=float(np.mean(bases)),
        relevance=np.average(parts, 0, weights=sizes),
        compared=tuple(labels),
        error=error_of_mean(parts, sizes),
        said=(f"{samples} points drawn with seed {settings.seed}.",),
        warnings=(note,) if note else (),
    )


def _some(method: object, x: tuple[Tensor, ...], several: tuple[Tensor, ...], size: int, rows: int) -> list[Tensor]:
    """The mean over `size` points, so many `rows` of them at a time."""
    sums: list[Tensor] | None = None
    for first in range(0, size, rows):
        some = min(rows, size - first)
        found = method.attribute(x, baselines=several, n_samples=some, stdevs=0.0)  # type: ignore[attr-defined]
        shares = [each.detach() * (some / size) for each in found]
        sums = shares if sums is None else [a + b for a, b in zip(sums, shares, strict=True)]
    return sums or []


def input_x_gradient(question: Question, settings: Settings) -> Maps:
    r"""$R_i = x_i\, \partial_i f(x)$: which adds up to nothing but for functions without biases and bends.

    Shrikumar et al. 2016, "Not Just a Black Box".
    """

    def attributed(scalar: Scalar, x: tuple[Tensor, ...]) -> Sequence[Tensor]:
        from captum.attr import InputXGradient

        found: tuple[Tensor, ...] = InputXGradient(scalar).attribute(x)
        return found

    return _at_once(question, settings, attributed, "The product of the input and its gradient, at this input only.")


def saliency(question: Question, settings: Settings) -> Maps:
    r"""$R_i = \sum_d |\partial_{id} f(x)|$: how sensitive the value is to each unit, without sign.

    Simonyan et al. 2014, "Deep Inside Convolutional Networks".
    """

    def attributed(scalar: Scalar, x: tuple[Tensor, ...]) -> Sequence[Tensor]:
        from captum.attr import Saliency

        found: tuple[Tensor, ...] = Saliency(scalar).attribute(x, abs=True)
        return found

    return _at_once(question, settings, attributed, "The sizes of the gradient of each entry, summed over a unit.")


def _at_once(
    question: Question,
    settings: Settings,
    attributed: Callable[[Scalar, tuple[Tensor, ...]], Sequence[Tensor]],
    said: str,
) -> Maps:
    """The map of a method that asks for one gradient."""

    def begin(question: Question, settings: Settings) -> Ready:
        inputs = Inputs(question)

        def ready(n: int) -> Found:
            scalar = inputs.scalar(n)
            x = tuple(each.clone().requires_grad_() for each in inputs.values)
            relevance = inputs.collected(attributed(scalar, x))
            return Found(target=scalar.target, value=scalar.at(inputs.values), relevance=relevance, said=(said,))

        return ready

    return answered(question, settings, begin, additive=False)


# ---- what they share -----------------------------------------------------------------------------------------------


def given(question: Question) -> tuple[Baseline, ...]:
    """The baselines of a question. Raises UsageError if there is none."""
    if not question.baselines:
        raise UsageError("A difference needs a baseline; this question has none. Give baseline=...")
    return question.baselines


def count(inputs: Inputs) -> int:
    """The units of the longest pass."""
    return max(len(layout.units) for layout in inputs.question.items[0].layouts)


def together(inputs: Inputs) -> int:
    """How many points are taken together."""
    return fitting(inputs.question.model, count(inputs), ROWS)


@contextmanager
def counted(scalar: Scalar, what: str, total: int) -> Iterator[None]:
    """A bar that counts how often the scalar was computed, in a terminal where it takes more than a moment."""
    with tqdm(total=total, desc=what, unit="pass", leave=False, disable=None, delay=1) as bar:
        scalar.seen = bar.update
        try:
            yield
        finally:
            scalar.seen = lambda _: None
