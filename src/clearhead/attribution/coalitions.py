"""Methods that remove units: one at a time, in random orders, or in random subsets to which a line is fitted."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearhead.attribution.drawing import error_of_fit, error_of_mean
from clearhead.attribution.found import answered
from clearhead.attribution.game import Game, played
from clearhead.attribution.gradients import Maps
from clearhead.config import Settings
from clearhead.question import Question

TOGETHER = 32  # subsets that are asked about at a time
ORDERS = 25  # of Shapley sampling
FEWEST, EACH = 256, 16  # subsets that a line is fitted to: at least, and for each unit
ENDS = 1e6  # the weight of all and of nothing in a fit, where it should be infinite
NEAR = 0.25  # the width of LIME's kernel, as in its authors' code for texts
Played = tuple[NDArray[np.float64], NDArray[np.float64] | None, str]


def occlusion(question: Question, settings: Settings) -> Maps:
    r"""$R_i = f(x) - f(x_{-i})$: what is lost with one unit alone (leave one out), in the unit of the value.

    Exact, and adds up to nothing. Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks".
    """

    def play(game: Game, _: Settings) -> Played:
        from captum.attr import FeatureAblation

        ones, zeros = _ends(game)
        with game.counted("leaving out", len(game.players)):
            found = FeatureAblation(game).attribute(ones, baselines=zeros, perturbations_per_eval=TOGETHER)
        return _numbers(found), None, "Each unit was left out by itself."

    return answered(question, settings, played(play), additive=False)


def shapley_sampling(question: Question, settings: Settings) -> Maps:
    r"""$R_i = E_\pi[f(x_{P_i \cup i}) - f(x_{P_i})]$, over random orders $\pi$ in which units are put back.

    `settings.samples` orders (25), drawn with `settings.seed`; adds up for each of them. Castro et al. 2009,
    "Polynomial calculation of the Shapley value based on sampling".
    """

    def play(game: Game, settings: Settings) -> Played:
        from captum.attr import ShapleyValueSampling

        ones, zeros = _ends(game)
        samples, method = settings.samples or ORDERS, ShapleyValueSampling(game)
        together = min(TOGETHER, len(game.players))
        with game.counted("putting back", samples * len(game.players)):
            parts = [
                _numbers(method.attribute(ones, baselines=zeros, n_samples=1, perturbations_per_eval=together))
                for _ in range(samples)
            ]
        said = f"{samples} orders drawn with seed {settings.seed}."
        return np.mean(parts, 0), error_of_mean(parts, [1.0] * samples), said

    return answered(question, settings, played(play), additive=True)


def kernel_shap(question: Question, settings: Settings) -> Maps:
    r"""Shapley values as the weighted fit of a line to subsets, $\pi(S) = \frac{M - 1}{\binom M{|S|}|S|(M - |S|)}$.

    All subsets where they are at most `settings.samples` (256, or 16 for each unit if that is more), which is exact;
    or else so many, drawn with `settings.seed`, with the bootstrap's standard error. Lundberg and Lee 2017, "A Unified
    Approach to Interpreting Model Predictions".
    """

    def play(game: Game, settings: Settings) -> Played:
        from captum.attr import KernelShap

        count = len(game.players)
        samples = settings.samples or max(FEWEST, EACH * count)
        if count == 1 or 2**count <= samples:
            return _enumerated(game), None, f"All {2**count} subsets, so that these are the Shapley values."
        ones, zeros = _ends(game)
        method = KernelShap(_Heard(game))
        with game.counted("asking about subsets", samples):
            found = method.attribute(ones, baselines=zeros, n_samples=samples, perturbations_per_eval=TOGETHER)
        keep, scores = method.forward_func.heard()
        weights = np.where(keep.all(1) | ~keep.any(1), ENDS, 1.0)
        error = error_of_fit(keep, scores, weights, settings.seed)
        return _numbers(found), error, f"{samples} subsets drawn with seed {settings.seed}."

    return answered(question, settings, played(play), additive=True)


def lime(question: Question, settings: Settings) -> Maps:
    r"""The coefficients of a line fitted to random subsets, weighted by $\exp(-d^2 / 2\sigma^2)$ of their distance.

    $d$ is one less the cosine with the whole input and $\sigma = 0.25$; no penalty. `settings.samples` subsets (256, or
    16 for each unit if that is more) drawn with `settings.seed`, with the bootstrap's standard error. Ribeiro et al.
    2016, "Why Should I Trust You?".
    """

    def play(game: Game, settings: Settings) -> Played:
        from captum._utils.models.linear_model import SkLearnLinearRegression
        from captum.attr import Lime
        from captum.attr._core.lime import get_exp_kernel_similarity_function

        samples = settings.samples or max(FEWEST, EACH * len(game.players))
        ones, zeros = _ends(game)
        near = get_exp_kernel_similarity_function("cosine", NEAR)
        method = Lime(_Heard(game), interpretable_model=SkLearnLinearRegression(), similarity_func=near)
        with game.counted("asking about subsets", samples):
            found = method.attribute(ones, baselines=zeros, n_samples=samples, perturbations_per_eval=TOGETHER)
        keep, scores = method.forward_func.heard()
        weights = np.array([near(ones, torch.tensor(row[None], dtype=torch.float32), None) for row in keep])
        error = error_of_fit(keep, scores, weights, settings.seed)
        return _numbers(found), error, f"{samples} subsets drawn with seed {settings.seed}."

    return answered(question, settings, played(play), additive=False)


class _Heard:
    """A game whose questions and answers are written down, repeated ones too."""

    def __init__(self, game: Game) -> None:
        self._game = game
        self._asked: list[NDArray[np.bool_]] = []
        self._said: list[NDArray[np.float64]] = []

    def __call__(self, subsets: Tensor) -> Tensor:
        found = self._game(subsets)
        self._asked.append(subsets.numpy() > 0.5)
        self._said.append(found.numpy())
        return found

    def heard(self) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """All subsets [n, players], and what the model said [n]."""
        return np.concatenate(self._asked), np.concatenate(self._said)


# ---- all subsets ---------------------------------------------------------------------------------------------------


def _enumerated(game: Game) -> NDArray[np.float64]:
    """The fit to every subset, by captum's base of such fits."""
    from captum.attr import LimeBase

    count = len(game.players)

    def subsets(*_: Any, **__: Any) -> Iterator[Tensor]:
        for number in range(2**count):
            yield torch.tensor([[number >> i & 1 for i in range(count)]])

    def weight(_: Any, __: Any, subset: Tensor, **___: Any) -> Tensor:
        size = int(subset.sum())
        inner = 0 < size < count
        return torch.tensor([(count - 1) / (comb(count, size) * size * (count - size)) if inner else ENDS])

    method = LimeBase(
        game,
        interpretable_model=_Line(),
        similarity_func=weight,
        perturb_func=subsets,
        perturb_interpretable_space=True,
        from_interp_rep_transform=lambda subset, *_, **__: subset.float(),
        to_interp_rep_transform=None,
    )
    with game.counted("asking about subsets", 2**count):
        found = method.attribute(_ends(game)[0], n_samples=2**count, perturbations_per_eval=TOGETHER)
    return _numbers(found)


