"""DeepLIFT as captum has it: exact where a model bends only in modules that have a rule, refused elsewhere."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from clearhead.attribution.found import Found, Ready, answered, averaged
from clearhead.attribution.gradients import COMPLETE, ROUNDING, Maps, given
from clearhead.attribution.inputs import Inputs, Scalar
from clearhead.config import Settings
from clearhead.errors import ClearheadError, UsageError
from clearhead.memory import out_of_memory
from clearhead.question import Question

SHOWN = 240  # characters of an error of captum's


def deeplift(question: Question, settings: Settings) -> Maps:
    r"""$R_i = (x_i - b_i)\, m_i$, with $m = \frac{f(x) - f(b)}{x - b}$ carried through activations (rescale rule).

    Applies where less than 1 % of the difference is left over: to models whose only bends are modules such as
    `nn.ReLU`. Raises UsageError elsewhere; secants carry the same rule through every operation. Shrikumar et al. 2017,
    "Learning Important Features Through Propagating Activation Differences".
    """

    def begin(question: Question, settings: Settings) -> Ready:
        try:
            held = replace(question, model=_shared(question.model))
        except (TypeError, RuntimeError) as error:
            raise _refused(f"the model cannot be copied ({error})") from error
        each = [(baseline.label, Inputs(held, [baseline])) for baseline in given(question)]
        return lambda n: averaged([_lifted(inputs, n, label) for label, inputs in each])

    return answered(question, settings, begin, additive=True)


def _lifted(inputs: Inputs, n: int, label: str) -> Found:
    scalar, x, b = inputs.scalar(n), inputs.values, inputs.base(0)
    value, base = scalar.at(x), scalar.at(b)
    relevance = inputs.collected(_attributed(_Net(scalar, inputs.question.model), x, b))
    left = abs(value - base - relevance.sum())
    if not left <= max(COMPLETE * abs(value - base), ROUNDING * np.abs(relevance).sum()):
        raise _refused(f"{left:.2g} of a difference of {value - base:.4g} is left over")
    return Found(target=scalar.target, value=value, base=base, relevance=relevance, compared=(label,))


def _attributed(net: _Net, x: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Sequence[Tensor]:
    from captum.attr import DeepLift

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that hooks are set, on a copy
            found: tuple[Tensor, ...] = DeepLift(net).attribute(
                tuple(each.clone().requires_grad_() for each in x), baselines=b
            )
    except (AssertionError, RuntimeError) as error:
        if isinstance(error, ClearheadError) or out_of_memory(error):
            raise
        raise _refused(f"it fails ({str(error)[:SHOWN]})") from error
    return found


class _Net(nn.Module):
    """The scalar as a module, in which hooks can be set on those of the model."""

    def __init__(self, scalar: Scalar, model: nn.Module) -> None:
        super().__init__()
        self._scalar, self.model = scalar, model

    def forward(self, *tensors: Tensor) -> Tensor:
        """The scalar for each row."""
        return self._scalar(*tensors)


def _shared(model: nn.Module) -> nn.Module:
    """A copy of the modules of a model with the same weights, so that hooks on it are none on the model."""
    kept = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in kept})


def _refused(why: str) -> UsageError:
    return UsageError(
        f"DeepLIFT has rules for modules such as nn.ReLU, nn.Sigmoid and nn.MaxPool2d, used once each; here {why}. "
        "Choose method='secant', which carries the same rule through every operation."
    )