class _Line:
    r"""The line $y = c + \sum_i \beta_i s_i$ that weighs all and nothing infinitely: both are met exactly, in float64.

    $c$ is what nothing gives, and $\beta_M = y(\text{all}) - c - \sum_{i<M} \beta_i$ leaves a fit of one number less.
    """

    def fit(self, data: Any) -> None:
        """Fit to a batch of subsets, values and weights."""
        subsets, values, weights = (each.double().numpy() for each in next(iter(data)))
        sizes, count = subsets.sum(1), subsets.shape[1]
        nothing, everything = float(values[sizes == 0][0]), float(values[sizes == count][0])
        inner = (sizes > 0) & (sizes < count)
        s, root = subsets[inner], np.sqrt(weights[inner])
        y = values[inner] - nothing - s[:, -1] * (everything - nothing)
        free = np.linalg.lstsq((s[:, :-1] - s[:, -1:]) * root[:, None], y * root, rcond=None)[0]
        self._beta = np.append(free, everything - nothing - free.sum())

    def representation(self) -> Tensor:
        """The coefficients."""
        return torch.from_numpy(self._beta)


def _ends(game: Game) -> tuple[Tensor, Tensor]:
    """All players and none [1, players]."""
    ones = torch.ones(1, len(game.players))
    return ones, torch.zeros_like(ones)


def _numbers(found: Tensor) -> NDArray[np.float64]:
    return np.asarray(found.detach().double().flatten().numpy())
